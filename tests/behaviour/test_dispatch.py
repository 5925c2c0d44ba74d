"""A handler runs as in a task of its own, however the worker runs it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import logging
import os
import signal
import subprocess
import sys
import types
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import psycopg
import pytest

from behaviour.helpers import (
    DEADLINE,
    QUIET,
    Gate,
    Recorder,
    Tables,
    drain,
    eventually,
    last_statuses,
    working,
)
from pgq_fast import tracing
from pgq_fast.applications import PgQueuer
from pgq_fast.executors import AbstractEntrypointExecutor
from pgq_fast.logconfig import logger
from pgq_fast.models import Context, Job
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries

pytestmark = pytest.mark.layouts

EVENT_LOOPS = ("asyncio", "uvloop")

ROUNDS = 3

Handler = Callable[[Job], Awaitable[Any]]


@pytest.fixture
def kind() -> str:
    """Handlers do not meet the driver: one kind will do."""
    return "asyncpg"


async def put(manager: QueueManager, *names: str) -> list[int]:
    """Enqueue a job for each of *names*, in that order."""
    ids = await manager.queries.enqueue(list(names), [None] * len(names), [0] * len(names))
    return [int(job_id) for job_id in ids if job_id is not None]


async def outcomes(
    manager: QueueManager, tables: Tables, handlers: dict[str, Handler]
) -> dict[str, str]:
    """Run a job of each of *handlers*, several times over; how each ended, every time.

    What an earlier round leaves behind meets the later ones. A failing assertion in a handler shows
    as ``exception``, and its traceback in the log.
    """
    for name, handler in handlers.items():
        manager.entrypoint(name)(handler)
    rounds = []
    async with working(manager, batch_size=len(handlers)):
        for _ in range(ROUNDS):
            ids = await put(manager, *handlers)
            await eventually(lambda ids=ids: _all_ended(tables, ids))  # type: ignore[misc]
            rounds.append(dict(zip(handlers, await last_statuses(tables, ids), strict=True)))
    assert rounds == [rounds[0]] * ROUNDS
    return rounds[0]


def my_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def expect_a_clean_task(job: Job) -> None:
    """A handler: nothing of what ran in this task before must be felt."""
    task = my_task()
    assert task.cancelling() == 0
    for _ in range(3):
        await asyncio.sleep(0.001)
        assert my_task() is task
        assert task.cancelling() == 0
    assert task.cancel()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        assert task.uncancel() == 0
    else:
        raise AssertionError("the cancellation did not arrive")


async def expect_clean_tasks(manager: QueueManager, tables: Tables, count: int = 10) -> None:
    """Run jobs on *manager* that look for what earlier ones left in their tasks."""
    manager.entrypoint("clean")(expect_a_clean_task)
    ids = await put(manager, *["clean"] * count)
    await eventually(lambda: _all_ended(tables, ids))
    assert await last_statuses(tables, ids) == ["successful"] * count


async def _all_ended(tables: Tables, ids: list[int]) -> bool:
    left: int = await tables.value("SELECT count(*) FROM pgqueuer WHERE id = ANY($1)", ids)
    return left == 0


# -- The task ---------------------------------------------------------------------------------


async def test_a_handler_has_a_task_of_its_own(manager: QueueManager, tables: Tables) -> None:
    found: list[asyncio.Task[Any]] = []
    met = asyncio.Barrier(5)

    async def alone(job: Job) -> None:
        task = my_task()
        assert isinstance(task, asyncio.Task)
        found.append(task)
        # All five are suspended here at the same time.
        await met.wait()
        assert my_task() is task
        await asyncio.sleep(0.001)
        assert my_task() is task

    async def never_suspends(job: Job) -> None:
        assert isinstance(my_task(), asyncio.Task)
        assert my_task() not in found
        assert my_task() is not runner

    for name, handler in {"alone": alone, "never suspends": never_suspends}.items():
        manager.entrypoint(name)(handler)
    ids = await put(manager, *["alone"] * 5, *["never suspends"] * 5)
    runner = asyncio.create_task(drain(manager))
    await runner
    assert await last_statuses(tables, ids) == ["successful"] * 10
    assert len(set(found)) == 5
    assert runner not in found


async def test_it_is_none_of_an_applications_tasks(queries: Queries, tables: Tables) -> None:
    """Neither the caller's of ``PgQueuer.run`` nor those which that makes for its managers."""
    pgq = PgQueuer(queries.driver)
    before: set[asyncio.Task[Any]] = set()
    found: list[asyncio.Task[Any]] = []

    @pgq.entrypoint("e")
    async def handler(job: Job) -> None:
        found.append(my_task())
        await asyncio.sleep(0)
        found.append(my_task())
        pgq.shutdown.set()

    verify = pgq.qm.verify_structure

    async def first_step() -> None:
        # Runs in the task that goes on to run the worker.
        before.add(my_task())
        await verify()

    pgq.qm.verify_structure = first_step  # type: ignore[method-assign]
    ids = await put(pgq.qm, "e")
    runner = asyncio.create_task(pgq.run(**QUIET))
    await asyncio.wait_for(runner, DEADLINE)
    assert len(set(found)) == 1
    assert len(before) == 1
    assert not set(found) & {*before, runner}
    assert await last_statuses(tables, ids) == ["successful"]


async def test_timeouts(manager: QueueManager, tables: Tables) -> None:
    async def fires(job: Job) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)

    async def fires_and_is_caught(job: Job) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        assert my_task().cancelling() == 0
        await asyncio.sleep(0.001)

    async def without_suspending() -> None:
        pass

    async def does_not_fire(job: Job) -> None:
        async with asyncio.timeout(0.02):
            await asyncio.sleep(0)

    async def not_even_suspended(job: Job) -> None:
        async with asyncio.timeout(0.02):
            await without_suspending()

    async def longer_than_the_others_timeouts(job: Job) -> None:
        await asyncio.sleep(0.05)

    async def at_once(job: Job) -> None:
        async with asyncio.timeout(0):
            await asyncio.sleep(60)

    async def wait_for(job: Job) -> None:
        assert await asyncio.wait_for(asyncio.sleep(0.001, "result"), 10) == "result"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(60), 0.01)
        # One that times out in the outer block, not in the inner one.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.wait_for(asyncio.sleep(60), 60)

    async def wait_for_fires(job: Job) -> None:
        await asyncio.wait_for(asyncio.Event().wait(), 0.01)

    handlers: dict[str, Handler] = {
        "fires": fires,
        "fires and is caught": fires_and_is_caught,
        "does not fire": does_not_fire,
        "not even suspended": not_even_suspended,
        "longer": longer_than_the_others_timeouts,
        "at once": at_once,
        "wait_for": wait_for,
        "wait_for fires": wait_for_fires,
    }
    failing = {"fires", "at once", "wait_for fires"}
    assert await outcomes(manager, tables, handlers) == {
        name: "exception" if name in failing else "successful" for name in handlers
    }
    assert {
        entry.traceback.exception_type
        for entry in await manager.queries.queue_log()
        if entry.traceback
    } == {"TimeoutError"}


async def test_timeouts_leave_nothing_behind(manager: QueueManager, tables: Tables) -> None:
    """Whoever runs in the same task afterwards, if it is the same, is not cut off by them."""

    async def handler(job: Job) -> None:
        seconds = 0.002 if job.id % 2 else 0.05
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.sleep(0.01)

    manager.entrypoint("e")(handler)
    async with working(manager):
        ids = await put(manager, *["e"] * 20)
        await eventually(lambda: _all_ended(tables, ids))
        await expect_clean_tasks(manager, tables, 30)
    assert await last_statuses(tables, ids) == ["successful"] * 20


async def test_task_groups_and_shields(manager: QueueManager, tables: Tables) -> None:
    cancelled: list[str] = []

    async def forever(name: str) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(name)
            raise

    async def fail() -> None:
        await asyncio.sleep(0.001)
        raise LookupError("the child's")

    async def children_succeed(job: Job) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0.001 * n, n)) for n in range(3)]
        assert [task.result() for task in tasks] == [0, 1, 2]

    async def child_fails(job: Job) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(forever("sibling"))
            group.create_task(fail())
            await forever("parent")

    async def child_fails_and_is_handled(job: Job) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                await asyncio.sleep(60)
        except* LookupError:
            pass
        assert my_task().cancelling() == 0
        await asyncio.sleep(0)

    async def shield(job: Job) -> None:
        inner = asyncio.create_task(asyncio.sleep(0.02, "done"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(inner), 0.001)
        assert await inner == "done"

    async def gather(job: Job) -> None:
        assert await asyncio.gather(*[asyncio.sleep(0, n) for n in range(4)]) == [0, 1, 2, 3]
        with pytest.raises(LookupError):
            await asyncio.gather(fail(), asyncio.sleep(0))

    handlers: dict[str, Handler] = {
        "children succeed": children_succeed,
        "child fails": child_fails,
        "child fails, handled": child_fails_and_is_handled,
        "shield": shield,
        "gather": gather,
    }
    assert await outcomes(manager, tables, handlers) == {
        name: "exception" if name == "child fails" else "successful" for name in handlers
    }
    assert sorted(cancelled) == ["parent"] * ROUNDS + ["sibling"] * ROUNDS
    entry, *_ = await manager.queries.exception_logs()  # type: ignore[attr-defined]
    assert entry.traceback.exception_type == "ExceptionGroup"
    assert "LookupError: the child's" in entry.traceback.traceback


async def test_anyio(manager: QueueManager, tables: Tables) -> None:
    cancelled: list[int] = []

    async def forever(job: Job) -> None:
        try:
            await anyio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(job.id)
            raise

    async def move_on(job: Job) -> None:
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep(60)
        assert scope.cancelled_caught
        assert my_task().cancelling() == 0
        with anyio.move_on_after(10) as scope:
            await anyio.lowlevel.checkpoint()
        assert not scope.cancelled_caught

    async def fail_after(job: Job) -> None:
        with anyio.fail_after(0.01):
            await anyio.sleep(60)

    async def group(job: Job) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(forever, job)
            await anyio.sleep(0.001)
            tasks.cancel_scope.cancel()
        assert cancelled[-1:] == [job.id]

    async def scopes(job: Job) -> None:
        with anyio.CancelScope() as outer:
            with anyio.CancelScope(shield=True) as inner:
                outer.cancel()
                await anyio.sleep(0.001)
            assert not inner.cancelled_caught
            await anyio.sleep(60)
        assert outer.cancelled_caught
        await anyio.lowlevel.checkpoint()

    async def thread(job: Job) -> None:
        assert await anyio.to_thread.run_sync(lambda: job.id) == job.id
        assert await asyncio.to_thread(lambda: job.id) == job.id
        assert anyio.get_current_task().id == id(my_task())

    handlers: dict[str, Handler] = {
        "move_on_after": move_on,
        "fail_after": fail_after,
        "task group": group,
        "scopes": scopes,
        "thread": thread,
    }
    assert await outcomes(manager, tables, handlers) == {
        name: "exception" if name == "fail_after" else "successful" for name in handlers
    }


# -- Context variables ------------------------------------------------------------------------

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def test_variables_belong_to_one_job(manager: QueueManager, tables: Tables) -> None:
    """Set before, between and after awaits, they are the caller's again in the next job."""
    seen: list[str] = []

    def note() -> None:
        seen.append(variable.get())

    async def at_once(job: Job) -> None:
        note()
        variable.set("set at once")

    async def before(job: Job) -> None:
        note()
        variable.set("set before")
        await asyncio.sleep(0.001)
        assert variable.get() == "set before"

    async def after(job: Job) -> None:
        note()
        await asyncio.sleep(0.001)
        # Others have run meanwhile and set it.
        note()
        variable.set("set after")
        await asyncio.sleep(0.001)
        assert variable.get() == "set after"
        variable.set("at the end")

    async def fails(job: Job) -> None:
        note()
        variable.set("failed")
        raise ValueError("broken")

    async def ends_cancelled(job: Job) -> None:
        note()
        variable.set("cancelled")
        my_task().cancel()
        await asyncio.sleep(0)

    handlers: dict[str, Handler] = {
        "at once": at_once,
        "before": before,
        "after": after,
        "fails": fails,
        "cancelled": ends_cancelled,
    }
    for name, handler in handlers.items():
        manager.entrypoint(name)(handler)
    variable.set("the caller's")
    ids = await put(manager, *[*handlers] * 10)
    await drain(manager, batch_size=7)
    ends = ["successful", "successful", "successful", "exception", "canceled"]
    assert await last_statuses(tables, ids) == ends * 10
    assert set(seen) == {"the caller's"}
    assert len(seen) == 60
    assert variable.get() == "the caller's"


async def test_variables_in_what_a_handler_starts(manager: QueueManager, tables: Tables) -> None:
    async def child() -> str:
        found = variable.get()
        variable.set("the child's")
        await asyncio.sleep(0.001)
        return found

    def of_thread() -> str:
        return variable.get()

    async def handler(job: Job) -> None:
        mine = f"of job {job.id}"
        variable.set(mine)
        heard = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: heard.set_result(variable.get()))
        task = asyncio.create_task(child())
        assert await heard == mine
        async with asyncio.TaskGroup() as group:
            grouped = group.create_task(child())
        assert (await task, grouped.result()) == (mine, mine)
        assert await asyncio.to_thread(of_thread) == mine
        assert await anyio.to_thread.run_sync(of_thread) == mine
        assert variable.get() == mine
        # A copy that was made in the job stays the job's.
        context = contextvars.copy_context()
        await asyncio.sleep(0.001)
        assert context.run(variable.get) == mine

    manager.entrypoint("e")(handler)
    ids = await put(manager, *["e"] * 10)
    await drain(manager, batch_size=5)
    assert await last_statuses(tables, ids) == ["successful"] * 10


async def test_a_variable_is_reset_across_awaits(manager: QueueManager, tables: Tables) -> None:
    """A token is good only in the context in which it was made."""

    @contextlib.asynccontextmanager
    async def block(value: str) -> AsyncIterator[None]:
        token = variable.set(value)
        await asyncio.sleep(0)
        try:
            yield
        finally:
            await asyncio.sleep(0)
            variable.reset(token)

    async def handler(job: Job) -> None:
        assert variable.get() == "unset"
        async with block(f"outer of {job.id}"):
            async with block("inner"):
                await asyncio.sleep(0.001)
                assert variable.get() == "inner"
            assert variable.get() == f"outer of {job.id}"
        assert variable.get() == "unset"

    manager.entrypoint("e")(handler)
    ids = await put(manager, *["e"] * 10)
    await drain(manager, batch_size=5)
    assert await last_statuses(tables, ids) == ["successful"] * 10


# -- Cancellation -----------------------------------------------------------------------------


async def test_jobs_that_are_cancelled_from_inside(manager: QueueManager, tables: Tables) -> None:
    async def itself(job: Job) -> None:
        my_task().cancel()
        await asyncio.sleep(60)

    async def itself_later(job: Job) -> None:
        await asyncio.sleep(0.001)
        my_task().cancel("a message")
        await asyncio.sleep(60)

    async def by_child(job: Job) -> None:
        parent = my_task()

        async def child() -> None:
            parent.cancel()

        task = asyncio.create_task(child())
        await asyncio.sleep(60)
        await task

    async def by_timer(job: Job) -> None:
        asyncio.get_running_loop().call_later(0.001, my_task().cancel)
        await asyncio.sleep(60)

    async def cleans_up_first(job: Job) -> None:
        my_task().cancel()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.001)

    async def swallows(job: Job) -> None:
        # Without uncancel(): the task still counts as being cancelled, and twice at that.
        for _ in range(2):
            my_task().cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        assert my_task().cancelling() == 2

    async def turns_into_a_failure(job: Job) -> None:
        my_task().cancel()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("broken") from None

    async def bystander(job: Job) -> None:
        assert my_task().cancelling() == 0
        await asyncio.sleep(0.02)
        assert my_task().cancelling() == 0

    handlers: dict[str, Handler] = {
        "itself": itself,
        "itself later": itself_later,
        "by child": by_child,
        "by timer": by_timer,
        "cleans up first": cleans_up_first,
        "swallows": swallows,
        "turns into a failure": turns_into_a_failure,
        "bystander": bystander,
        **{f"clean {number}": expect_a_clean_task for number in range(8)},
    }
    assert await outcomes(manager, tables, handlers) == {
        "itself": "canceled",
        "itself later": "canceled",
        "by child": "canceled",
        "by timer": "canceled",
        "cleans up first": "canceled",
        "swallows": "successful",
        "turns into a failure": "exception",
        "bystander": "successful",
        **{f"clean {number}": "successful" for number in range(8)},
    }


async def test_a_cancellation_that_comes_to_nothing(manager: QueueManager, tables: Tables) -> None:
    """A handler that asks for its end and then ends by itself; the next job is not hit instead."""

    async def returns(job: Job) -> None:
        my_task().cancel()

    async def returns_later(job: Job) -> None:
        await asyncio.sleep(0.001)
        my_task().cancel()

    async def fails(job: Job) -> None:
        my_task().cancel()
        raise ValueError("broken")

    ends = {"returns": returns, "returns later": returns_later, "fails": fails}
    for name, handler in ends.items():
        manager.entrypoint(name)(handler)
    async with working(manager):
        ids = await put(manager, *[*ends] * 5)
        await eventually(lambda: _all_ended(tables, ids))
        await expect_clean_tasks(manager, tables, 15)
    statuses = await last_statuses(tables, ids)
    assert statuses[2::3] == ["exception"] * 5
    # Both can be argued for; what matters is that each is logged, and once.
    assert {*statuses[::3], *statuses[1::3]} <= {"successful", "canceled"}
    assert len(await tables.ended("canceled")) + len(await tables.ended()) == 10 + 15


@pytest.mark.parametrize("suspends", [False, True])
async def test_a_cancellation_that_comes_too_late(
    manager: QueueManager, tables: Tables, suspends: bool
) -> None:
    """Somebody kept the task of a job that has ended: this is no way to cancel another one."""
    kept: list[asyncio.Task[Any]] = []
    gate = Gate()

    @manager.entrypoint("first")
    async def first(job: Job) -> None:
        kept.append(my_task())
        if suspends:
            await asyncio.sleep(0.001)

    manager.entrypoint("second")(gate)
    async with working(manager):
        first_ids = await put(manager, *["first"] * 5)
        await eventually(lambda: _all_ended(tables, first_ids))
        second_ids = await put(manager, *["second"] * 5)
        await eventually(lambda: len(gate.started) == 5)
        for task in kept:
            task.cancel()
        await asyncio.sleep(0.01)
        gate.open.set()
        await eventually(lambda: _all_ended(tables, second_ids))
        await expect_clean_tasks(manager, tables)
    assert await last_statuses(tables, [*first_ids, *second_ids]) == ["successful"] * 10


async def test_cancelling_some_of_the_suspended_jobs(manager: QueueManager, tables: Tables) -> None:
    """By the queue: in scopes, in what is started inside them, and never beyond."""
    started: list[int] = []
    story: list[tuple[str, int]] = []
    gate = asyncio.Event()

    async def child(job: Job) -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            story.append(("child", job.id))
            raise

    @manager.entrypoint("scope")
    async def scope(job: Job, context: Context) -> None:
        with context.cancellation:
            started.append(job.id)
            await gate.wait()
        story.append(("cancelled" if context.cancellation.cancel_called else "ended", job.id))

    @manager.entrypoint("group")
    async def group(job: Job) -> None:
        with manager.get_context(job.id).cancellation:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(child(job))
                started.append(job.id)
        await asyncio.sleep(0.001)
        assert my_task().cancelling() == 0

    async with working(manager):
        ids = await put(manager, *["scope", "group"] * 3)
        await eventually(lambda: len(started) == 6)
        cancelled = ids[:4]
        await manager.queries.mark_job_as_cancelled(cancelled)  # type: ignore[arg-type]
        await eventually(lambda: len(story) == 4)
        await expect_clean_tasks(manager, tables)
        gate.set()
    assert sorted(story) == sorted(
        [
            *[("cancelled", ids[0]), ("cancelled", ids[2]), ("ended", ids[4])],
            *[("child", ids[1]), ("child", ids[3])],
        ]
    )
    assert await last_statuses(tables, ids) == ["canceled"] * 4 + ["successful"] * 2


async def test_the_context_is_there_while_the_job_runs(
    manager: QueueManager, tables: Tables
) -> None:
    contexts: list[Context] = []
    gate = asyncio.Event()

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        contexts.append(manager.get_context(job.id))
        await gate.wait()
        assert manager.get_context(job.id) in contexts

    @manager.entrypoint("quick")
    async def quick(job: Job) -> None:
        contexts.append(manager.get_context(job.id))

    async with working(manager):
        quick_ids = await put(manager, *["quick"] * 3)
        await eventually(lambda: _all_ended(tables, quick_ids))
        ids = await put(manager, *["e"] * 3)
        await eventually(lambda: len(contexts) == 6)
        assert [manager.get_context(job_id) for job_id in ids] == contexts[3:]  # type: ignore[arg-type]
        gate.set()
        await eventually(lambda: _all_ended(tables, ids))
        for job_id in (*quick_ids, *ids):
            with pytest.raises(KeyError):
                manager.get_context(job_id)  # type: ignore[arg-type]
    assert len({id(context) for context in contexts}) == 6


# -- Order ------------------------------------------------------------------------------------


async def test_jobs_start_in_the_order_of_their_claim(manager: QueueManager) -> None:
    """Best priority first, then the oldest, whether their handlers suspend or not."""
    events: list[tuple[str, int]] = []

    @manager.entrypoint("quick")
    async def quick(job: Job) -> None:
        events.append(("start", job.id))
        events.append(("end", job.id))

    @manager.entrypoint("slow")
    async def slow(job: Job) -> None:
        events.append(("start", job.id))
        await asyncio.sleep(0.001)
        events.append(("end", job.id))

    names = ["quick", "slow", "slow", "quick"] * 10
    priorities = [number * 7 % 5 for number in range(40)]
    ids = await manager.queries.enqueue(names, [None] * 40, priorities)
    await drain(manager, batch_size=40)
    expected = [ids[n] for n in sorted(range(40), key=lambda n: (-priorities[n], n))]
    assert [job_id for event, job_id in events if event == "start"] == expected
    # A handler that never suspends is over before the next one starts.
    for job_id in (job_id for job_id, name in zip(ids, names, strict=True) if name == "quick"):
        assert job_id is not None
        assert events.index(("end", job_id)) == events.index(("start", job_id)) + 1


@pytest.mark.parametrize("batch_size", [1, 10])
async def test_a_suspended_handler_holds_up_nobody(
    manager: QueueManager, tables: Tables, batch_size: int
) -> None:
    """Each job waits for the one that was enqueued after it."""
    ended: dict[int, asyncio.Event] = {}

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        if job.id in ended:
            await ended[job.id].wait()
        ended.setdefault(job.id - 1, asyncio.Event()).set()

    ids = await put(manager, *["e"] * 30)
    ended.update((job_id, asyncio.Event()) for job_id in ids[:-1])
    await drain(manager, batch_size=batch_size)
    assert await tables.ended() == ids


# -- What handlers may be ---------------------------------------------------------------------


class Awaitably:
    """Neither a coroutine nor a future, and yet it can be awaited."""

    def __init__(self, steps: list[int], job: Job) -> None:
        self.steps = steps
        self.job = job

    def __await__(self) -> Generator[Any, None, str]:
        yield from asyncio.sleep(0).__await__()
        yield from asyncio.sleep(0.001).__await__()
        self.steps.append(self.job.id)
        return "ignored"


async def test_executors_of_every_kind(manager: QueueManager, tables: Tables) -> None:
    steps: list[int] = []
    events: list[str] = []

    @contextlib.asynccontextmanager
    async def around() -> AsyncIterator[None]:
        events.append("enter")
        await asyncio.sleep(0.001)
        try:
            yield
        finally:
            await asyncio.sleep(0.001)
            events.append("exit")

    class Blocks(AbstractEntrypointExecutor):
        async def execute(self, job: Job, context: Context) -> None:
            async with around(), asyncio.timeout(10):
                await self.parameters.func(job)  # type: ignore[call-arg]

    class ReturnsAwaitable(AbstractEntrypointExecutor):
        def execute(self, job: Job, context: Context) -> Any:  # type: ignore[override]
            return Awaitably(steps, job)

    class ReturnsTask(AbstractEntrypointExecutor):
        def execute(self, job: Job, context: Context) -> Any:  # type: ignore[override]
            return asyncio.ensure_future(self.parameters.func(job))  # type: ignore[call-arg,arg-type]

    class Generates(AbstractEntrypointExecutor):
        @types.coroutine
        def execute(self, job: Job, context: Context) -> Any:  # type: ignore[override]
            yield
            yield from asyncio.sleep(0.001).__await__()
            steps.append(job.id)

    async def handler(job: Job) -> None:
        await asyncio.sleep(0)
        steps.append(job.id)

    async def failing(job: Job) -> None:
        await asyncio.sleep(0)
        raise ValueError("broken")

    executors = {"b": Blocks, "a": ReturnsAwaitable, "t": ReturnsTask, "g": Generates}
    for name, executor in executors.items():
        manager.entrypoint(name, executor_factory=executor)(handler)
    manager.entrypoint("failing block", executor_factory=Blocks)(failing)
    manager.entrypoint("failing task", executor_factory=ReturnsTask)(failing)
    ids = await put(manager, *executors, "failing block", "failing task")
    await drain(manager)
    assert sorted(steps) == ids[:4]
    assert events == ["enter", "enter", "exit", "exit"]
    assert await last_statuses(tables, ids) == ["successful"] * 4 + ["exception"] * 2


async def test_handlers_of_every_kind(manager: QueueManager, tables: Tables) -> None:
    calls: list[tuple[object, ...]] = []

    class Handlers:
        async def __call__(self, job: Job) -> None:
            calls.append(("object", job.id))
            await asyncio.sleep(0)

        async def method(self, job: Job, context: Context) -> None:
            calls.append(("method", job.id))
            assert context is manager.get_context(job.id)

        @staticmethod
        async def static(job: Job) -> None:
            calls.append(("static", job.id))

    async def with_arguments(first: str, job: Job, *, last: str) -> None:
        calls.append((first + last, job.id))

    async def returns_something(job: Job) -> object:
        calls.append(("returns", job.id))
        await asyncio.sleep(0)
        return ["something"]

    async def returns_a_future(job: Job) -> object:
        calls.append(("future", job.id))
        # Nobody waits for what a handler returns.
        return asyncio.get_running_loop().create_future()

    made = Handlers()
    handlers: dict[str, Handler] = {
        "object": made,
        "method": made.method,  # type: ignore[dict-item]
        "static": made.static,
        "partial": functools.partial(with_arguments, "part", last="ial"),
        "returns": returns_something,
        "future": returns_a_future,
    }
    assert await outcomes(manager, tables, handlers) == dict.fromkeys(handlers, "successful")
    assert Counter(call[0] for call in calls) == dict.fromkeys(handlers, ROUNDS)


# -- Tracers ----------------------------------------------------------------------------------


class Spans:
    """A tracer that keeps its span in a context variable, as tracing libraries do."""

    def __init__(self) -> None:
        self.span: contextvars.ContextVar[int | None] = contextvars.ContextVar("span", default=None)
        self.events: list[tuple[str, int]] = []

    def trace_publish(self, entrypoints: list[str]) -> Generator[dict[str, object], None, None]:
        for _ in entrypoints:
            yield {}

    @contextlib.asynccontextmanager
    async def trace_process(self, job: Job) -> AsyncIterator[None]:
        assert self.span.get() is None, "the span of an earlier job"
        token = self.span.set(job.id)
        self.events.append(("enter", job.id))
        try:
            yield
        finally:
            self.events.append(("exit", job.id))
            self.span.reset(token)


async def test_a_tracers_span_is_the_handlers(
    manager: QueueManager, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = manager.tracer = Spans()
    met = asyncio.Barrier(5)

    async def quick(job: Job) -> None:
        tracer.events.append(("start", job.id))
        assert tracer.span.get() == job.id
        tracer.events.append(("end", job.id))

    async def slow(job: Job) -> None:
        tracer.events.append(("start", job.id))
        assert tracer.span.get() == job.id
        await met.wait()
        assert tracer.span.get() == job.id
        tracer.events.append(("end", job.id))

    async def failing(job: Job) -> None:
        tracer.events.append(("start", job.id))
        await asyncio.sleep(0)
        tracer.events.append(("end", job.id))
        raise ValueError("broken")

    handlers: dict[str, Handler] = {"quick": quick, "slow": slow, "failing": failing}
    for name, handler in handlers.items():
        manager.entrypoint(name)(handler)
    ids = await put(manager, *["quick", "slow", "failing"] * 5)
    await drain(manager)
    assert await last_statuses(tables, ids) == ["successful", "successful", "exception"] * 5
    for job_id in ids:
        assert [event for event, of in tracer.events if of == job_id] == [
            "enter",
            "start",
            "end",
            "exit",
        ]
    # The slow ones were under way together, so that their spans interleave.
    slow_ids = ids[1::3]
    slow_events = [event for event, of in tracer.events if of in slow_ids]
    assert slow_events[:10] == ["enter", "start"] * 5
    assert tracer.span.get() is None
    assert "The tracer failed" not in caplog.text


async def test_without_a_tracer_none_is_called(
    manager: QueueManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = Spans()
    handler = Recorder()
    manager.entrypoint("e")(handler)
    monkeypatch.setattr(tracing.TRACER, "tracer", None)
    for manager.tracer in (tracer, None, tracer, None):
        manager.shutdown.clear()
        await put(manager, *["e"] * 3)
        await drain(manager)
    assert len(handler.jobs) == 12
    assert len(tracer.events) == 12


# -- Errors -----------------------------------------------------------------------------------


async def test_a_traceback_names_the_handlers_lines(
    manager: QueueManager, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    async def deeper() -> None:
        await asyncio.sleep(0)
        raise LookupError("deep down")

    async def fails_at_once(job: Job) -> None:
        raise ValueError("at once")

    async def fails_later(job: Job) -> None:
        await deeper()

    handlers: dict[str, Handler] = {"at once": fails_at_once, "later": fails_later}
    expected = {
        "at once": ["in fails_at_once", 'raise ValueError("at once")'],
        "later": ["in fails_later", "await deeper()", "in deeper", 'LookupError("deep down")'],
    }
    assert set((await outcomes(manager, tables, handlers)).values()) == {"exception"}
    logged = {
        entry.traceback.additional_context["entrypoint"]: entry.traceback.traceback
        for entry in await manager.queries.queue_log()
        if entry.traceback and entry.traceback.additional_context
    }
    assert logged.keys() == expected.keys()
    for name, parts in expected.items():
        for part in [*parts, __file__]:
            assert part in logged[name]
            # The log of the process says the same.
            assert part in caplog.text


class Stop(BaseException):
    """Not for handlers to raise, and yet."""


async def test_an_exception_of_no_ordinary_kind(
    queries: Queries, another: Callable[[], Awaitable[QueueManager]], tables: Tables
) -> None:
    """It counts as no end that the job can have: the job is not lost, nor are the others."""

    async def at_once(job: Job) -> None:
        raise Stop

    async def later(job: Job) -> None:
        await asyncio.sleep(0.001)
        raise Stop

    handler = Recorder(pause=0.002)
    manager = await another()
    for name, bad in {"at once": at_once, "later": later}.items():
        manager.entrypoint(name)(bad)
    manager.entrypoint("e")(handler)
    ids = await put(manager, "e", "at once", "e", "later", "e")
    async with working(manager):
        await eventually(lambda: len(handler.jobs) == 3)
        await eventually(lambda: not manager.job_context)
        await expect_clean_tasks(manager, tables)
    statuses = await last_statuses(tables, ids)
    assert statuses[::2] == ["successful"] * 3
    assert set(statuses[1::2]) <= {"queued", "exception"}
    assert await tables.count("picked") == 0
    assert await tables.count("queued") == statuses.count("queued")


WORKER_THAT_IS_ENDED = """
import asyncio, os, sys
from datetime import timedelta

from pgq_fast.applications import PgQueuer


async def main():
    async with PgQueuer.from_dsn(os.environ["DSN"]) as pgq:

        @pgq.entrypoint("bystander")
        async def bystander(job):
            await asyncio.sleep(0.05)

        @pgq.entrypoint("bad")
        async def bad(job):
            if "suspends" in sys.argv:
                await asyncio.sleep(0.001)
            if "exit" in sys.argv:
                sys.exit(3)
            raise KeyboardInterrupt

        await pgq.queries.enqueue(["bystander", "bad"], [None] * 2, [0] * 2)
        await pgq.run(log_aggregation_interval=timedelta(0))


asyncio.run(main())
"""


@pytest.mark.parametrize(("how", "code"), [("interrupt", -signal.SIGINT), ("exit", 3)])
@pytest.mark.parametrize("when", ["at once", "suspends"])
def test_a_handler_that_ends_the_process(queue_dsn: str, how: str, code: int, when: str) -> None:
    """asyncio passes these two on to whoever runs the loop, which then cancels every task there is.

    For the jobs this is no end: what the handlers did not finish goes back to the queue.
    """
    process = subprocess.run(
        [sys.executable, "-c", WORKER_THAT_IS_ENDED, how, when],
        env={**os.environ, "DSN": queue_dsn},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert process.returncode == code, process.stderr
    with psycopg.connect(queue_dsn) as connection:
        left = connection.execute("SELECT entrypoint, status::text, attempts FROM pgqueuer")
        jobs = {name: (status, attempts) for name, status, attempts in left}
        ended = connection.execute(
            "SELECT entrypoint, status::text FROM pgqueuer_log"
            " WHERE status::text NOT IN ('queued', 'picked')"
        ).fetchall()
    assert jobs.pop("bad") == ("queued", 0)
    assert (jobs, ended) in [
        ({"bystander": ("queued", 0)}, []),
        ({}, [("bystander", "successful")]),
    ]


# -- Nothing stays ----------------------------------------------------------------------------


class Ballast:
    """Something that a handler makes and that must go with it."""


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """No records of the log: pytest keeps them, and with them the frames of a traceback."""
    monkeypatch.setattr(logger, "disabled", True)
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def alive(handlers: set[types.CodeType]) -> dict[str, int]:
    """Number of jobs and of handlers' coroutines that something still holds."""
    gc.collect()
    objects = gc.get_objects()
    return {
        "jobs": sum(isinstance(each, Job) for each in objects),
        "coroutines": sum(
            isinstance(each, types.CoroutineType) and each.cr_code in handlers for each in objects
        ),
    }


@pytest.mark.usefixtures("silence")
async def test_nothing_of_a_job_outlives_the_run(manager: QueueManager, tables: Tables) -> None:
    made: list[weakref.ref[Ballast]] = []

    async def quick(job: Job) -> None:
        ballast = Ballast()
        made.append(weakref.ref(ballast))

    async def slow(job: Job, context: Context) -> None:
        ballast = Ballast()
        made.append(weakref.ref(ballast))
        with context.cancellation:
            await asyncio.sleep(0.001)

    async def failing(job: Job) -> None:
        ballast = Ballast()
        made.append(weakref.ref(ballast))
        await asyncio.sleep(0)
        raise ValueError("broken", ballast)

    async def cancelled(job: Job) -> None:
        ballast = Ballast()
        made.append(weakref.ref(ballast))
        variable.set(ballast)  # type: ignore[arg-type]
        my_task().cancel()
        await asyncio.sleep(0)

    handlers = {"quick": quick, "slow": slow, "failing": failing, "cancelled": cancelled}
    for name, handler in handlers.items():
        manager.entrypoint(name)(handler)  # type: ignore[type-var]
    codes = {handler.__code__ for handler in handlers.values()}
    # What pytest keeps of tests that failed is not this one's.
    before = alive(codes)
    await put(manager, *[*handlers] * 25)
    await drain(manager)
    assert len(made) == 100
    assert alive(codes) == before
    assert [ref for ref in made if ref() is not None] == []


@pytest.mark.usefixtures("silence")
async def test_a_worker_that_goes_on_holds_nothing_more(
    manager: QueueManager, tables: Tables
) -> None:
    """Round by round the same number of objects, while it rests."""

    async def quick(job: Job) -> None:
        pass

    async def slow(job: Job) -> None:
        await asyncio.sleep(0.001)

    async def failing(job: Job) -> None:
        raise ValueError("broken")

    handlers = {"quick": quick, "slow": slow, "failing": failing}
    for name, handler in handlers.items():
        manager.entrypoint(name)(handler)
    counts: list[int] = []
    async with working(manager, dequeue_timeout=timedelta(hours=1), batch_size=100):
        for _ in range(6):
            ids = await put(manager, *[*handlers] * 50)
            await eventually(lambda ids=ids: _all_ended(tables, ids))  # type: ignore[misc]
            await eventually(lambda: not manager.job_context)
            gc.collect()
            counts.append(len(gc.get_objects()))
    # The first rounds fill caches: prepared statements, type adapters, worker tasks.
    assert max(counts[3:]) - counts[2] < 50
