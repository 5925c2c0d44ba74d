"""A driver between a layout and its connection that loses what it is told to lose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

from pgq_fast.drivers.asyncpg import AsyncpgDriver
from pgq_fast.drivers.base import Row

Loss = Literal["answer", "statement"]


class LostError(ConnectionError):
    """The connection is gone, and with it an answer or a statement."""


class Wire:
    """Passes statements on, but for the one that is to be lost."""

    owns_connections = False
    is_concurrent = False

    def __init__(self, driver: AsyncpgDriver) -> None:
        self._driver = driver
        self._countdown = -1
        self._loss: Loss = "answer"

    def lose(self, nth: int, loss: Loss) -> None:
        """Lose the *nth* statement from now, from 0, or its answer."""
        self._countdown, self._loss = nth, loss

    def lose_nothing(self) -> None:
        self._countdown = -1

    async def _send(self, send: Callable[..., Awaitable[Any]], query: str, *args: object) -> Any:
        self._countdown -= 1
        if self._countdown != -1:
            return await send(query, *args)
        if self._loss == "answer":
            await send(query, *args)
        raise LostError(f"the {self._loss} was lost")

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        return await self._send(self._driver.fetch, query, *args)  # type: ignore[no-any-return]

    async def execute(self, query: str, *args: object) -> str:
        return await self._send(self._driver.execute, query, *args)  # type: ignore[no-any-return]

    async def fetch_rows(self, query: str, *args: object) -> Sequence[Row]:
        return await self._send(self._driver.fetch_rows, query, *args)  # type: ignore[no-any-return]

    async def notify(self, channel: str, payload: str) -> None:
        await self._driver.notify(channel, payload)

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        return self._driver.transaction()

    def in_transaction(self) -> bool:
        return self._driver.in_transaction()
