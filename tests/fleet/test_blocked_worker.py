"""A worker whose event loop is blocked keeps its jobs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from behaviour.helpers import Tables, eventually
from fleet.conftest import ROOT, Fleet
from pgq_fast.queries import Queries
from pgq_fast.settings import Layout
from support.drivers import MakeDriver

pytestmark = [pytest.mark.timeout(120), pytest.mark.layouts("compat", "lease")]

MEMBER = Path(__file__).with_name("blocking_member.py")
HEARTBEAT = 2.0
SECONDS = 5.0
"""That a handler blocks: more than twice as long as a silent worker counts as alive."""

# What the thread sends is the same for both; tests/behaviour has the other combinations.
LIBRARIES = {Layout.compat: "psycopg", Layout.lease: "asyncpg"}


class Blocking:
    """Workers that block, and what they logged."""

    def __init__(self, dsn: str, library: str) -> None:
        self._dsn = dsn
        self._library = library
        self._workers: list[subprocess.Popen[str]] = []

    def start(self, batch: int) -> None:
        options = {
            "library": self._library,
            "seconds": SECONDS,
            "heartbeat": HEARTBEAT,
            "batch": batch,
        }
        self._workers.append(
            subprocess.Popen(
                [sys.executable, str(MEMBER), self._dsn, json.dumps(options)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    async def end(self) -> str:
        """Stop them in good order; their logs."""
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
        logs = [await asyncio.to_thread(worker.communicate, None, 40) for worker in self._workers]
        assert [worker.returncode for worker in self._workers] == [0] * len(self._workers), logs
        return "\n".join(log for _, log in logs)

    def kill(self) -> None:
        for worker in self._workers:
            if worker.poll() is None:
                worker.kill()
            with contextlib.suppress(ValueError):
                worker.communicate()


@pytest.fixture
def blocking(layout: Layout, fleet: Fleet) -> Iterator[Blocking]:
    workers = Blocking(fleet.dsn, LIBRARIES[layout])
    yield workers
    workers.kill()


async def noted(tables: Tables, event: str) -> Counter[int]:
    return Counter(
        await tables.rows("SELECT job_id FROM blocked WHERE event = $1 ORDER BY job_id", event)
    )


async def test_its_jobs_start_once(
    blocking: Blocking, fleet: Fleet, make_driver: MakeDriver
) -> None:
    """The one that blocks, before its first wait or after it, and those that wait behind it."""
    tables = fleet.tables
    await tables.rows("CREATE TABLE blocked (job_id bigint, worker integer, event text)")
    queries = Queries(await make_driver("asyncpg", fleet.dsn))
    names = ["later", "at-once", "quick", "quick"]
    for _ in range(2):
        blocking.start(batch=len(names))

    async def both_are_there() -> bool:
        return bool(
            await tables.value(
                "SELECT count(*) >= 2 FROM pg_stat_activity WHERE datname = current_database()"
                " AND query ILIKE '%pgqueuer%' AND pid <> pg_backend_pid()"
            )
        )

    await eventually(both_are_there)
    ids = await queries.enqueue(names, [b"secret"] * len(names), [4, 3, 2, 1])
    expected = Counter(dict.fromkeys(ids, 1))

    async def all_ended() -> bool:
        # Ended by two, a job would have been started by two.
        return len(await noted(tables, "end")) == len(ids) and await tables.count() == 0

    await eventually(all_ended)
    log = await blocking.end()
    assert await noted(tables, "start") == expected, log
    assert await noted(tables, "end") == expected
    assert await tables.ended() == sorted(ids)
    assert await tables.ended("picked") == sorted(ids)
    for job_id, name in list(zip(ids, names, strict=True))[:2]:
        assert f"job {job_id} of {name} in {name.replace('-', '_')}" in log.replace(
            "work.<locals>.", ""
        ), log
    assert log.count("heartbeats are sent from outside") >= 1
    assert log.count("The event loop was blocked for") >= 1
    assert "secret" not in log
    assert "no longer" not in log
