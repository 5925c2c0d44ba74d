"""Everybody does anything at the same time; afterwards everything must add up.

The order of things is the server's and the loop's, but each member's choices follow from the seed,
which a failing test shows.

PGQ_TEST_SEED        that seed
PGQ_TEST_CROWD_STEPS what each member does, instead of a little
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from lease_protocol.conftest import Join, Session
from lease_protocol.crowd import (
    check_all,
    check_places,
    check_statistics,
    monitored,
    together,
)
from lease_protocol.members import Member
from pgq_fast.errors import DuplicateJobError
from pgq_fast.layouts.base import Outcome, Retry
from pgq_fast.models import Job
from pgq_fast.types import JobId, QueueEntrypoint

pytestmark = [
    pytest.mark.layouts("lease"),
    pytest.mark.impl_agnostic,
    pytest.mark.pg_matrix,
    pytest.mark.timeout(0),
]

STEPS = int(os.environ.get("PGQ_TEST_CROWD_STEPS", "60"))
LIMITS = {"a": 0, "b": 0, "c": 2, "d": 1}
NAMES = sorted(LIMITS)
KEYS = [None, *(f"k{number}" for number in range(12))]
NOW, SOON = timedelta(0), timedelta(milliseconds=5)
STALE_AFTER = timedelta(milliseconds=20)
"""Short enough that workers lose leases all the time, and end jobs that are others' by then."""


class Crowd:
    """What they have in common: the jobs that were ever there."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.ids: set[int] = set()
        self.runs: list[Job] = []
        self.refused: Counter[str] = Counter()

    def some_ids(self, most: int = 5) -> list[JobId]:
        ids = sorted(self.ids)[-200:]
        return [JobId(job_id) for job_id in self.dice.sample(ids, min(len(ids), most))]

    async def tolerating(self, call: Awaitable[Any], *errors: type[Exception]) -> Any:
        """The result of *call*; None where it was refused for a reason that is none of a bug."""
        try:
            return await call
        except errors as error:
            self.refused[type(error).__name__] += 1
            return None


async def produce(member: Member, crowd: Crowd) -> None:
    dice = crowd.dice
    count = dice.choice([1, 1, 2, 8])
    on_conflict = dice.choice(["raise", "skip", "update_priority"])
    keys = [dice.choice(KEYS) for _ in range(count)]
    if on_conflict == "update_priority":
        # PostgreSQL refuses to update a row twice.
        keys = [key if keys.index(key) == place else None for place, key in enumerate(keys)]
    ids = await crowd.tolerating(
        member.queries.enqueue(
            [dice.choice(NAMES) for _ in range(count)],
            [None] * count,
            [dice.randint(-1, 2) for _ in range(count)],
            [dice.choice([NOW, NOW, SOON]) for _ in range(count)],
            keys,
            on_conflict=on_conflict,  # type: ignore[call-overload]
        ),
        DuplicateJobError,
    )
    crowd.ids |= {job_id for job_id in ids or () if job_id is not None}


async def work(member: Member, crowd: Crowd, running: list[Job]) -> None:
    dice = crowd.dice
    names = dice.sample(NAMES, dice.randint(1, 4))
    ending: list[JobId] = []
    if dice.random() < 0.5:
        ending = [job.id for job in running]
        running.clear()
    jobs = await member.claim(
        dice.randint(1, 8),
        ending=ending,
        stale_after=dice.choice([None, STALE_AFTER]),
        **{name: LIMITS[name] for name in names},
    )
    crowd.runs += jobs
    running += jobs
    if not running or dice.random() < 0.3:
        return
    some = dice.sample(running, dice.randint(1, len(running)))
    match dice.randint(0, 9):
        case 0 | 1:
            statuses: list[Any] = [
                dice.choice(["exception", "canceled", "failed", "successful"]) for _ in some
            ]
            outcomes = [
                Outcome(job, status, None) for job, status in zip(some, statuses, strict=True)
            ]
            await member.layout.acknowledge(outcomes, member.owner)
        case 2 | 3:
            retries = [Retry(job, dice.choice([NOW, SOON]), None) for job in some]
            await member.layout.retry(retries, member.owner)
        case 4:
            await member.layout.release(member.owner, [job.id for job in some])
            running[:] = some
            return
        case 5:
            await member.layout.heartbeat([job.id for job in some], member.owner)
            return
        case 6:
            # As if it had never been: its leases are anybody's before long.
            running.clear()
            return
        case _:
            await member.finish([job.id for job in some])
    running[:] = [job for job in running if job not in some]


async def meddle(member: Member, crowd: Crowd) -> None:
    dice, queries = crowd.dice, member.queries
    match dice.randint(0, 9):
        case 0 | 1 | 2:
            await queries.mark_job_as_cancelled(crowd.some_ids())
        case 3:
            held = [job.id for job in await queries.list_failed_jobs()]
            await crowd.tolerating(queries.requeue_jobs(held), asyncpg.UniqueViolationError)
        case 4:
            await queries.update_heartbeat(crowd.some_ids())
        case 5:
            await queries.clear_queue(dice.choice(NAMES))
        case 6:
            await queries.aggregate_logs()
        case 7 if crowd.runs:
            some = dice.sample(crowd.runs, min(3, len(crowd.runs)))
            await queries.log_jobs([(job, "exception", None) for job in some])
        case 8 if crowd.runs:
            await queries.retry_job(dice.choice(crowd.runs), NOW, None)
        case _:
            await queries.job_status(crowd.some_ids(50))


async def repeat(act: Callable[[], Awaitable[None]]) -> None:
    for _ in range(STEPS):
        await act()


async def test_everything_adds_up(
    join: Join, session: Session, record_property: Callable[[str, object], None]
) -> None:
    seed = int(os.environ.get("PGQ_TEST_SEED", secrets.randbits(32)))
    print(f"PGQ_TEST_SEED={seed}")
    crowd = Crowd(seed)
    observer, monitor = await session(), await session()
    producers = [await join() for _ in range(2)]
    workers: list[tuple[Member, list[Job]]] = [(await join(), []) for _ in range(5)]
    meddlers = [await join() for _ in range(2)]
    done = asyncio.Event()

    async def look() -> None:
        while not done.is_set():
            await check_places(observer, set())

    looking = asyncio.create_task(look())
    try:
        async with monitored(monitor, LIMITS):
            await together(
                *[repeat(lambda one=one: produce(one, crowd)) for one in producers],
                *[
                    repeat(lambda one=one, running=running: work(one, crowd, running))
                    for one, running in workers
                ],
                *[repeat(lambda one=one: meddle(one, crowd)) for one in meddlers],
            )
    finally:
        done.set()
        await looking
    await check_all(observer, crowd.ids)
    await producers[0].queries.aggregate_logs()
    await check_statistics(observer)
    await drain(workers[0][0], observer)
    await check_all(observer, crowd.ids)
    record_property("refused", dict(crowd.refused))


async def drain(member: Member, observer: asyncpg.Connection) -> None:
    """Whatever is left can still be run, by whoever comes."""
    await member.queries.mark_job_as_cancelled(
        [job.id for job in await member.queries.list_failed_jobs()]
    )
    await observer.execute("UPDATE pgqueuer_deferred SET execute_after = now()")
    # Every lease is stale by this.
    await member.layout.rescue(-timedelta(days=1), [QueueEntrypoint(name) for name in NAMES])
    async with asyncio.timeout(60):
        while await observer.fetch("SELECT FROM pgqueuer LIMIT 1"):
            jobs = await member.claim(100, **LIMITS)
            await member.finish([job.id for job in jobs])
