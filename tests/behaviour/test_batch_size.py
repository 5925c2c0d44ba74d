"""How many jobs a worker takes at a time, and how many it runs."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from behaviour.helpers import (
    QUIET,
    ClaimNote,
    Gate,
    LayoutSpy,
    Recorder,
    Tables,
    block,
    drain,
    eventually,
    working,
)
from pgq_fast import supervisor
from pgq_fast.applications import PgQueuer
from pgq_fast.cli.run import run_worker
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.types import QueueExecutionMode, QueueManagerId

# Nothing of this is in a kernel.
pytestmark = [pytest.mark.layouts, pytest.mark.impl_agnostic]

Another = Callable[[], Awaitable[QueueManager]]

FIRST = 10
"""Jobs that a worker claims while it does not know how long they take; pgqueuer's default."""


@pytest.fixture
def kind() -> str:
    """What is claimed does not depend on the driver: one kind will do."""
    return "asyncpg"


async def put(manager: QueueManager, count: int, name: str = "e") -> list[int]:
    ids = await manager.queries.enqueue([name] * count, [None] * count, [0] * count)
    return [int(job_id) for job_id in ids if job_id is not None]


class Blocking:
    """A handler that keeps the event loop busy, and counts."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.started = 0

    async def __call__(self, job: Job) -> None:
        self.started += 1
        if self.seconds:
            block(self.seconds)


def later_half(numbers: list[int]) -> list[int]:
    """Without the time in which a worker gets to know its handlers."""
    return numbers[len(numbers) // 2 :]


# -- A batch size that is given ---------------------------------------------------------------


@pytest.mark.parametrize("pause", [0.0, 0.002])
async def test_a_given_size_is_never_exceeded(
    manager: QueueManager, tables: Tables, spy: LayoutSpy, pause: float
) -> None:
    manager.entrypoint("e")(Recorder(pause))
    ids = await put(manager, 100)
    await drain(manager, batch_size=7)
    assert await tables.ended() == ids
    assert max(spy.wanted) == 7
    assert max(len(note.ids) for note in spy.claims) == 7


async def test_a_given_size_must_fit_the_most_tasks(manager: QueueManager) -> None:
    manager.entrypoint("e")(Recorder())
    with pytest.raises(RuntimeError, match="max_concurrent_tasks"):
        await drain(manager, batch_size=10, max_concurrent_tasks=19)
    await drain(manager, batch_size=10, max_concurrent_tasks=20)
    manager.shutdown.clear()
    await drain(manager, batch_size=None, max_concurrent_tasks=1)
    with pytest.raises(ValueError, match="batch_size"):
        await drain(manager, batch_size=0)


# -- None: the worker finds its size ----------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [PgQueuer.run, QueueManager.run, supervisor.run, run_worker],
    ids=["application", "manager", "supervisor", "command line"],
)
def test_no_size_is_the_default(function: Callable[..., object]) -> None:
    assert inspect.signature(function).parameters["batch_size"].default is None


@pytest.mark.parametrize("through", ["manager", "application", "supervisor"])
async def test_batches_of_quick_jobs_grow(
    manager: QueueManager, tables: Tables, spy: LayoutSpy, through: str
) -> None:
    handler = Blocking()
    pgq = PgQueuer(manager.queries.driver)
    pgq.entrypoint("e")(handler)
    await put(manager, 3000)

    @contextlib.asynccontextmanager
    async def factory() -> AsyncIterator[PgQueuer]:
        yield pgq

    if through == "manager":
        await drain(pgq.qm)
    elif through == "application":
        await pgq.run(mode=QueueExecutionMode.drain, **QUIET)
    else:
        await supervisor.run(factory, mode=QueueExecutionMode.drain, shutdown=asyncio.Event())
    assert handler.started == 3000
    assert spy.wanted[0] == FIRST
    assert max(spy.wanted) >= 100
    assert max(spy.wanted) <= pgq.qm.max_jobs_in_flight


async def test_batches_of_slow_jobs_shrink(manager: QueueManager, spy: LayoutSpy) -> None:
    """Jobs that block the event loop: what waits here for its start could run elsewhere."""
    handler = Blocking(0.020)
    manager.entrypoint("e")(handler)
    claimed = 0
    waiting: list[int] = []

    def note_waiting(note: ClaimNote) -> None:
        nonlocal claimed
        claimed += len(note.ids)
        waiting.append(claimed - handler.started)

    spy.on_claim = note_waiting
    await put(manager, 60)
    await drain(manager)
    assert handler.started == 60
    assert spy.wanted[0] == FIRST
    # 100 ms of work are five jobs, and one batch comes on top of those.
    assert max(waiting) <= 5 + FIRST
    assert max(later_half(spy.wanted)) < FIRST
    assert max(later_half(waiting)) <= 10


async def test_less_work_is_held_where_that_is_asked_for(another: Another, spy: LayoutSpy) -> None:
    wanted: list[list[int]] = []
    for held in (timedelta(milliseconds=10), None):
        manager = await another()
        if held is None:
            assert manager.held_work == timedelta(milliseconds=100)
        else:
            manager.held_work = held
        manager.entrypoint("e")(Blocking(0.001))
        await put(manager, 400)
        spy.claims.clear()
        await drain(manager)
        wanted.append(later_half(spy.wanted))
    little, much = (statistics.median(sizes) for sizes in wanted)
    assert 2 * little <= much


async def test_jobs_that_only_wait_run_by_the_thousand(
    manager: QueueManager, tables: Tables
) -> None:
    """Waiting costs a worker nothing, so it may hold many such jobs."""
    handler = Recorder(pause=1.0)
    manager.entrypoint("e")(handler)
    ids = await put(manager, 3000)
    await drain(manager)
    assert await tables.ended() == ids
    assert handler.most >= 1000


# -- Ceilings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 20])
async def test_jobs_in_flight_have_a_ceiling(
    manager: QueueManager, tables: Tables, batch_size: int | None
) -> None:
    assert manager.max_jobs_in_flight == 20_000
    manager.max_jobs_in_flight = 50
    gate = Gate()
    manager.entrypoint("e")(gate)
    ids = await put(manager, 200)
    async with working(manager, batch_size=batch_size):
        await eventually(lambda: len(gate.started) > 25)
        await asyncio.sleep(0.2)
        assert len(gate.started) <= 50
        assert await tables.count("picked") <= 50
        gate.open.set()
        await eventually(lambda: len(gate.ended) == 200)
    assert await tables.ended() == ids


@pytest.mark.parametrize(
    ("most", "batch_size", "count"),
    [(1, None, 12), (3, None, 40), (17, None, 150), (17, 7, 150), (40, 20, 200)],
)
async def test_the_most_tasks_are_exact(
    manager: QueueManager, tables: Tables, most: int, batch_size: int | None, count: int
) -> None:
    # Long enough for the next claims to come meanwhile.
    handler = Recorder(pause=0.1)
    manager.entrypoint("e")(handler)
    ids = await put(manager, count)
    await drain(manager, batch_size=batch_size, max_concurrent_tasks=most)
    assert handler.most == most
    assert await tables.ended() == ids


async def test_the_most_tasks_are_reached_again(manager: QueueManager) -> None:
    """No seat stays empty while others are busy with long jobs."""
    gate, handler = Gate(), Recorder()
    manager.entrypoint("long")(gate)
    manager.entrypoint("short")(handler)
    await put(manager, 7, "long")
    async with working(manager, max_concurrent_tasks=8):
        await eventually(lambda: len(gate.started) == 7)
        # One after the other through the one seat that is left.
        await put(manager, 30, "short")
        await eventually(lambda: len(handler.jobs) == 30)
        assert handler.most == 1
        await put(manager, 5, "long")
        await eventually(lambda: len(gate.started) == 8)
        gate.open.set()
        await eventually(lambda: len(gate.ended) == 12)


# -- Shares -----------------------------------------------------------------------------------


async def test_workers_that_start_together_share_the_work(
    another: Another, tables: Tables, spy: LayoutSpy
) -> None:
    """Jobs that only wait: however quick a worker is, the others get their part.

    The claims go round in step here, as with workers that are equally quick.
    """
    gates = [Gate() for _ in range(4)]
    managers = [await another() for _ in gates]
    for manager, gate in zip(managers, gates, strict=True):
        manager.entrypoint("e")(gate)
        # A machine that is busy with something else for a moment must not make batches smaller.
        manager.held_work = timedelta(minutes=1)
    ids = await put(managers[0], 400)
    together = asyncio.Barrier(len(managers))
    rounds = Counter[QueueManagerId]()

    async def in_step(owner: QueueManagerId) -> None:
        rounds[owner] += 1
        if rounds[owner] <= 9:
            await together.wait()

    spy.before_claim = in_step
    async with contextlib.AsyncExitStack() as stack:
        for manager in managers:
            await stack.enter_async_context(working(manager))
        await eventually(lambda: sum(len(gate.started) for gate in gates) == len(ids))
        shares = [len(gate.started) for gate in gates]
        assert min(shares) >= 80, shares
        for gate in gates:
            gate.open.set()
        await eventually(lambda: sum(len(gate.ended) for gate in gates) == len(ids))
    assert await tables.ended() == ids


async def test_a_flooded_entrypoint_does_not_drown_the_others(
    manager: QueueManager, tables: Tables
) -> None:
    """Jobs of another entrypoint, enqueued after thousands, start among the next ones."""
    order: list[str] = []
    enough = asyncio.Event()

    @manager.entrypoint("flooded")
    async def flooded(job: Job) -> None:
        order.append("flooded")
        if len(order) >= 400:
            enough.set()
        await asyncio.sleep(0.005)

    @manager.entrypoint("quiet")
    async def quiet(job: Job) -> None:
        order.append("quiet")

    await put(manager, 5000, "flooded")
    task = asyncio.create_task(drain(manager, max_concurrent_tasks=20))
    await enough.wait()
    await put(manager, 5, "quiet")
    since = len(order)
    await task
    assert len(order) == 5005
    places = [place - since for place, name in enumerate(order) if name == "quiet"]
    assert len(places) == 5
    # A few batches of 20; all that was there before them would be more than 4,000.
    assert max(places) <= 200


@pytest.mark.parametrize("limit", [0, 1000], ids=["unlimited", "limited"])
async def test_a_claim_takes_from_all_that_have_jobs(
    manager: QueueManager, tables: Tables, spy: LayoutSpy, limit: int
) -> None:
    names = {"flooded": 300, "b": 25, "c": 8}
    manager.entrypoint("flooded")(Blocking())
    manager.entrypoint("b", concurrency_limit=limit)(Blocking())
    manager.entrypoint("c")(Blocking())
    left: Counter[str] = Counter()
    for name, count in names.items():
        await put(manager, count, name)
        left[name] = count
    await drain(manager, batch_size=30)
    for note in spy.claims:
        if not note.ids:
            continue
        assert {name for name, count in left.items() if count} == set(note.entrypoints)
        # Full as long as there is enough, however unequal what the entrypoints have.
        assert len(note.ids) == min(30, left.total())
        left.subtract(note.entrypoints)
    assert left.total() == 0


async def test_priority_goes_before_fairness(manager: QueueManager, spy: LayoutSpy) -> None:
    """Only equals share: what is more urgent comes first, whatever entrypoint it belongs to."""
    handler = Recorder()
    for name in ("a", "b", "c"):
        manager.entrypoint(name)(handler)
    await put(manager, 50, "a")
    urgent = await manager.queries.enqueue(["b"] * 25, [None] * 25, [5] * 25)
    most_urgent = await manager.queries.enqueue(["c"] * 5, [None] * 5, [9] * 5)
    await drain(manager, batch_size=10)
    assert handler.ids[:30] == [*most_urgent, *urgent]
    assert [job.entrypoint for job in handler.jobs[30:]] == ["a"] * 50
