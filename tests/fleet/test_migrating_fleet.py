"""A queue moves to the other layout and back under a fleet that works on it and fills it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence

import pytest

from behaviour.helpers import eventually
from fleet.conftest import Fleet
from pgq_fast.errors import LayoutMismatchError
from pgq_fast.queries import Queries
from pgq_fast.settings import Layout
from support.drivers import MakeDriver
from support.layouts import LAYOUT_VARIABLE, queries_of

pytestmark = [pytest.mark.timeout(180), pytest.mark.pg_matrix]


class Producer:
    """Enqueues on a layout until it is gone, and keeps account."""

    def __init__(self, queries: Queries) -> None:
        self.queries = queries
        self.ids: list[int] = []

    async def run(self) -> None:
        number = 0
        try:
            while True:
                number += 1
                if number % 3:
                    self.ids += await self.queries.enqueue("once", b"x", number % 5)
                else:
                    count = 20
                    self.ids += await self.queries.enqueue(
                        ["once"] * count, [b"y"] * count, list(range(count))
                    )
                await asyncio.sleep(0.02)
        except LayoutMismatchError:
            pass


async def move(
    fleet: Fleet, make_driver: MakeDriver, source: Layout, to: Layout, backlog: int
) -> list[int]:
    """Migrate with a backlog while producers and workers go on; the ids of all jobs."""
    producers = [
        Producer(queries_of(await make_driver("asyncpg", fleet.dsn), source)) for _ in range(3)
    ]
    first = producers[0]
    first.ids += await first.queries.enqueue(["once"] * backlog, [b"z"] * backlog, [0] * backlog)
    tasks = [asyncio.create_task(producer.run()) for producer in producers]
    before = len(await fleet.notes("job_id"))

    async def under_way() -> bool:
        return len(await fleet.notes("job_id")) > before + 50

    await eventually(under_way)
    queries = queries_of(await make_driver("asyncpg", fleet.dsn), source)
    report = await queries.migrate(to, batch_size=500)
    assert report.requeued == 0
    async with asyncio.timeout(30):
        await asyncio.gather(*tasks)
    return [job_id for producer in producers for job_id in producer.ids]


async def gone(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait for workers to end by themselves, with an error."""
    for worker in workers:
        assert await asyncio.to_thread(worker.wait, 40) != 0


async def all_ended(fleet: Fleet) -> bool:
    return await fleet.tables.count() == 0


async def test_each_job_runs_once_wherever_it_is(
    fleet: Fleet, make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = [fleet.start("pgq_fast", poll=0.2, batch=size) for size in (10, 100)]
    theirs = fleet.start("pgqueuer", poll=0.2)
    ids = await move(fleet, make_driver, Layout.compat, Layout.lease, 3000)
    # A worker ends when it asks for jobs; pgqueuer's is not told why.
    await gone(ours)
    theirs.kill()
    monkeypatch.setenv(LAYOUT_VARIABLE, Layout.lease.value)
    ours = [fleet.start("pgq_fast", poll=0.2, batch=size) for size in (10, 100)]
    ids += await move(fleet, make_driver, Layout.lease, Layout.compat, 3000)
    await gone(ours)
    monkeypatch.setenv(LAYOUT_VARIABLE, Layout.compat.value)
    last = fleet.start("pgq_fast", poll=0.2, batch=100)
    await eventually(lambda: all_ended(fleet))
    await fleet.end(last)
    assert len(ids) == len(set(ids)) > 6000
    assert sorted(await fleet.notes("job_id")) == sorted(ids)
    assert await fleet.tables.ended() == sorted(ids)
    assert await fleet.tables.ended("queued") == sorted(ids)
