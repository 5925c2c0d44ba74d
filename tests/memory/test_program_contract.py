"""The same program has the same outcome in memory and on each table layout."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

from pgq_fast import PgQueuer
from pgq_fast.completion import CompletionWatcher
from pgq_fast.errors import RetryRequested
from pgq_fast.executors import DatabaseRetryEntrypointExecutor
from pgq_fast.models import Context, Job, Schedule
from pgq_fast.types import JobId, QueueExecutionMode

SOON = timedelta(milliseconds=50)


def worker_on(queries: Any, seen: list[tuple[str, bytes | None, int]]) -> PgQueuer:
    """A worker with a handler for each way that a job can end."""
    pgq = PgQueuer(queries.driver, resources={"seen": seen}, queries=queries)

    def note(job: Job, context: Context) -> None:
        context.resources["seen"].append((job.entrypoint, job.payload, job.attempts))  # type: ignore[attr-defined]

    @pgq.entrypoint("ok")
    async def ok(job: Job, context: Context) -> None:
        note(job, context)

    @pgq.entrypoint("one at a time", concurrency_limit=1)
    async def one(job: Job, context: Context) -> None:
        note(job, context)

    @pgq.entrypoint("fails")
    async def fails(job: Job, context: Context) -> None:
        note(job, context)
        raise LookupError("not there")

    @pgq.entrypoint("held", on_failure="hold")
    async def held(job: Job, context: Context) -> None:
        note(job, context)
        if "repaired" not in context.resources:
            raise LookupError("not there")

    @pgq.entrypoint("asks again")
    async def asks(job: Job, context: Context) -> None:
        note(job, context)
        if job.attempts < 2:
            raise RetryRequested(SOON, "not yet")

    @pgq.entrypoint(
        "tried again",
        executor_factory=lambda parameters: DatabaseRetryEntrypointExecutor(
            parameters, max_attempts=1, initial_delay=SOON, max_delay=SOON
        ),
    )
    async def tried(job: Job, context: Context) -> None:
        note(job, context)
        raise LookupError("never there")

    return pgq


async def drain(pgq: PgQueuer) -> None:
    async with asyncio.timeout(30):
        await pgq.run(mode=QueueExecutionMode.drain)


async def changes(queries: Any, ids: list[JobId]) -> dict[str, list[str]]:
    """What happened to each job, by its entrypoint."""
    found: dict[str, list[str]] = {}
    for job_id in ids:
        entries = await queries.job_log_history(job_id)
        found[entries[0].entrypoint] = [entry.status for entry in entries]
    return found


async def test_jobs_end_in_every_way(queries: Any) -> None:
    names = ["ok", "one at a time", "fails", "held", "asks again", "tried again"]
    ids = await queries.enqueue(names, [b"x"] * 6, [0] * 6, dedupe_key=[f"key {n}" for n in names])
    seen: list[tuple[str, bytes | None, int]] = []
    await drain(worker_on(queries, seen))
    assert Counter(seen) == Counter(
        [
            *((name, b"x", 0) for name in names),
            *(("asks again", b"x", attempt) for attempt in (1, 2)),
            ("tried again", b"x", 1),
        ]
    )
    assert await changes(queries, ids) == {
        "ok": ["queued", "picked", "successful"],
        "one at a time": ["queued", "picked", "successful"],
        "fails": ["queued", "picked", "exception"],
        "held": ["queued", "picked", "failed"],
        "asks again": ["queued", "picked"] * 3 + ["successful"],
        "tried again": ["queued", "picked"] * 2 + ["exception"],
    }
    [job] = await queries.list_failed_jobs()
    assert (job.id, job.entrypoint, job.payload, job.attempts) == (ids[3], "held", b"x", 0)
    logged = {entry.entrypoint: entry.traceback for entry in await queries.exception_logs()}
    assert set(logged) == {"fails", "tried again"}
    assert all(record is not None for record in logged.values())

    await queries.requeue_jobs([job.id])
    pgq = worker_on(queries, seen)
    pgq.resources["repaired"] = True
    await drain(pgq)
    assert (await changes(queries, ids))["held"] == [
        *("queued", "picked", "failed"),
        *("queued", "picked", "successful"),
    ]
    assert await queries.queue_size() == []
    assert dict(await queries.job_status(ids)) == dict(
        zip(
            ids,
            ["successful", "successful", "exception", "successful", "successful", "exception"],
            strict=True,
        )
    )


async def test_priorities_delays_and_limits(queries: Any) -> None:
    seen: list[tuple[str, bytes | None, int]] = []
    payloads = [b"low", b"high", b"late"]
    delays = [None, None, timedelta(milliseconds=300)]
    await queries.enqueue(["one at a time"] * 3, payloads, [0, 5, 9], delays)
    await drain(worker_on(queries, seen))
    assert [payload for _, payload, _ in seen] == [b"high", b"low", b"late"]


async def test_a_running_worker_is_told_of_everything(queries: Any) -> None:
    """Of new jobs, of cancelled ones, and whoever waits for jobs of their end."""
    pgq = PgQueuer(queries.driver, queries=queries)
    inside = asyncio.Event()

    @pgq.entrypoint("quick")
    async def quick(job: Job) -> None: ...

    @pgq.entrypoint("endless")
    async def endless(job: Job, context: Context) -> None:
        inside.set()
        with context.cancellation:
            await asyncio.Event().wait()

    ticked = asyncio.Event()

    @pgq.schedule("tick", "* * * * * *")
    async def tick(schedule: Schedule) -> None:
        ticked.set()

    async with asyncio.timeout(30):
        run = asyncio.create_task(pgq.run(dequeue_timeout=timedelta(seconds=60)))
        async with CompletionWatcher(queries.driver, queries=queries) as watcher:
            ids = await queries.enqueue(["quick", "endless"], [None] * 2, [0] * 2)
            assert await watcher.wait_for(ids[0]) == "successful"
            await inside.wait()
            await queries.mark_job_as_cancelled([ids[1]])
            assert await watcher.wait_for(ids[1]) == "canceled"
        await ticked.wait()
        pgq.shutdown.set()
        await run
    assert await queries.queue_size() == []
    [row] = await queries.peek_schedule()
    assert (row.entrypoint, row.status) == ("tick", "queued")
