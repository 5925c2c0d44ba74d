"""Processes that share one queue."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest_asyncio

from behaviour.helpers import Tables

ROOT = Path(__file__).parents[2]
MEMBER = Path(__file__).with_name("member.py")


class Fleet:
    """Starts members and sees to it that none outlives the test."""

    def __init__(self, dsn: str, tables: Tables) -> None:
        self.dsn = dsn
        self.tables = tables
        self._members: list[subprocess.Popen[bytes]] = []

    def start(self, package: str, role: str = "work", **options: Any) -> subprocess.Popen[bytes]:
        """A new process."""
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        member = subprocess.Popen(
            [sys.executable, str(MEMBER), package, role, self.dsn, json.dumps(options)],
            env=environment,
            cwd=ROOT,
        )
        self._members.append(member)
        return member

    async def end(self, *members: subprocess.Popen[bytes]) -> None:
        """Ask workers to stop; they have to do so in order."""
        for member in members:
            member.send_signal(signal.SIGTERM)
        await self.finished(*members)

    async def finished(self, *members: subprocess.Popen[bytes]) -> None:
        """Wait for processes that end by themselves."""
        for member in members:
            assert await asyncio.to_thread(member.wait, 40) == 0

    async def notes(self, columns: str, **where: Any) -> list[Any]:
        """What handlers noted, in order."""
        condition = " AND ".join(f"{name} = ${place}" for place, name in enumerate(where, start=1))
        return await self.tables.rows(
            f"SELECT {columns} FROM fleet WHERE {condition or 'true'} ORDER BY at",
            *where.values(),
        )

    def kill_all(self) -> None:
        for member in self._members:
            if member.poll() is None:
                member.kill()
                member.wait()


@pytest_asyncio.fixture
async def fleet(queue_dsn: str) -> AsyncIterator[Fleet]:
    """An empty queue and nobody who works on it yet."""
    async with await psycopg.AsyncConnection.connect(queue_dsn, autocommit=True) as connection:
        tables = Tables(connection)
        await tables.rows(
            "CREATE TABLE fleet (job_id bigint, kind text, event text,"
            " at timestamptz DEFAULT clock_timestamp())"
        )
        fleet = Fleet(queue_dsn, tables)
        try:
            yield fleet
        finally:
            fleet.kill_all()
