"""Every example runs, here and, with nothing but the package's name replaced, on the original."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import httpx
import pytest

import pgq_fast

pytestmark = [pytest.mark.impl_agnostic, pytest.mark.pg_matrix]

ROOT = Path(pgq_fast.__file__).parents[1]
EXAMPLES = ROOT / "examples"

Run: TypeAlias = Callable[..., list[str]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The original has no other tables than its own."""
    if "folder" in metafunc.fixturenames:
        metafunc.parametrize(
            ("package", "layout"),
            [("pgq_fast", "compat"), ("pgqueuer", "compat"), ("pgq_fast", "lease")],
            indirect=["layout"],
        )


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
def load(folder: Path, queue_dsn: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Import an example in this process."""

    def load(name: str) -> ModuleType:
        monkeypatch.setenv("PGDSN", queue_dsn)
        spec = importlib.util.spec_from_file_location(f"example_{name}", folder / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # FastAPI looks annotations up in the module's namespace by its name.
        monkeypatch.setitem(sys.modules, module.__name__, module)
        spec.loader.exec_module(module)
        return module

    return load


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


async def test_fastapi(load: Callable[[str], Any], run: Run) -> None:
    app = load("fastapi_app").app
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        response = await client.post("/jobs/greet", content=b"web")
        assert response.status_code == 202
        [job_id] = response.json()["ids"]
        assert isinstance(job_id, int)
        assert (await client.get("/queue")).json() == [
            {"count": 1, "entrypoint": "greet", "priority": 0, "status": "queued"}
        ]
    assert await asyncio.to_thread(run, "consumer") == ["hello, web"]


def test_flask(load: Callable[[str], Any], run: Run) -> None:
    client = load("flask_app").app.test_client()
    response = client.post("/jobs/greet", data=b"web")
    assert response.status_code == 202
    [job_id] = response.get_json()["ids"]
    assert isinstance(job_id, int)
    assert client.get("/queue").get_json() == [
        {"count": 1, "entrypoint": "greet", "priority": 0, "status": "queued"}
    ]
    assert run("consumer") == ["hello, web"]


def test_every_example_is_listed_and_tested() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    listed = set(re.findall(r"^\| `(\w+\.py)`", (EXAMPLES / "README.md").read_text(), re.M))
    tested = {
        f"{name}.py" for name in re.findall(r'(?:run|load)\("(\w+)"', Path(__file__).read_text())
    }
    assert names == listed
    assert names <= tested
