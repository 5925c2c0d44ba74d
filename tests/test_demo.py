"""The demo: what it prints, and that it leaves nothing on a user's server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from pgq_fast import __impl__, demo
from support.server import trial_schemas

# Unusual enough not to be in a table by accident.
JOBS = 1_234


def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start the demo as a process of its own."""
    # A shell may have started the tests with SIGINT ignored, and children inherit that.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from pgq_fast.demo import main; sys.exit(main())"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "COLUMNS": "100", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.pg_matrix
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_runs_each_job_once_and_reports(dsn: str, driver: str) -> None:
    with start(f"--jobs={JOBS}", f"--dsn={dsn}", f"--driver={driver}") as process:
        output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert "1,234 jobs, each ran once" in output
    for row in ("enqueue, in lists", "drain", "p50", "p99", driver, sys.version.split()[0]):
        assert row in output
    assert ("compiled" if __impl__ == "c" else "pure Python") in output
    assert trial_schemas(dsn) == []


@pytest.mark.impl_agnostic
def test_runs_without_a_server_of_the_users() -> None:
    with start("--jobs=100", "--batch-size=7", DSN="") as process:
        output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert "100 jobs, each ran once" in output


@pytest.mark.impl_agnostic
def test_the_dsn_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSN", "postgresql:///here")
    assert demo.parse([]).dsn == "postgresql:///here"
    assert demo.parse(["--dsn=postgresql:///there"]).dsn == "postgresql:///there"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_an_interrupt_removes_the_schema(dsn: str, number: signal.Signals, status: int) -> None:
    with start("--jobs=1000000", f"--dsn={dsn}") as process:
        deadline = time.monotonic() + 60
        while not trial_schemas(dsn):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert trial_schemas(dsn) == []


@pytest.mark.impl_agnostic
def test_a_server_that_does_not_answer_is_an_explained_error() -> None:
    with start("--dsn=postgresql://user:hush@127.0.0.1:1/nowhere") as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("pgq_fast.demo: cannot use the server")
    assert "hush" not in errors


@pytest.mark.impl_agnostic
@pytest.mark.parametrize("jobs", ["0", "-1", "many"])
def test_a_number_of_jobs_that_makes_no_sense_is_refused(jobs: str) -> None:
    with pytest.raises(SystemExit):
        demo.parse([f"--jobs={jobs}"])


def test_quantiles_are_waits_that_occurred() -> None:
    found = demo.Measurements(
        jobs=1, enqueue_time=1.0, drain_time=1.0, latencies=[float(n) for n in range(101)]
    )
    assert (found.latency(0.0), found.latency(0.5), found.latency(0.99)) == (0.0, 50.0, 99.0)
