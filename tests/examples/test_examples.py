"""Every example runs, here and, with nothing but the package's name replaced, on the original."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import httpx
import psycopg
import pytest

import pgq_fast
from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.queries import SyncQueries
from support.command_line import Running

pytestmark = pytest.mark.impl_agnostic

ROOT = Path(pgq_fast.__file__).parents[1]
EXAMPLES = ROOT / "examples"

Run: TypeAlias = Callable[..., list[str]]


@pytest.fixture(params=["pgq_fast", "pgqueuer"])
def package(request: pytest.FixtureRequest) -> str:
    """Whose tables are the same."""
    name: str = request.param
    return name


@pytest.fixture
def folder(package: str, tmp_path: Path) -> Path:
    """The examples, written for *package*."""
    for path in EXAMPLES.glob("*.py"):
        source = path.read_text().replace("pgq_fast", package)
        (tmp_path / path.name).write_text(source)
    return tmp_path


@pytest.fixture
def run(folder: Path, queue_dsn: str) -> Run:
    """``run("producer", "5")``: the lines that the example prints."""

    def run(name: str, *arguments: str) -> list[str]:
        result = subprocess.run(
            [sys.executable, str(folder / f"{name}.py"), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PGDSN": queue_dsn, "PYTHONPATH": str(ROOT)},
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.splitlines()

    return run


@pytest.fixture
def start(folder: Path, queue_dsn: str) -> Callable[..., Running]:
    """``start("-m", "flask", ...)``: a program in the folder of the examples."""

    def start(*arguments: str) -> Running:
        environment = {**os.environ, "PGDSN": queue_dsn, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, *arguments]
        return Running(command, environment, folder, terminal=False, own_group=True)

    return start


def test_producer_and_consumer(run: Run) -> None:
    output = run("producer", "5")
    assert re.fullmatch(r"enqueued job \d+", output[0])
    assert output[1:] == ["enqueued 5 more", "today's report is already on the queue"]

    output = run("consumer")
    # The boss has the highest priority of those that were there from the start.
    assert output[0] == "hello, boss"
    assert sorted(output) == [
        "hello, boss",
        *(f"hello, guest {i}" for i in range(5)),
        "hello, latecomer",
        "hello, world",
        output[[line.startswith("report") for line in output].index(True)],
    ]
    assert run("consumer") == []


def test_the_consumer_is_a_factory(run: Run, folder: Path, package: str) -> None:
    run("sync_producer", "2")
    (folder / "supervised.py").write_text(
        f"import asyncio, {package}.types\n"
        f"drain = {package}.types.QueueExecutionMode.drain\n"
        f"asyncio.run({package}.run('consumer:main', mode=drain))\n"
    )
    assert sorted(run("supervised")) == ["hello, visitor 0", "hello, visitor 1"]


def test_a_pool_and_its_limit(run: Run) -> None:
    [line] = run("pool_worker")
    assert re.fullmatch(r"sent 8 mails, never more than [12] at once", line)


def test_psycopg(run: Run) -> None:
    assert run("psycopg_worker") == ["resized an image of 4 bytes"]


def test_sync_producer(run: Run) -> None:
    assert run("sync_producer", "7") == ["7 jobs of 'greet' are queued"]
    assert sorted(run("consumer")) == [f"hello, visitor {i}" for i in range(7)]


def test_in_memory(run: Run) -> None:
    assert run("in_memory") == ["the sum is 5050"]


def test_scheduler(run: Run) -> None:
    first, second = run("scheduler", "2")
    assert first == "watching, last time at None"
    assert re.match(r"watching, last time at \d{4}-", second)


def test_completion(run: Run) -> None:
    assert run("completion") == [
        "100 / 5: successful",
        "100 / 4: successful",
        "100 / 0: exception",
    ]


def test_cancellation(run: Run) -> None:
    assert run("cancellation") == ["cancelled, tidying up", "the log says canceled"]


def test_retry(run: Run) -> None:
    assert sorted(run("retry")) == ["fetched after 2 retries", "ready after 1 retry"]


def test_shared_resources(run: Run) -> None:
    *lines, last = run("shared_resources")
    assert sorted(lines) == ["hund means dog", "hund means dog", "katze means cat"]
    assert last == "2 of 3 were dogs"


def test_script(run: Run, tmp_path: Path, queue_dsn: str) -> None:
    files = [tmp_path / f"{number}.txt" for number in range(3)]
    for number, file in enumerate(files):
        file.write_text("line\n" * number)
    with psycopg.connect(queue_dsn, autocommit=True) as connection:
        # Left over from a start that was broken off.
        SyncQueries(SyncPsycopgDriver(connection)).enqueue(
            "count lines", str(files[1]).encode(), dedupe_key=f"count lines of {files[1]}"
        )
    first, *lines = run("script", *map(str, files))
    assert first == "2 of 3 files are new"
    assert sorted(lines) == [f"{file}: {number} lines" for number, file in enumerate(files)]


def test_process_pool(run: Run) -> None:
    assert sorted(run("process_pool", "2")) == [
        "25 primes below 100, counted in the pool",
        "4 primes below 10, counted in the pool",
    ]


def test_a_process_pool_ends_with_its_worker(
    start: Callable[..., Running], folder: Path, package: str, queue_dsn: str
) -> None:
    """By Ctrl-C, which a terminal sends to the processes of the pool as well."""
    with psycopg.connect(queue_dsn, autocommit=True) as connection:
        queries = SyncQueries(SyncPsycopgDriver(connection))
        queries.enqueue(["count primes"] * 2, [b"10", b"100000"], [1, 0])
        (folder / "supervised.py").write_text(
            f"import asyncio, {package}\n"
            "if __name__ == '__main__':\n"
            f"    asyncio.run({package}.run('process_pool:main'))\n"
        )
        with start("supervised.py") as worker:
            worker.wait_for("4 primes below 10,")
            worker.signal_group(signal.SIGINT)
            assert worker.end() == 0
        assert "9592 primes below 100000, counted in the pool" in worker.output
        assert "Traceback" not in worker.output
        assert queries.queue_size() == []


def guests_are_greeted_once(url: str, run: Run) -> None:
    """What is true of each web application: a job is there if the request's transaction is."""
    with httpx.Client(base_url=url) as client:
        assert client.post("/guests/ann").status_code == 202
        assert client.post("/guests/ann").status_code == 409
        response = client.post("/jobs/greet", content=b"web")
        assert response.status_code == 202
        [job_id] = response.json()["ids"]
        assert isinstance(job_id, int)
        assert client.get("/queue").json() == [
            {"count": 2, "entrypoint": "greet", "priority": 0, "status": "queued"}
        ]
    assert run("consumer") == ["hello, ann", "hello, web"]


def test_fastapi(start: Callable[..., Running], run: Run) -> None:
    with start("-m", "uvicorn", "fastapi_app:app", "--port", "0") as server:
        [url] = server.wait_for(r"running on (http://[\d.:]+)")
        guests_are_greeted_once(url, run)
        server.signal(signal.SIGTERM)
        server.end()
    assert "Application shutdown complete" in server.output
    assert "Traceback" not in server.output


def test_flask(start: Callable[..., Running], run: Run) -> None:
    with start("-m", "flask", "--app", "flask_app", "run", "--port", "0") as server:
        [url] = server.wait_for(r"Running on (http://[\d.:]+)")
        guests_are_greeted_once(url, run)
        server.signal(signal.SIGINT)
        assert server.end() == 0


def test_django(start: Callable[..., Running], run: Run) -> None:
    run("django_app", "migrate", "--verbosity", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with start("django_app.py", "runserver", "--noreload", str(port)) as server:
        server.wait_for("Quit the server")
        # It says so before it listens.
        transport = httpx.HTTPTransport(retries=5)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=transport) as client:
            assert client.post("/users/ann").status_code == 202
            assert client.post("/users/ann").status_code == 409
            assert client.delete("/users/ann").status_code == 202
            assert client.delete("/users/ann").status_code == 202
            assert client.get("/queue").json() == [
                {"count": 1, "entrypoint": name, "priority": 0, "status": "queued"}
                for name in ("greet", "report")
            ]
        server.signal(signal.SIGINT)
        assert server.end() == 0
    greeting, report = sorted(run("consumer"))
    assert greeting == "hello, ann"
    assert report.startswith("report written")


def test_every_example_is_listed_and_tested() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    listed = set(re.findall(r"^\| `(\w+\.py)`", (EXAMPLES / "README.md").read_text(), re.M))
    words = re.findall(r'"(\w+)(?:\.py|:\w+)?"', Path(__file__).read_text())
    tested = {f"{word}.py" for word in words}
    assert names == listed
    assert names <= tested
