"""A worker's run: what it starts, how it ends, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from behaviour.helpers import (
    QUIET,
    Gate,
    Recorder,
    Tables,
    drain,
    eventually,
    layout_of,
    working,
)
from pgq_fast.errors import RetryRequested
from pgq_fast.executors import (
    AbstractEntrypointExecutor,
    DatabaseRetryEntrypointExecutor,
    EntrypointExecutorParameters,
)
from pgq_fast.models import Context, Job, TracebackRecord
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries

pytestmark = pytest.mark.layouts

AT_ONCE = timedelta(0)
SOON = timedelta(milliseconds=30)


async def enqueue(manager: QueueManager, count: int, name: str = "e", **more: Any) -> list[int]:
    payloads: list[Any] = [str(number).encode() for number in range(count)]
    ids: list[int] = await manager.queries.enqueue([name] * count, payloads, [0] * count, **more)
    return ids


# -- Drain ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "batch_size"), [(0, 10), (1, 10), (25, 1), (500, 10), (500, 1000)]
)
async def test_drain_runs_each_job_once(
    manager: QueueManager, tables: Tables, count: int, batch_size: int
) -> None:
    handler = Recorder()
    manager.entrypoint("e")(handler)
    ids = await enqueue(manager, count)
    await drain(manager, batch_size=batch_size)
    assert sorted(handler.ids) == ids
    assert await tables.ended() == ids
    assert await tables.ended("picked") == ids
    assert await tables.count() == 0
    assert manager.job_context == {}
    assert manager.shutdown.is_set()


async def test_drain_waits_for_what_is_deferred_and_what_comes_meanwhile(
    manager: QueueManager, tables: Tables
) -> None:
    seen: list[bytes | None] = []

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        seen.append(job.payload)
        if job.payload == b"0" and job.attempts < 2:
            raise RetryRequested(SOON)
        if job.payload == b"1":
            await manager.queries.enqueue("e", b"child", execute_after=SOON)

    await enqueue(manager, 3, execute_after=[AT_ONCE, timedelta(milliseconds=200), None])
    await drain(manager)
    assert sorted(seen, key=str) == [b"0", b"0", b"0", b"1", b"2", b"child"]
    assert await tables.count() == 0


def bring(manager: QueueManager, what: str, gate: asyncio.Event) -> None:
    """Have a job of "e", once *gate* is open, end with something that is to run after it."""

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        if job.attempts or job.payload == b"child":
            return
        await gate.wait()
        if what == "retry":
            raise RetryRequested(AT_ONCE)
        await manager.queries.enqueue("e", b"child")


@pytest.mark.parametrize("brings", ["retry", "child"])
async def test_a_job_that_ends_while_the_drained_queue_is_probed(
    manager: QueueManager, tables: Tables, monkeypatch: pytest.MonkeyPatch, brings: str
) -> None:
    """The probe finds nothing queued, and when its answer is there, nothing runs any more."""
    gate = asyncio.Event()
    layout_type = layout_of(manager)
    rest = layout_type.rest

    async def slow_probe(self: Any, *args: Any) -> Any:
        due = await rest(self, *args)
        gate.set()
        await asyncio.sleep(0.05)
        return due

    bring(manager, brings, gate)
    monkeypatch.setattr(layout_type, "rest", slow_probe)
    await enqueue(manager, 1)
    started = asyncio.get_running_loop().time()
    await drain(manager)
    assert await tables.count() == 0
    assert len(await tables.ended()) == (1 if brings == "retry" else 2)
    # Found by what happened, not by the next poll.
    assert asyncio.get_running_loop().time() - started < 10


@pytest.mark.parametrize("brings", ["retry", "child"])
async def test_a_job_that_ends_while_a_claim_finds_the_queue_empty(
    manager: QueueManager, tables: Tables, monkeypatch: pytest.MonkeyPatch, brings: str
) -> None:
    """When its answer is there, nothing runs any more; but it was asked for before."""
    gate, rested = asyncio.Event(), asyncio.Event()
    layout_type = layout_of(manager)
    real_claim, real_rest = layout_type.claim, layout_type.rest

    async def rest(self: Any, *args: Any) -> Any:
        found = await real_rest(self, *args)
        rested.set()
        return found

    async def slow_claim(self: Any, *args: Any, **named: Any) -> Any:
        claim = await real_claim(self, *args, **named)
        if not claim.found:
            gate.set()
            await asyncio.sleep(0.05)
        return claim

    @manager.entrypoint("other")
    async def other(job: Job) -> None:
        # Its end has the worker claim again, while the first job runs.
        await rested.wait()

    bring(manager, brings, gate)
    monkeypatch.setattr(layout_type, "claim", slow_claim)
    monkeypatch.setattr(layout_type, "rest", rest)
    await enqueue(manager, 1)
    await enqueue(manager, 1, "other")
    await drain(manager)
    assert await tables.count() == 0
    assert len(await tables.ended()) == (2 if brings == "retry" else 3)


async def test_drain_goes_on_when_the_server_takes_a_retry_late(
    manager: QueueManager, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout_type = layout_of(manager)
    retry = layout_type.retry
    failures = 2

    async def failing(self: Any, *args: Any) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError("the network is down")
        await retry(self, *args)

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        if not job.attempts:
            raise RetryRequested(AT_ONCE)

    monkeypatch.setattr(layout_type, "retry", failing)
    ids = await enqueue(manager, 1)
    await drain(manager)
    assert await tables.ended() == ids


async def test_priority_decides_the_order_of_starts(manager: QueueManager) -> None:
    handler = Recorder()
    manager.entrypoint("e")(handler)
    ids = await manager.queries.enqueue(["e"] * 5, [None] * 5, [1, 5, 3, 5, 2])
    await drain(manager)
    assert handler.ids == [ids[1], ids[3], ids[2], ids[4], ids[0]]


async def test_jobs_of_others_are_left_alone(manager: QueueManager, tables: Tables) -> None:
    manager.entrypoint("e")(Recorder())
    await enqueue(manager, 3)
    await enqueue(manager, 2, "other")
    await drain(manager)
    assert await tables.rows("SELECT DISTINCT entrypoint FROM pgqueuer") == ["other"]


async def test_several_workers_share_the_work(
    another: Callable[[], Awaitable[QueueManager]], tables: Tables
) -> None:
    managers = [await another() for _ in range(4)]
    handlers = [Recorder() for _ in managers]
    for manager, handler in zip(managers, handlers, strict=True):
        manager.entrypoint("e")(handler)
    ids = await enqueue(managers[0], 800)
    await asyncio.gather(*[drain(manager, batch_size=20) for manager in managers])
    assert sorted(job_id for handler in handlers for job_id in handler.ids) == ids
    assert await tables.ended() == ids


# -- Continuous -------------------------------------------------------------------------------


async def test_jobs_start_when_they_come(manager: QueueManager, tables: Tables) -> None:
    handler = Recorder()
    manager.entrypoint("e")(handler)
    # No poll would be in time: it is the notification that starts them.
    async with working(manager, dequeue_timeout=timedelta(hours=1)):
        for count in (1, 2, 250):
            handler.jobs.clear()
            ids = await enqueue(manager, count)
            expected = set(ids)
            await eventually(lambda expected=expected: set(handler.ids) == expected)  # type: ignore[misc]
        (deferred,) = await enqueue(manager, 1, execute_after=[timedelta(milliseconds=150)])
        # Not known to the worker's last look at the queue.
        await eventually(lambda: deferred in handler.ids)
        await eventually(tables.ended)
    assert await tables.count() == 0
    assert len(await tables.ended()) == 254


async def test_shutdown_lets_started_jobs_end_and_gives_the_others_back(
    manager: QueueManager, tables: Tables
) -> None:
    started: list[int] = []
    gate = asyncio.Event()

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        started.append(job.id)
        if len(started) == 3:
            # As from a signal handler, in the middle of a batch that is being started.
            manager.shutdown.set()
        await gate.wait()

    ids = await enqueue(manager, 20)
    task = asyncio.create_task(manager.run(batch_size=20))
    await eventually(lambda: len(started) >= 3)
    await asyncio.sleep(0.05)
    assert not task.done()
    gate.set()
    await asyncio.wait_for(task, 20)
    assert await tables.ended() == sorted(started)
    assert await tables.count("picked") == 0
    assert await tables.rows(
        "SELECT id FROM pgqueuer WHERE status = 'queued' AND attempts = 0"
        " AND queue_manager_id IS NULL AND slot IS NULL ORDER BY id"
    ) == sorted(set(ids) - set(started))
    assert manager.job_context == {}


async def test_cancelling_the_run_does_the_same(manager: QueueManager, tables: Tables) -> None:
    gate = Gate()
    manager.entrypoint("e")(gate)
    ids = await enqueue(manager, 8)
    task = asyncio.create_task(manager.run())
    await eventually(lambda: len(gate.started) == 8)
    later = await enqueue(manager, 3)
    await eventually(lambda: len(gate.started) == 11)
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    late = await enqueue(manager, 4)
    gate.open.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
    assert await tables.ended() == [*ids, *later]
    assert await tables.rows("SELECT id FROM pgqueuer ORDER BY id") == late
    assert await tables.count("queued") == 4


async def test_cancelling_again_gives_running_jobs_back(
    manager: QueueManager, tables: Tables
) -> None:
    gate = Gate()
    manager.entrypoint("e", concurrency_limit=5)(gate)
    ids = await enqueue(manager, 5)
    task = asyncio.create_task(manager.run())
    await eventually(lambda: len(gate.started) == 5)
    task.cancel()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
    assert gate.ended == []
    assert await tables.rows(
        "SELECT id, status::text, attempts, queue_manager_id, slot FROM pgqueuer ORDER BY id"
    ) == [(job_id, "queued", 0, None, None) for job_id in ids]
    assert await tables.statuses(ids[0]) == ["queued", "picked", "queued"]


async def test_a_cancelled_run_in_the_middle_of_claims_leaves_nothing_picked(
    another: Callable[[], Awaitable[QueueManager]], tables: Tables
) -> None:
    """A claim whose answer nobody waited for may have committed."""
    seen: list[int] = []

    async def handler(job: Job) -> None:
        seen.append(job.id)

    first = await another()
    ids = await enqueue(first, 2000)
    for turn in range(12):
        manager = await another()
        manager.entrypoint("e")(handler)
        task = asyncio.create_task(manager.run(batch_size=30))
        # After ever more turns of the event loop, so that it hits all kinds of moments.
        for _ in range(3 + 7 * turn):
            await asyncio.sleep(0)
        await asyncio.sleep(0.001 * turn)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)
        assert await tables.count("picked") == 0
        assert await tables.ended() == sorted(seen)
    last = await another()
    last.entrypoint("e")(handler)
    await drain(last, batch_size=500)
    assert sorted(seen) == ids
    assert await tables.ended() == ids
    assert await tables.value("SELECT coalesce(max(attempts), 0) FROM pgqueuer") == 0


# -- Concurrency ------------------------------------------------------------------------------


async def test_max_concurrent_tasks_is_reached_and_not_exceeded(
    manager: QueueManager, tables: Tables
) -> None:
    # Long enough for the next claims to come meanwhile.
    handler = Recorder(pause=0.1)
    manager.entrypoint("e")(handler)
    await enqueue(manager, 100)
    await drain(manager, batch_size=7, max_concurrent_tasks=17)
    assert handler.most == 17
    assert len(await tables.ended()) == 100


async def test_max_concurrent_tasks_below_two_batches(manager: QueueManager) -> None:
    manager.entrypoint("e")(Recorder())
    with pytest.raises(RuntimeError, match="max_concurrent_tasks"):
        await manager.run(batch_size=10, max_concurrent_tasks=19)
    with pytest.raises(ValueError, match="batch_size"):
        await manager.run(batch_size=0)


async def test_without_a_limit_all_run_together(manager: QueueManager) -> None:
    gate = Gate()
    manager.entrypoint("e")(gate)
    await enqueue(manager, 150)
    async with working(manager):
        await eventually(lambda: len(gate.started) == 150)
        gate.open.set()


# -- How jobs end -----------------------------------------------------------------------------


async def test_failures(
    manager: QueueManager, queries: Queries, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    @manager.entrypoint("delete")
    async def delete(job: Job) -> None:
        raise ValueError("broken")

    @manager.entrypoint("hold", on_failure="hold")
    async def hold(job: Job) -> None:
        raise LookupError("missing")

    (deleted,) = await enqueue(manager, 1, "delete")
    (held,) = await enqueue(manager, 1, "hold")
    await drain(manager)
    assert await tables.statuses(deleted) == ["queued", "picked", "exception"]
    assert await tables.statuses(held) == ["queued", "picked", "failed"]
    assert await tables.rows("SELECT id, status::text FROM pgqueuer") == [(held, "failed")]
    (job,) = await manager.queries.list_failed_jobs()
    assert (job.id, job.status, job.payload) == (held, "failed", b"0")
    (entry,) = await queries.exception_logs()
    assert entry.traceback is not None
    assert (entry.job_id, entry.traceback.job_id) == (deleted, deleted)
    assert (entry.traceback.exception_type, entry.traceback.exception_message) == (
        "ValueError",
        "broken",
    )
    assert "ValueError: broken" in entry.traceback.traceback
    assert entry.traceback.additional_context is not None
    assert entry.traceback.additional_context["entrypoint"] == "delete"
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert all(record.name == "pgqueuer" and record.exc_info for record in errors)
    # A second look, after somebody has mended what was broken.
    manager.entrypoint_registry["hold"].parameters.func = Recorder()  # type: ignore[index]
    manager.shutdown.clear()
    await manager.queries.requeue_jobs([job.id])
    await drain(manager)
    assert (await tables.statuses(held))[-3:] == ["queued", "picked", "successful"]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


async def test_messages_that_the_log_cannot_hold(manager: QueueManager, tables: Tables) -> None:
    """NUL and lone surrogates have no place in jsonb; the other jobs must not wait for that."""
    errors: dict[bytes | None, Exception] = {
        b"0": ValueError("nul \0 here"),
        b"1": ValueError("surrogate \ud800 here"),
        b"2": Unspeakable(),
        b"3": RetryRequested(SOON, "nul \0, surrogate \udfff"),
    }

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        if job.attempts == 0 and job.payload in errors:
            raise errors[job.payload]

    ids = await enqueue(manager, 6)
    await drain(manager)
    assert [(await tables.statuses(job_id))[2:] for job_id in ids] == [
        ["exception"],
        ["exception"],
        ["exception"],
        ["queued", "picked", "successful"],
        ["successful"],
        ["successful"],
    ]
    messages = {
        entry.job_id: entry.traceback.exception_message
        for entry in await manager.queries.queue_log()
        if entry.traceback
    }
    assert messages == {
        ids[0]: "nul \\x00 here",
        ids[1]: "surrogate \\ud800 here",
        ids[2]: "<Unspeakable fails to give its message: RuntimeError>",
        ids[3]: "nul \\x00, surrogate \\udfff",
    }


async def test_a_record_of_the_users_that_cannot_be_stored(
    queries: Queries, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    class Recording(QueueManager):
        async def log_failure(self, job: Job, executor: Any, exc: Exception, jbuff: Any) -> None:
            context = {b"0": ["\0"], b"1": ["\ud800"], b"2": object()}[job.payload or b""]
            record = TracebackRecord.from_exception(exc, job.id, {"context": context})
            await jbuff.add((job, "exception", record))

    manager = Recording(queries)

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        if job.payload in (b"0", b"1", b"2"):
            raise ValueError("broken")

    ids = await enqueue(manager, 5)
    await drain(manager)
    assert [(await tables.statuses(job_id))[-1] for job_id in ids] == [
        "exception",
        "exception",
        "exception",
        "successful",
        "successful",
    ]
    assert caplog.text.count("cannot be stored") == 3


async def test_retries(manager: QueueManager, queries: Queries, tables: Tables) -> None:
    attempts: list[tuple[int, int]] = []

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        attempts.append((job.id, job.attempts))
        if job.payload == b"0" and job.attempts < 3:
            raise RetryRequested(SOON, "not yet")
        if job.payload == b"1" and job.attempts < 1:
            raise ExceptionGroup(
                "several",
                [RetryRequested(AT_ONCE), ExceptionGroup("inner", [RetryRequested(SOON)])],
            )
        if job.payload == b"2":
            raise ExceptionGroup("mixed", [RetryRequested(SOON), ValueError("no")])
        if job.payload == b"3" and job.attempts < 1:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail_with_a_retry())

    async def fail_with_a_retry() -> None:
        raise RetryRequested(SOON)

    ids = await enqueue(manager, 4)
    await drain(manager)
    assert sorted(attempts) == sorted(
        [
            *[(ids[0], attempt) for attempt in range(4)],
            (ids[1], 0),
            (ids[1], 1),
            (ids[2], 0),
            (ids[3], 0),
            (ids[3], 1),
        ]
    )
    assert (await tables.statuses(ids[0])) == ["queued", "picked"] * 4 + ["successful"]
    assert (await tables.statuses(ids[2]))[-1] == "exception"
    first = (await queries.job_log_history(ids[0]))[2]  # type: ignore[arg-type]
    assert first.status == "queued"
    assert first.traceback is not None
    assert first.traceback.exception_message == "not yet"
    assert first.traceback.additional_context is not None
    assert first.traceback.additional_context["reason"] == "not yet"


async def test_a_retry_waits_for_its_delay(manager: QueueManager, tables: Tables) -> None:
    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        raise RetryRequested(timedelta(hours=1))

    (job_id,) = await enqueue(manager, 1)
    async with working(manager):
        await eventually(lambda: tables.value("SELECT attempts FROM pgqueuer"))
    assert await tables.rows(
        "SELECT id, status::text, attempts, queue_manager_id FROM pgqueuer"
    ) == [(job_id, "queued", 1, None)]
    # From the retry on, which was between these two.
    assert await tables.value(
        "SELECT execute_after BETWEEN created + $1 AND now() + $1 FROM pgqueuer", timedelta(hours=1)
    )


async def test_database_retry_executor(manager: QueueManager, tables: Tables) -> None:
    attempts: list[int] = []

    def factory(parameters: EntrypointExecutorParameters) -> AbstractEntrypointExecutor:
        return DatabaseRetryEntrypointExecutor(
            parameters, max_attempts=2, initial_delay=timedelta(milliseconds=5)
        )

    @manager.entrypoint("e", executor_factory=factory, on_failure="hold")
    async def handler(job: Job) -> None:
        attempts.append(job.attempts)
        raise ValueError("again")

    (job_id,) = await enqueue(manager, 1)
    await drain(manager)
    assert attempts == [0, 1, 2]
    assert await tables.statuses(job_id) == ["queued", "picked"] * 3 + ["failed"]
    assert await tables.rows("SELECT attempts, status::text FROM pgqueuer") == [(2, "failed")]


async def test_custom_executor(manager: QueueManager) -> None:
    calls: list[tuple[int, bool]] = []

    class Counting(AbstractEntrypointExecutor):
        async def execute(self, job: Job, context: Context) -> None:
            calls.append((job.id, isinstance(context, Context)))
            await self.parameters.func(job)  # type: ignore[call-arg]

    handler = Recorder()
    manager.entrypoint("e", executor_factory=Counting)(handler)
    manager.register_executor(
        "f", Counting(EntrypointExecutorParameters(concurrency_limit=0, func=handler))
    )
    with pytest.raises(RuntimeError, match="f already"):
        manager.register_executor("f", manager.entrypoint_registry["e"])  # type: ignore[index]
    ids = [*await enqueue(manager, 3), *await enqueue(manager, 2, "f")]
    await drain(manager)
    assert sorted(calls) == [(job_id, True) for job_id in ids]
    assert sorted(handler.ids) == ids


async def test_contexts_and_resources(manager: QueueManager) -> None:
    manager.resources["shared"] = []
    seen: list[Any] = []

    @manager.entrypoint("annotated")
    async def annotated(job: Job, context: Context) -> None:
        seen.append(context.resources)
        assert manager.get_context(job.id) is context
        assert not context.cancellation.cancel_called
        shared = context.resources["shared"]
        assert isinstance(shared, list)
        shared.append(job.id)

    @manager.entrypoint("told", accepts_context=True)
    async def told(job, context) -> None:  # type: ignore[no-untyped-def]
        seen.append(context.resources)

    first = await enqueue(manager, 2, "annotated")
    await enqueue(manager, 1, "told")
    await drain(manager)
    assert len(seen) == 3
    assert all(resources is manager.resources for resources in seen)
    assert manager.resources["shared"] == first
    with pytest.raises(KeyError):
        manager.get_context(first[0])  # type: ignore[arg-type]


# -- Cancellation of jobs ---------------------------------------------------------------------


async def test_cancelling_queued_and_running_jobs(manager: QueueManager, tables: Tables) -> None:
    events: dict[int, list[str]] = {}

    @manager.entrypoint("e")
    async def handler(job: Job, context: Context) -> None:
        story = events.setdefault(job.id, ["started"])
        with context.cancellation:
            await asyncio.sleep(60)
            story.append("not cancelled")
        story.append("cleaned up" if context.cancellation.cancel_called else "ended")

    ids = await enqueue(manager, 3)
    waiting = await enqueue(manager, 1, execute_after=[timedelta(hours=1)])
    async with working(manager):
        await eventually(lambda: len(events) == 3)
        await manager.queries.mark_job_as_cancelled([*ids, *waiting])  # type: ignore[list-item]
        await eventually(lambda: all(len(story) == 2 for story in events.values()))
    assert events == {job_id: ["started", "cleaned up"] for job_id in ids}
    assert dict(await manager.queries.job_status([*ids, *waiting])) == dict.fromkeys(  # type: ignore[list-item]
        [*ids, *waiting], "canceled"
    )
    assert await tables.count() == 0
    # Logged once, by who cancelled them.
    assert await tables.ended("canceled") == [*ids, *waiting]


async def test_a_handler_that_never_looks_at_its_scope_runs_to_its_end(
    manager: QueueManager, tables: Tables
) -> None:
    gate = Gate()
    manager.entrypoint("e")(gate)
    ids = await enqueue(manager, 2)
    async with working(manager):
        await eventually(lambda: len(gate.started) == 2)
        await manager.queries.mark_job_as_cancelled([ids[0]])  # type: ignore[list-item]
        await asyncio.sleep(0.1)
        gate.open.set()
    assert sorted(gate.ended) == ids
    assert (await tables.statuses(ids[0]))[-1] == "canceled"
    assert (await tables.statuses(ids[1]))[-1] == "successful"


async def test_a_scope_that_is_first_looked_at_after_the_cancellation(
    manager: QueueManager,
) -> None:
    looked: list[bool] = []
    go = asyncio.Event()

    @manager.entrypoint("e")
    async def handler(job: Job, context: Context) -> None:
        await go.wait()
        looked.append(context.cancellation.cancel_called)
        with context.cancellation:
            await asyncio.sleep(60)
            looked.append(False)

    (job_id,) = await enqueue(manager, 1)
    async with working(manager):
        await eventually(lambda: job_id in manager.job_context)
        await manager.queries.mark_job_as_cancelled([job_id])  # type: ignore[list-item]
        await eventually(lambda: manager.job_context[job_id].cancel_called)  # type: ignore[index,attr-defined]
        go.set()
    assert looked == [True]


async def test_a_handler_that_cancels_itself(manager: QueueManager, tables: Tables) -> None:
    @manager.entrypoint("scope")
    async def scope(job: Job, context: Context) -> None:
        context.cancellation.cancel()

    @manager.entrypoint("raise")
    async def raising(job: Job) -> None:
        raise asyncio.CancelledError

    @manager.entrypoint("task")
    async def own_task(job: Job) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    names = ["scope", "raise", "task"]
    ids = await manager.queries.enqueue(names, [None] * 3, [0] * 3)
    await drain(manager)
    assert [(await tables.statuses(job_id))[-1] for job_id in ids] == ["canceled"] * 3
    assert await tables.count() == 0


# -- What handlers may rely on ----------------------------------------------------------------

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def test_asyncio_in_handlers(manager: QueueManager, tables: Tables) -> None:
    found: dict[str, Any] = {}

    @manager.entrypoint("task")
    async def task(job: Job) -> None:
        found["task"] = asyncio.current_task()
        assert isinstance(found["task"], asyncio.Task)
        await asyncio.sleep(0)
        assert asyncio.current_task() is found["task"]

    @manager.entrypoint("timeout")
    async def timeout(job: Job) -> None:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            found["timeout"] = True

    @manager.entrypoint("group")
    async def group(job: Job) -> None:
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(asyncio.sleep(0.001, "first"))
            second = tasks.create_task(asyncio.sleep(0, "second"))
        found["group"] = (first.result(), second.result())

    @manager.entrypoint("thread")
    async def thread(job: Job) -> None:
        found["thread"] = await asyncio.to_thread(lambda: job.model_dump()["entrypoint"])

    @manager.entrypoint("enqueue")
    async def enqueueing(job: Job) -> None:
        await manager.queries.enqueue("group", None)

    names = ["task", "timeout", "group", "thread", "enqueue"]
    await manager.queries.enqueue(names, [None] * 5, [0] * 5)
    await drain(manager)
    assert found["timeout"] is True
    assert found["group"] == ("first", "second")
    assert found["thread"] == "thread"
    assert len(await tables.ended()) == 6


async def test_context_variables_do_not_leak(manager: QueueManager) -> None:
    seen: list[str] = []

    @manager.entrypoint("quick")
    async def quick(job: Job) -> None:
        seen.append(variable.get())
        variable.set(f"of job {job.id}")

    @manager.entrypoint("slow")
    async def slow(job: Job) -> None:
        seen.append(variable.get())
        variable.set(f"of job {job.id}")
        await asyncio.sleep(0.001)
        assert variable.get() == f"of job {job.id}"

    variable.set("of the caller")
    await enqueue(manager, 30, "quick")
    await enqueue(manager, 30, "slow")
    await drain(manager)
    assert set(seen) == {"of the caller"}
    assert len(seen) == 60
    assert variable.get() == "of the caller"


async def test_a_task_factory_of_the_users_is_left_alone(manager: QueueManager) -> None:
    loop = asyncio.get_running_loop()
    made: list[Any] = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> Any:
        task = asyncio.Task(coro, loop=loop, **more)
        made.append(task)
        return task

    handler = Recorder(pause=0.001)
    manager.entrypoint("e")(handler)
    await enqueue(manager, 5)
    loop.set_task_factory(factory)
    try:
        await drain(manager)
        assert loop.get_task_factory() is factory
    finally:
        loop.set_task_factory(None)
    assert len(handler.jobs) == 5


async def test_a_long_batch_does_not_block_the_event_loop(manager: QueueManager) -> None:
    """Handlers that never wait: timers of others must get their turn between them."""
    ticks = 0

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        stop = asyncio.get_running_loop().time() + 0.002
        while asyncio.get_running_loop().time() < stop:
            pass

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    await enqueue(manager, 200)
    ticking = asyncio.create_task(tick())
    # Without eager tasks, a batch is what runs in one turn of the loop.
    await drain(manager, batch_size=200 if sys.version_info >= (3, 12) else 10)
    ticking.cancel()
    # 400 ms of work without a pause of its own.
    assert ticks >= 10


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
async def test_quick_handlers_need_no_turn_of_the_event_loop(manager: QueueManager) -> None:
    turns: list[int] = []
    turn = 0

    def count() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count)

    loop = asyncio.get_running_loop()

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        turns.append(turn)

    await enqueue(manager, 10)
    loop.call_soon(count)
    await drain(manager, batch_size=10)
    assert len(turns) == 10
    assert len(set(turns)) <= 3


async def test_a_manager_runs_again(manager: QueueManager) -> None:
    handler = Recorder()
    manager.entrypoint("e")(handler)
    for round_ in range(1, 4):
        manager.shutdown.clear()
        await enqueue(manager, 5)
        await drain(manager)
        assert len(handler.jobs) == 5 * round_


async def test_handlers_have_to_be_async(manager: QueueManager) -> None:
    def handler(job: Job) -> None:
        pass

    with pytest.raises(TypeError, match="not async"):
        manager.entrypoint("e")(handler)  # type: ignore[type-var]


@pytest.mark.pg_matrix
async def test_cancelling_while_the_next_claim_is_under_way(
    another: Callable[[], Awaitable[QueueManager]], tables: Tables
) -> None:
    """Batches of this size are claimed ahead: what comes then goes back like everything else."""
    ids = await (await another()).queries.enqueue(["e"] * 5000, [None] * 5000, [0] * 5000)
    handler = Recorder()
    for enough in (200, 1000, 2500):
        manager = await another()
        manager.entrypoint("e")(handler)
        run = asyncio.create_task(manager.run(**QUIET, batch_size=100))
        await eventually(lambda enough=enough: len(handler.jobs) >= enough)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert await tables.count("picked") == 0
    manager = await another()
    manager.entrypoint("e")(handler)
    await drain(manager, batch_size=100)
    assert sorted(handler.ids) == ids
    assert await tables.ended() == ids
