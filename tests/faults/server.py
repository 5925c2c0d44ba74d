"""A PostgreSQL that may be stopped, killed and started again, and that a proxy can reach."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

import psycopg
from psycopg import sql

from pgq_fast.embedded import _binaries, _Server
from support.server import EMBEDDED_SETTINGS, embedded_version, with_database

HOST: Final = "127.0.0.1"

STOP_TIMEOUT: Final = 60.0
"""Seconds that a stop may take."""

RestartMode = Literal["fast", "immediate"]

# What pg_ctl sends.
_SIGNALS: Final = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


def free_port() -> int:
    """A TCP port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


SETTINGS: Final = {
    **EMBEDDED_SETTINGS,
    # Whole statements, by which sessions are chosen.
    "track_activity_query_size": "16384",
    # A round is over before the default minute is.
    "autovacuum_naptime": "1s",
}


class Server(_Server):
    """An embedded server that also listens on TCP and keeps its port over restarts.

    Args:
        environment: Variables for the server's processes beside the present ones.
        clock: What steps their clock, if anything does.
    """

    def __init__(
        self, environment: Mapping[str, str] | None = None, clock: Path | None = None
    ) -> None:
        super().__init__(_binaries(embedded_version()), dict(SETTINGS))
        self.port = free_port()
        self.clock = clock
        self._environment = dict(environment or {})

    @property
    def folder(self) -> Path:
        """Where it keeps its files; it belongs to the account that the server runs as."""
        assert self._folder is not None
        return self._folder

    @property
    def account(self) -> str | None:
        """The account that the server runs as; None: this process's."""
        return self._account

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self.folder))}&port={self.port}"

    def tcp_dsn(self, database: str, port: int | None = None) -> str:
        """The way to *database* over TCP, through whatever listens on *port* if it is given."""
        return f"postgresql://postgres@{HOST}:{port or self.port}/{database}"

    def restart(self, mode: RestartMode) -> None:
        """As ``pg_ctl restart -m MODE`` does."""
        assert self._process is not None
        self._process.send_signal(_SIGNALS[mode])
        self._process.wait(STOP_TIMEOUT)
        data = self.folder / "data"
        # One that died by SIGKILL would leave it, and it says "ready".
        (data / "postmaster.pid").unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = self._spawn(
                ["postgres", "-D", str(data), *self._options(self.folder)], output=log
            )
        self._wait_until_ready(data / "postmaster.pid")

    @contextlib.contextmanager
    def database(self, name: str, tablespace: str | None = None) -> Iterator[str]:
        """A new database for the length of the block; its DSN past everything."""
        place = sql.SQL(" TABLESPACE {}").format(sql.Identifier(tablespace or "pg_default"))
        with psycopg.connect(self.dsn, autocommit=True) as admin:
            admin.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name))
                + place
            )
        try:
            yield with_database(self.dsn, name)
        finally:
            with psycopg.connect(self.dsn, autocommit=True) as admin:
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _options(self, folder: Path) -> list[str]:
        # What is said last counts.
        own = {"listen_addresses": HOST, "port": str(self.port)}
        return super()._options(folder) + [
            part for name, value in own.items() for part in ("-c", f"{name}={value}")
        ]

    def _variables(self) -> dict[str, str]:
        return {**super()._variables(), **self._environment}


@contextlib.contextmanager
def running_server(
    environment: Mapping[str, str] | None = None, clock: Path | None = None
) -> Iterator[Server]:
    """A server that lives as long as the block."""
    server = Server(environment, clock)
    try:
        server.start()
        yield server
    finally:
        server.stop()
