"""A PgBouncer in transaction mode in front of the test's PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from support.server import with_database

REQUIRE_VARIABLE = "PGQ_TEST_REQUIRE_PGBOUNCER"

SESSIONS = 2
"""Sessions that PgBouncer shares out among its clients, in each database."""

_PORT = 6432
_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 10.0

# PgBouncer refuses to run as root. The embedded PostgreSQL, whose socket is private, belongs to
# this account then too.
_UNPRIVILEGED = "nobody"


def find_pgbouncer() -> str | None:
    """Path of the program; Debian has it where only root's PATH leads."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which("pgbouncer", path=path)


class PgBouncer:
    """One process and its folder. ``start`` once; ``stop`` as often as you like."""

    def __init__(self, program: str, server_dsn: str) -> None:
        self._program = program
        self._server_dsn = server_dsn
        self._account = _UNPRIVILEGED if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="pgq-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None

    def dsn(self, direct_dsn: str) -> str:
        """The way through PgBouncer to the database that *direct_dsn* leads to."""
        database = str(conninfo_to_dict(direct_dsn)["dbname"])
        # A name is asked for, and not looked at: see auth_type.
        return with_database(
            f"postgresql://anybody@/postgres?host={quote(str(self._folder))}&port={_PORT}", database
        )

    def start(self) -> None:
        """Start and wait until it passes connections on."""
        configuration = self._folder / "pgbouncer.ini"
        configuration.write_text(self._configuration())
        # It holds the password of a server that the user brought.
        configuration.chmod(0o600)
        if self._account is not None:
            for path in (self._folder, configuration):
                shutil.chown(path, self._account)
        self._spawn()

    def restart(self) -> None:
        """End it at once, which cuts off its clients, and start it again."""
        self._end()
        self._spawn()

    def stop(self) -> None:
        """End it at once and remove its folder."""
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _spawn(self) -> None:
        configuration = self._folder / "pgbouncer.ini"
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={name: text for name, text in os.environ.items() if not name.startswith("PG")},
                user=self._account,
                extra_groups=None if self._account is None else [],
                # Ctrl-C is for the tests, which end it.
                start_new_session=True,
            )
        self._wait_until_ready()

    def _end(self) -> None:
        if self._process is not None:
            for end in (self._process.terminate, self._process.kill):
                if self._process.poll() is not None:
                    break
                end()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_STOP_TIMEOUT)
            self._process = None

    def _configuration(self) -> str:
        server = conninfo_to_dict(self._server_dsn)
        target = " ".join(
            "{}='{}'".format(name, str(server[name]).replace("'", "''"))
            for name in ("host", "port", "user", "password")
            if name in server
        )
        return "\n".join(
            [
                "[databases]",
                f"* = {target}",
                "[pgbouncer]",
                "pool_mode = transaction",
                f"default_pool_size = {SESSIONS}",
                # The session that was idle longest comes next, not the one that was used last: who
                # relies on a session finds out in the second transaction.
                "server_round_robin = 1",
                "max_client_conn = 200",
                # Clients are who the line above says.
                "auth_type = any",
                "listen_addr =",
                f"listen_port = {_PORT}",
                f"unix_socket_dir = {self._folder}",
                "",
            ]
        )

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"PgBouncer ended while starting:\n{self._log()}")
            try:
                psycopg.connect(self.dsn(self._server_dsn)).close()
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"PgBouncer does not answer:\n{self._log()}") from error
                time.sleep(0.02)
            else:
                return

    def _log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-4000:]


@contextlib.contextmanager
def running_pgbouncer(program: str, server_dsn: str) -> Iterator[PgBouncer]:
    """A PgBouncer that lives as long as the block."""
    pgbouncer = PgBouncer(program, server_dsn)
    try:
        pgbouncer.start()
        yield pgbouncer
    finally:
        pgbouncer.stop()


def open_all_sessions(pooled_dsn: str) -> None:
    """Have PgBouncer open all the sessions it may, so that the clients of a test take turns."""
    with contextlib.ExitStack() as stack:
        for _ in range(SESSIONS):
            connection = stack.enter_context(psycopg.connect(pooled_dsn, prepare_threshold=None))
            # Holds a session until its transaction ends.
            connection.execute("SELECT 1")
