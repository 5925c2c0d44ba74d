"""Drivers on asyncpg: one for a connection, one for a pool."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Self, cast

from pgq_fast.drivers.base import Driver, NotifyCallback, Row
from pgq_fast.drivers.failures import TransactionAbortedError
from pgq_fast.drivers.listeners import Listeners, ReconnectCallback, ReconnectCallbacks
from pgq_fast.drivers.pooling import (
    DEFAULT_POLL_INTERVAL,
    MayListenElsewhere,
    elsewhere,
    refuse_session_state,
)
from pgq_fast.drivers.recovery import reconnect_delays, to_its_end
from pgq_fast.errors import OpenTransactionError, StatementCacheError
from pgq_fast.logconfig import logger
from pgq_fast.tasks import TaskManager, cancel_and_wait

if TYPE_CHECKING:
    from asyncpg import Connection, Pool, Record
    from asyncpg.pool import PoolConnectionProxy

    AnyConnection = Connection[Any] | PoolConnectionProxy[Any]

# Bytes of a CopyData message. asyncpg applies back pressure between messages only, and the server
# buffers a message whole.
_COPY_CHUNK: Final = 1 << 20

# A cancel request that belongs to the statement before may hit the ROLLBACK.
_ROLLBACK_ATTEMPTS: Final = 3

# How the await of a statement ends that may still run on the server.
_ENDED_EARLY: Final = (asyncio.CancelledError, TimeoutError)

# Statements whose types asyncpg has asked about; this package has fewer.
_REMEMBERED_QUERIES: Final = 500

# Seconds after which the server is asked again to cancel a statement.
_CANCEL_INTERVAL: Final = 0.25


async def _chunks(data: bytes) -> AsyncGenerator[memoryview]:
    view = memoryview(data)
    for start in range(0, len(view), _COPY_CHUNK):
        yield view[start : start + _COPY_CHUNK]


class _Transaction:
    """The statements of a transaction on *connection*."""

    __slots__ = ("_connection",)

    def __init__(self, connection: AnyConnection) -> None:
        self._connection = connection

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run *query*; its rows as dictionaries."""
        return [dict(record) for record in await self._connection.fetch(query, *args)]

    async def execute(self, query: str, *args: object) -> str:
        """Run *query*, without arguments possibly several statements; the last command's tag."""
        return await self._connection.execute(query, *args)

    async def fetch_rows(self, query: str, *args: object) -> Sequence[Row]:
        """Run *query*; its rows by position."""
        return await self._connection.fetch(query, *args)

    async def copy_in(self, table: str, columns: Sequence[str], data: bytes) -> None:
        """``COPY table (columns) FROM STDIN (FORMAT binary)``."""
        # asyncpg quotes what it is given, everything else refers to the table unquoted: fold the
        # names as PostgreSQL would. A database in front of the schema can only be the current one.
        *schema, name = table.lower().split(".")
        source: Any = memoryview(data) if len(data) <= _COPY_CHUNK else _chunks(data)
        await self._connection.copy_to_table(
            name,
            source=source,
            columns=[column.lower() for column in columns],
            schema_name=schema[-1] if schema else None,
            format="binary",
        )


async def _settle(connection: AnyConnection) -> None:
    """Wait until a statement that was cancelled has ended on the server.

    asyncpg does that too, before the next statement, but it asks the server only once. A request
    that overtakes its statement has no effect, and the connection would be busy for as long as the
    statement cares to run.
    """
    # Begins when the cancelled statement has ended. A request that comes too late hits it, and not
    # a statement that matters.
    nothing = asyncio.ensure_future(connection.execute(""))
    try:
        while not (await asyncio.wait({nothing}, timeout=_CANCEL_INTERVAL))[0]:
            await _request_cancel(connection)
    finally:
        await cancel_and_wait(nothing)


async def _request_cancel(connection: AnyConnection) -> None:
    """Ask the server to cancel what the connection is running."""
    # Private, but the only way: the request needs the session's secret key. Without it the
    # statement just takes its time.
    send = getattr(connection, "_cancel_current_command", None)
    if send is not None and not connection.is_closed():
        sent = asyncio.get_running_loop().create_future()
        send(sent)
        await sent


@contextlib.asynccontextmanager
async def _own_transaction(connection: AnyConnection) -> AsyncIterator[_Transaction]:
    """BEGIN, the block, COMMIT; ROLLBACK where anything of it fails or is cancelled."""
    try:
        await connection.execute("BEGIN")
        yield _Transaction(connection)
        # A failed transaction ends here as well, with another tag.
        ended = await connection.execute("COMMIT")
    except BaseException as error:
        with contextlib.suppress(TimeoutError):
            await to_its_end(_roll_back(connection, isinstance(error, _ENDED_EARLY)))
        raise
    if ended != "COMMIT":
        raise TransactionAbortedError


async def _roll_back(connection: AnyConnection, ended_early: bool) -> None:
    if ended_early:
        await _settle(connection)
    # Without knowing whether there is anything to roll back, so it is tried at least once.
    for _ in range(_ROLLBACK_ATTEMPTS):
        if connection.is_closed():
            return
        try:
            await connection.execute("ROLLBACK")
        except Exception as error:
            if connection.is_closed():
                return
            logger.debug("ROLLBACK failed: %s", type(error).__qualname__)
        if not connection.is_in_transaction():
            return
    logger.warning("A failed transaction could not be rolled back and is still open")


def _require_no_statement_cache(connection: AnyConnection) -> None:
    """Refuse a connection that prepares statements by name.

    Raises:
        StatementCacheError: It does.
    """
    # Private, and looked at only for the sake of a better message: without it the first statement
    # that another session is to run fails, or runs as a different statement of the same name.
    config = getattr(connection, "_config", None)
    if getattr(config, "statement_cache_size", 0):
        raise StatementCacheError


class _Relay:
    """Receives the NOTIFYs of one connection from asyncpg, one subscription a channel."""

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners

    def __call__(self, _connection: object, _pid: object, channel: object, payload: object) -> None:
        if isinstance(channel, str) and isinstance(payload, str | bytes | bytearray):
            self._listeners.dispatch(channel, payload)


class AsyncpgDriver(MayListenElsewhere, Driver):
    """A driver on one asyncpg connection, which remains the caller's to close.

    Statements run one at a time. Inside a block of ``transaction()`` use its methods only: the
    driver's own wait for the end of the block.

    Args:
        connection: Open, and with ``statement_cache_size=0`` under *transaction_pooling*.
        transaction_pooling: Whether it leads to a pooler that gives each transaction another
            session; then this driver does not LISTEN on it.
        listen_on: A driver that listens in this one's place. It is entered and left together with
            this one.
        poll_interval: How often a worker looks at the queue where nothing listens.

    Raises:
        StatementCacheError: Under *transaction_pooling*, the connection prepares by name.
    """

    owns_connections = False
    is_concurrent = False

    def __init__(
        self,
        connection: Connection[Any],
        *,
        transaction_pooling: bool = False,
        listen_on: Driver | None = None,
        poll_interval: timedelta = DEFAULT_POLL_INTERVAL,
    ) -> None:
        if transaction_pooling:
            _require_no_statement_cache(connection)
        self._connection: AnyConnection = connection
        self._transaction_pooling = transaction_pooling
        self._asked_about: set[str] = set()
        self._elsewhere = elsewhere(transaction_pooling, listen_on, poll_interval)
        self._lock = asyncio.Lock()
        self._shutdown = asyncio.Event()
        self._tm = TaskManager()
        self._entered = 0
        self._in_own_transaction = False
        self._unsettled = False
        self._listeners = Listeners()
        self._relay = _Relay(self._listeners)

    @property
    def shutdown(self) -> asyncio.Event:
        """Set when the driver is to take no more work."""
        return self._shutdown

    @property
    def tm(self) -> TaskManager:
        """The driver's background tasks: it has none of its own."""
        return self._tm

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[AnyConnection]:
        """The connection, to oneself and with nothing running on it."""
        async with self._lock:
            if self._unsettled:
                await _settle(self._connection)
                self._unsettled = False
            try:
                yield self._connection
            except _ENDED_EARLY:
                self._unsettled = True
                raise

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run *query*; its rows as dictionaries."""
        return [dict(record) for record in await self._fetch(query, args)]

    async def fetch_rows(self, query: str, *args: object) -> Sequence[Row]:
        """Run *query*; its rows as asyncpg's Records."""
        # They are sequences, though their type does not say so.
        return cast("list[Row]", await self._fetch(query, args))

    async def _fetch(self, query: str, args: tuple[object, ...]) -> list[Record]:
        if self._transaction_pooling and query not in self._asked_about:
            async with self._asking_about(query) as connection:
                return await connection.fetch(query, *args)
        # As in _turn(), whose generator would be a good part of the client's cost of a claim.
        async with self._lock:
            if self._unsettled:
                await _settle(self._connection)
                self._unsettled = False
            try:
                return await self._connection.fetch(query, *args)
            except _ENDED_EARLY:
                self._unsettled = True
                raise

    async def execute(self, query: str, *args: object) -> str:
        """Run *query*, without arguments possibly several statements; the last command's tag.

        Raises:
            SessionStateError: Its effect belongs to a session, which this driver does not have.
        """
        if self._transaction_pooling and args:
            refuse_session_state(args)
            if query not in self._asked_about:
                async with self._asking_about(query) as connection:
                    return await connection.execute(query, *args)
        async with self._turn() as connection:
            return await connection.execute(query, *args)

    @contextlib.asynccontextmanager
    async def _asking_about(self, query: str) -> AsyncIterator[AnyConnection]:
        """A transaction for the first run of *query* behind a pooler.

        Where asyncpg meets a type for the first time, it asks the server about it, and for that
        changes a setting of the session and restores it: outside a transaction the one session may
        be changed and another one be restored. Later runs need none. Without a statement cache
        asyncpg sends what is to be run together with its values, in one message.
        """
        async with self.transaction():
            yield self._connection
        if len(self._asked_about) >= _REMEMBERED_QUERIES:
            self._asked_about.clear()
        self._asked_about.add(query)

    async def notify(self, channel: str, payload: str) -> None:
        """Send a NOTIFY."""
        await self.execute("SELECT pg_notify($1, $2)", channel, payload)

    def in_transaction(self) -> bool:
        """Whether the caller has a transaction open on the connection."""
        return (
            not self._in_own_transaction
            and not self._connection.is_closed()
            and self._connection.is_in_transaction()
        )

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[_Transaction]:
        """Several statements in one transaction: the one that is open, else one of its own.

        Raises:
            TransactionAbortedError: The block swallowed the failure of a statement.
        """
        async with self._turn() as connection:
            if connection.is_in_transaction():
                yield _Transaction(connection)
                return
            self._in_own_transaction = True
            try:
                async with _own_transaction(connection) as transaction:
                    yield transaction
            finally:
                self._in_own_transaction = False

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Have *callback* called with the payload of each NOTIFY on *channel*.

        Raises:
            OpenTransactionError: A transaction is open, so the LISTEN would wait for its end.
        """
        if self._elsewhere is not None:
            await self._elsewhere.add(channel, callback)
            return
        async with self._turn() as connection:
            if self.in_transaction():
                raise OpenTransactionError("LISTEN")
            if channel not in self._listeners:
                await connection.add_listener(channel, self._relay)
            self._listeners.add(channel, callback)

    async def remove_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Stop calling *callback* for *channel*; UNLISTEN after the last one."""
        if self._elsewhere is not None:
            await self._elsewhere.remove(channel, callback)
            return
        async with self._turn() as connection:
            if self._listeners.remove(channel, callback) and channel not in self._listeners:
                await connection.remove_listener(channel, self._relay)

    async def __aenter__(self) -> Self:
        await self._enter_elsewhere()
        return self

    async def __aexit__(self, *_: object) -> None:
        # A worker's managers share one driver; the last to leave takes the listeners away.
        self._entered -= 1
        if self._entered > 0:
            return
        if self._elsewhere is not None:
            await self._elsewhere.leave()
            return
        channels = self._listeners.channels()
        self._listeners.clear()
        async with self._turn() as connection:
            for channel in channels:
                try:
                    await connection.remove_listener(channel, self._relay)
                except Exception as error:
                    # Lost, or in a failed transaction: the callbacks are gone in any case.
                    logger.debug("UNLISTEN failed: %s", type(error).__qualname__)


class AsyncpgPoolDriver(MayListenElsewhere, Driver):
    """A driver on an asyncpg pool, which remains the caller's to close.

    Each statement takes a connection from the pool. The first listener takes one for itself, which
    goes back to the pool with the last listener or when the driver is left; a listener connection
    that is lost gets replaced.

    Args:
        pool: Its connections need ``statement_cache_size=0`` under *transaction_pooling*; that is
            seen when one is taken from it, and reported by ``StatementCacheError``.
        transaction_pooling: As for :class:`AsyncpgDriver`.
        listen_on: As for :class:`AsyncpgDriver`.
        poll_interval: As for :class:`AsyncpgDriver`.
    """

    owns_connections = False
    is_concurrent = True

    def __init__(
        self,
        pool: Pool[Any],
        *,
        transaction_pooling: bool = False,
        listen_on: Driver | None = None,
        poll_interval: timedelta = DEFAULT_POLL_INTERVAL,
    ) -> None:
        self._pool = pool
        self._transaction_pooling = transaction_pooling
        self._elsewhere = elsewhere(transaction_pooling, listen_on, poll_interval)
        self._lock = asyncio.Lock()  # guards the listener connection
        self._shutdown = asyncio.Event()
        self._tm = TaskManager()
        self._entered = 0
        self._listeners = Listeners()
        self._relay = _Relay(self._listeners)
        self._listener: PoolConnectionProxy[Any] | None = None
        self._replacing: asyncio.Task[None] | None = None
        self._reconnected = ReconnectCallbacks()

    @property
    def shutdown(self) -> asyncio.Event:
        """Set when the driver is to take no more work."""
        return self._shutdown

    @property
    def tm(self) -> TaskManager:
        """Background tasks that were given to the driver."""
        return self._tm

    @contextlib.asynccontextmanager
    async def _acquired(self) -> AsyncIterator[PoolConnectionProxy[Any]]:
        """A connection of the pool's, which goes back with nothing running on it."""
        async with self._pool.acquire() as connection:
            if self._transaction_pooling:
                _require_no_statement_cache(connection)
            try:
                yield connection
            except _ENDED_EARLY:
                with contextlib.suppress(TimeoutError):
                    await to_its_end(_settle(connection))
                raise

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run *query*; its rows as dictionaries."""
        return [dict(record) for record in await self._fetch(query, args)]

    async def fetch_rows(self, query: str, *args: object) -> Sequence[Row]:
        """Run *query*; its rows as asyncpg's Records."""
        # They are sequences, though their type does not say so.
        return cast("list[Row]", await self._fetch(query, args))

    async def _fetch(self, query: str, args: tuple[object, ...]) -> list[Record]:
        async with self._acquired() as connection:
            if self._transaction_pooling:
                async with _own_transaction(connection):
                    return await connection.fetch(query, *args)
            return await connection.fetch(query, *args)

    async def execute(self, query: str, *args: object) -> str:
        """Run *query*, without arguments possibly several statements; the last command's tag.

        Raises:
            SessionStateError: Its effect belongs to a session, which this driver does not have.
        """
        async with self._acquired() as connection:
            if self._transaction_pooling and args:
                refuse_session_state(args)
                # See AsyncpgDriver._asking_about; which of the pool's connections ran it before
                # cannot be known here.
                async with _own_transaction(connection):
                    return await connection.execute(query, *args)
            return await connection.execute(query, *args)

    async def notify(self, channel: str, payload: str) -> None:
        """Send a NOTIFY."""
        await self.execute("SELECT pg_notify($1, $2)", channel, payload)

    def in_transaction(self) -> bool:
        """False: a transaction of the caller runs on a connection that the driver cannot get."""
        return False

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[_Transaction]:
        """Several statements in one transaction, on one connection of the pool.

        Raises:
            TransactionAbortedError: The block swallowed the failure of a statement.
        """
        async with self._pool.acquire() as connection:
            if self._transaction_pooling:
                _require_no_statement_cache(connection)
            async with _own_transaction(connection) as transaction:
                yield transaction

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Have *callback* called with the payload of each NOTIFY on *channel*.

        Raises:
            RuntimeError: The pool has one connection, which statements need.
        """
        if self._elsewhere is not None:
            await self._elsewhere.add(channel, callback)
            return
        async with self._lock:
            if self._listener is None and self._replacing is None:
                if self._pool.get_max_size() < 2:
                    raise RuntimeError(
                        "the pool holds 1 connection, and the listener keeps one for itself: "
                        "create it with max_size=2 or more"
                    )
                self._listener = await self._acquire_listener()
            if self._listener is not None and channel not in self._listeners:
                try:
                    await self._listener.add_listener(channel, self._relay)
                except BaseException:
                    if not self._listeners:
                        await self._release_listener()
                    raise
            # While the connection is being replaced: the replacement listens to all channels.
            self._listeners.add(channel, callback)

    async def remove_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Stop calling *callback* for *channel*; UNLISTEN after the last one."""
        if self._elsewhere is not None:
            await self._elsewhere.remove(channel, callback)
            return
        async with self._lock:
            if not self._listeners.remove(channel, callback) or channel in self._listeners:
                return
            if not self._listeners:
                await self._release_listener()
            elif self._listener is not None:
                await self._listener.remove_listener(channel, self._relay)

    def add_reconnect_callback(self, callback: ReconnectCallback) -> None:
        """Have *callback* called when a lost listener connection has been replaced."""
        if self._elsewhere is not None:
            self._elsewhere.add_reconnect_callback(callback)
        self._reconnected.add(callback)

    def remove_reconnect_callback(self, callback: ReconnectCallback) -> None:
        """Stop calling *callback*."""
        if self._elsewhere is not None:
            self._elsewhere.remove_reconnect_callback(callback)
        self._reconnected.remove(callback)

    async def _acquire_listener(self) -> PoolConnectionProxy[Any]:
        connection: PoolConnectionProxy[Any] = await self._pool.acquire()
        connection.add_termination_listener(self._listener_ended)
        return connection

    async def _give_back(self, connection: PoolConnectionProxy[Any]) -> None:
        try:
            connection.remove_termination_listener(self._listener_ended)
            # The pool complains about listeners that are left on a connection.
            await connection.reset()
        except Exception as error:
            logger.debug("The listener connection is lost: %s", type(error).__qualname__)
        finally:
            await self._pool.release(connection)

    async def _release_listener(self) -> None:
        """Hold no connection for listeners any more. The lock is held."""
        replacing, self._replacing = self._replacing, None
        if replacing is not None:
            await cancel_and_wait(replacing)
        listener, self._listener = self._listener, None
        if listener is not None:
            await self._give_back(listener)

    def _listener_ended(self, connection: object) -> None:
        """The server, the network or the pool closed the listener connection."""
        if connection is not self._listener:
            return  # one that is being given back, or set up
        self._listener = None
        logger.warning("The connection that listens for NOTIFYs was lost; replacing it")
        self._replacing = asyncio.get_running_loop().create_task(
            self._replace_listener(), name="pgqueuer_replace_listener"
        )

    async def _replace_listener(self) -> None:
        for delay in reconnect_delays():
            await asyncio.sleep(delay)
            async with self._lock:
                if self._pool.is_closing():
                    logger.warning("The pool is closed: no NOTIFY will arrive any more")
                    self._replacing = None
                    return
                try:
                    await self._listen_again()
                except Exception as error:
                    logger.info("No connection to listen on yet: %s", type(error).__qualname__)
                    continue
                self._replacing = None
            logger.info("Listening for NOTIFYs again")
            self._reconnected.call()
            return

    async def _listen_again(self) -> None:
        """Put a new connection with all channels in the place of the lost one."""
        connection = await self._acquire_listener()
        try:
            for channel in self._listeners.channels():
                await connection.add_listener(channel, self._relay)
        except BaseException:
            await self._give_back(connection)
            raise
        self._listener = connection
        if connection.is_closed():
            # Its end may have been reported before it was the listener.
            self._listener = None
            raise ConnectionResetError("the new listener connection was lost at once")

    async def __aenter__(self) -> Self:
        await self._enter_elsewhere()
        return self

    async def __aexit__(self, *_: object) -> None:
        # A worker's managers share one driver; the last to leave takes the listeners away.
        self._entered -= 1
        if self._entered > 0:
            return
        if self._elsewhere is not None:
            await self._elsewhere.leave()
            return
        async with self._lock:
            self._listeners.clear()
            await self._release_listener()
