"""``pgq bench`` and ``pgq demo``: what they print, and that they leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from pgq_fast import demo
from support.command_line import CommandLine, Done, failed_with_one_line, succeeded
from support.server import trial_schemas

Run = Callable[..., Awaitable[Done]]


@pytest.fixture
def any_layout(monkeypatch: pytest.MonkeyPatch, queue_dsn: str) -> None:
    """No layout is chosen."""
    monkeypatch.delenv("PGQUEUER_LAYOUT")


@pytest.mark.usefixtures("any_layout")
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_bench_as_json(pgq_here: Run, queue_dsn: str, driver: str) -> None:
    options = ("--jobs", "120", "--rounds", "2", "--batch-size", "50", "--driver", driver)
    done = succeeded(await pgq_here("bench", *options, "--json"))
    found = json.loads(done.stdout)
    assert found["driver"].split()[0] == driver
    assert (found["jobs"], found["rounds"], found["batch_size"]) == (120, 2, 50)
    assert {"pgq_fast", "implementation", "python", "cpus", "postgresql"} <= found.keys()
    with psycopg.connect(queue_dsn) as connection:
        for name in ("fsync", "synchronous_commit", "full_page_writes", "wal_level"):
            row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
            assert row == (found[name],)
    assert found["round_trip_ms"] > 0
    assert found["jobs_per_second"].keys() == {"compat", "lease"}
    for rates in found["jobs_per_second"].values():
        for step in ("enqueue", "drain"):
            assert len(rates[step]) == 2
            assert min(rates[step]) > 0
    assert "lease, round 2, drain: 120 of 120" in done.stderr
    off = [
        name for name in ("fsync", "synchronous_commit", "full_page_writes") if found[name] == "off"
    ]
    assert [warning.split()[0] for warning in found["warnings"]] == off
    for name in off:
        assert f"warning: {name} is off" in done.stderr
    assert trial_schemas(queue_dsn) == []


async def test_bench_beside_an_earlier_run(pgq_here: Run, tmp_path: Path) -> None:
    file = tmp_path / "earlier.json"
    rates = {"enqueue": [1.0, 2.0, 3.0], "drain": [1e12]}
    file.write_text(json.dumps({"jobs_per_second": {"lease": rates}}))
    options = ("bench", "--jobs", "20", "--rounds", "1", "--compare", str(file))
    found = json.loads(succeeded(await pgq_here("--layout", "lease", *options, "--json")).stdout)
    now = found["jobs_per_second"]["lease"]["enqueue"][0]
    assert found["ratio_to_earlier"] == {
        "lease": {"enqueue": pytest.approx(now / 2, rel=1e-2), "drain": 0}
    }
    done = succeeded(await pgq_here("--layout", "lease", *options))
    assert "To earlier" in done.stdout
    assert "0.00" in done.stdout
    # A layout that the earlier run has not measured has no ratio.
    done = succeeded(await pgq_here("--layout", "compat", *options, "--json"))
    assert json.loads(done.stdout)["ratio_to_earlier"] == {}


@pytest.mark.parametrize("content", [None, "", "[]", '{"jobs_per_second": {"lease": {}}}'])
async def test_an_earlier_run_that_is_none_is_refused(
    pgq_here: Run, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "earlier.json"
    if content is not None:
        file.write_text(content)
    line = failed_with_one_line(await pgq_here("bench", "--compare", str(file)))
    assert "--compare takes a file of what 'pgq bench --json' prints" in line


async def test_bench_as_tables(pgq_here: Run) -> None:
    done = succeeded(await pgq_here("--layout", "lease", "bench", "--jobs", "10", "--rounds", "1"))
    lines = done.stdout.splitlines()
    assert sum("lease" in line for line in lines) == 2
    assert not any("compat" in line for line in lines)
    for name in ("enqueue, in lists", "drain", "fsync", "synchronous_commit", "asyncpg"):
        assert name in done.stdout
    assert (await pgq_here("bench", "--jobs", "0")).returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bench_removes_its_schema(
    pgq: CommandLine, dsn: str, number: signal.Signals
) -> None:
    # A shell may have started the tests with SIGINT ignored, and children inherit that.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from pgq_fast.__main__ import main; main()"
    )
    with pgq.start("bench", "--jobs", "1000000", dsn=dsn, program=program) as running:
        running.wait_for("round 1, enqueue")
        assert len(trial_schemas(dsn)) == 1
        running.signal(number)
        assert running.end() == 128 + number
    assert trial_schemas(dsn) == []


def test_bench_without_a_driver_or_a_server(pgq: CommandLine) -> None:
    program = """
import sys
sys.modules["asyncpg"] = None
from pgq_fast.__main__ import main
main()
"""
    line = failed_with_one_line(pgq("bench", "--driver", "asyncpg", program=program))
    assert "pip install 'pgq-fast[asyncpg]'" in line
    secrets = [f"{scheme}//me:s3cret@127.0.0.1:1/none" for scheme in ("postgresql:", "postgres")]
    commands = [
        ["--pg-dsn", secret, "bench", "--driver", driver]
        for secret in secrets
        for driver in ("asyncpg", "psycopg")
    ]
    commands += [["demo", "--dsn", secret, "--driver", "psycopg"] for secret in secrets]
    for done in pgq.each(commands):
        line = failed_with_one_line(done)
        assert "cannot connect to PostgreSQL" in line or "cannot use the server" in line
        assert "s3cret" not in line


async def test_demo(pgq_here: Run, queue_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "LATENCY_JOBS", 5)
    monkeypatch.setattr(demo, "LATENCY_WARM_UP", 0)
    options = ("--jobs", "70", "--driver", "psycopg", "--batch-size", "9", "--dsn", queue_dsn)
    done = succeeded(await pgq_here("--layout", "lease", "demo", *options))
    for words in ("70 jobs, each ran once", "psycopg", "drain, 9 at a time", "lease"):
        assert words in done.stdout
    assert "compat" not in done.stdout
    assert trial_schemas(queue_dsn) == []

    @contextlib.contextmanager
    def started() -> Iterator[str]:
        yield queue_dsn

    # Without --dsn, not the server of the environment but one of its own.
    monkeypatch.setattr(demo, "embedded_postgres", started)
    monkeypatch.setenv("PGDSN", "postgresql://127.0.0.1:1/none")
    done = succeeded(await pgq_here("--layout", "compat", "demo", "--jobs", "20"))
    assert "20 jobs, each ran once" in done.stdout
