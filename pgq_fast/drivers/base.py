"""What the rest of the package expects of a database driver.

``Driver`` and ``SyncDriver`` are the public contract: any class with these methods works.
``RowDriver`` is what this package's own drivers can do besides, so that the hot path gets rows
by position instead of dictionaries, and lists go in by COPY; ``rows_of`` lends a plain driver
the first of the two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

NotifyCallback: TypeAlias = Callable[[str | bytes | bytearray], None]
"""Receives the payload of a NOTIFY. Called on the event loop; must not block."""

Row: TypeAlias = Sequence[Any]
"""A result row by position: an asyncpg ``Record`` or a tuple."""


class Int8Array(list[int]):
    """Integers that are bound as ``bigint[]``: lets a driver skip the search for their type."""

    __slots__ = ()


def binds_own_types(args: Sequence[object]) -> bool:
    """Whether a statement with *args* is one of this package, with none of the user's types."""
    return any(type(arg) is Int8Array for arg in args)


class SessionLockKey(int):
    """The key of an advisory lock that is to outlast the transaction: it belongs to the session.

    A driver whose session changes with each transaction refuses a statement that is given one,
    with ``SessionStateError``: it would lock for somebody else, and nobody could unlock.
    """

    __slots__ = ()


@runtime_checkable
class ListenerRemover(Protocol):
    """A driver that can take a callback off a channel again."""

    async def remove_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Stop passing NOTIFY payloads on *channel* to *callback*."""
        ...


class TaskManagerPort(Protocol):
    """The background tasks of a driver."""

    tasks: set[asyncio.Task[object]]

    def add(self, task: asyncio.Task[object]) -> None:
        """Keep *task* until it is done."""
        ...

    async def gather_tasks(self, return_exceptions: bool = True) -> list[object]:
        """Wait for the tasks; their results or exceptions."""
        ...

    async def __aenter__(self) -> TaskManagerPort: ...

    async def __aexit__(self, *_: object) -> None: ...


class Driver(Protocol):
    """An asynchronous connection, or several, to one PostgreSQL database.

    Queries use ``$1, $2`` placeholders. Each call commits by itself. A driver never closes what
    it was given. A driver that derives from this class must have every method: what it lacks
    raises ``NotImplementedError`` instead of returning nothing.
    """

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run *query*; its rows as dictionaries, columns in the order of the query."""
        raise NotImplementedError

    async def execute(self, query: str, *args: object) -> str:
        """Run *query*, without arguments possibly several statements; the command tag."""
        raise NotImplementedError

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Have *callback* called with the payload of each NOTIFY on *channel*."""
        raise NotImplementedError

    async def notify(self, channel: str, payload: str) -> None:
        """Send a NOTIFY."""
        raise NotImplementedError

    @property
    def shutdown(self) -> asyncio.Event:
        """Set when the driver is to take no more work."""
        raise NotImplementedError

    @property
    def tm(self) -> TaskManagerPort:
        """The driver's background tasks."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(self, *_: object) -> None:
        raise NotImplementedError


class SyncDriver(Protocol):
    """A blocking connection to PostgreSQL, for producers."""

    def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run *query*; its rows as dictionaries."""
        raise NotImplementedError


class Transaction(Protocol):
    """Statements on one connection that commit together."""

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run *query*; its rows as dictionaries."""
        ...

    async def execute(self, query: str, *args: object) -> str:
        """Run *query*, without arguments possibly several statements; the last command's tag."""
        ...

    async def fetch_rows(self, query: str, *args: object) -> Sequence[Row]:
        """Run *query*; its rows by position."""
        ...

    async def copy_in(self, table: str, columns: Sequence[str], data: bytes) -> None:
        """``COPY table (columns) FROM STDIN (FORMAT binary)``.

        Args:
            table: As SQL spells it, schema included; unquoted, so PostgreSQL folds its case.
            columns: Column names, lower case.
            data: A complete binary COPY stream, header and trailer included.
        """
        ...


class SyncTransaction(Protocol):
    """The blocking counterpart of :class:`Transaction`."""

    def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run *query*; its rows as dictionaries."""
        ...

    def execute(self, query: str, *args: object) -> str:
        """Run *query*, without arguments possibly several statements; the last command's tag."""
        ...

    def fetch_rows(self, query: str, *args: object) -> Sequence[Row]:
        """Run *query*; its rows by position."""
        ...

    def copy_in(self, table: str, columns: Sequence[str], data: bytes) -> None:
        """``COPY table (columns) FROM STDIN (FORMAT binary)``."""
        ...


@runtime_checkable
class RowDriver(Protocol):
    """What this package's asynchronous drivers offer beyond :class:`Driver`.

    Types by position, whatever the library: ``bigint``/``integer`` as int, ``text`` as str,
    ``bytea`` as bytes, ``boolean`` as bool, ``uuid`` as UUID, ``interval`` as timedelta, NULL as
    None. Other types only through ``fetch``.
    """

    owns_connections: bool
    """Whether the driver opened its connections and replaces lost ones by itself."""

    is_concurrent: bool
    """Whether statements run side by side, on several connections."""

    async def fetch_rows(self, query: str, *args: object) -> Sequence[Row]:
        """Run *query*; its rows by position."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Several statements in one transaction.

        Where the user has one open on the connection, it is used and neither committed nor rolled
        back here, and without a savepoint.
        """
        ...

    def in_transaction(self) -> bool:
        """Whether the user has a transaction open on the connection."""
        ...


@runtime_checkable
class SyncRowDriver(Protocol):
    """The blocking counterpart of :class:`RowDriver`."""

    def fetch_rows(self, query: str, *args: object) -> Sequence[Row]:
        """Run *query*; its rows by position."""
        ...

    def transaction(self) -> AbstractContextManager[SyncTransaction]:
        """Several statements in one transaction: the one that is open, else one of its own."""
        ...


def row_fetcher(driver: Driver) -> Callable[..., Awaitable[Sequence[Row]]]:
    """What fetches rows by position over *driver*; a plain one has dictionaries in column order.

    Worth keeping: to see which kind of driver it is takes longer than a good part of a query.
    """
    if isinstance(driver, RowDriver):
        return driver.fetch_rows

    async def fetch_rows(query: str, *args: object) -> Sequence[Row]:
        return [tuple(row.values()) for row in await driver.fetch(query, *args)]

    return fetch_rows


async def rows_of(driver: Driver, query: str, *args: object) -> Sequence[Row]:
    """Rows by position from any driver."""
    return await row_fetcher(driver)(query, *args)


def rows_of_sync(driver: SyncDriver, query: str, *args: object) -> Sequence[Row]:
    """The blocking counterpart of :func:`rows_of`."""
    if isinstance(driver, SyncRowDriver):
        return driver.fetch_rows(query, *args)
    return [tuple(row.values()) for row in driver.fetch(query, *args)]
