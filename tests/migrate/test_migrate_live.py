"""Migrations of queues that are in use."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from migrate.helpers import OTHER, Contents, contents, drive, left_overs, on, pick, record, steps
from pgq_fast.errors import DuplicateJobError
from pgq_fast.queries import Queries
from pgq_fast.settings import Layout
from support.drivers import MakeDriver
from support.layouts import queries_of


class Crowd:
    """Workers, producers and people who do something at random, on a connection of their own."""

    def __init__(self, queries: Queries, seed: int) -> None:
        self.queries = queries
        self.random = random.Random(seed)
        self.picked: list[Any] = []
        self.taken_part: set[str] = set()

    async def act(self, *, claims: bool = True) -> None:
        """Do one thing; *claims* says whether it may be to claim jobs."""
        acts: list[Callable[[], Awaitable[object]]] = [
            self.enqueue, self.enqueue_many, self.defer, self.key, self.raise_priority, self.end,
            self.end, self.hold, self.retry, self.requeue, self.cancel, self.clear,
        ]  # fmt: skip
        if claims:
            acts += [self.pick, self.pick]
        act = self.random.choice(acts)
        if await act() is not None:
            self.taken_part.add(act.__name__)

    async def enqueue(self) -> object:
        return await self.queries.enqueue(
            "plain", self.random.randbytes(9), self.random.randint(-2, 2)
        )

    async def enqueue_many(self) -> object:
        return await self.queries.enqueue(["plain"] * 4, [b"m"] * 4, [0, 1, 2, 3])

    async def defer(self) -> object:
        delay = timedelta(hours=self.random.randint(1, 3))
        return await self.queries.enqueue("late", b"l", 1, delay)

    async def key(self) -> object:
        try:
            return await self.queries.enqueue("plain", b"k", dedupe_key=self._key())
        except DuplicateJobError:
            return None

    async def raise_priority(self) -> object:
        return await self.queries.enqueue(
            "raised", b"k", self.random.randint(0, 99), dedupe_key=f"raised {self._key()}",
            on_conflict="update_priority",
        )  # fmt: skip

    def _key(self) -> str:
        return f"key {self.random.randint(0, 3)}"

    async def pick(self) -> object:
        entrypoint = self.random.choice(["plain", "held", "again", "raised"])
        jobs = await pick(self.queries, entrypoint, self.random.randint(1, 4))
        self.picked += jobs
        return jobs or None

    def _mine(self) -> Any:
        self.random.shuffle(self.picked)
        return self.picked.pop() if self.picked else None

    async def end(self) -> object:
        if (job := self._mine()) is not None:
            status = self.random.choice(["successful", "exception"])
            await self.queries.log_jobs(
                [(job, status, record(job, "no") if status == "exception" else None)]
            )
        return job

    async def hold(self) -> object:
        if (job := self._mine()) is not None:
            await self.queries.log_jobs([(job, "failed", record(job, "hold"))])
        return job

    async def retry(self) -> object:
        if (job := self._mine()) is not None:
            delay = timedelta(hours=self.random.randint(0, 1))
            await self.queries.retry_job(job, delay, None)
        return job

    async def requeue(self) -> object:
        held = await self.queries.list_failed_jobs()
        for job in held:
            try:
                await self.queries.requeue_jobs([job.id])
            except Exception as error:
                if "duplicate key" not in str(error):
                    raise
            else:
                return job
        return None

    async def cancel(self) -> object:
        jobs = await self.queries.browse_queue(limit=1000, statuses=["queued", "failed"])
        if not jobs:
            return None
        job = self.random.choice(jobs)
        await self.queries.mark_job_as_cancelled([job.id])
        return job

    async def clear(self) -> object:
        if self.random.random() < 0.8:
            return None
        await self.queries.clear_queue("late")
        return True

    async def empty(self) -> None:
        self.picked.clear()
        await self.queries.clear_queue()


@pytest.mark.parametrize(("seed", "batch_size"), [(0, 13), (1, 50), (2, 13)])
async def test_whatever_happens_until_the_switch_is_kept(
    seed: int, batch_size: int, source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    crowd = Crowd(queries_of(await make_driver("asyncpg", filled_dsn), source), seed)
    seen: list[Contents] = []

    async def look_in(number: int, step: object) -> None:
        if await crowd.queries.installed_layout() is not source:
            return
        gated = "pgq_gate" in left_overs(filled_dsn)
        # Slower than the migration follows.
        for _ in range(crowd.random.randint(0, 2)):
            await crowd.act(claims=not gated)
        if gated and number % 5 == 0 and crowd.picked:
            await crowd.end()
        seen.append(contents(filled_dsn))

    driver = await make_driver("asyncpg", filled_dsn)
    report = await drive(driver, steps(on(source), OTHER[source], batch_size=batch_size), look_in)
    assert report.target is OTHER[source]
    assert contents(filled_dsn) == seen[-1]
    assert left_overs(filled_dsn) == []
    assert len(seen) > 10
    assert len(crowd.taken_part) > 8


async def test_queue_is_emptied_meanwhile(
    source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    crowd = Crowd(queries_of(await make_driver("asyncpg", filled_dsn), source), 1)
    seen: list[Contents] = []

    async def look_in(number: int, step: Any) -> None:
        noting = any(name.startswith("pgq_capture") for name in left_overs(filled_dsn))
        if noting and number % 4 == 0 and len(seen) < 4:
            await crowd.enqueue_many()
            await crowd.empty()
            await crowd.enqueue_many()
            await crowd.key()
            await crowd.defer()
            seen.append(contents(filled_dsn))

    driver = await make_driver("asyncpg", filled_dsn)
    await drive(driver, steps(on(source), OTHER[source], batch_size=3), look_in)
    assert len(seen) == 4
    assert contents(filled_dsn) == seen[-1]
    assert left_overs(filled_dsn) == []
