"""What the tests of behaviour share: waiting, workers beside the test, a look into the tables."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, Final, TypeAlias

import psycopg
import pytest

from pgq_fast.layouts.compat import CompatLayout
from pgq_fast.layouts.lease import LeaseLayout
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.queries import SyncQueries
from pgq_fast.settings import Layout
from pgq_fast.types import QueueExecutionMode, QueueManagerId
from pgq_fast.worker.port import worker_layout

DEADLINE = 30.0
"""Seconds that anything may take which a test waits for."""

Enqueue: TypeAlias = Callable[..., Awaitable[list[Any]]]
"""``Queries.enqueue``, or what behaves like it."""


def awaitable_enqueue(queries: SyncQueries) -> Enqueue:
    """``enqueue`` of *queries*, to be called as the others are."""

    async def call(*args: Any, **kwargs: Any) -> list[Any]:
        result: list[Any] = queries.enqueue(*args, **kwargs)
        return result

    return call


QUIET: dict[str, Any] = {"log_aggregation_interval": timedelta(0)}


# What the tests do to the tables, by layout.
_JOB: Final = (
    "id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers"
)
_LEASE: Final = (
    "entrypoint, slot, done, ids, priorities, attempts, created, execute_after, dedupe_keys,"
    " payloads, headers"
)
_AS_ARRAYS: Final = ", ".join(
    f"array_agg({column} ORDER BY ~priority, id)"
    for column in _JOB.split(", ")
    if column != "entrypoint"
)
_PICK: Final = {
    Layout.compat: [
        "UPDATE pgqueuer SET status = 'picked', queue_manager_id = md5($2)::uuid,"
        " heartbeat = now() - $3::interval, slot = CASE WHEN $4 THEN id - $5 END"
        " WHERE id = ANY($1::bigint[])"
    ],
    Layout.lease: [
        "WITH job AS (DELETE FROM pgqueuer_ready WHERE id = ANY($1::bigint[])"
        " RETURNING *, CASE WHEN $4 THEN id - $5 END AS slot)"
        " INSERT INTO pgqueuer_lease (worker, heartbeat, entrypoint, slot, done, ids,"
        " priorities, attempts, created, execute_after, dedupe_keys, payloads, headers)"
        " SELECT md5($2)::uuid, now() - $3::interval, entrypoint, slot,"
        f" repeat('0', count(*)::int)::varbit, {_AS_ARRAYS} FROM job GROUP BY entrypoint, slot"
    ],
}
_MAKE_STALE: Final = {
    Layout.compat: ["UPDATE pgqueuer SET heartbeat = now() - interval '1 hour'"],
    Layout.lease: ["UPDATE pgqueuer_lease SET heartbeat = now() - interval '1 hour'"],
}
_TAKE_OVER: Final = {
    Layout.compat: [
        "UPDATE pgqueuer SET queue_manager_id = gen_random_uuid(), heartbeat = now() + $1::interval"
        " WHERE status = 'picked'"
    ],
    Layout.lease: [
        "WITH lost AS (DELETE FROM pgqueuer_lease RETURNING *)"
        f" INSERT INTO pgqueuer_lease (worker, heartbeat, {_LEASE})"
        f" SELECT gen_random_uuid(), now() + $1::interval, {_LEASE} FROM lost"
    ],
}
_END: Final = {
    Layout.compat: ["DELETE FROM pgqueuer WHERE id = $1"],
    Layout.lease: [
        "DELETE FROM pgqueuer_lease WHERE ids = ARRAY[$1::bigint]",
        "DELETE FROM pgqueuer_dedupe WHERE job_id = $1",
    ],
}
_HOLD: Final = {
    Layout.compat: ["UPDATE pgqueuer SET status = 'failed' WHERE id = $1"],
    Layout.lease: [
        "WITH job AS (DELETE FROM pgqueuer_ready WHERE id = $1 RETURNING *)"
        f" INSERT INTO pgqueuer_held ({_JOB}) SELECT {_JOB} FROM job",
        "DELETE FROM pgqueuer_dedupe WHERE job_id = $1",
    ],
}
_ROWS: Final = {
    Layout.compat: ["pgqueuer"],
    Layout.lease: ["pgqueuer_ready", "pgqueuer_deferred", "pgqueuer_held"],
}


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
    """The queue's tables, from outside.

    What it reads goes by pgqueuer's names, which are views in the lease layout.
    """

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        prefix: str = "",
        layout: Layout = Layout.compat,
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._layout = layout
        self.new_jobs = f"{prefix}pgqueuer"
        """The table that jobs which may run are inserted into."""
        self._log_order = "entry.id"
        if layout is Layout.lease:
            self.new_jobs = f"{prefix}pgqueuer_ready"
            self._log_order = "entry.created, entry.status"

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
            f"SELECT status::text FROM {self._prefix}pgqueuer_log AS entry WHERE job_id = $1"
            f" ORDER BY {self._log_order}",
            job_id,
        )

    async def pick(self, *ids: int, silent: timedelta = timedelta(0), seated: bool = False) -> None:
        """Do to queued jobs what a claim does, by a worker of whom nothing has been heard since.

        Args:
            ids: What it claimed at a time.
            silent: For how long.
            seated: Whether the entrypoint has a concurrency limit.
        """
        await self._apply(_PICK, list(ids), str(ids), silent, seated, min(ids))

    async def make_stale(self) -> None:
        """Let an hour pass for those who picked jobs, without a heartbeat."""
        await self._apply(_MAKE_STALE)

    async def take_over(self, alive: timedelta = timedelta(hours=1)) -> None:
        """Do to all picked jobs what a rescue does and a claim by another worker after it.

        Args:
            alive: For how long the other one counts as alive.
        """
        await self._apply(_TAKE_OVER, alive)

    @property
    def taking_over(self) -> str:
        """The statement of ``take_over``, for other sessions."""
        (query,) = _TAKE_OVER[self._layout]
        return query.replace("$1", "'1 hour'")

    async def end(self, job_id: int) -> None:
        """Do to a picked job what its end does; it is not logged."""
        await self._apply(_END, job_id)

    async def hold(self, job_id: int) -> None:
        """Do to a queued job what a failure does that holds it; it is not logged."""
        await self._apply(_HOLD, job_id)

    async def edit(self, job_id: int, change: str, *args: object) -> None:
        """Change the row of a job that is not picked, as somebody does who knows no better.

        Args:
            job_id: Which one.
            change: What comes after SET; the parameters are $2 and following.
            args: Those parameters.
        """
        for table in _ROWS[self._layout]:
            await self.rows(
                f"UPDATE {self._prefix}{table} SET {change} WHERE id = $1", job_id, *args
            )

    async def _apply(self, statements: dict[Layout, list[str]], *args: object) -> None:
        for query in statements[self._layout]:
            await self.rows(query.replace("pgqueuer", f"{self._prefix}pgqueuer"), *args)

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


def layout_of(manager: QueueManager) -> Any:
    """The class through which *manager* gets at its tables."""
    return type(worker_layout(manager.queries))


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
        self.beats: list[tuple[QueueManagerId, list[int]]] = []
        """Heartbeats: of which worker, and for which jobs."""
        self.under_way = 0
        self.on_claim: Callable[[ClaimNote], None] = lambda note: None
        """Called with each claim when its answer is there."""
        self.before_claim: Callable[[QueueManagerId], Awaitable[None]] | None = None
        """Awaited before each claim."""
        for layout in (CompatLayout, LeaseLayout):
            self._note(monkeypatch, layout)

    def _note(self, monkeypatch: pytest.MonkeyPatch, layout_type: Any) -> None:
        claim, rest, heartbeat = layout_type.claim, layout_type.rest, layout_type.heartbeat

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

        async def noted_heartbeat(layout: Any, ids: Any, owner: QueueManagerId) -> Any:
            self.beats.append((owner, sorted(ids)))
            return await heartbeat(layout, ids, owner)

        monkeypatch.setattr(layout_type, "claim", noted_claim)
        monkeypatch.setattr(layout_type, "rest", noted_rest)
        monkeypatch.setattr(layout_type, "heartbeat", noted_heartbeat)

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
