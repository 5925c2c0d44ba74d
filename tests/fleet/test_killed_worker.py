"""A worker that is killed at any moment loses nothing."""

from __future__ import annotations

import asyncio

import pytest

from behaviour.helpers import eventually
from fleet.conftest import Fleet
from pgq_fast.queries import Queries
from support.drivers import MakeDriver

pytestmark = pytest.mark.timeout(100)

JOBS = 20_000


async def test_killed_again_and_again_in_the_middle_of_the_work(
    fleet: Fleet, make_driver: MakeDriver
) -> None:
    queries = Queries(await make_driver("asyncpg", fleet.dsn))
    ids = await queries.enqueue(["quick"] * JOBS, [b"x" * 32] * JOBS, [0] * JOBS)
    for turn in range(1, 4):
        worker = fleet.start("pgq_fast", batch=200, heartbeat=1)

        async def advanced(turn: int = turn) -> bool:
            return await fleet.tables.count() < JOBS - turn * JOBS // 5

        await eventually(advanced)
        worker.kill()
        worker.wait()
    assert await fleet.tables.count() > 0
    worker = fleet.start("pgq_fast", batch=200, heartbeat=1, poll=0.2)

    async def all_ended() -> bool:
        return await fleet.tables.count() == 0

    await eventually(all_ended)
    await fleet.end(worker)
    assert await fleet.tables.ended() == ids


async def test_killed_beside_others_that_go_on(fleet: Fleet, make_driver: MakeDriver) -> None:
    queries = Queries(await make_driver("asyncpg", fleet.dsn))
    workers = [fleet.start("pgq_fast", batch=50, heartbeat=1, poll=0.2) for _ in range(2)]
    ids: list[int] = []
    for turn in range(5):
        ids += await queries.enqueue(["once"] * 400, [None] * 400, [0] * 400)
        await asyncio.sleep(0.1 + 0.05 * turn)
        if turn == 2:
            workers[0].kill()
            workers[0].wait()

    async def all_ended() -> bool:
        return await fleet.tables.count() == 0

    await eventually(all_ended)
    await fleet.end(workers[1])
    assert await fleet.tables.ended() == ids
    # At least once each; more than once only what the killed one had in hand.
    assert set(await fleet.notes("job_id")) == set(ids)
