"""The queue in memory and pgqueuer's, driven by the same random calls, must agree.

They differ on purpose where pgqueuer's in-memory queue differs from its own PostgreSQL one, where
a stale worker could finish a job of another, and in the order of entrypoints. The rules below keep
away from these places, or check what ours does there.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import pgqueuer
import pgqueuer.domain.errors
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pgqueuer.ports.repository import EntrypointExecutionParameter as TheirParameter

from pgq_fast.errors import DuplicateJobError
from pgq_fast.memory import InMemoryDriver, InMemoryQueries
from pgq_fast.models import Job
from pgq_fast.repository import EntrypointExecutionParameter

T = TypeVar("T")

WORKERS = [uuid.UUID(int=number) for number in range(1, 4)]
ENTRYPOINTS = ["a", "b", "c"]
DAY = timedelta(days=1)
# More jobs than there are.
MANY = 1_000

names = st.sampled_from(ENTRYPOINTS)
job_ids = st.lists(st.integers(1, 30), max_size=4)
new_jobs = st.lists(
    st.tuples(
        names,
        st.sampled_from([None, b"", b"payload"]),
        st.integers(-2, 2),
        st.sampled_from([None, timedelta(0), -DAY, DAY]),
        st.sampled_from([None, None, None, "k1", "k2", "k3"]),
        st.sampled_from([None, {}, {"a": "b"}]),
    ),
    min_size=1,
    max_size=5,
)


class SameAsPgqueuer(RuleBasedStateMachine):
    """Holds one queue of each, and the jobs that workers have claimed from both."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.ours: Any = InMemoryQueries(InMemoryDriver())
        self.theirs: Any = pgqueuer.InMemoryQueries(pgqueuer.InMemoryDriver())
        self.held: dict[int, tuple[Job, Any]] = {}
        self.lost: list[Job] = []
        self.keyed: set[int] = set()

    def teardown(self) -> None:
        self.loop.close()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    def lose(self, job_id: int) -> None:
        if job_id in self.held:
            self.lost.append(self.held.pop(job_id)[0])

    @rule(jobs=new_jobs, on_conflict=st.sampled_from(["raise", "skip", "update_priority"]))
    def enqueue(self, jobs: list[Any], on_conflict: Any) -> None:
        outcomes: list[object] = []
        for queries in (self.ours, self.theirs):
            columns = [list(column) for column in zip(*jobs, strict=True)]
            try:
                outcomes.append(self.run(queries.enqueue(*columns, on_conflict=on_conflict)))
            except (DuplicateJobError, pgqueuer.domain.errors.DuplicateJobError) as error:
                outcomes.append(("duplicate", error.dedupe_key))
            except ValueError:
                outcomes.append("invalid")
        assert outcomes[0] == outcomes[1]
        if isinstance(outcomes[0], list):
            self.keyed.update(
                job_id
                for job_id, job in zip(outcomes[0], jobs, strict=True)
                if job_id is not None and job[4] is not None
            )

    # Where it is not all, the original takes the oldest, and we one of each entrypoint in turn.
    @rule(
        limits=st.lists(st.integers(0, 3), min_size=3, max_size=3),
        worker=st.sampled_from(WORKERS),
        timeout=st.sampled_from([DAY, DAY, timedelta(0)]),
    )
    def dequeue_all(self, limits: list[int], worker: Any, timeout: timedelta) -> None:
        self.dequeue(MANY, dict(zip(ENTRYPOINTS, limits, strict=True)), worker, timeout)

    @rule(
        name=names,
        batch_size=st.integers(1, 6),
        limit=st.integers(0, 3),
        worker=st.sampled_from(WORKERS),
        timeout=st.sampled_from([DAY, DAY, timedelta(0)]),
    )
    def dequeue_one(
        self, name: str, batch_size: int, limit: int, worker: Any, timeout: timedelta
    ) -> None:
        self.dequeue(batch_size, {name: limit}, worker, timeout)

    def dequeue(
        self,
        batch_size: int,
        limits: dict[str, int],
        worker: Any,
        timeout: timedelta,
    ) -> None:
        mine = self.run(
            self.ours.dequeue(
                batch_size,
                {name: EntrypointExecutionParameter(limit) for name, limit in limits.items()},
                worker,
                None,
                timeout,
            )
        )
        other = self.run(
            self.theirs.dequeue(
                batch_size,
                {name: TheirParameter(limit) for name, limit in limits.items()},
                worker,
                None,
                timeout,
            )
        )
        for job, twin in zip(mine, other, strict=True):
            for field in (
                "id", "priority", "entrypoint", "payload", "attempts", "status",
                "queue_manager_id", "headers",
            ):  # fmt: skip
                assert getattr(job, field) == getattr(twin, field), field
            assert limits[job.entrypoint] == 0 or job.id in self.held or job.slot is not None
            if job.id in self.held and self.held[job.id][0].queue_manager_id != worker:
                self.lose(job.id)
            self.held[job.id] = (job, twin)

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        status=st.sampled_from(["successful", "exception", "canceled", "deleted", "failed"]),
    )
    def log(self, data: st.DataObject, status: Any) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.held)), unique=True, max_size=3))
        # A requeue gives a held job its key back; pgqueuer's in-memory queue forgets it.
        if status == "failed":
            chosen = [job_id for job_id in chosen if job_id not in self.keyed]
        pairs = [self.held.pop(job_id) for job_id in chosen]
        self.run(self.ours.log_jobs([(job, status, None) for job, _ in pairs]))
        self.run(self.theirs.log_jobs([(twin, status, None) for _, twin in pairs]))
        self.lost.extend(job for job, _ in pairs)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), delay=st.sampled_from([timedelta(0), DAY]))
    def retry(self, data: st.DataObject, delay: timedelta) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.held)))
        job, twin = self.held.pop(job_id)
        self.run(self.ours.retry_job(job, delay, None))
        self.run(self.theirs.retry_job(twin, delay, None))
        self.lost.append(job)

    @precondition(lambda self: self.lost)
    @rule(data=st.data(), status=st.sampled_from(["successful", "failed", "retry"]))
    def finish_what_was_lost(self, data: st.DataObject, status: Any) -> None:
        """Ours alone: changes nothing, which the comparison after each step shows."""
        job = data.draw(st.sampled_from(self.lost))
        current = self.held.get(job.id)
        if current is not None and current[0].queue_manager_id == job.queue_manager_id:
            return
        if status == "retry":
            self.run(self.ours.retry_job(job, timedelta(0), None))
        else:
            self.run(self.ours.log_jobs([(job, status, None)]))

    @rule(ids=job_ids)
    def requeue(self, ids: list[Any]) -> None:
        self.run(self.ours.requeue_jobs(ids))
        self.run(self.theirs.requeue_jobs(ids))

    @rule(ids=job_ids)
    def cancel(self, ids: list[Any]) -> None:
        self.run(self.ours.mark_job_as_cancelled(ids))
        self.run(self.theirs.mark_job_as_cancelled(ids))
        for job_id in ids:
            self.lose(job_id)

    @rule(ids=job_ids)
    def heartbeat(self, ids: list[Any]) -> None:
        self.run(self.ours.update_heartbeat(ids))
        self.run(self.theirs.update_heartbeat(ids))

    @rule(which=st.one_of(names, st.lists(names, min_size=1, max_size=2)))
    def clear_some(self, which: Any) -> None:
        gone = {
            job_id
            for job_id, (job, _) in self.held.items()
            if job.entrypoint == which or (isinstance(which, list) and job.entrypoint in which)
        }
        self.run(self.ours.clear_queue(which))
        self.run(self.theirs.clear_queue(which))
        for job_id in gone:
            self.lose(job_id)

    @rule()
    def clear_all(self) -> None:
        self.run(self.ours.clear_queue())
        self.run(self.theirs.clear_queue())
        for job_id in list(self.held):
            self.lose(job_id)

    @rule(which=st.one_of(st.none(), names))
    def clear_log(self, which: str | None) -> None:
        # First: what was not counted yet is lost with the log.
        self.run(self.ours.aggregate_logs())
        self.run(self.theirs.aggregate_logs())
        self.run(self.ours.clear_queue_log(which))
        self.run(self.theirs.clear_queue_log(which))

    @invariant()
    def same_jobs(self) -> None:
        assert Counter(
            (group.entrypoint, group.priority, group.status, group.count)
            for group in self.run(self.ours.queue_size())
        ) == Counter(
            (group.entrypoint, group.priority, group.status, group.count)
            for group in self.run(self.theirs.queue_size())
        )
        fields = {
            "id", "priority", "status", "entrypoint", "payload", "attempts", "queue_manager_id",
            "headers",
        }  # fmt: skip
        assert [
            job.model_dump(include=fields) for job in self.run(self.ours.browse_queue(1000))
        ] == [job.model_dump(include=fields) for job in self.run(self.theirs.browse_queue(1000))]

    @invariant()
    def no_slot_is_held_twice(self) -> None:
        """Ours alone: pgqueuer's in-memory queue has no slots."""
        seats = Counter(
            (job.entrypoint, job.slot)
            for job in self.run(self.ours.browse_queue(1000))
            if job.slot is not None
        )
        assert set(seats.values()) <= {1}
        for name in ENTRYPOINTS:
            # The highest limit of any worker is 3, and the lowest free slot is taken.
            assert {slot for entrypoint, slot in seats if entrypoint == name} <= {0, 1, 2}

    @invariant()
    def same_answers(self) -> None:
        every = list(range(1, 100))
        assert dict(self.run(self.ours.job_status(every))) == dict(
            self.run(self.theirs.job_status(every))
        )
        for some in (ENTRYPOINTS, ["a"], ["b", "none"]):
            assert self.run(self.ours.queued_work(some)) == self.run(self.theirs.queued_work(some))
            assert self.run(self.ours.eligible_queued_work(some)) == self.run(
                self.theirs.eligible_queued_work(some)
            )
            assert (self.run(self.ours.next_deferred_eta(some)) is None) == (
                self.run(self.theirs.next_deferred_eta(some)) is None
            )
        assert {job.id for job in self.run(self.ours.list_failed_jobs())} == {
            job.id for job in self.run(self.theirs.list_failed_jobs())
        }
        assert [
            (worker.queue_manager_id, worker.active_jobs, worker.entrypoints)
            for worker in self.run(self.ours.active_workers())
        ] == [
            (worker.queue_manager_id, worker.active_jobs, worker.entrypoints)
            for worker in self.run(self.theirs.active_workers())
        ]

    @invariant()
    def same_log(self) -> None:
        assert [
            (entry.job_id, entry.status, entry.entrypoint, entry.aggregated)
            for entry in self.run(self.ours.queue_log())
        ] == [
            (entry.job_id, entry.status, entry.entrypoint, entry.aggregated)
            for entry in self.run(self.theirs.queue_log())
        ]
        assert self.run(self.ours.unaggregated_log_count()) == self.run(
            self.theirs.unaggregated_log_count()
        )

    @rule()
    def same_statistics(self) -> None:
        assert {
            (row.entrypoint, row.status): row.total_count
            for row in self.run(self.ours.throughput_summary())
        } == {
            (row.entrypoint, row.status): row.total_count
            for row in self.run(self.theirs.throughput_summary())
        }
        assert Counter(
            {
                row.entrypoint: row.completed
                for row in self.run(self.ours.job_duration_percentiles(DAY))
            }
        ) == Counter(
            {
                row.entrypoint: row.completed
                for row in self.run(self.theirs.job_duration_percentiles(DAY))
            }
        )


TestSameAsPgqueuer = pytest.mark.impl_agnostic(SameAsPgqueuer.TestCase)
TestSameAsPgqueuer.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, print_blob=True
)
