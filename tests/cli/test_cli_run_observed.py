"""``pgq run``: what the log looks like, and metrics for Prometheus."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import textwrap
from collections.abc import Iterator

import pytest

from pgq_fast.queries import Queries
from pgq_fast.settings import DBSettings
from support.command_line import CommandLine, failed_with_one_line
from support.drivers import MakeDriver
from support.layouts import LAYOUT_VARIABLE, queries_of
from support.scrape import Scrape, scrape

WORKER = """
    import contextlib, os

    import asyncpg

    from pgq_fast import PgQueuer

    class Observer:
        def claimed(self, jobs, seconds): ...
        def ran(self, entrypoint, outcome, seconds): print("observed", outcome)
        def acknowledged(self, jobs, seconds): ...

    @contextlib.asynccontextmanager
    async def main():
        connection = await asyncpg.connect(os.environ["TEST_DSN"])
        pgq = PgQueuer.from_asyncpg_connection(connection)

        @pgq.entrypoint("note")
        async def note(job):
            print(f"note {job.payload.decode()}")

        @pgq.entrypoint("fail")
        async def fail(job):
            raise LookupError("nothing there")

        try:
            yield pgq
        finally:
            await connection.close()

    @contextlib.asynccontextmanager
    async def only_a_queue():
        async with main() as pgq:
            yield pgq.qm

    @contextlib.asynccontextmanager
    async def only_schedules():
        async with main() as pgq:
            pgq.sm.schedule("tick", "* * * * *")(pgq.qm.entrypoint_registry["note"].parameters.func)
            yield pgq.sm

    @contextlib.asynccontextmanager
    async def observed():
        async with main() as pgq:
            pgq.qm.observer = Observer()
            yield pgq
"""

PORT = r"Metrics are served on port (\d+) of 127.0.0.1"
RUNS = "pgqueuer_worker_run_seconds_count"


@pytest.fixture
def environment(pgq: CommandLine, queue_dsn: str, queue_settings: DBSettings) -> dict[str, str]:
    """With the worker above as app.py."""
    (pgq.folder / "app.py").write_text(textwrap.dedent(WORKER))
    return {"TEST_DSN": queue_dsn, LAYOUT_VARIABLE: queue_settings.layout.value}


@pytest.fixture
async def queries(make_driver: MakeDriver, queue_dsn: str, queue_settings: DBSettings) -> Queries:
    return queries_of(await make_driver("asyncpg", queue_dsn), queue_settings)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


async def until_ran(number: int, *ports: int) -> list[Scrape]:
    """Scrapes that tell of *number* runs together."""
    async with asyncio.timeout(30):
        while True:
            answers = [await scrape(port) for port in ports]
            samples = [sample for answer in answers for sample in answer.samples.items()]
            if sum(value for (name, _), value in samples if name == RUNS) == number:
                return answers
            await asyncio.sleep(0.02)


async def test_the_log_as_json(
    pgq: CommandLine, environment: dict[str, str], queries: Queries
) -> None:
    await queries.enqueue("fail", b"secret")
    # The option outdoes the variable.
    environment = {**environment, "PGQUEUER_LOG_FORMAT": "text"}
    arguments = ("run", "app:main", "--mode", "drain", "--log-format", "json")
    done = pgq(*arguments, "--log-level", "debug", environment=environment)
    assert done.returncode == 0
    records = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
    assert {record["level"] for record in records} >= {"DEBUG", "ERROR"}
    [failure] = [record["exception"] for record in records if "exception" in record]
    assert failure["message"] == "nothing there"
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.layouts
async def test_metrics_of_a_worker(
    pgq: CommandLine, environment: dict[str, str], queries: Queries
) -> None:
    options = ("--metrics-port", "0")
    with pgq.start("run", "app:main", *options, environment=environment) as worker:
        [port] = worker.wait_for(PORT)
        await queries.enqueue(["note", "note", "fail"], [b"1", b"2", b""], [0] * 3)
        [answer] = await until_ran(3, int(port))
        assert answer.value(RUNS, entrypoint="note", outcome="successful") == 2
        assert answer.value(RUNS, entrypoint="fail", outcome="exception") == 1
        # What prometheus-client tells by itself.
        assert answer.value("process_start_time_seconds") > 0
        worker.signal(signal.SIGTERM)
        assert worker.end() == 0
    with socket.socket() as free:
        assert free.connect_ex(("127.0.0.1", int(port))) != 0


async def test_each_process_has_a_port(
    pgq: CommandLine, environment: dict[str, str], queries: Queries
) -> None:
    with socket.socket() as first:
        first.bind(("127.0.0.1", 0))
        base = first.getsockname()[1]
    options = ("--metrics-port", str(base), "--processes", "2", "--restart-delay", "0.01")
    with pgq.start("run", "app:only_a_queue", *options, environment=environment) as fleet:
        ports = fleet.wait_for(PORT, 2)
        assert sorted(map(int, ports)) == [base, base + 1]
        await queries.enqueue(["note"] * 2, [b""] * 2, [0] * 2)
        await until_ran(2, base, base + 1)
        # A replacement takes the place of what it replaces.
        [second] = fleet.wait_for(r"Worker process 2 has the pid (\d+)")
        os.kill(int(second), signal.SIGKILL)
        assert int(fleet.wait_for(PORT, 3)[-1]) == base + 1
        fleet.signal(signal.SIGTERM)
        assert fleet.end() == 0


async def test_an_observer_of_the_users_stays(
    pgq: CommandLine, environment: dict[str, str], queries: Queries
) -> None:
    await queries.enqueue("note", b"1")
    options = ("--mode", "drain", "--metrics-port", "0")
    done = pgq("run", "app:observed", *options, environment=environment)
    assert done.returncode == 0, done.stderr
    assert "observed successful" in done.stdout
    assert "has an observer of its own" in done.stdout


async def test_a_scheduler_shows_what_there_is(
    pgq: CommandLine, environment: dict[str, str]
) -> None:
    options = ("--metrics-port", "0")
    with pgq.start("run", "app:only_schedules", *options, environment=environment) as worker:
        [port] = worker.wait_for(PORT)
        answer = await scrape(int(port))
        assert answer.value("process_start_time_seconds") > 0
        worker.signal(signal.SIGTERM)
        assert worker.end() == 0


def test_a_port_that_is_taken(
    pgq: CommandLine, environment: dict[str, str], taken_port: int
) -> None:
    options = ("--metrics-port", str(taken_port))
    line = failed_with_one_line(pgq("run", "app:main", *options, environment=environment))
    assert f"port {taken_port} of 127.0.0.1" in line
    assert "already in use" in line
    assert "another --metrics-port" in line


@pytest.mark.parametrize("processes", [(), ("--processes", "2")])
def test_without_the_library(
    pgq: CommandLine, environment: dict[str, str], processes: tuple[str, ...]
) -> None:
    hidden = textwrap.dedent(
        """
        import importlib.util, sys
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: (
            None if name == "prometheus_client" else find(name, *rest)
        )
        from pgq_fast.__main__ import main
        main()
        """
    )
    arguments = ("run", "app:main", "--metrics-port", "0", *processes)
    line = failed_with_one_line(pgq(*arguments, program=hidden, environment=environment))
    assert "pip install 'pgq-fast[prometheus]'" in line
