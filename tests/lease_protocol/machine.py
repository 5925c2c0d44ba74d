"""Random calls of workers, producers and operators, one at a time, checked against the model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Final, TypeVar

import asyncpg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lease_protocol.members import PLENTY, Member
from lease_protocol.model import ENDS, Job, Lease, Model
from lease_protocol.observe import Seen, check_limits, compare, look
from lease_protocol.wire import LostError, Wire
from pgq_fast.drivers.asyncpg import AsyncpgDriver
from pgq_fast.errors import DuplicateJobError
from pgq_fast.layouts import lease as lease_layout, promotion
from pgq_fast.layouts.base import Outcome, Retry
from pgq_fast.models import Job as ClaimedJob, TracebackRecord
from pgq_fast.settings import DBSettings

T = TypeVar("T")

WORKERS: Final = 3
LIMITS: Final = {"a": 0, "b": 0, "c": 2, "d": 1}
"""The entrypoints with their concurrency limits, the same for all workers."""

NOW, DAY = timedelta(0), timedelta(days=1)
STALE_AFTER: Final = timedelta(minutes=30)

PLENTY_OF_JOBS: Final = [
    (name, payload, priority, delay, f"{name}{priority}" if keyed else None, headers)
    for name in LIMITS
    for priority, payload, delay, keyed, headers in (
        (0, b"1", NOW, False, None),
        (0, None, NOW, True, None),
        (1, b"2", NOW, True, {"a": 1}),
        (2, b"x" * 60, DAY, True, None),
        (0, b"", DAY, False, {}),
    )
]

names = st.sampled_from(sorted(LIMITS))
name_sets = st.lists(names, min_size=1, max_size=4, unique=True)
keys = st.sampled_from([None, None, "k1", "k2", "a0", "b1"])
new_job = st.tuples(
    names,
    st.sampled_from([None, b"", b"payload", b"x" * 100]),
    st.integers(-2, 2),
    st.sampled_from([None, NOW, -DAY, DAY]),
    keys,
    st.sampled_from([None, None, {}, {"trace": "é"}]),
)
new_jobs = st.lists(new_job, min_size=1, max_size=6)
conflicts = st.sampled_from(["raise", "skip", "update_priority"])
workers = st.integers(0, WORKERS - 1)
losses = st.one_of(
    st.none(),
    st.none(),
    st.tuples(st.integers(0, 4), st.sampled_from(["answer", "statement"])),
)


class Arena:
    """The connections that all examples use one after the other."""

    def __init__(self, dsn: str, settings: DBSettings) -> None:
        self.dsn = dsn
        self.settings = settings
        self.loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._idle: list[asyncpg.Connection] = []
        self.observer = self.run(self.connection())

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    async def connection(self) -> asyncpg.Connection:
        if self._idle:
            return self._idle.pop()
        connection = await asyncpg.connect(self.dsn)
        self._stack.push_async_callback(connection.close)
        return connection

    def give_back(self, connection: asyncpg.Connection) -> None:
        self._idle.append(connection)

    def reset(self) -> None:
        """Empty the queue; ids go on."""
        self.run(
            self.observer.execute(
                "TRUNCATE pgqueuer_ready, pgqueuer_deferred, pgqueuer_lease, pgqueuer_held,"
                " pgqueuer_dedupe, pgqueuer_waiting, pgqueuer_log_entries, pgqueuer_log_batches,"
                " pgqueuer_statistics"
            )
        )

    def close(self) -> None:
        self.run(self._stack.aclose())
        self.loop.close()


@contextlib.contextmanager
def timeless(onward: bool) -> Iterator[None]:
    """Have claims depend on no clock: with *onward* from where the last one ended, if possible."""
    saved = (
        lease_layout.ONWARD_FROM, lease_layout.SLOW_CLAIM, lease_layout.FRONT_SHARE,
        promotion.PAUSE, promotion.SHARE,
    )  # fmt: skip
    never = 1 << 60
    changes: tuple[Any, ...] = (1 if onward else never, float("inf"), never, 0, 0)
    _set_times(changes)
    try:
        yield
    finally:
        _set_times(saved)


def _set_times(values: tuple[Any, ...]) -> None:
    module: Any = lease_layout
    module.ONWARD_FROM, module.SLOW_CLAIM, module.FRONT_SHARE = values[:3]
    module = promotion
    module.PAUSE, module.SHARE = values[3:]


class Worker(Member):
    """A member with a wire to cut, that remembers what it has claimed."""

    def __init__(self, connection: asyncpg.Connection, settings: DBSettings) -> None:
        self.connection = connection
        self.wire = Wire(AsyncpgDriver(connection))
        super().__init__(self.wire, settings)
        self.claimed: list[ClaimedJob] = []

    def knows(self, lease_id: int) -> bool:
        """Whether the claim that made this lease was answered."""
        return lease_id in self.layout._leases._open


def somebody_works(machine: LeaseMachine) -> bool:
    return any(worker.claimed for worker in machine.workers)


class LeaseMachine(RuleBasedStateMachine):
    """One queue, three workers, a producer and an operator."""

    def __init__(self, arena: Arena, modes: dict[str, str]) -> None:
        super().__init__()
        self.arena = arena
        self.model = Model(modes)
        self.stack = contextlib.ExitStack()
        arena.reset()
        self.workers = [self.new_worker() for _ in range(WORKERS)]
        self.office = Member(AsyncpgDriver(arena.run(arena.connection())), arena.settings)
        self.onward = False
        self.seen = self.look()

    @initialize(onward=st.booleans())
    def begin(self, onward: bool) -> None:
        self.onward = onward
        self.stack.enter_context(timeless(onward))
        self.refill()

    def teardown(self) -> None:
        self.stack.close()
        for worker in self.workers:
            self.arena.give_back(worker.connection)
        self.arena.give_back(self.office.driver._connection)

    # -- Tools --------------------------------------------------------------------------------

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.arena.run(call)

    def look(self) -> Seen:
        return self.run(look(self.arena.observer))

    def new_worker(self) -> Worker:
        return Worker(self.run(self.arena.connection()), self.arena.settings)

    def some(self, data: st.DataObject, items: Sequence[T], most: int = 4) -> list[T]:
        """Some of *items*, at least one where there is one, without repetition."""
        if not items:
            return []
        places = st.integers(0, len(items) - 1)
        chosen = data.draw(st.lists(places, min_size=1, max_size=most, unique=True))
        return [items[place] for place in chosen]

    def some_ids(self, data: st.DataObject) -> list[int]:
        """Ids of jobs: of those that run, or of all that live, at times of any."""
        running = [job.id for job in self.model.at("lease")]
        live = [job.id for job in self.model.at("ready", "deferred", "lease", "held")]
        match data.draw(st.integers(0, 7)):
            case 0:
                return [*self.some(data, sorted(self.model.jobs)), 1 << 40]
            case 1 | 2 | 3:
                return self.some(data, live)
            case _:
                return self.some(data, running or live)

    def some_worker(self, data: st.DataObject) -> Worker:
        """One that has claimed something."""
        busy = [worker for worker in self.workers if worker.claimed]
        return busy[data.draw(st.integers(0, len(busy) - 1))]

    def some_runs(self, data: st.DataObject, worker: Worker) -> list[ClaimedJob]:
        """Some of what the worker runs, or at times of what it has ever run, each job once."""
        runs = [
            run
            for run in worker.claimed
            if (job := self.holds(worker, run.id)) is not None and job.attempts == run.attempts
        ]
        if not runs or data.draw(st.integers(0, 3)) == 0:
            runs = worker.claimed
        return list({run.id: run for run in self.some(data, runs)}.values())

    def holds(self, worker: Worker, job_id: int) -> Job | None:
        """The job, where the worker can end it by its layout."""
        job = self.model.jobs[job_id]
        if job.lease is None or self.model.leases[job.lease].owner != worker.owner:
            return None
        return job if worker.knows(job.lease) else None

    def attempt(self, worker: Worker, loss: Any, call: Coroutine[Any, Any, T]) -> tuple[bool, Any]:
        """The result of *call*, or that something was lost on the way."""
        if loss is not None:
            worker.wire.lose(*loss)
        try:
            return True, self.run(call)
        except LostError:
            return False, None
        finally:
            worker.wire.lose_nothing()

    # -- Producers ----------------------------------------------------------------------------

    @precondition(lambda self: len(self.model.at("ready")) < 6)
    @rule()
    def refill(self) -> None:
        """Something of everything, so that the others find what to do."""
        self.enqueue(PLENTY_OF_JOBS, "skip", single=False)

    @rule(job=new_job, on_conflict=conflicts)
    def enqueue_one(self, job: Any, on_conflict: Any) -> None:
        self.enqueue([job], on_conflict, single=True)

    @rule(jobs=new_jobs, on_conflict=conflicts)
    def enqueue_list(self, jobs: list[Any], on_conflict: Any) -> None:
        if on_conflict == "update_priority":
            # PostgreSQL refuses to update a row twice.
            seen: set[str] = set()
            jobs = [
                job for job in jobs if job[4] is None or not (job[4] in seen or seen.add(job[4]))
            ]
        self.enqueue(jobs, on_conflict, single=False)

    def enqueue(self, jobs: list[Any], on_conflict: Any, single: bool) -> None:
        columns: list[Any] = list(jobs[0] if single else map(list, zip(*jobs, strict=True)))
        given = [job[4] for job in jobs if job[4] is not None]
        conflict = len(given) > len(set(given)) or bool(set(given) & self.model.keys.keys())
        try:
            ids: list[Any] = self.run(
                self.office.queries.enqueue(*columns, on_conflict=on_conflict)
            )
        except DuplicateJobError:
            assert conflict
            assert on_conflict == "raise"
            return
        assert not (conflict and on_conflict == "raise")
        for job_id, (name, payload, priority, delay, key, headers) in zip(ids, jobs, strict=True):
            if key is not None and key in self.model.keys:
                if on_conflict == "skip":
                    assert job_id is None
                else:
                    assert job_id == self.model.raise_priority(key, priority)
                continue
            place: Any = "deferred" if delay is not None and delay > NOW else "ready"
            self.model.enqueue(Job(job_id, name, payload, headers, key, priority, place))
        new = [job_id for job_id in ids if job_id is not None and on_conflict != "update_priority"]
        assert new == sorted(new)

    # -- Workers ------------------------------------------------------------------------------

    @rule(number=workers, size=st.integers(3, 12), ends=st.booleans())
    def claim_plainly(self, number: int, size: int, ends: bool) -> None:
        """As a worker does that has something to do."""
        worker = self.workers[number]
        ending = [job.id for job in worker.claimed[-size:]] if ends else []
        self.claim(worker, size, sorted(LIMITS), ending)

    @rule(
        data=st.data(),
        number=workers,
        size=st.integers(1, 8),
        chosen=name_sets,
        max_bytes=st.sampled_from([PLENTY, PLENTY, 1, 110]),
        budget=st.sampled_from([None, None, 1, 4]),
        stale_after=st.sampled_from([None, STALE_AFTER]),
        ends=st.booleans(),
        loss=losses,
    )
    def claim_somehow(
        self,
        data: st.DataObject,
        number: int,
        size: int,
        chosen: list[str],
        max_bytes: int,
        budget: int | None,
        stale_after: timedelta | None,
        ends: bool,
        loss: Any,
    ) -> None:
        worker = self.workers[number]
        ending = [job.id for job in self.some(data, worker.claimed[-12:], 12)] if ends else []
        self.claim(worker, size, chosen, ending, stale_after, max_bytes, budget, loss)

    def claim(
        self,
        worker: Worker,
        size: int,
        chosen: list[str],
        ending: list[int],
        stale_after: timedelta | None = None,
        max_bytes: int = PLENTY,
        budget: int | None = None,
        loss: Any = None,
    ) -> None:
        limits = {name: LIMITS[name] for name in chosen}
        ending = list(dict.fromkeys(ending))
        ended = [job for job_id in ending if (job := self.holds(worker, job_id)) is not None]
        answered, claim = self.attempt(
            worker,
            loss,
            worker.claims(
                size, limits, ending, stale_after=stale_after, max_bytes=max_bytes, budget=budget
            ),
        )
        sizes = self.seen.size_of
        seen = self.look()
        jobs: list[ClaimedJob] = claim.jobs if answered else []
        if answered and not self.onward:
            expected = self.predict(
                worker, size, limits, ended, stale_after, max_bytes, budget, sizes
            )
            assert [job.id for job in jobs] == [job.id for job in expected]
        self.follow(worker, seen, limits, ended)
        if answered and not jobs and budget is None:
            # Nothing may be overlooked for good.
            for job in self.model.at("ready"):
                assert job.entrypoint not in limits or limits[job.entrypoint] > 0
        assert len(jobs) <= size
        assert jobs == sorted(jobs, key=lambda job: (-job.priority, job.id))
        for job in jobs:
            known = self.model.jobs[job.id]
            assert (job.entrypoint, job.payload, job.headers) == (
                known.entrypoint, known.payload, known.headers
            )  # fmt: skip
            assert (job.priority, job.attempts, job.status, job.queue_manager_id) == (
                known.priority, known.attempts, "picked", worker.owner
            )  # fmt: skip
            assert known.lease is not None
            assert job.slot == self.model.leases[known.lease].slot
            assert worker.knows(known.lease)
        worker.claimed += jobs

    def predict(
        self,
        worker: Worker,
        size: int,
        limits: dict[str, int],
        ended: list[Job],
        stale_after: timedelta | None,
        max_bytes: int,
        budget: int | None,
        sizes: dict[int, int],
    ) -> list[Job]:
        """What a claim brings. It moves the jobs in the model, but for those that it brings."""
        for job in self.model.at("deferred"):
            if job.due and job.entrypoint in limits:
                self.model.promote(job)
        for job in ended:
            self.model.finish(job)
        jobs = self.model.next_claim(size, limits, worker.owner, max_bytes, budget, sizes)
        if stale_after is None or jobs:
            # With jobs, what is rescued comes too late for this claim.
            return jobs
        for lease in list(self.model.leases.values()):
            if lease.stale and lease.entrypoint in limits:
                self.model.rescue(lease)
        return self.model.next_claim(size, limits, worker.owner, max_bytes, budget, sizes)

    def follow(self, worker: Worker, seen: Seen, limits: dict[str, int], ended: list[Job]) -> None:
        """Move jobs in the model as they have moved, if a claim may do that."""
        old = dict(self.model.leases)
        for job in list(self.model.jobs.values()):
            place = seen.places.get(job.id, ("ended", {}))[0]
            lease = seen.places[job.id][1].get("lease") if place == "lease" else None
            if (place, lease) == (job.place, job.lease):
                continue
            if job.place == "deferred" and place in ("ready", "lease"):
                assert job.entrypoint in limits
                self.model.promote(job)
            elif job in ended and place == "ended":
                self.model.finish(job)
            elif job.place == "lease" and place in ("ready", "lease"):
                assert job.lease is not None
                stale = self.model.leases[job.lease]
                assert stale.stale
                assert stale.entrypoint in limits
                self.model.rescue(stale)
        for lease_id, made in seen.leases.items():
            if lease_id not in old:
                assert made.owner == worker.owner
                assert made.entrypoint in limits
                assert not made.done
                assert (made.slot is None) == (limits[made.entrypoint] <= 0)
                self.model.claim(Lease(made.id, made.owner, made.entrypoint, made.ids, made.slot))
        self.beat_those_that_were_written(seen)

    def beat_those_that_were_written(self, seen: Seen) -> None:
        """A worker that ends some jobs of a lease is alive, which the lease notes."""
        for lease in self.model.leases.values():
            if lease.stale and lease.id in seen.leases and not seen.leases[lease.id].stale:
                lease.stale = False

    @precondition(somebody_works)
    @rule(data=st.data(), loss=losses)
    def finish_some(self, data: st.DataObject, loss: Any) -> None:
        worker = self.some_worker(data)
        self.finish(worker, [job.id for job in self.some_runs(data, worker)], loss)

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data(), loss=losses)
    def finish_all_of_a_lease(self, data: st.DataObject, loss: Any) -> None:
        """Whatever has become of its jobs meanwhile."""
        leases = self.some(data, list(self.model.leases.values()), 2)
        for worker in self.workers:
            if worker.owner == leases[0].owner:
                ids = [job_id for lease in leases for job_id in lease.ids]
                self.finish(worker, list(dict.fromkeys(ids)), loss)

    def finish(self, worker: Worker, ids: list[int], loss: Any) -> None:
        held = [job for job_id in ids if (job := self.holds(worker, job_id)) is not None]
        answered, _ = self.attempt(worker, loss, worker.finish(ids))
        seen = self.look()
        for job in held:
            if answered or job.id not in seen.places:
                self.model.finish(job)
        self.beat_those_that_were_written(seen)

    @precondition(somebody_works)
    @rule(
        data=st.data(),
        statuses=st.lists(
            st.sampled_from(["exception", "canceled", "failed", "successful"]),
            min_size=4,
            max_size=4,
        ),
        record=st.booleans(),
        loss=losses,
    )
    def acknowledge(
        self, data: st.DataObject, statuses: list[Any], record: bool, loss: Any
    ) -> None:
        worker = self.some_worker(data)
        traceback = _traceback() if record else None
        outcomes = [
            Outcome(job, status, traceback)
            for job, status in zip(self.some_runs(data, worker), statuses, strict=False)
        ]
        held = [
            (job, status)
            for item, status, _ in outcomes
            if (job := self.holds(worker, item.id)) is not None and job.attempts == item.attempts
        ]
        answered, _ = self.attempt(worker, loss, worker.layout.acknowledge(outcomes, worker.owner))
        seen = self.look()
        for job, status in held:
            if answered or seen.places.get(job.id, ("ended",))[0] != "lease":
                self.model.settle(job, status)
        self.beat_those_that_were_written(seen)

    @precondition(somebody_works)
    @rule(
        data=st.data(),
        delays=st.lists(st.sampled_from([NOW, -DAY, DAY]), min_size=4, max_size=4),
        loss=losses,
    )
    def retry(self, data: st.DataObject, delays: list[timedelta], loss: Any) -> None:
        worker = self.some_worker(data)
        retries = [
            Retry(job, delay, None)
            for job, delay in zip(self.some_runs(data, worker), delays, strict=False)
        ]
        if not retries:
            return
        held = [
            (job, delay)
            for item, delay, _ in retries
            if (job := self.holds(worker, item.id)) is not None and job.attempts == item.attempts
        ]
        answered, _ = self.attempt(worker, loss, worker.layout.retry(retries, worker.owner))
        seen = self.look()
        for job, delay in held:
            if answered or seen.places[job.id][0] != "lease":
                self.model.retry(job, deferred=delay > NOW)
        self.beat_those_that_were_written(seen)

    @precondition(somebody_works)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        worker = self.some_worker(data)
        ids = [job.id for job in self.some_runs(data, worker)]
        held = {job_id for job_id in ids if self.holds(worker, job_id) is not None}
        alive = self.run(worker.layout.heartbeat(ids, worker.owner))
        assert alive == held
        # A lease beats for jobs of its that have ended, too.
        self.beat_those_that_were_written(self.look())
        for job_id in held:
            lease = self.model.jobs[job_id].lease
            assert lease is not None
            self.model.beat(self.model.leases[lease])

    @rule(data=st.data(), number=workers, loss=losses)
    def release(self, data: st.DataObject, number: int, loss: Any) -> None:
        worker = self.workers[number]
        mine = [
            job_id
            for lease in self.model.leases.values()
            if lease.owner == worker.owner
            for job_id in lease.open
        ]
        keep = self.some(data, mine)
        answered, _ = self.attempt(worker, loss, worker.layout.release(worker.owner, keep))
        seen = self.look()
        for job_id in mine:
            if job_id not in keep and (answered or seen.places[job_id][0] != "lease"):
                self.model.release(self.model.jobs[job_id])

    @rule(number=workers)
    def crash(self, number: int) -> None:
        """Nothing is left of the worker but its leases."""
        self.workers[number].connection.terminate()
        self.workers[number] = self.new_worker()

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data())
    def let_leases_become_stale(self, data: st.DataObject) -> None:
        chosen = self.some(data, sorted(self.model.leases))
        self.run(
            self.arena.observer.execute(
                "UPDATE pgqueuer_lease SET heartbeat = now() - interval '1 hour'"
                " WHERE id = ANY($1::bigint[])",
                chosen,
            )
        )
        for lease_id in chosen:
            self.model.leases[lease_id].stale = True

    @precondition(lambda self: self.model.at("deferred"))
    @rule(data=st.data())
    def let_time_pass(self, data: st.DataObject) -> None:
        chosen = self.some(data, [job.id for job in self.model.at("deferred")])
        self.run(
            self.arena.observer.execute(
                "UPDATE pgqueuer_deferred SET execute_after = now() - interval '1 s'"
                " WHERE id = ANY($1::bigint[])",
                chosen,
            )
        )
        for job_id in chosen:
            self.model.jobs[job_id].due = True

    # -- Single jobs, without a layout that knows of leases -----------------------------------

    @precondition(somebody_works)
    @rule(
        data=st.data(),
        statuses=st.lists(st.sampled_from([*ENDS, "failed"]), min_size=4, max_size=4),
        record=st.booleans(),
    )
    def log_jobs(self, data: st.DataObject, statuses: list[Any], record: bool) -> None:
        worker = self.some_worker(data)
        chosen = list(zip(self.some_runs(data, worker), statuses, strict=False))
        traceback = _traceback() if record else None
        self.run(self.office.queries.log_jobs([(job, status, traceback) for job, status in chosen]))
        for item, status in chosen:
            job = self.model.jobs[item.id]
            if job.lease is None or self.model.leases[job.lease].owner != item.queue_manager_id:
                continue
            if status == "successful" and not record:
                self.model.finish(job)
            else:
                self.model.settle(job, status)

    @precondition(somebody_works)
    @rule(data=st.data(), delay=st.sampled_from([NOW, DAY]))
    def retry_job(self, data: st.DataObject, delay: timedelta) -> None:
        for item in self.some_runs(data, self.some_worker(data))[:1]:
            self.run(self.office.queries.retry_job(item, delay, None))
            job = self.model.jobs[item.id]
            if (
                job.lease is not None
                and self.model.leases[job.lease].owner == item.queue_manager_id
                and job.attempts == item.attempts
            ):
                self.model.retry(job, deferred=delay > NOW)

    @rule(data=st.data())
    def vouch(self, data: st.DataObject) -> None:
        ids: list[Any] = self.some_ids(data)
        self.run(self.office.queries.update_heartbeat(ids))
        self.beat_those_that_were_written(self.look())
        for job_id in ids:
            job = self.model.jobs.get(job_id)
            if job is not None and job.lease is not None:
                assert not self.model.leases[job.lease].stale

    # -- Operators ----------------------------------------------------------------------------

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ids: list[Any] = self.some_ids(data)
        self.run(self.office.queries.mark_job_as_cancelled(ids))
        for job_id in ids:
            job = self.model.jobs.get(job_id)
            if job is not None and job.place not in ("ended", "cleared"):
                self.model.remove(job, "canceled")

    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        ids: list[Any] = [
            *self.some(data, [job.id for job in self.model.at("held")]), *self.some_ids(data)
        ]  # fmt: skip
        held = [
            job for job_id, job in self.model.jobs.items() if job_id in ids and job.place == "held"
        ]
        wanted = [job.key for job in held if job.key is not None]
        taken = len(wanted) > len(set(wanted)) or bool(set(wanted) & self.model.keys.keys())
        try:
            self.run(self.office.queries.requeue_jobs(ids))
        except asyncpg.UniqueViolationError:
            assert taken
            return
        assert not taken
        for job in held:
            self.model.requeue(job)

    @rule(
        what=st.sampled_from(["some jobs"] * 4 + ["some log", "all log", "old log"] * 2 + ["all"]),
        chosen=st.lists(names, min_size=1, max_size=2, unique=True),
    )
    def clean_up(self, what: str, chosen: list[str]) -> None:
        queries = self.office.queries
        match what:
            case "some jobs":
                self.run(queries.clear_queue(chosen))
                for job in self.model.at("ready", "deferred", "lease", "held"):
                    if job.entrypoint in chosen:
                        self.model.remove(job, "deleted")
            case "all":
                self.run(queries.clear_queue())
                self.model.clear()
            case "old log":
                self.run(queries.prune_log(NOW))
                self.model.forget_log(LIMITS)
            case _:
                # First: what is not counted is lost with the log.
                self.run(queries.aggregate_logs())
                self.run(queries.clear_queue_log(chosen if what == "some log" else None))
                self.model.forget_log(chosen if what == "some log" else LIMITS)

    @rule()
    def count(self) -> None:
        """By the statistics, which contain everything that is over once it is aggregated."""
        queries = self.office.queries
        totals = {
            (row.entrypoint, row.status): row.total_count
            for row in self.run(queries.throughput_summary())
        }
        assert self.look().statistics == self.model.counted
        assert self.run(queries.unaggregated_log_count()) == 0
        expected = self.model.statistics()
        assert totals == expected
        for row in self.run(queries.log_statistics(None)):
            expected[row.entrypoint, row.status] -= row.count
        assert not any(expected.values())

    # -- After each step ----------------------------------------------------------------------

    @invariant()
    def all_is_as_predicted(self) -> None:
        self.seen = self.look()
        compare(self.model, self.seen)
        check_limits(self.seen, LIMITS)

    @invariant()
    def statuses_agree(self) -> None:
        ids: list[Any] = sorted(self.model.jobs)
        found = dict(self.run(self.office.queries.job_status(ids)))
        places = {"lease": "picked", "held": "failed", "ready": "queued", "deferred": "queued"}
        expected = {}
        for job in self.model.jobs.values():
            if job.place in places:
                expected[job.id] = places[job.place]
            elif job.end is not None and job.end in job.written:
                expected[job.id] = job.end
        assert found == expected


def _traceback() -> TracebackRecord:
    return TracebackRecord(
        job_id=1,  # type: ignore[arg-type]
        timestamp="2030-01-01T00:00:00+00:00",  # type: ignore[arg-type]
        exception_type="ValueError",
        exception_message="\u2028",
        traceback="",
        additional_context=None,
    )
