"""A driver without a database: NOTIFY between the objects of one process, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn, Self

from pgq_fast.logconfig import logger
from pgq_fast.tasks import TaskManager


class InMemoryDriver:
    """Takes the place of a PostgreSQL connection in tests and in single-process programs.

    Listeners and notifications work as with PostgreSQL, except that a notification is delivered
    before :meth:`notify` returns. There is no SQL: ``InMemoryQueries`` keeps the data itself.
    """

    def __init__(self) -> None:
        self._shutdown = asyncio.Event()
        self._tm = TaskManager()
        self._listeners: dict[str, list[Callable[[str], None]]] = {}

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Always refused.

        Raises:
            NotImplementedError: There is no database to ask.
        """
        self._refuse_sql("fetch")

    async def execute(self, query: str, *args: object) -> str:
        """Always refused.

        Raises:
            NotImplementedError: There is no database to ask.
        """
        self._refuse_sql("execute")

    def _refuse_sql(self, method: str) -> NoReturn:
        raise NotImplementedError(
            f"InMemoryDriver.{method} has no database to run SQL on: use the methods of "
            "InMemoryQueries, or connect with AsyncpgDriver or PsycopgDriver"
        )

    async def add_listener(self, channel: str, callback: Callable[[str], None]) -> None:
        """Have *callback* called with the payload of each notification on *channel*."""
        self._listeners.setdefault(channel, []).append(callback)

    async def remove_listener(self, channel: str, callback: Callable[[str], None]) -> None:
        """Stop calling *callback*; nothing happens if it does not listen on *channel*."""
        callbacks = self._listeners.get(channel, [])
        if callback in callbacks:
            callbacks.remove(callback)
        if not callbacks:
            self._listeners.pop(channel, None)

    @property
    def shutdown(self) -> asyncio.Event:
        """Set when the driver is to take no more work."""
        return self._shutdown

    @property
    def tm(self) -> TaskManager:
        """The driver's background tasks."""
        return self._tm

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def notify(self, channel: str, payload: str) -> None:
        """Pass *payload* to every listener on *channel*.

        A listener that fails is logged: it fails by itself, not the sender.
        """
        # A copy, because a listener may remove itself.
        for callback in tuple(self._listeners.get(channel, ())):
            try:
                callback(payload)
            except Exception:
                logger.exception("A listener on channel %s failed", channel)
