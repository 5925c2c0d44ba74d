from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock

import anyio
import pgqueuer.executors as original
import pgqueuer.models as original_models
import pytest

from pgq_fast import executors
from pgq_fast.errors import RetryRequested
from pgq_fast.models import Context, Job, Schedule, ScheduleContext
from pgq_fast.types import CronEntrypoint, CronExpression, JobId, QueueEntrypoint

pytestmark = pytest.mark.impl_agnostic

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


def job(attempts: int = 0) -> Job:
    return Job(
        id=JobId(1),
        priority=0,
        created=NOW,
        updated=NOW,
        heartbeat=NOW,
        execute_after=NOW,
        status="picked",
        entrypoint=QueueEntrypoint("work"),
        payload=b"x",
        attempts=attempts,
        queue_manager_id=None,
        headers=None,
    )


def context() -> Context:
    return Context(cancellation=anyio.CancelScope())


def parameters(
    func: Callable[..., Awaitable[None]], **other: Any
) -> executors.EntrypointExecutorParameters:
    return executors.EntrypointExecutorParameters(concurrency_limit=0, func=func, **other)


async def handler(job: Job) -> None: ...


class AsyncCallable:
    async def __call__(self, job: Job) -> None: ...

    async def method(self, job: Job) -> None: ...


class SyncCallable:
    def __call__(self, job: Job) -> None: ...


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        (handler, True),
        (functools.partial(handler), True),
        (functools.partial(functools.partial(handler)), True),
        (AsyncCallable(), True),
        (AsyncCallable().method, True),
        (functools.partial(AsyncCallable()), True),
        (AsyncMock(), True),
        (SyncCallable(), False),
        (lambda job: None, False),
        (functools.partial(print), False),
        (print, False),
        (3, False),
        (None, False),
    ],
)
def test_async_callables_are_told_from_others(candidate: object, expected: bool) -> None:
    assert executors.is_async_callable(candidate) is expected
    assert original.is_async_callable(candidate) is expected


def test_a_class_is_not_async_because_its_instances_are() -> None:
    assert not executors.is_async_callable(AsyncCallable)


def test_a_sync_function_is_refused_with_the_way_out() -> None:
    def blocking(job: Job) -> None: ...

    with pytest.raises(TypeError, match=r"blocking is not async.*asyncio\.to_thread"):
        executors.EntrypointExecutor(parameters(blocking))  # type: ignore[arg-type]


async def plain(job: Job) -> None: ...
async def positional(job: Job, context: Context) -> None: ...
async def positional_only(job: Job, context: Context, /) -> None: ...
async def quoted(job: Job, context: Context) -> None: ...
async def keyword_only(job: Job, *, context: Context) -> None: ...
async def variadic(job: Job, *context: Context) -> None: ...
async def unannotated(job, context): ...  # type: ignore[no-untyped-def]
async def other_context(job: Job, context: ScheduleContext) -> None: ...
async def partly_unknown(job: JobThatIsNoName, context: Context) -> None: ...  # type: ignore[name-defined]  # noqa: F821
async def attribute_unknown(job: pytest.nothing, context: Context) -> None: ...  # type: ignore[name-defined]


class Handlers:
    async def method(self, job: Job, context: Context) -> None: ...

    async def __call__(self, job: Job, context: Context) -> None: ...


@functools.wraps(positional)
async def wrapped(*args: object, **kwargs: object) -> None: ...


@pytest.mark.parametrize(
    ("func", "expected"),
    [
        (plain, False),
        (positional, True),
        (positional_only, True),
        (quoted, True),
        (functools.partial(positional), True),
        (Handlers().method, True),
        (Handlers(), True),
        (functools.partial(Handlers()), True),
        (wrapped, True),
        (keyword_only, False),
        (variadic, False),
        (unannotated, False),
        (other_context, False),
        (partly_unknown, True),
        (attribute_unknown, True),
        (print, False),
        (5, False),
    ],
)
def test_the_context_is_found_by_its_annotation(func: object, expected: bool) -> None:
    assert executors.wants_context(func, Context) is expected


def test_annotations_that_are_types_work_as_in_the_original() -> None:
    def annotated(context_type: type) -> Callable[..., None]:
        def func(job, context): ...  # type: ignore[no-untyped-def]

        func.__annotations__ = {"context": context_type}
        return func

    assert executors.wants_context(annotated(Context), Context)
    assert original.wants_context(annotated(original_models.Context), original_models.Context)


async def test_the_function_gets_what_it_asked_for() -> None:
    calls: list[tuple[object, ...]] = []

    async def record(*args: object) -> None:
        calls.append(args)

    one, two = job(), context()
    await executors.EntrypointExecutor(parameters(record)).execute(one, two)
    await executors.EntrypointExecutor(parameters(record, accepts_context=True)).execute(one, two)
    assert calls == [(one,), (one, two)]


def failing(error: Exception) -> executors.EntrypointExecutorParameters:
    async def fail(job: Job) -> None:
        raise error

    return parameters(fail)


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(0, 1), (1, 2), (2, 4), (3, 8), (8, 256), (9, 300), (100, 300)]
)
async def test_each_retry_waits_longer_up_to_a_limit(attempts: int, seconds: int) -> None:
    executor = executors.DatabaseRetryEntrypointExecutor(
        failing(ValueError("no luck")), max_attempts=1000
    )
    with pytest.raises(RetryRequested, match="no luck") as caught:
        await executor.execute(job(attempts), context())
    assert caught.value.delay == timedelta(seconds=seconds)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("attempts", [1023, 1024, 5000, 10**9])
@pytest.mark.parametrize("initial", [timedelta(microseconds=1), timedelta(days=999_999)])
async def test_attempts_beyond_every_number_wait_the_longest(
    attempts: int, initial: timedelta
) -> None:
    executor = executors.DatabaseRetryEntrypointExecutor(
        failing(ValueError()),
        max_attempts=attempts + 1,
        initial_delay=initial,
        backoff_multiplier=2.5,
    )
    with pytest.raises(RetryRequested) as caught:
        await executor.execute(job(attempts), context())
    assert caught.value.delay == executor.max_delay


async def test_no_first_delay_means_no_delay_at_all() -> None:
    executor = executors.DatabaseRetryEntrypointExecutor(
        failing(ValueError()), max_attempts=10**6, initial_delay=timedelta(0)
    )
    with pytest.raises(RetryRequested) as caught:
        await executor.execute(job(10**5), context())
    assert caught.value.delay == timedelta(0)


async def test_the_last_failure_is_final() -> None:
    executor = executors.DatabaseRetryEntrypointExecutor(failing(KeyError("gone")), max_attempts=2)
    with pytest.raises(RetryRequested):
        await executor.execute(job(1), context())
    with pytest.raises(KeyError, match="gone"):
        await executor.execute(job(2), context())


async def test_a_retry_that_the_function_asks_for_keeps_its_delay() -> None:
    asked = RetryRequested(timedelta(hours=2), "later")
    executor = executors.DatabaseRetryEntrypointExecutor(failing(asked), max_attempts=0)
    with pytest.raises(RetryRequested) as caught:
        await executor.execute(job(50), context())
    assert caught.value is asked


async def test_a_retry_out_of_a_task_group_is_a_retry() -> None:
    longest = RetryRequested(timedelta(minutes=9))

    async def grouped(job: Job) -> None:
        async def ask(error: Exception) -> None:
            raise error

        async with asyncio.TaskGroup() as group:
            group.create_task(ask(RetryRequested(timedelta(seconds=3))))
            group.create_task(ask(longest))

    executor = executors.DatabaseRetryEntrypointExecutor(parameters(grouped), max_attempts=0)
    with pytest.raises(RetryRequested) as caught:
        await executor.execute(job(), context())
    assert caught.value is longest


async def test_a_group_with_another_error_is_a_failure() -> None:
    group = ExceptionGroup("both", [RetryRequested(timedelta(hours=1)), ValueError("broken")])
    executor = executors.DatabaseRetryEntrypointExecutor(failing(group), max_attempts=1)
    with pytest.raises(RetryRequested) as caught:
        await executor.execute(job(), context())
    assert caught.value.delay == timedelta(seconds=1)
    with pytest.raises(ExceptionGroup, match="both"):
        await executor.execute(job(1), context())


async def test_cancelling_a_job_is_no_failure() -> None:
    async def cancelled(job: Job) -> None:
        raise asyncio.CancelledError

    executor = executors.DatabaseRetryEntrypointExecutor(parameters(cancelled))
    with pytest.raises(asyncio.CancelledError):
        await executor.execute(job(), context())


def schedule_executor(expression: str) -> executors.ScheduleExecutor:
    async def tick(schedule: Schedule) -> None: ...

    return executors.ScheduleExecutor(
        executors.ScheduleExecutorFactoryParameters(
            entrypoint=CronEntrypoint("tick"),
            expression=CronExpression(expression),
            func=tick,
            clean_old=False,
        )
    )


@pytest.mark.parametrize(
    ("now", "expression", "expected"),
    [
        ("2024-05-01 12:00:30", "* * * * *", "2024-05-01 12:01:00"),
        ("2024-05-01 12:00:30", "* * * * * */10", "2024-05-01 12:00:40"),
        ("2024-05-01 12:00:30", "0 0 29 2 *", "2028-02-29 00:00:00"),
        ("2024-05-01 12:01:00", "* * * * *", "2024-05-01 12:02:00"),
        ("2024-12-31 23:59:59.999999", "0 0 1 1 *", "2025-01-01 00:00:00"),
    ],
)
def test_the_next_tick_comes_strictly_after_now_in_utc(
    monkeypatch: pytest.MonkeyPatch, now: str, expression: str, expected: str
) -> None:
    clock = datetime.fromisoformat(now).replace(tzinfo=UTC)
    monkeypatch.setattr(executors, "utc_now", lambda: clock)
    executor = schedule_executor(expression)
    following = datetime.fromisoformat(expected).replace(tzinfo=UTC)
    assert executor.get_next() == following
    assert executor.get_next().tzinfo is not None
    assert executor.next_in() == following - clock


def test_a_tick_during_the_calculation_is_not_in_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    before = datetime(2024, 5, 1, 12, 0, 59, 999_999, tzinfo=UTC)
    readings = iter([before, before + timedelta(microseconds=2)])
    monkeypatch.setattr(executors, "utc_now", lambda: next(readings))
    assert schedule_executor("* * * * *").next_in() == timedelta(seconds=60, microseconds=1)
