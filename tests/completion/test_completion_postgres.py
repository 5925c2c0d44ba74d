"""Waiting for jobs to end, on PostgreSQL, over every driver."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any

from pgq_fast.completion import CompletionWatcher
from pgq_fast.queries import Queries
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.types import QueueEntrypoint, QueueManagerId

WORKER = QueueManagerId(uuid.UUID(int=1))
PARAMETERS = {QueueEntrypoint("ep"): EntrypointExecutionParameter(0)}


async def test_ends_of_jobs_are_heard_without_a_timer(anydriver: Any) -> None:
    queries = Queries(anydriver)
    async with (
        asyncio.timeout(20),
        CompletionWatcher(anydriver, queries=queries, refresh_interval=None) as watcher,
    ):
        ids = await queries.enqueue(["ep"] * 4, [b""] * 4, [0] * 4)
        waiters = [watcher.wait_for(job_id) for job_id in ids]
        jobs = await queries.dequeue(2, PARAMETERS, WORKER, None, timedelta(days=1))
        await queries.log_jobs([(jobs[0], "successful", None), (jobs[1], "exception", None)])
        assert [await waiter for waiter in waiters[:2]] == ["successful", "exception"]
        await queries.mark_job_as_cancelled([ids[2]])
        assert await waiters[2] == "canceled"
        await queries.clear_queue("ep")
        assert await waiters[3] == "deleted"


async def test_the_timer_finds_what_no_notification_told(anydriver: Any) -> None:
    queries = Queries(anydriver)
    interval = timedelta(milliseconds=50)
    async with (
        asyncio.timeout(20),
        CompletionWatcher(anydriver, queries=queries, refresh_interval=interval) as watcher,
    ):
        (job_id,) = await queries.enqueue("ep", b"")
        waiter = watcher.wait_for(job_id)
        jobs = await queries.dequeue(1, PARAMETERS, WORKER, None, timedelta(days=1))
        await anydriver.execute("ALTER TABLE pgqueuer DISABLE TRIGGER USER")
        await queries.log_jobs([(jobs[0], "successful", None)])
        assert await waiter == "successful"
