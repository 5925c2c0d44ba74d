"""What the tests of behaviour share: waiting, workers beside the test, a look into the tables."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgq_fast.layouts.compat import CompatLayout
from pgq_fast.layouts.lease import LeaseLayout
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.types import QueueExecutionMode, QueueManagerId

DEADLINE = 30.0
"""Seconds that anything may take which a test waits for."""

QUIET: dict[str, Any] = {"log_aggregation_interval": timedelta(0)}


async def eventually(check: Callable[[], object | Awaitable[object]]) -> Any:
    """Wait until *check* gives something true; that."""
    async with asyncio.timeout(DEADLINE):
        while True:
            result = check()
            if inspect.isawaitable(result):
                result = await result
            if result:
                return result
            await asyncio.sleep(0.01)


class Tables:
    """The queue's tables, from outside."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], prefix: str = "") -> None:
        self._connection = connection
        self._prefix = prefix

    async def rows(self, query: str, *args: object) -> list[Any]:
        """What *query* returns; a list of values where it is one column."""
        cursor = psycopg.AsyncRawCursor(self._connection)
        await cursor.execute(query, args or None)
        if cursor.description is None:
            return []
        rows = await cursor.fetchall()
        return [row[0] for row in rows] if len(cursor.description) == 1 else rows

    async def value(self, query: str, *args: object) -> Any:
        """The one value that *query* returns."""
        (value,) = await self.rows(query, *args)
        return value

    async def count(self, status: str | None = None) -> int:
        """Number of rows in the queue table."""
        number: int = await self.value(
            f"SELECT count(*) FROM {self._prefix}pgqueuer"
            " WHERE $1::text IS NULL OR status::text = $1",
            status,
        )
        return number

    async def statuses(self, job_id: int) -> list[str]:
        """What the log says about a job, in order."""
        return await self.rows(
            f"SELECT status::text FROM {self._prefix}pgqueuer_log WHERE job_id = $1 ORDER BY id",
            job_id,
        )

    async def ended(self, status: str = "successful") -> list[int]:
        """Ids in the log with *status*, as often as they are there."""
        return await self.rows(
            f"SELECT job_id FROM {self._prefix}pgqueuer_log WHERE status::text = $1"
            " ORDER BY job_id",
            status,
        )

    async def sessions(self, application: str) -> int:
        """Number of sessions with that ``application_name``."""
        number: int = await self.value(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", application
        )
        return number


async def drain(manager: QueueManager, **arguments: Any) -> None:
    """Run *manager* until its queue is empty."""
    async with asyncio.timeout(DEADLINE):
        await manager.run(mode=QueueExecutionMode.drain, **{**QUIET, **arguments})


@contextlib.asynccontextmanager
async def working(manager: QueueManager, **arguments: Any) -> AsyncIterator[asyncio.Task[None]]:
    """Run *manager* beside the block, shut it down at its end and see that it ended well."""
    task = asyncio.create_task(manager.run(**{**QUIET, **arguments}))
    try:
        yield task
        manager.shutdown.set()
        async with asyncio.timeout(DEADLINE):
            await task
    finally:
        # A test that failed must not wait for handlers that never end.
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.wait({task}, timeout=0.2)


async def last_statuses(tables: Tables, ids: Iterable[int]) -> list[str]:
    """How each of *ids* ended, by the log."""
    return [(await tables.statuses(job_id))[-1] for job_id in ids]


@dataclasses.dataclass
class ClaimNote:
    """A claim: what was asked for, and what came. It keeps no job alive."""

    owner: QueueManagerId
    wanted: int
    ids: list[int] = dataclasses.field(default_factory=list)
    entrypoints: list[str] = dataclasses.field(default_factory=list)
    payload_bytes: int = 0


class LayoutSpy:
    """Notes what workers ask of their layouts, in the order in which they ask."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.claims: list[ClaimNote] = []
        self.under_way = 0
        self.on_claim: Callable[[ClaimNote], None] = lambda note: None
        """Called with each claim when its answer is there."""
        self.before_claim: Callable[[QueueManagerId], Awaitable[None]] | None = None
        """Awaited before each claim."""
        for layout in (CompatLayout, LeaseLayout):
            self._note(monkeypatch, layout)

    def _note(self, monkeypatch: pytest.MonkeyPatch, layout_type: Any) -> None:
        claim, rest = layout_type.claim, layout_type.rest

        async def noted_claim(
            layout: Any,
            batch_size: int,
            limits: Any,
            owner: QueueManagerId,
            *more: Any,
            **named: Any,
        ) -> Any:
            note = ClaimNote(owner, batch_size)
            self.claims.append(note)
            if self.before_claim is not None:
                await self.before_claim(owner)
            with self._call("claim"):
                answer = await claim(layout, batch_size, limits, owner, *more, **named)
            for job in answer.jobs:
                note.ids.append(job.id)
                note.entrypoints.append(job.entrypoint)
                note.payload_bytes += len(job.payload or b"")
            self.on_claim(note)
            return answer

        async def noted_rest(layout: Any, *more: Any, **named: Any) -> Any:
            with self._call("rest"):
                return await rest(layout, *more, **named)

        monkeypatch.setattr(layout_type, "claim", noted_claim)
        monkeypatch.setattr(layout_type, "rest", noted_rest)

    @contextlib.contextmanager
    def _call(self, name: str) -> Iterator[None]:
        self.calls.append(name)
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    @property
    def wanted(self) -> list[int]:
        """What each claim asked for."""
        return [note.wanted for note in self.claims]

    async def resting(self) -> None:
        """Wait until the worker has probed its empty queue and asks for nothing more."""
        await eventually(self._rests)
        # Long enough for what has been heard by now to lead to a claim.
        while True:
            seen = len(self.calls)
            await asyncio.sleep(0.1)
            if len(self.calls) == seen and self._rests():
                return

    def _rests(self) -> bool:
        return not self.under_way and self.calls[-1:] == ["rest"]


class Recorder:
    """A handler that remembers which jobs it ran, and how many at a time."""

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause
        self.jobs: list[Job] = []
        self.running = 0
        self.most = 0

    async def __call__(self, job: Job) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            self.jobs.append(job)
            if self.pause:
                await asyncio.sleep(self.pause)
        finally:
            self.running -= 1

    @property
    def ids(self) -> list[int]:
        return [job.id for job in self.jobs]

    @property
    def payloads(self) -> list[bytes | None]:
        return [job.payload for job in self.jobs]


def block(seconds: float) -> None:
    """Keep the event loop busy, as a handler does that computes."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class Gate:
    """A handler that blocks each job until it is let through."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.started: list[int] = []
        self.ended: list[int] = []

    async def __call__(self, job: Job) -> None:
        self.started.append(job.id)
        await self.open.wait()
        self.ended.append(job.id)


def payloads(texts: Iterable[str]) -> list[bytes | None]:
    return [text.encode() for text in texts]
