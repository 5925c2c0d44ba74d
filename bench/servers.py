"""The server that is measured on, and databases on it."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from measure import Database


class BenchError(RuntimeError):
    """A measurement failed, or cannot be made here."""


async def query(dsn: str, statement: str, *args: object) -> Any:
    """One value, or None.

    Raises:
        BenchError: The server does not answer, or refuses.
    """
    import asyncpg

    try:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(statement, *args)
        finally:
            await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise BenchError(f"cannot use the server: {error}") from error


def plain_environment() -> dict[str, str]:
    """For programs that measure. Names, schema and connection are chosen here, not by the shell."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PGQUEUER_", "PGQ_FAST_"))
    }


@contextmanager
def new_database(dsn: str) -> Iterator[Database]:
    """An empty database, dropped at the end whoever is still connected."""
    name = f"pgq_fast_bench_{secrets.token_hex(4)}"
    asyncio.run(query(dsn, f"CREATE DATABASE {name} TEMPLATE template0"))
    try:
        yield Database(dsn, name)
    finally:
        asyncio.run(query(dsn, f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def postgres(dsn: str | None) -> Iterator[str]:
    """The user's server, or an embedded one."""
    from pgq_fast.embedded import embedded_postgres
    from pgq_fast.signals import sigterm_as_exit

    if dsn is None:
        with embedded_postgres() as own:
            yield own
    else:
        # So that the database of the moment is dropped.
        with sigterm_as_exit():
            yield dsn
