"""Signals that end a program: at a moment at which it can clean up."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, Final, TypeVar

__all__ = ["HeldSignals", "held_signals", "sigterm_as_exit"]

T = TypeVar("T")


def _in_main_thread() -> bool:
    """Only the main thread may install handlers."""
    return threading.current_thread() is threading.main_thread()


def _leave(signum: int, _frame: FrameType | None) -> None:
    # A supervisor and a process group may both pass the signal on: the second must not cut off
    # what the first set going.
    signal.signal(signum, signal.SIG_IGN)
    raise SystemExit(128 + signum)


@contextlib.contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Have SIGTERM raise SystemExit, so that ``finally`` blocks run; once, so that they finish.

    Only where nobody handles the signal yet, and only in the main thread.
    """
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) in (_leave, signal.SIG_IGN):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


# Handlers that raise, wherever the program happens to be: those of the user's are left alone.
_RAISING: Final[dict[signal.Signals, Callable[[int, FrameType | None], object]]] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: _leave,
}


class HeldSignals:
    """What arrived while an event loop existed.

    The first signal cancels the task that :meth:`cancelling` runs in, and raises once the loop is
    closed. A further SIGINT raises at once, for tasks that do not let themselves be cancelled.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self._task: asyncio.Task[Any] | None = None

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """The handler."""
        if self.first is None:
            self.first = signum
            if self._task is not None:
                self._task.cancel()
                # The loop may be waiting for something else.
                self._task.get_loop().call_soon_threadsafe(lambda: None)
        elif signum == signal.SIGINT:
            signal.default_int_handler(signum, frame)

    async def cancelling(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await *coroutine*, and have the first signal cancel it."""
        # In this order, or a signal in between would cancel nothing.
        self._task = asyncio.current_task()
        try:
            if self.first is not None:
                coroutine.close()
                raise asyncio.CancelledError
            return await coroutine
        finally:
            self._task = None


@contextlib.contextmanager
def held_signals() -> Iterator[HeldSignals]:
    """Have SIGINT and SIGTERM not raise inside the block, but as it ends.

    Around an event loop: Python runs handlers between any two instructions, and where one raises
    while the loop stops or closes, what it left half done fails with another error. Those of
    asyncio.Runner do that to uvloop.

    Raises:
        KeyboardInterrupt: SIGINT arrived, and its handler is Python's.
        SystemExit: SIGTERM arrived within :func:`sigterm_as_exit`.
    """
    held = HeldSignals()
    before = {}
    if _in_main_thread():
        for number, handler in _RAISING.items():
            if signal.getsignal(number) is handler:
                before[number] = handler
                signal.signal(number, held)
    try:
        yield held
    finally:
        for number, handler in before.items():
            # The loop may have had a handler of its own, and left the default.
            if signal.getsignal(number) is held:
                signal.signal(number, handler)
        if held.first is not None:
            before[signal.Signals(held.first)](held.first, None)
