"""The PostgreSQL server of a test run, and databases on it that cost milliseconds."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from pgq_fast.embedded import embedded_postgres

DSN_VARIABLE = "PGQ_TEST_DSN"
VERSION_VARIABLE = "PGQ_TEST_PG"
DEFAULT_VERSION = 18

# Speed only: the data of a test need not survive a crash of the machine. synchronous_commit
# stays on, so that commits keep their order and their waits.
EMBEDDED_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "max_prepared_transactions": "10",
}

# The tests make and empty many small tables: on a disk half of the CPU time of a run is the file
# system's. Bytes that have to be free in the one in memory.
IN_MEMORY = Path("/dev/shm")
ENOUGH = 8 * 10**9


def own_dsn() -> str | None:
    """The DSN of the user's server, if the run is to use one."""
    return os.environ.get(DSN_VARIABLE) or None


def embedded_version() -> int:
    """Major version of the embedded server."""
    return int(os.environ.get(VERSION_VARIABLE) or DEFAULT_VERSION)


@contextlib.contextmanager
def running_server() -> Iterator[str]:
    """The DSN of the user's server, or of an embedded one that lives as long as the block."""
    if dsn := own_dsn():
        yield dsn
        return
    with embedded_postgres(embedded_version(), EMBEDDED_SETTINGS, _parent()) as dsn:
        yield dsn


def _parent() -> Path | None:
    usable = os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free >= ENOUGH
    return IN_MEMORY if usable else None


def trial_schemas(dsn: str) -> list[str]:
    """Schemas of trials that are in a database: of the demo, of ``pgq bench``."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'pgq_fast_%'"
        ).fetchall()
    return [name for (name,) in rows]


def server_description() -> str:
    """Which PostgreSQL the tests run on; never shows a password."""
    if dsn := own_dsn():
        with psycopg.connect(dsn) as connection:
            version = connection.info.parameter_status("server_version")
            return f"{version} at {connection.info.host} ({DSN_VARIABLE})"
    return f"{embedded_version()}, embedded"


def with_database(dsn: str, name: str) -> str:
    """*dsn* with another database, in the URL form that asyncpg and libpq both read."""
    parts = {key: str(value) for key, value in conninfo_to_dict(dsn).items()}
    parts.pop("dbname", None)
    user = quote(parts.pop("user", ""), safe="")
    password = parts.pop("password", None)
    login = user if password is None else f"{user}:{quote(password, safe='')}"
    return f"postgresql://{login + '@' if login else ''}/{quote(name)}?{urlencode(parts)}"


class Databases:
    """Makes databases by copying templates, and drops them whoever is still connected.

    A discarded database is dropped when the next one is made, or at the end: by then the
    fixtures of its test have closed their connections, in whatever order the test named them.
    """

    def __init__(self, server_dsn: str) -> None:
        self._server_dsn = server_dsn
        # Several runs may share a server.
        self._stem = f"pgq_test_{secrets.token_hex(4)}"
        self._numbers = itertools.count()
        self._made: set[str] = set()
        self._discarded: list[str] = []
        self._admin = psycopg.connect(server_dsn, autocommit=True)
        # Copying files forces a checkpoint: quickest without fsync, slowest with it.
        self._strategy = sql.SQL("wal_log" if own_dsn() else "file_copy")

    @contextlib.contextmanager
    def temporary(self, template: str = "template0") -> Iterator[tuple[str, str]]:
        """A new database for the duration of a block; its name and its DSN."""
        name, dsn = self.make(template)
        try:
            yield name, dsn
        finally:
            self.discard(name)

    def make(self, template: str) -> tuple[str, str]:
        """A new database that is a copy of *template*; its name and its DSN."""
        self._drop_discarded()
        name = f"{self._stem}_{next(self._numbers)}"
        self._admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY {}").format(
                sql.Identifier(name), sql.Identifier(template), self._strategy
            )
        )
        self._made.add(name)
        return name, with_database(self._server_dsn, name)

    def discard(self, name: str) -> None:
        """Drop the database *name* when it is no longer in use."""
        self._made.discard(name)
        self._discarded.append(name)

    def close(self) -> None:
        """Drop what is left and close the administrator's connection."""
        self._discarded += self._made
        self._drop_discarded()
        self._admin.close()

    def _drop_discarded(self) -> None:
        while self._discarded:
            self._admin.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self._discarded[-1]))
            )
            self._discarded.pop()
