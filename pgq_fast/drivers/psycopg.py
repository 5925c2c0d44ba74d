"""Drivers on psycopg 3: one for an asynchronous connection, one for a blocking one."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, cast

from pgq_fast.drivers.base import Driver, NotifyCallback, Row, SyncDriver, binds_own_types
from pgq_fast.drivers.failures import TransactionAbortedError
from pgq_fast.drivers.listeners import Listeners
from pgq_fast.drivers.notify_watch import NotifyWatch
from pgq_fast.drivers.pooling import (
    DEFAULT_POLL_INTERVAL,
    MayListenElsewhere,
    elsewhere,
    refuse_session_state,
)
from pgq_fast.drivers.psycopg_rows import DirectStatements, row_cursor
from pgq_fast.drivers.recovery import CLEANUP_TIMEOUT, cancelled_once, to_its_end
from pgq_fast.errors import ConnectionLostError, OpenTransactionError
from pgq_fast.logconfig import logger
from pgq_fast.tasks import TaskManager

if TYPE_CHECKING:
    from psycopg import AsyncConnection, AsyncRawCursor, Connection, Notify, RawCursor
    from psycopg.sql import Composed


def _require_autocommit(connection: AsyncConnection[Any] | Connection[Any]) -> None:
    if not connection.autocommit:
        raise RuntimeError(
            "the psycopg connection is not in autocommit mode, so nothing would be committed: "
            "connect with autocommit=True, or call set_autocommit(True) first"
        )


def _copy_statement(table: str, columns: Sequence[str]) -> str:
    return f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"


def _last_tag(cursor: AsyncRawCursor[Any] | RawCursor[Any]) -> str:
    """The command tag of the last of the statements that *cursor* ran."""
    while cursor.nextset():
        pass
    return cursor.statusmessage or ""


class _Transaction:
    """The statements of a transaction on a driver's connection; the driver's lock is held."""

    __slots__ = ("_driver",)

    def __init__(self, driver: PsycopgDriver) -> None:
        self._driver = driver

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run *query*; its rows as dictionaries, none where it returns nothing."""
        return await self._driver._fetch(query, args)

    async def execute(self, query: str, *args: object) -> str:
        """Run *query*, without arguments possibly several statements; the last command's tag."""
        return await self._driver._execute(query, args)

    async def fetch_rows(self, query: str, *args: object) -> Sequence[Row]:
        """Run *query*; its rows by position."""
        return await self._driver._fetch_rows(query, args)

    async def copy_in(self, table: str, columns: Sequence[str], data: bytes) -> None:
        """``COPY table (columns) FROM STDIN (FORMAT binary)``."""
        await self._driver._copy_in(table, columns, data)


class PsycopgDriver(MayListenElsewhere, Driver):
    """A driver on one psycopg connection in autocommit mode, which remains the caller's to close.

    Statements run one at a time. Inside a block of ``transaction()`` use its methods only: the
    driver's own wait for the end of the block. While the driver listens, leave the connection's
    ``notifies()`` alone: psycopg gives a NOTIFY to that or to handlers, and the driver uses one.

    Args:
        connection: Open.
        transaction_pooling: Whether it leads to a pooler that gives each transaction another
            session; then this driver prepares nothing by name and does not LISTEN on it.
        listen_on: A driver that listens in this one's place. It is entered and left together with
            this one.
        poll_interval: How often a worker looks at the queue where nothing listens.

    Raises:
        RuntimeError: The connection is not in autocommit mode.
    """

    owns_connections = False
    is_concurrent = False

    def __init__(
        self,
        connection: AsyncConnection[Any],
        *,
        transaction_pooling: bool = False,
        listen_on: Driver | None = None,
        poll_interval: timedelta = DEFAULT_POLL_INTERVAL,
    ) -> None:
        from psycopg.pq import TransactionStatus

        _require_autocommit(connection)
        self._connection = connection
        self._transaction_pooling = transaction_pooling
        # As psycopg takes it: None leaves it to the connection's prepare_threshold.
        self._prepare = False if transaction_pooling else None
        self._direct = DirectStatements(connection, prepares=not transaction_pooling)
        self._elsewhere = elsewhere(transaction_pooling, listen_on, poll_interval)
        # Plain numbers, as libpq's wrapper gives them: they are compared around each statement.
        self._idle = int(TransactionStatus.IDLE)
        self._active = int(TransactionStatus.ACTIVE)
        self._lock = asyncio.Lock()
        self._shutdown = asyncio.Event()
        self._tm = TaskManager()
        self._entered = 0
        self._in_own_transaction = False
        self._in_transaction_before = False  # as of the start of the running statement
        self._unfinished = False
        self._listeners = Listeners()
        self._watch = NotifyWatch(connection, self._connection_lost)
        self._lost = asyncio.Event()
        self._on_lost: Callable[[], None] | None = None

    @property
    def shutdown(self) -> asyncio.Event:
        """Set when the driver was left, or is to take no more work."""
        return self._shutdown

    @property
    def tm(self) -> TaskManager:
        """The driver's background tasks."""
        return self._tm

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run *query*; its rows as dictionaries, none where it returns nothing."""
        async with self._lock:
            return await self._fetch(query, args)

    async def fetch_rows(self, query: str, *args: object) -> Sequence[Row]:
        """Run *query*; its rows as tuples."""
        async with self._lock:
            return await self._fetch_rows(query, args)

    async def execute(self, query: str, *args: object) -> str:
        """Run *query*, without arguments possibly several statements; the last command's tag.

        Raises:
            SessionStateError: Its effect belongs to a session, which this driver does not have.
        """
        if self._transaction_pooling:
            refuse_session_state(args)
        async with self._lock:
            return await self._execute(query, args)

    async def notify(self, channel: str, payload: str) -> None:
        """Send a NOTIFY."""
        await self.execute("SELECT pg_notify($1, $2)", channel, payload)

    def in_transaction(self) -> bool:
        """Whether the caller has a transaction open on the connection."""
        if self._in_own_transaction or self._connection.closed:
            return False
        status = self._connection.pgconn.transaction_status
        return self._in_transaction_before if status == self._active else status != self._idle

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[_Transaction]:
        """Several statements in one transaction: the one that is open, else one of its own.

        Raises:
            TransactionAbortedError: The block swallowed the failure of a statement.
        """
        async with self._lock:
            await self._finish_unfinished()
            if self.in_transaction():
                yield _Transaction(self)
                return
            self._in_own_transaction = True
            try:
                await self._execute("BEGIN")
                yield _Transaction(self)
                # A failed transaction ends here as well, with another tag.
                ended = await self._execute("COMMIT")
            except BaseException:
                with contextlib.suppress(TimeoutError):
                    await to_its_end(self._roll_back())
                raise
            finally:
                self._in_own_transaction = False
            if ended != "COMMIT":
                raise TransactionAbortedError

    async def _roll_back(self) -> None:
        try:
            await self._finish_unfinished()
            if self._connection.pgconn.transaction_status != self._idle:
                await self._execute("ROLLBACK")
        except Exception as error:
            if not self._connection.closed:
                logger.warning(
                    "A failed transaction could not be rolled back (%s) and is still open",
                    type(error).__qualname__,
                )

    # The methods below run with the driver's lock held.

    async def _run(
        self,
        cursor: AsyncRawCursor[Any],
        query: str | Composed,
        args: tuple[object, ...] = (),
    ) -> None:
        await self._begin_statement()
        try:
            # The statements are this package's own or the user's, placeholders and all.
            await cancelled_once(
                cursor.execute(cast("Any", query), args or None, prepare=self._prepare)
            )
        finally:
            self._end_statement()

    async def _fetch(self, query: str, args: tuple[object, ...]) -> list[dict[str, object]]:
        from psycopg import AsyncRawCursor
        from psycopg.rows import dict_row

        cursor = AsyncRawCursor(self._connection, row_factory=dict_row)
        await self._run(cursor, query, args)
        return await cursor.fetchall() if cursor.rownumber is not None else []

    async def _execute(self, query: str | Composed, args: tuple[object, ...] = ()) -> str:
        from psycopg import AsyncRawCursor

        # Other values may need an adapter that the user registered.
        if isinstance(query, str) and binds_own_types(args):
            await self._begin_statement()
            try:
                result = await cancelled_once(self._direct.run(query, args))
            finally:
                self._end_statement()
            return (result.command_status or b"").decode()
        cursor = AsyncRawCursor(self._connection)
        await self._run(cursor, query, args)
        return _last_tag(cursor)

    async def _fetch_rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        await self._begin_statement()
        try:
            return await cancelled_once(self._direct.fetch_rows(query, args))
        finally:
            self._end_statement()

    async def _copy_in(self, table: str, columns: Sequence[str], data: bytes) -> None:
        from psycopg import AsyncRawCursor

        cursor = AsyncRawCursor(self._connection)

        async def copy_in() -> None:
            async with cursor.copy(cast("Any", _copy_statement(table, columns))) as copy:
                await copy.write(data)

        await self._begin_statement()
        try:
            await cancelled_once(copy_in())
        finally:
            self._end_statement()

    async def _begin_statement(self) -> None:
        if self._unfinished:
            await self._finish_unfinished()
        self._in_transaction_before = self.in_transaction()
        self._watch.pause()

    def _end_statement(self) -> None:
        # psycopg cancels a statement whose await was cancelled and waits for its end; should it
        # give that up, the statement still runs.
        self._unfinished = (
            self._connection.pgconn.transaction_status == self._active
            and not self._connection.lock.locked()
        )
        self._watch.resume()

    async def _finish_unfinished(self) -> None:
        """End a statement that still runs on the server although nobody awaits it."""
        if not self._unfinished:
            return
        from psycopg import Error
        from psycopg.generators import fetch_many

        connection = self._connection
        self._watch.pause()
        try:
            async with asyncio.timeout(CLEANUP_TIMEOUT), connection.lock:
                if connection.pgconn.transaction_status == self._active:
                    with contextlib.suppress(Error):
                        # Refused where the statement is no COPY.
                        connection.pgconn.put_copy_end(b"cancelled")
                    await connection.cancel_safe()
                    await connection.wait(fetch_many(connection.pgconn))
            self._unfinished = False
        finally:
            self._watch.resume()

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Have *callback* called with the payload of each NOTIFY on *channel*.

        Raises:
            OpenTransactionError: A transaction is open, so the LISTEN would wait for its end.
        """
        from psycopg import sql

        if self._elsewhere is not None:
            await self._elsewhere.add(channel, callback)
            return
        async with self._lock:
            await self._finish_unfinished()
            if self.in_transaction():
                raise OpenTransactionError("LISTEN")
            known = channel in self._listeners
            if not self._listeners:
                self._connection.add_notify_handler(self._on_notify)
            # Before the LISTEN: a NOTIFY may come in one packet with its end.
            self._listeners.add(channel, callback)
            try:
                if not known:
                    await self._execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                if self.in_transaction():
                    # Begun by the caller while the LISTEN waited for the connection.
                    raise OpenTransactionError("LISTEN")
                self._watch.start()
            except BaseException:
                self._listeners.remove(channel, callback)
                if not known:
                    with contextlib.suppress(TimeoutError):
                        await to_its_end(self._unlisten(channel))
                self._stop_watch_if_unused()
                raise

    async def remove_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Stop calling *callback* for *channel*; UNLISTEN after the last one."""
        if self._elsewhere is not None:
            await self._elsewhere.remove(channel, callback)
            return
        async with self._lock:
            if not self._listeners.remove(channel, callback) or channel in self._listeners:
                return
            try:
                await self._unlisten(channel)
            finally:
                self._stop_watch_if_unused()

    async def watch_notifies(self) -> None:
        """Wait until the driver is left. NOTIFYs are delivered with and without this.

        Raises:
            ConnectionLostError: The connection was closed, so no NOTIFY will arrive any more.
        """
        waits = [asyncio.ensure_future(event.wait()) for event in (self._shutdown, self._lost)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._lost.is_set() and not self._shutdown.is_set():
            raise ConnectionLostError("the connection was closed: no NOTIFY arrives any more")

    def detach(self) -> None:
        """Forget all listeners without a word to the server, which is about to be left."""
        self._listeners.clear()
        self._stop_watch_if_unused()

    def notice_loss(self) -> bool:
        """Whether the connection is closed, having looked for what the server said last.

        Only for the owner of the connection.
        """
        if not self._connection.closed and not self._connection.lock.locked():
            self._watch.check()
        return self._connection.closed

    def on_connection_lost(self, callback: Callable[[], None]) -> None:
        """Have *callback* called when the connection closes while the driver listens on it."""
        self._on_lost = callback

    def _on_notify(self, note: Notify) -> None:
        self._listeners.dispatch(note.channel, note.payload)

    async def _unlisten(self, channel: str) -> None:
        """UNLISTEN where that works at once; the callbacks are gone in any case."""
        from psycopg import sql

        try:
            await self._finish_unfinished()
            if not self._connection.closed:
                await self._execute(sql.SQL("UNLISTEN {}").format(sql.Identifier(channel)))
        except Exception as error:
            logger.debug("UNLISTEN failed: %s", type(error).__qualname__)

    def _stop_watch_if_unused(self) -> None:
        if self._listeners:
            return
        self._watch.stop()
        with contextlib.suppress(ValueError):  # it is not there
            self._connection.remove_notify_handler(self._on_notify)

    def _connection_lost(self) -> None:
        if self._connection.broken:
            logger.warning("The connection to PostgreSQL was lost: no NOTIFY arrives any more")
        self._lost.set()
        if self._on_lost is not None:
            self._on_lost()

    async def __aenter__(self) -> Self:
        if self._entered == 0:
            self._shutdown.clear()
        await self._enter_elsewhere()
        return self

    async def __aexit__(self, *_: object) -> None:
        # A worker's managers share one driver; the last to leave takes the listeners away.
        self._entered -= 1
        if self._entered > 0:
            return
        self._shutdown.set()
        if self._elsewhere is not None:
            await self._elsewhere.leave()
        async with self._lock:
            channels = self._listeners.channels()
            self._listeners.clear()
            try:
                for channel in channels:
                    await self._unlisten(channel)
            finally:
                self._stop_watch_if_unused()
        await self._tm.gather_tasks()


class _SyncTransaction:
    """The statements of a transaction on a driver's connection."""

    __slots__ = ("_driver",)

    def __init__(self, driver: SyncPsycopgDriver) -> None:
        self._driver = driver

    def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run *query*; its rows as dictionaries, none where it returns nothing."""
        return self._driver.fetch(query, *args)

    def execute(self, query: str, *args: object) -> str:
        """Run *query*, without arguments possibly several statements; the last command's tag."""
        return self._driver.execute(query, *args)

    def fetch_rows(self, query: str, *args: object) -> Sequence[Row]:
        """Run *query*; its rows by position."""
        return self._driver.fetch_rows(query, *args)

    def copy_in(self, table: str, columns: Sequence[str], data: bytes) -> None:
        """``COPY table (columns) FROM STDIN (FORMAT binary)``."""
        cursor = row_cursor()(self._driver._connection)
        with cursor.copy(cast("Any", _copy_statement(table, columns))) as copy:
            copy.write(data)


class SyncPsycopgDriver(SyncDriver):
    """A blocking driver on one psycopg connection in autocommit mode, for producers.

    Threads may share it: their statements run one at a time, and not within another thread's
    ``transaction()``. The connection remains the caller's to close.

    The caller may turn autocommit off later on, as Django does within ``atomic``: what the driver
    then does belongs to the caller's transaction, and is never committed by the driver.

    Args:
        connection: Open.
        transaction_pooling: Whether it leads to a pooler that gives each transaction another
            session; then this driver prepares nothing by name.

    Raises:
        RuntimeError: The connection is not in autocommit mode.
    """

    owns_connections = False

    def __init__(self, connection: Connection[Any], *, transaction_pooling: bool = False) -> None:
        _require_autocommit(connection)
        self._connection = connection
        self._transaction_pooling = transaction_pooling
        # As psycopg takes it: None leaves it to the connection's prepare_threshold.
        self._prepare = False if transaction_pooling else None
        # Reentrant: within its transaction a thread may use the driver itself as well.
        self._lock = threading.RLock()

    def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run *query*; its rows as dictionaries, none where it returns nothing."""
        from psycopg import RawCursor
        from psycopg.rows import dict_row

        with self._lock:
            cursor = RawCursor(self._connection, row_factory=dict_row)
            cursor.execute(cast("Any", query), args or None, prepare=self._prepare)
            return cursor.fetchall() if cursor.rownumber is not None else []

    def fetch_rows(self, query: str, *args: object) -> Sequence[Row]:
        """Run *query*; its rows as tuples."""
        from psycopg.rows import tuple_row

        with self._lock:
            cursor = row_cursor()(self._connection, row_factory=tuple_row)
            cursor.execute(cast("Any", query), args or None, prepare=self._prepare, binary=True)
            return cursor.fetchall() if cursor.rownumber is not None else []

    def execute(self, query: str, *args: object) -> str:
        """Run *query*, without arguments possibly several statements; the last command's tag.

        Raises:
            SessionStateError: Its effect belongs to a session, which this driver does not have.
        """
        from psycopg import RawCursor

        if self._transaction_pooling:
            refuse_session_state(args)
        with self._lock:
            cursor = RawCursor(self._connection)
            cursor.execute(cast("Any", query), args or None, prepare=self._prepare)
            return _last_tag(cursor)

    def in_transaction(self) -> bool:
        """Whether a transaction is open, or the next statement opens one that the caller ends."""
        from psycopg.pq import TransactionStatus

        # Without autocommit psycopg itself begins one with the next statement.
        return not self._connection.autocommit or self._connection.info.transaction_status in (
            TransactionStatus.INTRANS,
            TransactionStatus.INERROR,
        )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[_SyncTransaction]:
        """Several statements in one transaction: the one that is open, else one of its own.

        Raises:
            TransactionAbortedError: The block swallowed the failure of a statement.
        """
        with self._lock:
            if self.in_transaction():
                yield _SyncTransaction(self)
                return
            try:
                self.execute("BEGIN")
                yield _SyncTransaction(self)
                # A failed transaction ends here as well, with another tag.
                ended = self.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            if ended != "COMMIT":
                raise TransactionAbortedError

    def _roll_back(self) -> None:
        try:
            if self.in_transaction():
                self.execute("ROLLBACK")
        except Exception as error:
            if not self._connection.closed:
                logger.warning(
                    "A failed transaction could not be rolled back (%s) and is still open",
                    type(error).__qualname__,
                )
