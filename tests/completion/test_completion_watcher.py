"""Waiting for jobs to end."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from pgq_fast.builders import QueryBuilderEnvironment, QueryQueueBuilder
from pgq_fast.completion import CompletionWatcher, WatcherClosedError
from pgq_fast.memory import InMemoryDriver, InMemoryQueries
from pgq_fast.models import Job
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.settings import DBSettings, db_settings
from pgq_fast.types import JOB_STATUS, Channel, JobId, QueueEntrypoint, QueueManagerId

WORKER = QueueManagerId(uuid.UUID(int=1))
SOON = timedelta(milliseconds=1)
NEVER = timedelta(days=1)


class CountingQueries(InMemoryQueries):
    """Counts status queries; fails as many of them as it is told to."""

    asked: list[list[JobId]]
    failures: int = 0

    async def job_status(self, ids: list[JobId]) -> list[tuple[JobId, JOB_STATUS]]:
        self.asked.append(list(ids))
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("server is restarting")
        return await super().job_status(ids)


@pytest.fixture
def queries() -> CountingQueries:
    queries = CountingQueries(InMemoryDriver())
    queries.asked = []
    return queries


def watcher_of(queries: InMemoryQueries, **options: Any) -> CompletionWatcher:
    options = {"refresh_interval": None, "debounce": SOON, **options}
    return CompletionWatcher(queries.driver, queries=queries, **options)


async def enqueue(queries: InMemoryQueries) -> JobId:
    (job_id,) = await queries.enqueue("ep", b"")
    return job_id


async def claim(queries: InMemoryQueries) -> list[Job]:
    parameters = {QueueEntrypoint("ep"): EntrypointExecutionParameter(0)}
    return await queries.dequeue(100, parameters, WORKER, None, NEVER)


async def finish(queries: InMemoryQueries, status: JOB_STATUS) -> None:
    await queries.log_jobs([(job, status, None) for job in await claim(queries)])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


async def settled(watcher: CompletionWatcher) -> None:
    """Until nothing is left to ask for."""
    await until(lambda: watcher.debounce_task is None or watcher.debounce_task.done())


async def result(waiter: asyncio.Future[JOB_STATUS]) -> JOB_STATUS:
    async with asyncio.timeout(10):
        return await waiter


@pytest.mark.parametrize("status", ["successful", "exception", "canceled", "deleted"])
async def test_a_notification_resolves_the_future(
    queries: CountingQueries, status: JOB_STATUS
) -> None:
    async with watcher_of(queries) as watcher:
        waiter = watcher.wait_for(await enqueue(queries))
        await finish(queries, status)
        assert await result(waiter) == status
        assert not watcher.waiters


async def test_a_job_that_ended_before_is_found(queries: CountingQueries) -> None:
    job_id = await enqueue(queries)
    await finish(queries, "successful")
    async with watcher_of(queries) as watcher:
        assert await result(watcher.wait_for(job_id)) == "successful"


async def test_cancelling_or_clearing_jobs_resolves_their_futures(
    queries: CountingQueries,
) -> None:
    async with watcher_of(queries) as watcher:
        cancelled, cleared = await enqueue(queries), await enqueue(queries)
        first, second = watcher.wait_for(cancelled), watcher.wait_for(cleared)
        await queries.mark_job_as_cancelled([cancelled])
        assert await result(first) == "canceled"
        await queries.clear_queue("ep")
        assert await result(second) == "deleted"


async def test_held_and_retried_jobs_are_waited_for(queries: CountingQueries) -> None:
    async with watcher_of(queries) as watcher:
        waiter = watcher.wait_for(job_id := await enqueue(queries))
        await finish(queries, "failed")
        await settled(watcher)
        assert not waiter.done()
        await queries.requeue_jobs([job_id])
        (job,) = await claim(queries)
        await queries.retry_job(job, timedelta(0), None)
        await settled(watcher)
        assert not waiter.done()
        await finish(queries, "successful")
        assert await result(waiter) == "successful"


async def test_all_who_wait_for_a_job_are_told(queries: CountingQueries) -> None:
    async with watcher_of(queries) as watcher:
        job_id = await enqueue(queries)
        waiters = [watcher.wait_for(job_id) for _ in range(3)]
        await finish(queries, "successful")
        assert [await result(waiter) for waiter in waiters] == ["successful"] * 3


async def test_a_lost_notification_costs_only_time(queries: CountingQueries) -> None:
    async with watcher_of(queries, refresh_interval=timedelta(milliseconds=20)) as watcher:
        waiter = watcher.wait_for(await enqueue(queries))
        await settled(watcher)
        queries.driver._listeners.clear()
        await finish(queries, "successful")
        assert await result(waiter) == "successful"


async def test_without_a_timer_nothing_is_asked_unprompted(queries: CountingQueries) -> None:
    async with watcher_of(queries) as watcher:
        waiter = watcher.wait_for(await enqueue(queries))
        await settled(watcher)
        assert watcher.task_manager.tasks == set()
        await finish(queries, "successful")
        assert await result(waiter) == "successful"


async def test_nothing_is_asked_while_nobody_waits(queries: CountingQueries) -> None:
    async with watcher_of(queries) as watcher:
        await enqueue(queries)
        await finish(queries, "successful")
        await settled(watcher)
    assert queries.asked == []


async def test_a_burst_of_notifications_is_one_question(queries: CountingQueries) -> None:
    async with watcher_of(queries, debounce=timedelta(milliseconds=200)) as watcher:
        ids = [await enqueue(queries) for _ in range(50)]
        waiters = [watcher.wait_for(job_id) for job_id in ids]
        for job in await claim(queries):
            await queries.log_jobs([(job, "successful", None)])
        assert [await result(waiter) for waiter in waiters] == ["successful"] * 50
        await settled(watcher)
    assert queries.asked == [ids]


async def test_one_question_at_a_time(queries: CountingQueries) -> None:
    running = most = 0
    release = asyncio.Event()
    answer = queries.job_status

    async def slow(ids: list[JobId]) -> list[tuple[JobId, JOB_STATUS]]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1
        return await answer(ids)

    queries.job_status = slow  # type: ignore[method-assign]
    async with watcher_of(queries) as watcher:
        waiter = watcher.wait_for(await enqueue(queries))
        await until(lambda: running)
        for _ in range(10):
            await queries.emit_table_changed("delete")
            await asyncio.sleep(0.002)
        # The job ends after the question was asked: the answer that is on its way is too old.
        await finish(queries, "successful")
        release.set()
        assert await result(waiter) == "successful"
    assert most == 1


async def test_a_failing_question_is_asked_again(
    queries: CountingQueries, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgq_fast.completion._PAUSE_AFTER_FAILURE", SOON)
    queries.failures = 3
    with caplog.at_level(logging.ERROR, logger="pgqueuer"):
        async with watcher_of(queries) as watcher:
            job_id = await enqueue(queries)
            await finish(queries, "successful")
            # No notification comes after this one, and there is no timer.
            assert await result(watcher.wait_for(job_id)) == "successful"
    assert len(queries.asked) >= 4
    assert caplog.text.count("Could not ask for the status") == 3


async def test_a_server_that_is_away_is_not_asked_at_the_debounces_pace(
    queries: CountingQueries,
) -> None:
    queries.failures = 10**6
    async with watcher_of(queries) as watcher:
        waiter = watcher.wait_for(await enqueue(queries))
        await until(lambda: queries.failures < 10**6)
        # At the pace of the debounce, 1 ms, it would be about a hundred questions.
        await asyncio.sleep(0.1)
        assert len(queries.asked) <= 3
        waiter.cancel()


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "{",
        "[]",
        '{"type": "table_changed_event"}',
        '{"type": "x"}',
        b"\xff",
        "null",
        "[" * 10**5,
    ],
)
async def test_nonsense_on_the_channel_is_ignored(
    queries: CountingQueries, payload: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="pgqueuer"):
        async with watcher_of(queries) as watcher:
            await settled(watcher)
            await queries.driver.notify(db_settings().channel, payload)
            assert not watcher.refresh_requested
    assert caplog.text == ""


async def test_other_events_are_no_reason_to_ask(queries: CountingQueries) -> None:
    async with watcher_of(queries) as watcher:
        await settled(watcher)
        await queries.notify_job_cancellation([JobId(1)])
        await queries.notify_health_check(uuid.uuid4())  # type: ignore[arg-type]
        assert not watcher.refresh_requested


async def test_leaving_the_block_waits_for_the_open_futures(queries: CountingQueries) -> None:
    job_id = await enqueue(queries)

    async def later() -> None:
        await until(lambda: leaving)
        await finish(queries, "successful")

    leaving = False
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(later())
        async with watcher_of(queries) as watcher:
            waiter = watcher.wait_for(job_id)
            leaving = True
        assert waiter.done()
        assert waiter.result() == "successful"


async def test_futures_added_while_the_block_is_left_are_waited_for(
    queries: CountingQueries,
) -> None:
    first, second = await enqueue(queries), await enqueue(queries)
    watcher = watcher_of(queries)
    added: list[asyncio.Future[JOB_STATUS]] = []

    async def another() -> None:
        await until(lambda: leaving)
        jobs = {job.id: job for job in await claim(queries)}
        added.append(watcher.wait_for(second))
        await queries.log_jobs([(jobs[first], "successful", None)])
        await until(lambda: first not in watcher.waiters)
        await settled(watcher)
        await queries.log_jobs([(jobs[second], "exception", None)])

    leaving = False
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(another())
        async with watcher:
            watcher.wait_for(first)
            leaving = True
        assert [waiter.result() for waiter in added] == ["exception"]


async def test_leaving_by_an_exception_cancels_the_open_futures(queries: CountingQueries) -> None:
    watcher, waiters = watcher_of(queries), []

    async def fail() -> None:
        async with watcher:
            waiters.append(watcher.wait_for(await enqueue(queries)))
            raise RuntimeError("mine")

    async with asyncio.timeout(10):
        with pytest.raises(RuntimeError, match="mine"):
            await fail()
    assert waiters[0].cancelled()
    assert watcher.task_manager.tasks == set()


async def test_cancelling_the_wait_at_the_end_of_the_block_leaves_nothing_behind(
    queries: CountingQueries,
) -> None:
    watcher = watcher_of(queries, refresh_interval=timedelta(milliseconds=5))
    waiters = []

    async def work() -> None:
        async with watcher:
            waiters.append(watcher.wait_for(await enqueue(queries)))

    task = asyncio.create_task(work())
    await until(lambda: waiters)
    await settled(watcher)
    task.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait([task])
    assert task.cancelled()
    assert waiters[0].cancelled()
    assert watcher.task_manager.tasks == set()
    assert queries.driver._listeners == {}


async def test_a_future_may_be_given_up(queries: CountingQueries) -> None:
    async with watcher_of(queries) as watcher:
        job_id = await enqueue(queries)
        patient = watcher.wait_for(job_id)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watcher.wait_for(job_id), 0.01)
        await until(lambda: len(watcher.waiters[job_id]) == 1)
        await finish(queries, "successful")
        assert await result(patient) == "successful"

        forgotten = watcher.wait_for(await enqueue(queries))
        forgotten.cancel()
        await until(lambda: not watcher.waiters)
        # Nobody waits for the last job, so the block ends.


async def test_after_the_block_waiting_is_refused(queries: CountingQueries) -> None:
    async with watcher_of(queries) as watcher:
        pass
    with pytest.raises(WatcherClosedError, match="async with"):
        watcher.wait_for(JobId(1))


async def test_the_listener_goes_with_the_block(queries: CountingQueries) -> None:
    async with watcher_of(queries):
        assert list(queries.driver._listeners) == [db_settings().channel]
    assert queries.driver._listeners == {}


async def test_a_driver_that_cannot_remove_listeners_will_do(queries: CountingQueries) -> None:
    class Plain:
        """Only what the Driver protocol asks for here."""

        async def add_listener(self, channel: str, callback: Any) -> None:
            await queries.driver.add_listener(channel, callback)

    driver: Any = Plain()
    async with CompletionWatcher(driver, queries=queries, debounce=SOON) as watcher:
        waiter = watcher.wait_for(await enqueue(queries))
        await finish(queries, "successful")
        assert await result(waiter) == "successful"
    await queries.emit_table_changed("delete")
    await settled(watcher)


async def test_a_listener_that_cannot_be_added_leaves_no_task(queries: CountingQueries) -> None:
    class Broken:
        async def add_listener(self, channel: str, callback: Any) -> None:
            raise ConnectionError("gone")

    driver: Any = Broken()
    watcher = CompletionWatcher(driver, queries=queries)
    with pytest.raises(ConnectionError):
        await watcher.__aenter__()
    assert watcher.task_manager.tasks == set()


async def test_it_listens_where_its_queue_notifies() -> None:
    settings = DBSettings(channel=Channel("elsewhere"))
    queries = CountingQueries(
        InMemoryDriver(),
        qbe=QueryBuilderEnvironment(settings),
        qbq=QueryQueueBuilder(settings),
    )
    queries.asked = []
    async with watcher_of(queries) as watcher:
        waiter = watcher.wait_for(await enqueue(queries))
        await finish(queries, "successful")
        assert await result(waiter) == "successful"


async def test_a_repository_without_settings_notifies_on_the_default_channel() -> None:
    class Bare:
        async def job_status(self, ids: list[JobId]) -> list[tuple[JobId, JOB_STATUS]]:
            return [(job_id, "successful") for job_id in ids]

    driver, bare = InMemoryDriver(), Bare()
    async with CompletionWatcher(driver, queries=bare, debounce=SOON) as watcher:  # type: ignore[arg-type]
        assert list(driver._listeners) == [db_settings().channel]
        assert await result(watcher.wait_for(JobId(1))) == "successful"


def test_the_documented_defaults() -> None:
    async def make() -> CompletionWatcher:
        driver = InMemoryDriver()
        return CompletionWatcher(driver, queries=InMemoryQueries(driver))

    watcher = asyncio.run(make())
    assert watcher.refresh_interval == timedelta(seconds=5)
    assert watcher.debounce == timedelta(milliseconds=50)
    assert watcher.debounce_task is None
    assert watcher.refresh_requested is False
    assert dict(watcher.waiters) == {}
