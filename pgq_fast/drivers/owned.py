"""A driver that opens its connections from a DSN, and replaces those that are lost.

It has two: one for statements, and one that only listens, so that NOTIFYs arrive whatever
statement is running. Each is opened when it is needed first. Behind a pooler in transaction mode
the second is made past the pooler, where the settings say how; else there is none.

A statement is never sent twice. What is found closed before a statement gets replaced, and the
statement waits; a connection that is lost during a statement makes it fail with
``ConnectionLostError``, since nobody knows whether it took effect.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, TypeAlias, TypeVar

from pgq_fast.connections import asyncpg_arguments, listener_source, psycopg_arguments
from pgq_fast.drivers.asyncpg import AsyncpgDriver
from pgq_fast.drivers.base import Driver, NotifyCallback, Row, Transaction
from pgq_fast.drivers.failures import (
    READ_ONLY,
    described,
    is_connection_lost,
    is_server_unavailable,
    sqlstate_of,
)
from pgq_fast.drivers.listeners import Listeners, ReconnectCallback, ReconnectCallbacks
from pgq_fast.drivers.pooling import report_polling
from pgq_fast.drivers.psycopg import PsycopgDriver
from pgq_fast.drivers.recovery import (
    CLEANUP_TIMEOUT,
    RECONNECT_DELAY_LIMIT,
    reconnect_delays,
    to_its_end,
)
from pgq_fast.errors import ConnectionLostError, PgqException
from pgq_fast.logconfig import logger
from pgq_fast.settings import ConnectionSettings
from pgq_fast.tasks import TaskManager, cancel_and_wait, wait_for_event

if TYPE_CHECKING:
    from asyncpg import Connection
    from psycopg import AsyncConnection

T = TypeVar("T")

Kind: TypeAlias = Literal["asyncpg", "psycopg"]

# Seconds between statements that make sure that the listener connection still leads somewhere. A
# firewall that forgot it says nothing, and nobody writes to that connection otherwise.
LISTENER_CHECK_INTERVAL: Final = 30.0


class DriverClosedError(PgqException, RuntimeError):
    """The driver was closed while the call waited for its connection; nothing was sent."""

    def __init__(self) -> None:
        super().__init__(
            "the driver was closed while this call waited for its connection; nothing was sent"
        )


class _Session(Protocol):
    """An open connection and the driver on it."""

    @property
    def driver(self) -> AsyncpgDriver | PsycopgDriver: ...

    def is_closed(self) -> bool:
        """Whether the connection is known to be lost. Nobody may be using it."""
        ...

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Have *callback* called once the connection, while it listens, is lost."""
        ...

    async def close(self) -> None:
        """Close the connection, lost or not."""
        ...


class _AsyncpgSession:
    def __init__(self, connection: Connection[Any], transaction_pooling: bool) -> None:
        self._connection = connection
        self.driver = AsyncpgDriver(connection, transaction_pooling=transaction_pooling)

    @classmethod
    async def open(cls, dsn: str | None, settings: ConnectionSettings) -> _AsyncpgSession:
        import asyncpg

        return cls(
            await asyncpg.connect(**asyncpg_arguments(dsn, settings)),
            settings.transaction_pooling,
        )

    def is_closed(self) -> bool:
        return self._connection.is_closed()

    def on_lost(self, callback: Callable[[], None]) -> None:
        self._connection.add_termination_listener(lambda _: callback())

    async def close(self) -> None:
        try:
            await self._connection.close(timeout=CLEANUP_TIMEOUT)
        except Exception as error:
            logger.debug("Closing a connection failed: %s", type(error).__qualname__)


class _PsycopgSession:
    def __init__(self, connection: AsyncConnection[Any], transaction_pooling: bool) -> None:
        self._connection = connection
        self.driver = PsycopgDriver(connection, transaction_pooling=transaction_pooling)

    @classmethod
    async def open(cls, dsn: str | None, settings: ConnectionSettings) -> _PsycopgSession:
        from psycopg import AsyncConnection

        conninfo, arguments = psycopg_arguments(dsn, settings)
        return cls(
            await AsyncConnection.connect(conninfo, **arguments), settings.transaction_pooling
        )

    def is_closed(self) -> bool:
        return self.driver.notice_loss()

    def on_lost(self, callback: Callable[[], None]) -> None:
        self.driver.on_connection_lost(callback)

    async def close(self) -> None:
        self.driver.detach()
        await self._connection.close()


class _OwnedTransaction:
    """The statements of a transaction; a lost connection has its own error."""

    __slots__ = ("_owner", "_transaction")

    def __init__(self, owner: OwnedDriver, transaction: Transaction) -> None:
        self._owner = owner
        self._transaction = transaction

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run *query*; its rows as dictionaries."""
        async with self._owner._naming_losses():
            return await self._transaction.fetch(query, *args)

    async def execute(self, query: str, *args: object) -> str:
        """Run *query*, without arguments possibly several statements; the last command's tag."""
        async with self._owner._naming_losses():
            return await self._transaction.execute(query, *args)

    async def fetch_rows(self, query: str, *args: object) -> Sequence[Row]:
        """Run *query*; its rows by position."""
        async with self._owner._naming_losses():
            return await self._transaction.fetch_rows(query, *args)

    async def copy_in(self, table: str, columns: Sequence[str], data: bytes) -> None:
        """``COPY table (columns) FROM STDIN (FORMAT binary)``."""
        async with self._owner._naming_losses():
            await self._transaction.copy_in(table, columns, data)


class OwnedDriver(Driver):
    """A driver on connections of its own, which it opens on first use.

    The first attempt to connect reports its failure at once: that is when a DSN is found wrong.
    Later ones go on until they succeed or the driver is closed, unless the failure is one that
    waiting does not cure.

    Args:
        dsn: Where to connect; None for what the settings and libpq's variables say.
        kind: The library to use.
        settings: Timeout, application name, poolers; by default those of the environment.

    Raises:
        ValueError: *kind* is not known.
    """

    owns_connections = True
    is_concurrent = False

    def __init__(
        self,
        dsn: str | None,
        kind: Kind = "asyncpg",
        settings: ConnectionSettings | None = None,
    ) -> None:
        if kind not in ("asyncpg", "psycopg"):
            raise ValueError(f"unknown kind of driver {kind!r}: take 'asyncpg' or 'psycopg'")
        self._dsn = dsn
        self._kind: Kind = kind
        self._settings = settings
        self._tm = TaskManager()
        self._entered = 0
        self._listeners = Listeners()
        self._reconnected = ReconnectCallbacks()
        self._start_on(None)

    def _start_on(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Start afresh on *loop*: locks and events belong to the loop that waits for them."""
        self._loop = loop
        self._shutdown = asyncio.Event()
        self._lock = asyncio.Lock()  # one statement at a time
        self._listening_lock = asyncio.Lock()
        self._start()

    def _start(self) -> None:
        """State of a driver that has no connections yet: a new one, or one that was closed."""
        self._closing = asyncio.Event()
        self._attempts: set[asyncio.Task[_Session]] = set()
        self._statements: _Session | None = None
        self._statements_opened = False
        self._listening: _Session | None = None
        self._listening_lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def _turn(self, lock: Literal["_lock", "_listening_lock"]) -> AsyncIterator[None]:
        """Hold *lock*.

        Raises:
            DriverClosedError: The driver was closed meanwhile.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._start_on(loop)
        closing = self._closing
        async with getattr(self, lock):
            if closing.is_set():
                raise DriverClosedError
            yield

    def __repr__(self) -> str:
        # Never the DSN: it may hold a password.
        state = "closed" if self._statements is None and self._listening is None else "open"
        return f"<{type(self).__name__} on {self._kind}, {state}>"

    @property
    def shutdown(self) -> asyncio.Event:
        """Set when the driver was left, or is to take no more work."""
        return self._shutdown

    @property
    def tm(self) -> TaskManager:
        """Background tasks that were given to the driver."""
        return self._tm

    @property
    def poll_interval(self) -> timedelta | None:
        """How often a worker has to look at the queue; None where NOTIFYs arrive."""
        settings = self._current_settings()
        if listener_source(self._dsn, settings) is not None:
            return None
        return timedelta(seconds=settings.poll_interval)

    def sibling(self) -> OwnedDriver:
        """Another driver to the same database, with connections of its own."""
        return OwnedDriver(self._dsn, self._kind, self._settings)

    def _current_settings(self) -> ConnectionSettings:
        return self._settings or ConnectionSettings()

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run *query*; its rows as dictionaries.

        Raises:
            ConnectionLostError: The connection went away; *query* may have taken effect.
        """
        return await self._call(lambda driver: driver.fetch(query, *args))

    async def fetch_rows(self, query: str, *args: object) -> Sequence[Row]:
        """Run *query*; its rows by position.

        Raises:
            ConnectionLostError: The connection went away; *query* may have taken effect.
        """
        return await self._call(lambda driver: driver.fetch_rows(query, *args))

    async def execute(self, query: str, *args: object) -> str:
        """Run *query*, without arguments possibly several statements; the last command's tag.

        Raises:
            ConnectionLostError: The connection went away; *query* may have taken effect.
        """
        return await self._call(lambda driver: driver.execute(query, *args))

    async def notify(self, channel: str, payload: str) -> None:
        """Send a NOTIFY.

        Raises:
            ConnectionLostError: The connection went away; the NOTIFY may have been sent.
        """
        await self._call(lambda driver: driver.notify(channel, payload))

    def in_transaction(self) -> bool:
        """False: nobody else has the connections."""
        return False

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[_OwnedTransaction]:
        """Several statements in one transaction.

        Raises:
            ConnectionLostError: The connection went away; if during the COMMIT at the end of the
                block, then the transaction may have been committed.
            TransactionAbortedError: The block swallowed the failure of a statement.
        """
        async with self._turn("_lock"):
            block = (await self._connected()).transaction()
            async with self._naming_losses():
                transaction = await block.__aenter__()
            try:
                yield _OwnedTransaction(self, transaction)
            except BaseException as error:
                # Never swallows it.
                await block.__aexit__(type(error), error, error.__traceback__)
                raise
            async with self._naming_losses():
                await block.__aexit__(None, None, None)

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Have *callback* called with the payload of each NOTIFY on *channel*.

        What is sent while the listener connection is being replaced is lost; see
        ``add_reconnect_callback``. Nothing arrives where ``poll_interval`` is set.
        """
        async with self._turn("_listening_lock"):
            if (interval := self.poll_interval) is not None:
                if not self._listeners:
                    report_polling(interval)
            elif channel not in self._listeners and self._keeper is None:
                self._listening = await self._open(listens=True)
                await self._listen_on(self._listening, [channel])
                self._keeper = asyncio.create_task(
                    self._keep_listening(), name="pgqueuer_keep_listening"
                )
            elif channel not in self._listeners and self._listening is not None:
                try:
                    await self._listening.driver.add_listener(channel, self._relay(channel))
                except Exception as error:
                    if not self._means_loss(self._listening, error):
                        raise
                    # The replacement listens to this channel as well.
                    self._listening_lost.set()
            self._listeners.add(channel, callback)

    async def remove_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Stop calling *callback* for *channel*; UNLISTEN after the last one."""
        async with self._turn("_listening_lock"):
            if not self._listeners.remove(channel, callback) or channel in self._listeners:
                return
            if self._listening is not None:
                try:
                    await self._listening.driver.remove_listener(channel, self._relay(channel))
                except Exception as error:
                    if not self._means_loss(self._listening, error):
                        raise

    def add_reconnect_callback(self, callback: ReconnectCallback) -> None:
        """Have *callback* called when a lost listener connection has been replaced.

        NOTIFYs that were sent in between are lost: it is time to look at the tables.
        """
        self._reconnected.add(callback)

    def remove_reconnect_callback(self, callback: ReconnectCallback) -> None:
        """Stop calling *callback*."""
        self._reconnected.remove(callback)

    async def close(self) -> None:
        """Close the connections, after the statement that is running.

        Listeners are forgotten. The next use of the driver opens connections again.
        """
        self._closing.set()
        for attempt in self._attempts:
            attempt.cancel()
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await cancel_and_wait(keeper)
        async with self._lock, self._listening_lock:
            sessions = (self._statements, self._listening)
            self._listeners.clear()
            # Before anything is awaited: whoever comes next finds a driver to start with.
            self._start()
            for session in sessions:
                if session is not None:
                    await session.close()

    async def __aenter__(self) -> Self:
        if self._entered == 0:
            loop = asyncio.get_running_loop()
            if self._loop is not loop:
                self._start_on(loop)
            self._shutdown.clear()
        self._entered += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        # A worker's managers share one driver; the last to leave closes it.
        self._entered -= 1
        if self._entered > 0:
            return
        self._shutdown.set()
        await self._tm.gather_tasks()
        await self.close()

    # Statements. The lock is held.

    async def _call(self, run: Callable[[AsyncpgDriver | PsycopgDriver], Awaitable[T]]) -> T:
        async with self._turn("_lock"):
            driver = await self._connected()
            try:
                async with self._naming_losses():
                    return await run(driver)
            except Exception as error:
                if sqlstate_of(error) == READ_ONLY:
                    # A session stays so, however the server or its settings change: the next one
                    # may lead to the new primary.
                    await self._drop_statements()
                raise

    async def _connected(self) -> AsyncpgDriver | PsycopgDriver:
        """The driver of the statement connection, a new one where the old one is lost."""
        session = self._statements
        if session is not None and session.is_closed():
            logger.warning("The connection to PostgreSQL was lost while it was idle; reconnecting")
            await self._drop_statements()
            session = None
        if session is None:
            session = await (self._reopen() if self._statements_opened else self._open())
            self._statements = session
            self._statements_opened = True
        return session.driver

    @contextlib.asynccontextmanager
    async def _naming_losses(self) -> AsyncIterator[None]:
        """Turn the library's error for a connection that went away into the one of its own."""
        try:
            yield
        except Exception as error:
            session = self._statements
            if session is None or not self._means_loss(session, error):
                raise
            await self._drop_statements()
            raise ConnectionLostError(
                "the connection to PostgreSQL went away during a statement, which may have taken "
                "effect: check before you repeat it"
            ) from error

    async def _drop_statements(self) -> None:
        session, self._statements = self._statements, None
        if session is not None:
            await session.close()

    @staticmethod
    def _means_loss(session: _Session, error: BaseException) -> bool:
        return is_connection_lost(error) or (sqlstate_of(error) is None and session.is_closed())

    # Connecting.

    async def _open(self, *, listens: bool = False) -> _Session:
        """One attempt to connect, which ``close`` can end."""
        if self._closing.is_set():
            raise DriverClosedError
        dsn, settings = self._dsn, self._current_settings()
        if listens:
            source = listener_source(dsn, settings)
            assert source is not None  # else nothing listens
            dsn, settings = source
        session = _AsyncpgSession if self._kind == "asyncpg" else _PsycopgSession
        attempt: asyncio.Task[_Session] = asyncio.ensure_future(session.open(dsn, settings))
        closing = self._closing
        self._attempts.add(attempt)
        try:
            return await attempt
        except asyncio.CancelledError:
            if attempt.done() and not attempt.cancelled() and attempt.exception() is None:
                # Connected in the very moment of the cancellation.
                await to_its_end(attempt.result().close())
            if closing.is_set() and attempt.cancelled() and not _being_cancelled():
                raise DriverClosedError from None
            raise
        finally:
            self._attempts.discard(attempt)

    async def _reopen(self, *, listens: bool = False) -> _Session:
        """Attempts to connect until one succeeds, or fails in a way that waiting does not cure."""
        closing = self._closing
        for delay in reconnect_delays():
            if await wait_for_event(closing, delay):
                raise DriverClosedError
            try:
                session = await self._open(listens=listens)
            except Exception as error:
                if not is_server_unavailable(error):
                    raise
                logger.info("No connection to PostgreSQL yet: %s", type(error).__qualname__)
            else:
                logger.info("Connected to PostgreSQL again")
                return session
        raise AssertionError  # the delays have no end

    # Listening.

    def _relay(self, channel: str) -> NotifyCallback:
        return _ChannelRelay(self._listeners, channel)

    async def _listen_on(self, session: _Session, channels: list[str]) -> None:
        try:
            session.on_lost(self._listening_lost.set)
            for channel in channels:
                await session.driver.add_listener(channel, self._relay(channel))
        except BaseException:
            self._listening = None
            await session.close()
            raise

    async def _keep_listening(self) -> None:
        """Replace the listener connection whenever it is lost."""
        while True:
            lost = await wait_for_event(self._listening_lost, LISTENER_CHECK_INTERVAL)
            if not lost and await self._listener_answers():
                continue
            logger.warning("The connection that listens for NOTIFYs was lost; replacing it")
            async with self._listening_lock:
                session, self._listening = self._listening, None
                if session is not None:
                    await session.close()
            await self._listen_again()
            logger.info("Listening for NOTIFYs again")
            self._reconnected.call()

    async def _listener_answers(self) -> bool:
        session = self._listening
        if session is None:
            return False
        try:
            async with asyncio.timeout(CLEANUP_TIMEOUT):
                await session.driver.execute("SELECT 1")
        except Exception:
            return False
        return True

    async def _listen_again(self) -> None:
        for delay in reconnect_delays():
            try:
                session = await self._reopen(listens=True)
            except DriverClosedError:
                raise
            except Exception as error:
                # Nobody waits here who could be told. The statements tell.
                logger.warning(
                    "No connection to listen for NOTIFYs, next attempt in %g s: %s",
                    RECONNECT_DELAY_LIMIT,
                    type(error).__qualname__,
                )
                await asyncio.sleep(RECONNECT_DELAY_LIMIT)
                continue
            async with self._listening_lock:
                # From here on a loss is one of the new connection.
                self._listening_lost.clear()
                try:
                    await self._listen_on(session, self._listeners.channels())
                except Exception as error:
                    failure = error
                else:
                    self._listening = session
                    return
            # Not under the lock: whoever adds a listener need not wait for this.
            logger.warning("LISTEN failed, next attempt in %.1f s: %s", delay, described(failure))
            await asyncio.sleep(delay)


class _ChannelRelay:
    """Passes the payloads of a channel on; equal to any other for the same channel."""

    __slots__ = ("_channel", "_listeners")

    def __init__(self, listeners: Listeners, channel: str) -> None:
        self._listeners = listeners
        self._channel = channel

    def __call__(self, payload: str | bytes | bytearray) -> None:
        self._listeners.dispatch(self._channel, payload)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ChannelRelay) and other._channel == self._channel

    def __hash__(self) -> int:
        return hash(self._channel)


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
