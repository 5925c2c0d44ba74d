"""``concurrency_limit`` holds at every instant, over all workers, and no seat stays empty."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from behaviour.helpers import QUIET, Gate, Recorder, Tables, drain, eventually
from pgq_fast.errors import RetryRequested
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.types import QueueExecutionMode

# Nothing of this is in a kernel.
pytestmark = [pytest.mark.pg_matrix, pytest.mark.layouts(), pytest.mark.impl_agnostic]

Another = Callable[[], Awaitable[QueueManager]]


async def picked(tables: Tables, name: str = "e") -> int:
    number: int = await tables.value(
        "SELECT count(*) FROM pgqueuer WHERE status = 'picked' AND entrypoint = $1", name
    )
    return number


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize("workers", [1, 3])
async def test_as_many_as_allowed_and_never_more(
    another: Another, tables: Tables, limit: int, workers: int
) -> None:
    handler = Recorder(pause=0.004)
    managers = [await another() for _ in range(workers)]
    for manager in managers:
        manager.entrypoint("e", concurrency_limit=limit)(handler)
    ids = await managers[0].queries.enqueue(["e"] * 60, [None] * 60, [0] * 60)
    highest = 0
    finished = asyncio.Event()

    async def watch() -> None:
        nonlocal highest
        while not finished.is_set():
            highest = max(highest, await picked(tables))

    watching = asyncio.create_task(watch())
    await asyncio.gather(*[drain(manager) for manager in managers])
    finished.set()
    await watching
    assert handler.most == limit
    assert highest == limit
    assert sorted(handler.ids) == ids
    assert await tables.ended() == ids


async def test_all_seats_are_taken_though_the_workers_compete(
    another: Another, tables: Tables
) -> None:
    """Blocked jobs: no seat may stay empty for want of another notification."""
    gate = Gate()
    managers = [await another() for _ in range(3)]
    for manager in managers:
        manager.entrypoint("e", concurrency_limit=7)(gate)
    await managers[0].queries.enqueue(["e"] * 30, [None] * 30, [0] * 30)
    tasks = [
        asyncio.create_task(manager.run(mode=QueueExecutionMode.drain, batch_size=2, **QUIET))
        for manager in managers
    ]
    await eventually(lambda: len(gate.started) == 7)
    await asyncio.sleep(0.3)
    assert len(gate.started) == 7
    assert sorted(await tables.rows("SELECT slot FROM pgqueuer WHERE status = 'picked'")) == list(
        range(7)
    )
    gate.open.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert len(gate.ended) == 30


async def test_limits_of_several_entrypoints_do_not_hinder_each_other(
    another: Another, tables: Tables
) -> None:
    handlers = {name: Recorder(pause=0.003) for name in ("one", "two", "free")}
    limits = {"one": 1, "two": 2, "free": 0}
    managers = [await another() for _ in range(3)]
    for manager in managers:
        for name, handler in handlers.items():
            manager.entrypoint(name, concurrency_limit=limits[name])(handler)
    names = ["one", "two", "free"] * 25
    priorities = [9 if name == "one" else 0 for name in names]
    ids = await managers[0].queries.enqueue(names, [None] * 75, priorities)
    await asyncio.gather(*[drain(manager, batch_size=5) for manager in managers])
    assert handlers["one"].most == 1
    assert handlers["two"].most == 2
    assert handlers["free"].most > 2
    assert await tables.ended() == ids


async def test_a_full_entrypoint_does_not_stand_in_the_way_of_others(
    another: Another,
) -> None:
    gate, handler = Gate(), Recorder()
    manager = await another()
    manager.entrypoint("full", concurrency_limit=1)(gate)
    manager.entrypoint("free")(handler)
    await manager.queries.enqueue(["full"] * 50, [None] * 50, [9] * 50)
    task = asyncio.create_task(manager.run(batch_size=5, **QUIET))
    await eventually(lambda: gate.started)
    await manager.queries.enqueue(["free"] * 20, [None] * 20, [0] * 20)
    await eventually(lambda: len(handler.jobs) == 20)
    assert len(gate.started) == 1
    manager.shutdown.set()
    gate.open.set()
    await asyncio.wait_for(task, 20)


async def test_limits_with_retries_failures_and_cancellations(
    another: Another, tables: Tables
) -> None:
    """Whatever way a job ends, its seat is free again."""
    running = most = 0

    async def handler(job: Job) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(0.002)
            if job.id % 4 == 0 and job.attempts < 1:
                raise RetryRequested(timedelta(milliseconds=1))
            if job.id % 4 == 1:
                raise ValueError("broken")
            if job.id % 4 == 2:
                raise asyncio.CancelledError
        finally:
            running -= 1

    managers = [await another() for _ in range(2)]
    for manager in managers:
        manager.entrypoint("e", concurrency_limit=2, on_failure="hold")(handler)
    ids = await managers[0].queries.enqueue(["e"] * 40, [None] * 40, [0] * 40)
    await asyncio.gather(*[drain(manager) for manager in managers])
    assert most == 2
    assert await tables.ended() == [job_id for job_id in ids if job_id % 4 in (0, 3)]
    assert await tables.ended("failed") == [job_id for job_id in ids if job_id % 4 == 1]
    assert await tables.ended("canceled") == [job_id for job_id in ids if job_id % 4 == 2]


async def test_seats_of_a_dead_worker_are_inherited(another: Another, tables: Tables) -> None:
    manager = await another()
    ids = await manager.queries.enqueue(["e"] * 6, [None] * 6, [0] * 6)
    await tables.pick(*ids[:2], silent=timedelta(hours=1), seated=True)
    handler = Recorder(pause=0.004)
    manager.entrypoint("e", concurrency_limit=2)(handler)
    await drain(manager, heartbeat_timeout=timedelta(minutes=1))
    assert handler.most == 2
    assert sorted(handler.ids) == ids
