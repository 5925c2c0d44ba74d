"""What a tracer's block sees of a job, and what it cannot do to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator

import pytest

from pgq_fast.adapters.tracing.logfire import LogfireTracing
from pgq_fast.adapters.tracing.opentelemetry import OpenTelemetryTracing
from pgq_fast.adapters.tracing.sentry import SentryTracing
from pgq_fast.models import Job
from pgq_fast.types import JobId
from tracing.conftest import OUTCOMES, MakeTraced, Traced


class Witness:
    """Notes with what each block ends, and lets it pass."""

    def __init__(self) -> None:
        self.endings: list[tuple[str, str]] = []

    def trace_publish(self, entrypoints: list[str]) -> Generator[dict[str, object], None, None]:
        for _ in entrypoints:
            yield {}

    @contextlib.asynccontextmanager
    async def trace_process(self, job: Job) -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            self.endings.append((job.entrypoint, type(error).__name__))
            raise
        self.endings.append((job.entrypoint, ""))


class Swallower(Witness):
    """Holds back what it can."""

    @contextlib.asynccontextmanager
    async def trace_process(self, job: Job) -> AsyncIterator[None]:
        with contextlib.suppress(Exception, asyncio.CancelledError):
            yield


class Failing(Witness):
    """Raises when a block ends, whatever it ends with."""

    @contextlib.asynccontextmanager
    async def trace_process(self, job: Job) -> AsyncIterator[None]:
        try:
            yield
        finally:
            raise LookupError("of the tracer")


async def last_statuses(queue: Traced, ids: dict[str, JobId]) -> dict[str, str]:
    statuses = dict(await queue.producer.job_status(list(ids.values())))
    return {name: statuses[job_id] for name, job_id in ids.items()}


async def test_a_block_ends_as_its_job(traced: MakeTraced) -> None:
    witness = Witness()
    queue = await traced(witness)
    await queue.enqueue(*OUTCOMES)
    await queue.drain()
    assert sorted(witness.endings) == [
        ("again", ""),
        ("again", "RetryRequested"),
        ("failing", "ValueError"),
        ("quick", ""),
        ("waiting", "CancelledError"),
    ]


@pytest.mark.parametrize("tracer", [Witness, Swallower, Failing])
async def test_no_tracer_changes_how_a_job_ends(
    traced: MakeTraced, tracer: type[Witness], caplog: pytest.LogCaptureFixture
) -> None:
    queue = await traced(tracer())
    ids = await queue.enqueue(*OUTCOMES)
    await queue.drain()
    assert await last_statuses(queue, ids) == {
        "quick": "successful",
        "failing": "exception",
        "again": "successful",
        "waiting": "canceled",
    }
    assert ("The tracer failed" in caplog.text) == (tracer is Failing)


@pytest.mark.filterwarnings("ignore:.*logfire.configure")
@pytest.mark.parametrize("tracer", [OpenTelemetryTracing, SentryTracing, LogfireTracing])
async def test_headers_that_make_no_sense_do_not_keep_a_job(
    traced: MakeTraced, tracer: type[OpenTelemetryTracing | SentryTracing | LogfireTracing]
) -> None:
    queue = await traced(tracer())
    queue.producer.tracer = None
    nonsense: list[object] = [
        5,
        [],
        {"traceparent": 5, "tracestate": [], "baggage": {}, "sentry-trace": {"a": 1}},
        {"traceparent": "00-zz", "sentry-trace": "x-y-z", "baggage": "=;,="},
    ]
    ids = await queue.producer.enqueue(
        ["quick"] * len(nonsense),
        [None] * len(nonsense),
        [0] * len(nonsense),
        headers=[{"otel": each, "sentry": each, "logfire": each} for each in nonsense],  # type: ignore[misc]
    )
    await queue.drain()
    statuses = dict(await queue.producer.job_status([id_ for id_ in ids if id_ is not None]))
    assert list(statuses.values()) == ["successful"] * len(nonsense)
