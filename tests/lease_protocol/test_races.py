"""Two or more that want the same jobs at the same time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from lease_protocol.conftest import Join, Session
from lease_protocol.crowd import check_all, check_statistics, monitored, together
from lease_protocol.members import Member, blocked
from lease_protocol.wire import Wire
from pgq_fast.drivers.asyncpg import AsyncpgDriver
from pgq_fast.drivers.base import Row
from pgq_fast.layouts import promotion
from pgq_fast.layouts.base import Outcome, Retry
from pgq_fast.models import Job
from pgq_fast.settings import DBSettings
from pgq_fast.types import JobId
from support.layouts import queries_of

pytestmark = [pytest.mark.layouts("lease"), pytest.mark.impl_agnostic]

ROUNDS = 25
NOW = timedelta(0)
STALE_AFTER = timedelta(minutes=30)
GROW_STALE = "UPDATE pgqueuer_lease SET heartbeat = now() - interval '1 hour' WHERE worker = $1"
AT_ONCE = -timedelta(days=1)
"""Every lease is stale by this, also one that has just been made."""


async def enqueue(member: Member, count: int, name: str = "e", keys: bool = False) -> set[int]:
    dedupe = [f"{name}{number}" for number in range(count)] if keys else None
    return set(
        await member.queries.enqueue([name] * count, [None] * count, [0] * count, dedupe_key=dedupe)
    )


Act = Callable[[Member, list[Job]], Coroutine[Any, Any, Any]]


async def finish(worker: Member, jobs: list[Job]) -> None:
    await worker.finish([job.id for job in jobs])


async def finish_half(worker: Member, jobs: list[Job]) -> None:
    await worker.finish([job.id for job in jobs[::2]])


async def fail(worker: Member, jobs: list[Job]) -> None:
    await worker.layout.acknowledge([Outcome(job, "exception", None) for job in jobs], worker.owner)


async def hold(worker: Member, jobs: list[Job]) -> None:
    await worker.layout.acknowledge([Outcome(job, "failed", None) for job in jobs], worker.owner)


async def retry(worker: Member, jobs: list[Job]) -> None:
    await worker.layout.retry([Retry(job, NOW, None) for job in jobs], worker.owner)


async def release(worker: Member, jobs: list[Job]) -> None:
    await worker.layout.release(worker.owner, [])


async def end_by_claim(worker: Member, jobs: list[Job]) -> None:
    await worker.claim(ending=[job.id for job in jobs])


async def log_jobs(worker: Member, jobs: list[Job]) -> None:
    await worker.queries.log_jobs([(job, "exception", None) for job in jobs])


async def retry_jobs(worker: Member, jobs: list[Job]) -> None:
    for job in jobs:
        await worker.queries.retry_job(job, NOW, None)


ACTS: list[Act] = [
    finish, finish_half, fail, hold, retry, release, end_by_claim, log_jobs, retry_jobs
]  # fmt: skip


@pytest.mark.parametrize("act", ACTS)
async def test_rescue_against_an_end_of_the_same_lease(
    join: Join, session: Session, act: Act
) -> None:
    """Either the worker was in time for a job, or a rescuer has it; never both, never neither."""
    worker, first, second, observer = await join(), await join(), await join(), await session()
    ids: set[int] = set()
    for number in range(ROUNDS):
        ids |= await enqueue(worker, 6, f"e{number}", keys=number % 2 == 0)
        jobs = await worker.claim(**{f"e{number}": 0})
        assert len(jobs) == 6
        limits = {f"e{number}": 0}
        await observer.execute(GROW_STALE, worker.owner)
        _, one, two = await together(
            act(worker, jobs),
            first.claims(100, limits, stale_after=STALE_AFTER),
            second.claims(100, limits, stale_after=STALE_AFTER),
        )
        assert not {job.id for job in one.jobs} & {job.id for job in two.jobs}
        # Late, and of a lease that may be somebody else's by now.
        await act(worker, jobs)
        await check_all(observer, ids)
    await worker.queries.aggregate_logs()
    await check_statistics(observer)


@pytest.mark.parametrize("act", ACTS)
async def test_cancel_against_a_move_of_the_same_jobs(
    join: Join, session: Session, act: Act
) -> None:
    """Canceled or ended, but not both; and what was canceled does not come back."""
    worker, other, operator, observer = await join(), await join(), await join(), await session()
    ids: set[int] = set()
    ends: Counter[str] = Counter()
    for number in range(ROUNDS):
        new = await enqueue(worker, 6, keys=True)
        ids |= new
        jobs = await worker.claim(4)
        await together(
            operator.queries.mark_job_as_cancelled(sorted(new, reverse=True)),
            act(worker, jobs),
            other.claim(2),
        )
        await check_all(observer, ids)
        held = [job.id for job in await operator.queries.list_failed_jobs()]
        await operator.queries.mark_job_as_cancelled(held)
        assert await operator.queries.queue_size() == [], f"round {number}"
        ends.update(status for _, status in await operator.queries.job_status(sorted(new)))
    assert ends["canceled"]
    await worker.queries.aggregate_logs()
    await check_statistics(observer)


CLAIM = """
WITH job AS (DELETE FROM pgqueuer_ready RETURNING *)
INSERT INTO pgqueuer_lease (
    worker, entrypoint, done, ids, priorities, attempts, created, execute_after, payloads
)
SELECT $1, entrypoint, B'0', ARRAY[id], ARRAY[priority], ARRAY[attempts], ARRAY[created],
    ARRAY[execute_after], ARRAY[payload]
FROM job
"""


class Overtaking(Wire):
    """A wire on which each statement finds the job on its way, the first few times."""

    def __init__(self, driver: AsyncpgDriver, mover: Member, observer: asyncpg.Connection) -> None:
        super().__init__(driver)
        self.mover = mover
        self.observer = observer
        self.moves = 5

    async def fetch_rows(self, query: str, *args: object) -> Sequence[Row]:
        if "INSERT INTO pgqueuer_log" not in query or not self.moves:
            return await super().fetch_rows(query, *args)
        self.moves -= 1
        await self.mover.driver.execute("BEGIN")
        if await self.mover.rows("SELECT FROM pgqueuer_ready"):
            await self.mover.driver.execute(CLAIM, self.mover.owner)
        else:
            await self.mover.layout.release(self.mover.owner, [])
        answer = asyncio.create_task(super().fetch_rows(query, *args))
        await blocked(self.observer)
        await self.mover.driver.execute("COMMIT")
        return await answer


@pytest.mark.parametrize("how", ["cancel", "clear"])
async def test_what_is_passed_back_and_forth_is_not_out_of_reach(
    join: Join, session: Session, queue_settings: DBSettings, how: str
) -> None:
    mover, operator, observer = await join(), await join(), await session()
    ids = await enqueue(operator, 1)
    wire = Overtaking(operator.driver, mover, observer)
    queries = queries_of(wire, queue_settings)
    if how == "cancel":
        await queries.mark_job_as_cancelled([JobId(job_id) for job_id in ids])
    else:
        await queries.clear_queue("e")
    assert wire.moves == 0
    assert await operator.queries.queue_size() == []
    await check_all(observer, ids)


async def test_a_cancellation_is_not_outrun(join: Join, session: Session) -> None:
    workers = [await join() for _ in range(4)]
    operator, observer = await join(), await session()
    ids: set[int] = set()

    async def churn(worker: Member, stop: asyncio.Event) -> None:
        while not stop.is_set():
            jobs = await worker.claim(2)
            await retry(worker, jobs) if jobs else await asyncio.sleep(0)

    for _ in range(ROUNDS):
        new = await enqueue(operator, 3)
        ids |= new
        stop = asyncio.Event()
        churning = [asyncio.create_task(churn(worker, stop)) for worker in workers]
        try:
            await operator.queries.mark_job_as_cancelled(list(new))
            left = await observer.fetch("SELECT id, status FROM pgqueuer")
        finally:
            stop.set()
            await together(*churning)
        assert left == []
    await check_all(observer, ids)


async def test_two_rescuers_share(join: Join, session: Session) -> None:
    dead, first, second, observer = await join(), await join(), await join(), await session()
    ids: set[int] = set()
    for number in range(ROUNDS):
        ids |= await enqueue(first, 20)
        while await dead.claim(3):
            pass
        await observer.execute(GROW_STALE, dead.owner)
        rescued: Counter[int] = Counter()
        while sum(rescued.values()) < 20:
            claims = await together(
                *[rescuer.claim(100, stale_after=STALE_AFTER) for rescuer in (first, second)]
            )
            for rescuer, jobs in zip((first, second), claims, strict=True):
                rescued.update(job.id for job in jobs)
                await finish(rescuer, jobs)
        assert set(rescued.values()) == {1}, f"round {number}"
        await check_all(observer, ids)


async def test_two_workers_promote(
    join: Join, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "PAUSE", 0)
    monkeypatch.setattr(promotion, "SHARE", 0)
    workers, observer = [await join() for _ in range(4)], await session()
    ids: set[int] = set()
    for _ in range(ROUNDS):
        count = 30
        new = await workers[0].queries.enqueue(
            ["e"] * count, [None] * count, [0] * count, [timedelta(days=1)] * count
        )
        ids |= set(new)
        await observer.execute("UPDATE pgqueuer_deferred SET execute_after = now()")
        claimed: Counter[int] = Counter()
        while sum(claimed.values()) < count:
            claims = await together(*[worker.claim(7) for worker in workers])
            for worker, jobs in zip(workers, claims, strict=True):
                claimed.update(job.id for job in jobs)
                await finish(worker, jobs)
        assert claimed == Counter(new)
        await check_all(observer, ids)


LIMITS = {"one": 1, "three": 3, "ten": 10, "free": 0}


async def test_limits_hold_at_every_instant(join: Join, session: Session) -> None:
    """Sixteen workers, some of which lose their leases and are rescued."""
    workers = [await join() for _ in range(16)]
    observer, monitor = await session(), await session()
    ids: set[int] = set()
    for name, count in (("one", 20), ("three", 60), ("ten", 150), ("free", 100)):
        ids |= await enqueue(workers[0], count, name, keys=name == "three")
    dice = random.Random(0)

    async def work(worker: Member) -> None:
        idle = 0
        while idle < 3:
            stale = AT_ONCE if dice.random() < 0.1 else None
            jobs = (await worker.claims(dice.randint(1, 6), LIMITS, stale_after=stale)).jobs
            left = await observer_has_jobs() if not jobs else True
            idle = idle + 1 if not left else 0
            await asyncio.sleep(0)
            match dice.randint(0, 9):
                case 0:
                    await retry(worker, jobs) if jobs else None
                case 1:
                    await release(worker, jobs)
                case _:
                    await finish(worker, jobs)

    async def observer_has_jobs() -> bool:
        return bool(await workers[0].rows("SELECT FROM pgqueuer LIMIT 1"))

    async with monitored(monitor, LIMITS) as most:
        await together(*[work(worker) for worker in workers])
    await check_all(observer, ids)
    assert await observer.fetch("SELECT FROM pgqueuer") == []
    # The limit is not only held, but made use of.
    assert most["ten"] > 3
