"""Tasks that run one handler after the other. That a handler does not notice is tested with the
worker, on Pythons that need it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from pgq_fast.worker.reused import IDLE_TASKS, ReusedTasks

pytestmark = pytest.mark.impl_agnostic


class Run:
    """Runs handlers, and notes which task each ran in and which waited."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self.waited: list[int] = []
        self.reused: ReusedTasks[int] = ReusedTasks(lambda _, number: self.waited.append(number))

    async def all(self, *handlers: Coroutine[Any, Any, None]) -> None:
        """Start *handlers*; returns when the last one has been started."""
        numbered = iter(enumerate(handlers))
        await self.reused.run_all(lambda: next(numbered, None))

    async def quick(self) -> None:
        """Never waits."""
        self.tasks.append(_current())

    async def slow(self) -> None:
        """Waits once."""
        self.tasks.append(_current())
        await asyncio.sleep(0)


def _current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def test_handlers_that_never_wait_share_a_task() -> None:
    run = Run()
    # Not the tasks themselves: one that somebody holds is not used again.
    identities: list[int] = []

    async def note() -> None:
        identities.append(id(_current()))

    for _ in range(3):
        await run.all(*(note() for _ in range(50)))
    assert len(identities) == 150
    assert len(set(identities)) == 1
    assert run.waited == []
    await run.reused.close()


async def test_a_handler_that_waits_hands_the_lead_on() -> None:
    run = Run()
    gate = asyncio.Event()
    order: list[str] = []

    async def wait(name: str) -> None:
        order.append(name)
        await gate.wait()
        order.append(name.upper())

    await run.all(wait("a"), wait("b"), run.quick(), wait("c"))
    assert order == ["a", "b", "c"]
    assert run.waited == [0, 1, 3]
    gate.set()
    await asyncio.sleep(0.01)
    assert sorted(order[3:]) == ["A", "B", "C"]
    await run.reused.close()


async def test_a_task_that_somebody_holds_is_not_used_again() -> None:
    run = Run()
    await run.all(run.quick(), run.quick(), run.slow(), run.quick())
    await asyncio.sleep(0.01)
    assert len(set(run.tasks)) == 4
    assert all(task.done() for task in run.tasks)
    await run.reused.close()


async def test_idle_tasks_are_few() -> None:
    run = Run()

    async def wait() -> None:
        await asyncio.sleep(0)

    before = len(asyncio.all_tasks())
    await run.all(*(wait() for _ in range(3 * IDLE_TASKS)))
    await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) - before <= IDLE_TASKS
    await run.reused.close()
    assert len(asyncio.all_tasks()) == before


async def test_giving_up_waiting_starts_no_more_handlers() -> None:
    run = Run()
    started: list[int] = []

    async def handler(number: int) -> None:
        started.append(number)
        if number == 1:
            starting.cancel()
        await asyncio.sleep(0)

    def handlers() -> tuple[int, Coroutine[Any, Any, None]]:
        number = len(started)
        return number, handler(number)

    starting = asyncio.create_task(run.reused.run_all(handlers))
    with pytest.raises(asyncio.CancelledError):
        await starting
    await asyncio.sleep(0.01)
    assert len(started) < 10
    await run.reused.close()
