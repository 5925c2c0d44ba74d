"""Waiting for jobs to end, on PostgreSQL, over every driver."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import pytest

from behaviour.helpers import eventually
from pgq_fast.completion import CompletionWatcher
from pgq_fast.queries import Queries
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.settings import Layout
from pgq_fast.types import JOB_STATUS, JobId, QueueEntrypoint, QueueManagerId
from support.drivers import MakeDriver

pytestmark = pytest.mark.layouts

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


async def test_the_timer_finds_what_no_notification_told(anydriver: Any, layout: Layout) -> None:
    queries = Queries(anydriver)
    interval = timedelta(milliseconds=50)
    async with (
        asyncio.timeout(20),
        CompletionWatcher(anydriver, queries=queries, refresh_interval=interval) as watcher,
    ):
        (job_id,) = await queries.enqueue("ep", b"")
        waiter = watcher.wait_for(job_id)
        jobs = await queries.dequeue(1, PARAMETERS, WORKER, None, timedelta(days=1))
        table = "pgqueuer" if layout is Layout.compat else "pgqueuer_lease"
        await anydriver.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        await queries.log_jobs([(jobs[0], "successful", None)])
        assert await waiter == "successful"


async def watchers(driver: Any) -> list[uuid.UUID]:
    rows = await driver.fetch("SELECT id FROM pgqueuer_waiting WHERE for_ends AND until > now()")
    return [row["id"] for row in rows]


@pytest.mark.layouts("lease")
async def test_a_watcher_is_registered_while_its_block_is_open(anydriver: Any) -> None:
    queries = Queries(anydriver)
    async with CompletionWatcher(anydriver, queries=queries) as watcher:
        assert await watchers(anydriver) == [watcher.id]
    assert await watchers(anydriver) == []
    with pytest.raises(ZeroDivisionError):
        async with CompletionWatcher(anydriver, queries=queries):
            1 / 0  # noqa: B018
    assert await watchers(anydriver) == []


@pytest.mark.layouts("lease")
async def test_a_lost_registration_is_made_anew_and_costs_no_end(
    anydriver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgq_fast.completion.RENEWED_AFTER", timedelta(milliseconds=50))
    queries = Queries(anydriver)
    async with (
        asyncio.timeout(20),
        CompletionWatcher(anydriver, queries=queries, refresh_interval=None) as watcher,
    ):
        (job_id,) = await queries.enqueue("ep", b"")
        waiter = watcher.wait_for(job_id)
        jobs = await queries.dequeue(1, PARAMETERS, WORKER, None, timedelta(days=1))
        # As after a crash of the server: nobody is registered, and the job ends in silence.
        await anydriver.execute("DELETE FROM pgqueuer_waiting")
        await queries.log_jobs([(jobs[0], "successful", None)])
        assert await waiter == "successful"

        async def registered() -> bool:
            return await watchers(anydriver) == [watcher.id]

        await eventually(registered)


@pytest.mark.layouts("lease")
async def test_nothing_is_told_of_ends_while_nobody_watches(anydriver: Any) -> None:
    queries = Queries(anydriver)
    heard: list[str] = []
    await anydriver.add_listener(queries.qbq.settings.channel, lambda text: heard.append(str(text)))
    ids = await queries.enqueue(["ep"] * 2, [None] * 2, [0] * 2)
    jobs = await queries.dequeue(1, PARAMETERS, WORKER, None, timedelta(days=1))
    await queries.log_jobs([(jobs[0], "successful", None)])
    await queries.clear_queue("ep")
    await queries.notify_job_cancellation(ids)
    await eventually(lambda: any("cancellation_event" in text for text in heard))
    assert len(heard) == 1


@pytest.mark.layouts("lease")
async def test_a_registration_says_from_when_on_every_end_is_told(anydriver: Any) -> None:
    queries, watcher, while_ = Queries(anydriver), uuid.uuid4(), timedelta(seconds=30)
    since = await queries.watch_ends(watcher, while_)
    assert since is not None
    assert await queries.watch_ends(watcher, while_, since) is None
    assert await queries.watch_ends(watcher, while_) is None
    await queries.unwatch_ends(watcher)
    assert await queries.watch_ends(watcher, while_) is not None


@pytest.mark.layouts("lease")
async def test_an_end_that_was_under_way_when_the_watcher_came_is_found(
    anydriver: Any, make_driver: MakeDriver, queue_dsn: str
) -> None:
    queries = Queries(anydriver)
    (job_id,) = await queries.enqueue("ep", b"")
    jobs = await queries.dequeue(1, PARAMETERS, WORKER, None, timedelta(days=1))
    other = await make_driver("asyncpg", queue_dsn)
    await other.execute("BEGIN")
    # Nobody watches yet, so nobody will be told.
    await Queries(other).log_jobs([(jobs[0], "successful", None)])
    asked = asyncio.Event()
    ask = queries.job_status

    async def noted(ids: list[JobId]) -> list[tuple[JobId, JOB_STATUS]]:
        answer = await ask(ids)
        asked.set()
        return answer

    queries.job_status = noted  # type: ignore[method-assign]
    async with (
        asyncio.timeout(20),
        CompletionWatcher(anydriver, queries=queries, refresh_interval=None) as watcher,
    ):
        waiter = watcher.wait_for(job_id)
        await asked.wait()
        await other.execute("COMMIT")
        assert await waiter == "successful"


@pytest.mark.layouts("compat")
async def test_where_every_end_is_told_nobody_registers(anydriver: Any) -> None:
    queries = Queries(anydriver)
    assert await queries.watch_ends(uuid.uuid4(), timedelta(seconds=30)) is None
    await queries.unwatch_ends(uuid.uuid4())
