"""``pgq run``: factories, options, signals, and processes that are looked after."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from pgq_fast import supervisor
from pgq_fast.cli import processes
from pgq_fast.queries import Queries
from pgq_fast.settings import DBSettings
from pgq_fast.types import QueueExecutionMode
from support.command_line import CommandLine, Done, Running, failed_with_one_line, succeeded
from support.drivers import MakeDriver
from support.layouts import LAYOUT_VARIABLE, queries_of

WORKER = """
    import asyncio, contextlib, os, pathlib, sys

    import asyncpg

    from pgq_fast import PgQueuer

    HERE = pathlib.Path(__file__).parent

    @contextlib.asynccontextmanager
    async def main(arguments=()):
        print("made with", arguments)
        connection = await asyncpg.connect(os.environ["TEST_DSN"])
        pgq = PgQueuer.from_asyncpg_connection(connection)

        @pgq.entrypoint("note")
        async def note(job):
            print(f"note {job.payload.decode()} in {os.getpid()}")

        @pgq.entrypoint("wait")
        async def wait(job):
            print(f"wait begins in {os.getpid()}")
            while not (HERE / "go").exists():
                await asyncio.sleep(0.01)
            print("wait ends")

        @pgq.entrypoint("fall")
        async def fall(job):
            os._exit(7)

        try:
            yield pgq
        finally:
            await connection.close()
            print("cleaned up")

    @contextlib.asynccontextmanager
    async def fails_twice():
        runs = HERE / "runs"
        number = len(runs.read_text()) if runs.exists() else 0
        runs.write_text("x" * (number + 1))
        if number < 2:
            raise ConnectionError("postgresql://me:s3cret@host/db does not answer")
        async with main() as pgq:
            yield pgq

    @contextlib.asynccontextmanager
    async def dies_three_times():
        runs = HERE / "runs"
        number = len(runs.read_text()) if runs.exists() else 0
        runs.write_text("x" * (number + 1))
        if number < 3:
            os._exit(7)
        async with main() as pgq:
            yield pgq

    async def coroutine():
        pass

    def function():
        return 5

    @contextlib.asynccontextmanager
    async def yields_text():
        yield "text"

    @contextlib.asynccontextmanager
    async def missing_key():
        os.environ["NO_SUCH_VARIABLE"]
        yield

    @contextlib.asynccontextmanager
    async def fails_in_a_group():
        async with asyncio.TaskGroup() as group:
            group.create_task(missing_key().__aenter__())
        yield

    number = 5
"""

Run = Callable[..., Awaitable[Done]]


class App:
    """The worker above in the current directory of the command line."""

    def __init__(self, pgq: CommandLine, dsn: str, layout: str) -> None:
        self.pgq = pgq
        self.environment = {"TEST_DSN": dsn, LAYOUT_VARIABLE: layout}
        (pgq.folder / "app.py").write_text(textwrap.dedent(WORKER))

    def run(self, *arguments: str) -> Done:
        return self.pgq("run", *arguments, environment=self.environment)

    def start(self, *arguments: str) -> Running:
        return self.pgq.start("run", *arguments, environment=self.environment)

    def let_go(self) -> None:
        """Have the handler of "wait" end."""
        (self.pgq.folder / "go").touch()


@pytest.fixture
def app(pgq: CommandLine, queue_dsn: str, queue_settings: DBSettings) -> App:
    return App(pgq, queue_dsn, queue_settings.layout.value)


@pytest.fixture
async def queries(make_driver: MakeDriver, queue_dsn: str, queue_settings: DBSettings) -> Queries:
    return queries_of(await make_driver("asyncpg", queue_dsn), queue_settings)


@pytest.mark.layouts
async def test_drain(app: App, queries: Queries) -> None:
    await queries.enqueue(["note"] * 2, [b"1", b"2"], [0, 0])
    done = succeeded(app.run("app:main", "--mode", "drain", "--", "one", "--two"))
    lines = done.stdout.splitlines()
    assert lines[0] == "made with ['one', '--two']"
    assert sorted(line[:6] for line in lines[1:-1]) == ["note 1", "note 2"]
    assert lines[-1] == "cleaned up"
    assert done.stderr == ""


async def test_options_reach_the_worker(
    pgq_here: Run, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    commands: list[list[str]] = []

    async def runit(_: object, **arguments: Any) -> None:
        given.append({name: value for name, value in arguments.items() if name != "shutdown"})

    async def supervise(command: Callable[[int], list[str]], count: int, **arguments: Any) -> int:
        commands.append(command(1))
        assert (count, arguments) == (3, {"restart": True, "first_pause": 2.0})
        return 0

    monkeypatch.setattr(supervisor, "runit", runit)
    monkeypatch.setattr(processes, "supervise", supervise)
    monkeypatch.chdir(app.pgq.folder)
    succeeded(await pgq_here("run", "app:main"))
    options = (
        *("run", "app:main", "--dequeue-timeout", "1.5", "--batch-size", "1"),
        *("--heartbeat-timeout", "40", "--restart-delay", "2", "--restart-on-failure"),
        *("--log-level", "debug", "--mode", "drain", "--max-concurrent-tasks", "3"),
        *("--shutdown-on-listener-failure", "--log-format", "json"),
    )
    succeeded(await pgq_here(*options))
    # Those of each process, too.
    succeeded(await pgq_here(*options, "--processes", "3", "--", "x", "--y"))
    ((interpreter, module, name, command, supervised, *rest),) = commands
    assert [interpreter, module, name, command] == [sys.executable, "-m", "pgq_fast", "run"]
    assert supervised == f"--supervised={processes.ORPHAN_GRACE}"
    assert "--log-level=DEBUG" in rest
    assert "--log-format=json" in rest
    assert rest[-4:] == ["--", "app:main", "x", "--y"]
    succeeded(await pgq_here("run", *rest))
    assert given.pop() == given[-1]
    assert given == [
        {
            "dequeue_timeout": timedelta(seconds=30),
            "batch_size": None,
            "heartbeat_timeout": timedelta(seconds=30),
            "restart_delay": timedelta(0),
            "restart_on_failure": False,
            "mode": QueueExecutionMode.continuous,
            "max_concurrent_tasks": None,
            "shutdown_on_listener_failure": False,
            "prepare": None,
        },
        {
            "dequeue_timeout": timedelta(seconds=1.5),
            "batch_size": 1,
            "heartbeat_timeout": timedelta(seconds=40),
            "restart_delay": timedelta(seconds=2),
            "restart_on_failure": True,
            "mode": QueueExecutionMode.drain,
            "max_concurrent_tasks": 3,
            "shutdown_on_listener_failure": True,
            "prepare": None,
        },
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("app:main", "--mode", "sometimes"),
        ("app:main", "--log-level", "loud"),
        ("app:main", "--log-format", "xml"),
        ("app:main", "--metrics-port", "65536"),
        ("app:main", "--metrics-port", "65535", "--processes", "2"),
        ("app:main", "--batch-size", "0"),
        ("app:main", "--processes", "0"),
        ("app:main", "--restart-delay", "-1"),
        ("app:main", "--batch-size", "2", "--max-concurrent-tasks", "3"),
    ],
)
async def test_wrong_usage(pgq_here: Run, arguments: tuple[str, ...]) -> None:
    done = await pgq_here("run", *arguments)
    assert (done.returncode, done.stdout) == (2, "")


def test_wrong_factories(app: App) -> None:
    expected = {
        "app": "'module:function'",
        "no_such_module:main": "no_such_module",
        "app:no_such_function": "no_such_function",
        "app:number": "'app:number' is a int",
        "app:coroutine": "returned a coroutine. Write it with @contextlib.asynccontextmanager",
        "app:function": "returned a int. Write it with @contextlib.asynccontextmanager",
        "app:yields_text": "yielded a str, which cannot be run: yield a PgQueuer",
        "app:missing_key": "KeyError: 'NO_SUCH_VARIABLE' (app.py, line ",
        "app:fails_in_a_group": "error: KeyError: 'NO_SUCH_VARIABLE'",
        "app:fails_twice": "postgresql://me:***@host/db does not answer",
    }
    each = app.pgq.each([("run", factory) for factory in expected], environment=app.environment)
    for part, done in zip(expected.values(), each, strict=True):
        assert part in failed_with_one_line(done)


async def test_restarts_after_failures(app: App, queries: Queries) -> None:
    await queries.enqueue("note", b"1")
    done = app.run(
        "app:fails_twice", "--restart-on-failure", "--restart-delay", "0.01", "--mode", "drain"
    )
    succeeded(done)
    assert done.stderr.count("ERROR: The worker failed") == 2
    assert done.stdout.count("Next worker in 0.01 seconds") == 2
    assert "note 1" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_one_signal_lets_jobs_end(app: App, queries: Queries, number: int) -> None:
    await queries.enqueue("wait", None)
    with app.start("app:main") as worker:
        worker.wait_for("wait begins")
        worker.signal(number)
        worker.wait_for("received, shutting down")
        app.let_go()
        assert worker.end() == 0
    assert worker.output.endswith("wait ends\ncleaned up\n")


async def test_another_signal_ends_at_once(app: App, queries: Queries) -> None:
    await queries.enqueue("wait", None)
    with app.start("app:main") as worker:
        worker.wait_for("wait begins")
        worker.signal(signal.SIGTERM)
        worker.wait_for("received, shutting down")
        send_again(worker)
        assert worker.end() == -signal.SIGTERM
    assert "received again, ending at once" in worker.output
    assert "wait ends" not in worker.output


def send_again(worker: Running) -> None:
    """Send SIGTERM until it counts: one that follows closely is taken for an echo."""
    while "received again" not in worker.output and worker.process.poll() is None:
        worker.signal(signal.SIGTERM)
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether there is such a process; one that has ended but was not waited for is none."""
    done = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.returncode == 0 and not done.stdout.strip().startswith("Z")


def gone(*pids: int) -> None:
    """Wait until none of *pids* is running."""
    deadline = time.monotonic() + 60
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


PID = r"Worker process \d has the pid (\d+)"


@pytest.mark.layouts("lease")
async def test_processes_share_the_queue_and_end_together(app: App, queries: Queries) -> None:
    await queries.enqueue(["wait"] * 4, [None] * 4, [0] * 4)
    options = ("--processes", "2", "--batch-size", "1", "--max-concurrent-tasks", "2")
    with app.start("app:main", *options, "--", "x") as fleet:
        pids = set(fleet.wait_for(PID, 2))
        # Each has two of the jobs.
        assert set(fleet.wait_for(r"wait begins in (\d+)", 4)) == pids
        fleet.signal(signal.SIGTERM)
        fleet.wait_for("SIGTERM received")
        app.let_go()
        assert fleet.end() == 0
    assert fleet.output.count("made with ['x']") == 2
    assert fleet.output.count("wait ends") == 4
    assert fleet.output.count("cleaned up") == 2
    gone(*map(int, pids))


async def test_a_process_that_is_killed_or_stopped_is_replaced(app: App, queries: Queries) -> None:
    with app.start("app:main", "--processes", "1", "--restart-delay", "0.01") as fleet:
        (first,) = fleet.wait_for(PID)
        fleet.wait_for("made with")
        os.kill(int(first), signal.SIGKILL)
        fleet.wait_for("Worker process 1 was killed by SIGKILL; the next one starts in 0.01")
        fleet.wait_for("made with", 2)
        await queries.enqueue("note", b"1")
        _, second = fleet.wait_for(PID, 2)
        assert fleet.wait_for(r"note 1 in (\d+)") == [second]
        # As by an operator who wants a fresh one.
        os.kill(int(second), signal.SIGTERM)
        fleet.wait_for("Worker process 1 was stopped by a signal")
        fleet.wait_for("made with", 3)
        fleet.signal(signal.SIGINT)
        assert fleet.end() == 0


async def test_another_signal_ends_all_processes_at_once(app: App, queries: Queries) -> None:
    await queries.enqueue("wait", None)
    with app.start("app:main", "--processes", "2") as fleet:
        pids = fleet.wait_for(PID, 2)
        fleet.wait_for("wait begins")
        fleet.signal(signal.SIGTERM)
        fleet.wait_for("SIGTERM received, shutting down")
        send_again(fleet)
        assert fleet.end() == -signal.SIGTERM
    assert "wait ends" not in fleet.output
    gone(*map(int, pids))


async def test_processes_end_with_a_supervisor_that_is_killed(app: App, queries: Queries) -> None:
    await queries.enqueue("wait", None)
    with app.start("app:main", "--processes", "2") as fleet:
        pids = fleet.wait_for(PID, 2)
        fleet.wait_for("made with", 2)
        fleet.wait_for("wait begins")
        fleet.signal(signal.SIGKILL)
        app.let_go()
        # The output ends when nobody can write to it any more.
        assert fleet.end() == -signal.SIGKILL
    gone(*map(int, pids))
    assert "wait ends" in fleet.output
    assert fleet.output.count("cleaned up") == 2


async def test_a_job_that_hangs_does_not_keep_an_orphan(app: App, queries: Queries) -> None:
    await queries.enqueue("wait", None)
    program = (
        "from pgq_fast.cli import processes; processes.ORPHAN_GRACE = 0.1; "
        "from pgq_fast.__main__ import main; main()"
    )
    arguments = ("run", "app:main", "--processes", "1")
    with app.pgq.start(*arguments, program=program, environment=app.environment) as fleet:
        (pid,) = fleet.wait_for(PID)
        fleet.wait_for("wait begins")
        fleet.signal(signal.SIGKILL)
        fleet.wait_for("The supervisor is gone, and jobs did not end")
        fleet.end()
    gone(int(pid))
    assert "wait ends" not in fleet.output


@pytest.mark.parametrize(("entrypoint", "code"), [("note", 0), ("fall", 1)])
async def test_draining_processes_are_not_replaced(
    app: App, queries: Queries, entrypoint: str, code: int
) -> None:
    await queries.enqueue(entrypoint, b"1")
    # However long it had run.
    program = (
        "from pgq_fast.cli import processes; processes.CALM = 0; "
        "from pgq_fast.__main__ import main; main()"
    )
    arguments = ("run", "app:main", "--mode", "drain", "--processes", "1")
    done = app.pgq(*arguments, program=program, environment=app.environment)
    assert done.returncode == code, done.stderr
    assert done.stdout.count("has the pid") == 1
    assert ("failed with exit code 7" in done.stderr) == (code == 1)


def test_pauses_grow_while_a_process_keeps_dying(app: App) -> None:
    options = ("--mode", "drain", "--restart-on-failure", "--restart-delay", "0.02")
    done = succeeded(app.run("app:dies_three_times", "--processes", "1", *options))
    pauses = re.findall(r"exit code 7; the next one starts in ([0-9.]+) seconds", done.stderr)
    assert pauses == ["0.02", "0.04", "0.08"]
    assert done.stdout.count("has the pid") == 4


def test_processes_without_a_factory(app: App) -> None:
    done = app.run("app:no_such_function", "--processes", "2")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert lines
    assert "no_such_function" in lines[0]
    # Nobody tried again.
    assert done.stdout.count("has the pid") == 2
