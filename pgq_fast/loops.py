"""The event loop that programs of this package run on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pgq_fast.signals import held_signals

__all__ = ["run_in_loop"]

T = TypeVar("T")


def run_in_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run *coroutine* on the fastest event loop there is; its result.

    Raises:
        KeyboardInterrupt: SIGINT arrived. It has cancelled *coroutine*, and the loop is closed.
        SystemExit: SIGTERM arrived within :func:`pgq_fast.signals.sigterm_as_exit`; likewise.
    """
    with held_signals() as held, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(held.cancelling(coroutine))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop; None: asyncio's own way."""
    if sys.platform == "win32":
        # psycopg cannot use the default loop of Windows.
        return asyncio.SelectorEventLoop
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop
