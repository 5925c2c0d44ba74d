"""The programs of docs/guides/metrics.md run as they stand there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from behaviour.helpers import eventually
from pgq_fast.queries import Queries
from support.doc_blocks import ROOT, run_block, write_blocks
from support.drivers import MakeDriver
from support.scrape import Scrape, scrape


@pytest.fixture
def page(tmp_path: Path) -> Path:
    assert write_blocks("docs/guides/metrics.md", tmp_path) == {
        "worker.py",
        "web.py",
        "exporter.py",
        "printing.py",
    }
    return tmp_path


@contextlib.contextmanager
def running(folder: Path, *command: str, dsn: str, port: int) -> Iterator[None]:
    """The program runs for the length of the block, and ends well when it is asked to."""
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PGQUEUER_DSN": dsn,
            "METRICS_PORT": str(port),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            finally:
                process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def answer(port: int) -> Scrape:
    async def attempt() -> Scrape | None:
        try:
            return await scrape(port)
        except OSError:
            return None

    found: Scrape = await eventually(attempt)
    return found


@pytest.mark.layouts("lease")
async def test_the_programs(make_driver: MakeDriver, queue_dsn: str, page: Path) -> None:
    queries = Queries(await make_driver("asyncpg", queue_dsn))
    await queries.enqueue(["greet"] * 3, [b"world"] * 3, [0] * 3)
    ports = [free_port() for _ in range(2)]
    labels = {"aggregation": "sum", "entrypoint": "greet", "status": "queued"}
    with (
        running(page, "exporter.py", dsn=queue_dsn, port=ports[0]),
        running(page, "-m", "uvicorn", "web:app", "--port", str(ports[1]), dsn=queue_dsn, port=0),
    ):
        for found in await asyncio.gather(*map(answer, ports)):
            assert found.value("pgqueuer_queue_count", **labels) == 3

    port = free_port()
    with running(page, "-m", "pgq_fast", "run", "worker:main", dsn=queue_dsn, port=port):

        async def all_acknowledged() -> bool:
            # The endpoint is there before the worker is.
            samples = (await answer(port)).samples
            return samples.get(("pgqueuer_worker_acknowledged_jobs_total", frozenset())) == 3

        await eventually(all_acknowledged)

    await queries.enqueue("greet", None)
    result = run_block(
        page, "-m", "pgq_fast", "run", "printing:main", "--mode", "drain", PGQUEUER_DSN=queue_dsn
    )
    for line in ("1 job(s) claimed in", "1 run(s) of greet successful", "1 job(s) acknowledged"):
        assert line in result.stdout
