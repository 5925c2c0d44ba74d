"""The same calls on both table layouts leave the same queue, log and statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from pgq_fast.errors import DuplicateJobError
from pgq_fast.models import Job, TracebackRecord
from pgq_fast.queries import Queries, is_unique_violation
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.settings import Layout
from pgq_fast.types import JobId, QueueEntrypoint, QueueManagerId
from support.drivers import MakeDriver
from support.layouts import Templates, queries_of
from support.server import Databases

pytestmark = pytest.mark.pg_matrix

ME, OTHER = QueueManagerId(UUID(int=1)), QueueManagerId(UUID(int=2))
NOW, DAY = timedelta(0), timedelta(days=1)


class Teller:
    """Runs a story on one queue, and notes what there is to see, with ids counted from 0."""

    def __init__(self, queries: Queries) -> None:
        self.queries = queries
        self.ids: list[JobId] = []
        self.seen: list[object] = []

    async def enqueue(self, *jobs: dict[str, Any]) -> list[JobId]:
        """Enqueue one job after the other; each has arguments of ``enqueue``."""
        ids: list[JobId] = []
        for job in jobs:
            ids += await self.queries.enqueue(**{"entrypoint": "a", "payload": None, **job})
        self.ids += ids
        return ids

    async def claim(self, count: int, name: str = "a", owner: QueueManagerId = ME) -> list[Job]:
        limits = {QueueEntrypoint(name): EntrypointExecutionParameter(0)}
        return await self.queries.dequeue(count, limits, owner, None, DAY)

    async def refused(self, call: Awaitable[object]) -> None:
        """*call* meets a dedupe key that is taken."""
        with pytest.raises(Exception) as caught:  # noqa: PT011
            await call
        assert isinstance(caught.value, DuplicateJobError) or is_unique_violation(caught.value)

    async def look(self) -> None:
        """Note everything."""
        queries = self.queries
        number = {job_id: place for place, job_id in enumerate(self.ids)}
        self.seen.append(
            {
                "sizes": {
                    (size.entrypoint, size.priority, size.status): size.count
                    for size in await queries.queue_size()
                },
                "jobs": [
                    (
                        number[job.id],
                        job.status,
                        job.priority,
                        job.attempts,
                        job.payload,
                        job.headers,
                        job.queue_manager_id,
                        job.execute_after > job.created,
                    )
                    for job in await queries.browse_queue(1000)
                ],
                "by id": [await queries.queue_job_by_id(job_id) is None for job_id in self.ids],
                "held": [number[job.id] for job in await queries.list_failed_jobs(order="ASC")],
                "status": [
                    (number[job_id], status)
                    for job_id, status in sorted(await queries.job_status(self.ids))
                ],
                "history": [
                    [
                        (entry.status, entry.priority, entry.entrypoint, entry.traceback)
                        for entry in await queries.job_log_history(job_id)
                    ]
                    for job_id in self.ids
                ],
                "log": Counter(
                    (number[entry.job_id], entry.status, entry.priority)
                    for entry in await queries.queue_log()
                ),
                "exceptions": [number[entry.job_id] for entry in await queries.exception_logs()],
                "totals": [
                    (entry.entrypoint, entry.status, entry.total_count)
                    for entry in await queries.throughput_summary()
                ],
                "series": sum(entry.count for entry in await queries.throughput_timeseries(DAY)),
                "statistics": await self.counts(),
                "durations": {
                    (entry.entrypoint, entry.completed)
                    for entry in await queries.job_duration_percentiles(DAY)
                },
                "workers": [
                    (worker.queue_manager_id, worker.active_jobs, worker.entrypoints)
                    for worker in await queries.active_workers()
                ],
                "work": [
                    await queries.queued_work([QueueEntrypoint(name)]) for name in ("a", "b", "c")
                ],
                "due": [
                    await queries.eligible_queued_work([QueueEntrypoint(name)])
                    for name in ("a", "b", "c")
                ],
                "eta": await queries.next_deferred_eta([QueueEntrypoint("a")]) is None,
            }
        )

    async def counts(self) -> Counter[tuple[str, int, str]]:
        """The statistics, whatever their seconds."""
        counts: Counter[tuple[str, int, str]] = Counter()
        for entry in await self.queries.log_statistics(None):
            counts[entry.entrypoint, entry.priority, entry.status] += entry.count
        return counts


def record(job: Job) -> TracebackRecord:
    return TracebackRecord(
        job_id=job.id,
        timestamp=job.created.replace(microsecond=0, second=0),
        exception_type="ValueError",
        exception_message="broken",
        traceback="",
        additional_context=None,
    )


async def ends_of_all_kinds(teller: Teller) -> None:
    await teller.enqueue(*[{"priority": number % 3} for number in range(8)])
    jobs = await teller.claim(6)
    await teller.look()
    queries = teller.queries
    await queries.log_jobs([(jobs[0], "successful", None), (jobs[1], "exception", None)])
    await teller.look()
    await queries.log_jobs([(jobs[2], "failed", None), (jobs[3], "canceled", None)])
    await queries.log_jobs([(jobs[4], "deleted", None), (jobs[5], "successful", None)])
    await teller.look()
    # Once more, and by somebody else: nothing changes.
    await queries.log_jobs([(job, "exception", None) for job in jobs])
    (left, _) = await teller.claim(9, owner=OTHER)
    left.queue_manager_id = ME
    await queries.log_jobs([(left, "successful", None)])
    await teller.look()


async def retries_and_holds(teller: Teller) -> None:
    await teller.enqueue(*[{"payload": b"%d" % number} for number in range(4)])
    await teller.enqueue({"headers": {"h": "1"}, "payload": b"x", "priority": -1})
    queries = teller.queries
    jobs = await teller.claim(5)
    await queries.retry_job(jobs[0], NOW, None)
    await queries.retry_job(jobs[1], DAY, None)
    await queries.log_jobs([(job, "failed", None) for job in jobs[2:]])
    await teller.look()
    await queries.retry_job(jobs[0], NOW, None)
    (again,) = await teller.claim(5)
    await queries.retry_job(jobs[0], NOW, None)
    await teller.look()
    await queries.log_jobs([(again, "successful", None)])
    await queries.requeue_jobs([job.id for job in jobs])
    await teller.look()
    await queries.log_jobs([(job, "exception", None) for job in await teller.claim(9)])
    await teller.look()


async def cancellations(teller: Teller) -> None:
    ids = await teller.enqueue(*[{}] * 6, {"execute_after": DAY}, {"entrypoint": "b"})
    jobs = await teller.claim(3)
    await teller.queries.log_jobs([(jobs[2], "failed", None)])
    # Picked, held, queued, deferred, of another entrypoint, unknown; one twice.
    await teller.queries.mark_job_as_cancelled(
        [ids[0], ids[2], ids[3], ids[6], ids[7], JobId(10**12), ids[0]]
    )
    await teller.look()
    await teller.queries.log_jobs([(job, "successful", None) for job in jobs])
    await teller.queries.mark_job_as_cancelled(ids)
    await teller.look()


async def clearing(teller: Teller) -> None:
    await teller.enqueue(
        *[{}] * 4, {"execute_after": DAY}, {"entrypoint": "b"}, {"entrypoint": "c"}
    )
    jobs = await teller.claim(3)
    await teller.queries.log_jobs([(jobs[0], "failed", None), (jobs[1], "successful", None)])
    await teller.queries.clear_queue(["a", "b", "none"])
    await teller.look()
    await teller.queries.clear_queue("c")
    await teller.look()


async def dedupe_keys(teller: Teller) -> None:
    queries = teller.queries
    ids = await teller.enqueue(
        {"dedupe_key": "k0"},
        {"dedupe_key": "k1", "execute_after": DAY},
        {"dedupe_key": "k2", "priority": 1},
        {"dedupe_key": "k3", "priority": 2},
    )
    await teller.refused(queries.enqueue("a", None, dedupe_key="k0"))
    held, retried = await teller.claim(2)
    await queries.log_jobs([(held, "failed", None)])
    await queries.retry_job(retried, NOW, None)
    await teller.look()
    await teller.refused(queries.enqueue("a", None, dedupe_key="k2"))
    # The key of a held job is free, and may be taken when the job is queued again.
    await teller.enqueue({"dedupe_key": "k3"})
    await teller.refused(queries.requeue_jobs([held.id]))
    await teller.look()
    await queries.mark_job_as_cancelled(teller.ids[-1:])
    await queries.requeue_jobs([held.id])
    await teller.refused(queries.enqueue("a", None, dedupe_key="k3"))
    await teller.look()
    await queries.mark_job_as_cancelled([ids[0]])
    await queries.clear_queue("a")
    await teller.look()
    await teller.enqueue(*[{"dedupe_key": f"k{number}"} for number in range(4)])
    await queries.log_jobs([(job, "successful", None) for job in await teller.claim(9)])
    await teller.enqueue(*[{"dedupe_key": f"k{number}"} for number in range(4)])
    await teller.look()


async def jobs_of_nobody(teller: Teller) -> None:
    """What is not picked belongs to nobody, and can be ended and put back as such."""
    queries = teller.queries
    ids = await teller.enqueue(*[{}] * 5, {"execute_after": DAY}, {"execute_after": DAY})
    held, picked = await teller.claim(2)
    await queries.log_jobs([(held, "failed", None)])
    there = [await queries.queue_job_by_id(job_id) for job_id in ids]
    found = [job for job in there if job is not None]
    assert len(found) == 7
    await queries.log_jobs(
        [
            (found[0], "exception", record(found[0])),
            (found[2], "failed", None),
            (found[3], "successful", None),
            (found[5], "deleted", None),
        ]
    )
    await teller.look()
    await queries.retry_job(found[4], DAY, record(found[4]))
    await queries.retry_job(found[6], NOW, None)
    again = await queries.queue_job_by_id(found[2].id)
    assert again is not None
    await queries.retry_job(again, NOW, None)
    # It is picked, so it is somebody's.
    picked.queue_manager_id = None
    await queries.log_jobs([(picked, "successful", None)])
    await queries.retry_job(picked, NOW, None)
    await teller.look()


STORIES: list[Callable[[Teller], Awaitable[None]]] = [
    ends_of_all_kinds,
    retries_and_holds,
    cancellations,
    clearing,
    dedupe_keys,
    jobs_of_nobody,
]


@pytest.mark.layouts
async def test_a_priority_raised_while_the_job_is_picked_counts_when_it_comes_back(
    queries: Queries, layout: Layout
) -> None:
    teller = Teller(queries)
    ids = await teller.enqueue({"dedupe_key": "k"}, {"dedupe_key": "l"}, {"priority": 5})
    jobs = {job.id: job for job in await teller.claim(9)}
    for key in ("k", "l"):
        await queries.enqueue("a", None, 7, dedupe_key=key, on_conflict="update_priority")
    await queries.retry_job(jobs[ids[0]], NOW, None)
    await queries.log_jobs([(jobs[ids[1]], "failed", None)])
    await queries.requeue_jobs([ids[1]])
    await queries.retry_job(jobs[ids[2]], NOW, None)
    assert [(job.id, job.priority) for job in await teller.claim(9)] == [
        (ids[0], 7),
        (ids[1], 7),
        (ids[2], 5),
    ]


@pytest.fixture
def dsns(databases: Databases, queue_templates: Templates) -> Iterator[dict[Layout, str]]:
    """A database with each layout."""
    with ExitStack() as stack:
        yield {
            layout: stack.enter_context(databases.temporary(queue_templates.name(layout)))[1]
            for layout in Layout
        }


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
async def test_a_story_ends_the_same(
    story: Callable[[Teller], Awaitable[None]],
    kind: str,
    make_driver: MakeDriver,
    dsns: dict[Layout, str],
) -> None:
    seen = {}
    for layout, dsn in dsns.items():
        teller = Teller(queries_of(await make_driver(kind, dsn), layout))
        await story(teller)
        seen[layout] = teller.seen
    assert seen[Layout.lease] == seen[Layout.compat]
