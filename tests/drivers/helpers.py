"""What the driver tests share: waiting, COPY streams, a server that can be restarted."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import signal
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import psycopg

from pgq_fast import embedded
from support.server import EMBEDDED_SETTINGS, embedded_version

DEADLINE = 20.0
"""Seconds that anything may take which a test waits for."""


async def eventually(check: Callable[[], object | Awaitable[object]]) -> None:
    """Wait until *check* gives something true."""
    async with asyncio.timeout(DEADLINE):
        while True:
            result = check()
            if inspect.isawaitable(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def background(work: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """Run the coroutine *work* beside the block; it ends with it."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


def copy_stream(rows: Iterable[tuple[int, bytes | None]]) -> bytes:
    """A binary COPY stream of a ``bigint`` and a ``text`` or ``bytea`` column."""
    parts = [b"PGCOPY\n\xff\r\n\x00", struct.pack("!ii", 0, 0)]
    for number, data in rows:
        parts.append(struct.pack("!hiq", 2, 8, number))
        parts.append(struct.pack("!i", -1 if data is None else len(data)))
        parts.append(data or b"")
    parts.append(struct.pack("!h", -1))
    return b"".join(parts)


class Administrator:
    """Looks at the test's database, and does harm to it, from outside."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def execute(self, query: str, *args: object) -> None:
        """Run *query*."""
        await psycopg.AsyncRawCursor(self._connection).execute(query, args or None)

    async def values(self, query: str, *args: object) -> list[Any]:
        """The first column of what *query* returns."""
        cursor = psycopg.AsyncRawCursor(self._connection)
        await cursor.execute(query, args or None)
        return [row[0] for row in await cursor.fetchall()]

    async def notify(self, channel: str, payload: str) -> None:
        """Send a NOTIFY."""
        await self.execute("SELECT pg_notify($1, $2)", channel, payload)

    async def backends(self, query: str = "%", state: str = "%") -> list[int]:
        """Process ids of the other sessions whose last query is like *query*."""
        return await self.values(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND"
            " backend_type = 'client backend' AND pid <> pg_backend_pid()"
            " AND query LIKE $1 AND state LIKE $2",
            query,
            state,
        )

    async def running(self, query: str) -> bool:
        """Whether some session runs a statement like *query* at the moment."""
        return bool(await self.backends(query, "active"))

    async def sleeping(self, query: str) -> bool:
        """Whether some session is in the pg_sleep of a statement like *query*.

        A statement is shown as running while it is only being prepared.
        """
        return bool(
            await self.values(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                " AND query LIKE $1 AND wait_event = 'PgSleep'",
                query,
            )
        )

    async def terminate(self, query: str) -> None:
        """End the sessions whose last query is like *query*; there has to be one."""
        pids = await self.backends(query)
        assert pids
        for pid in pids:
            await self.values("SELECT pg_terminate_backend($1::int, 5000)", pid)


class RestartableServer(embedded._Server):
    """An embedded server of the test's own."""

    def crash(self) -> None:
        """What ``pg_ctl stop -m immediate`` does: end all sessions at once, without a word."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(DEADLINE)

    def start_again(self) -> None:
        """Start on the data that is there and recover."""
        assert self._folder is not None
        data = self._folder / "data"
        with (self._folder / "log").open("ab") as log:
            self._process = self._spawn(
                ["postgres", "-D", str(data), *self._options(self._folder)], output=log
            )
        self._wait_until_ready(data / "postmaster.pid")


@contextlib.contextmanager
def restartable_server() -> Iterator[RestartableServer]:
    """A server for the length of the block."""
    server = RestartableServer(embedded._binaries(embedded_version()), EMBEDDED_SETTINGS)
    try:
        server.start()
        yield server
    finally:
        server.stop()
