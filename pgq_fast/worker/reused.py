"""Tasks that run many handlers, for Pythons whose tasks do not start at once.

Before 3.12 a task waits for its turn of the loop before its first step, which is most of what a
handler that never waits costs. Here one task, the leader, runs handler after handler. When one of
them waits, its task is left to it, and another task takes the lead:

    idle -> leading -> (its handler waits) -> following -> (its handler ends) -> idle

Invariants: one task leads at most; a task has one handler at a time; each handler has a context of
its own, a copy of that of whoever started the run; a task is never handed on with a cancellation
pending.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, Generic, TypeAlias, TypeVar

T = TypeVar("T")
Handler: TypeAlias = Coroutine[Any, Any, None]

IDLE_TASKS: Final = 100
"""Tasks that are kept for further handlers; they are cheap to make, and cost memory to keep."""


class _Steps:
    """Awaits *handler* in *context*, and calls *left* when it waits for the first time."""

    __slots__ = ("_context", "_handler", "_left")

    def __init__(
        self, handler: Handler, context: contextvars.Context, left: Callable[[], None]
    ) -> None:
        self._handler = handler
        self._context = context
        self._left = left

    def __await__(self) -> Generator[Any, Any, None]:
        run, handler = self._context.run, self._handler
        step: Callable[[Any], Any]
        try:
            awaited = run(handler.send, None)
        except StopIteration:
            return
        self._left()
        while True:
            try:
                value = yield awaited
            except GeneratorExit:
                run(handler.close)
                raise
            except BaseException as error:
                step, argument = handler.throw, error
            else:
                step, argument = handler.send, value
            try:
                awaited = run(step, argument)
            except StopIteration:
                return


def _no_more() -> None:
    return None


class ReusedTasks(Generic[T]):
    """Runs handlers, each as in a task of its own; *T* is what a handler is for.

    Args:
        waited: Called with a task whose handler has begun to wait, and what that is for.
        ended: Called with such a task when its handler has ended.
    """

    def __init__(
        self,
        waited: Callable[[asyncio.Task[None], T], None],
        ended: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self._waited = waited
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._idle: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._next: Callable[[], tuple[T, Handler] | None] = _no_more
        self._context = contextvars.copy_context()
        self._done: asyncio.Future[None] | None = None
        self._closing = False

    async def run_all(self, next_handler: Callable[[], tuple[T, Handler] | None]) -> None:
        """Start the handlers that *next_handler* returns, until it returns None.

        Returns when all have been started; those that wait go on.
        """
        self._next = next_handler
        self._context = contextvars.copy_context()
        self._done = self._loop.create_future()
        self._lead()
        try:
            await self._done
        finally:
            # Whoever gave up waiting wants no more of them started.
            self._next = _no_more

    async def close(self) -> None:
        """End the idle tasks. No handler may be running."""
        # For those that are just taking a cancellation that was not this one.
        self._closing = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _lead(self) -> None:
        """Have a task that has no handler take the lead."""
        while self._idle:
            turn = self._idle.pop()
            if not turn.done():
                turn.set_result(None)
                return
        task = self._loop.create_task(self._serve(), name="pgq_fast handlers")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        while True:
            if await self._lead_on(me) and self._done is not None and not self._done.done():
                self._done.set_result(None)
            if self._closing or len(self._idle) >= IDLE_TASKS:
                return
            turn = self._loop.create_future()
            self._idle.append(turn)
            await turn

    async def _lead_on(self, me: asyncio.Task[None]) -> bool:
        """Run handlers until one of them waited, or there is no other; whether it is the latter."""
        leading = True

        def left() -> None:
            nonlocal leading
            leading = False
            self._waited(me, subject)
            self._lead()

        while leading:
            following = self._next()
            if following is None:
                return True
            subject, handler = following
            try:
                await _Steps(handler, self._context.copy(), left)
            except asyncio.CancelledError:
                # The handler's, who has put it down; the task has more to do.
                pass
            if not leading:
                self._ended(me)
            while me.cancelling():
                await self._absorb(me)
        return False

    @staticmethod
    async def _absorb(me: asyncio.Task[None]) -> None:
        """Take a cancellation that the handler left behind, delivered or not."""
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        me.uncancel()
