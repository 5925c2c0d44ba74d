"""OpenTelemetry's spans over a real queue, as its own exporter has them."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pgq_fast.adapters.tracing.opentelemetry import OpenTelemetryTracing
from tracing.conftest import OUTCOMES, MakeTraced


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("tests")


@pytest.fixture(autouse=True)
def _w3c_headers() -> Iterator[None]:
    """What headers look like is one setting of the process, and Logfire, once configured, warns."""
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(TraceContextTextMapPropagator())
    yield
    propagate.set_global_textmap(before)


def by_name(exporter: InMemorySpanExporter) -> dict[str, list[ReadableSpan]]:
    spans = defaultdict(list)
    for span in exporter.get_finished_spans():
        spans[span.name].append(span)
    return dict(spans)


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


@pytest.mark.layouts
async def test_from_the_producer_to_each_end(
    traced: MakeTraced, exporter: InMemorySpanExporter, tracer: Tracer
) -> None:
    queue = await traced(OpenTelemetryTracing(tracer))
    with tracer.start_as_current_span("request") as request:
        ids = await queue.enqueue(*OUTCOMES)
    assert not trace.get_current_span().get_span_context().is_valid
    await queue.drain()

    spans = by_name(exporter)
    (send,) = spans["send"]
    assert send.kind is SpanKind.CLIENT
    assert parent_of(send) == request.get_span_context().span_id
    assert send.attributes is not None
    assert send.attributes["messaging.batch.message_count"] == len(OUTCOMES)
    for entrypoint, outcomes in OUTCOMES.items():
        (create,) = spans[f"create {entrypoint}"]
        assert create.kind is SpanKind.PRODUCER
        assert parent_of(create) == send.context.span_id
        runs = spans[f"process {entrypoint}"]
        for attempts, (run, outcome) in enumerate(zip(runs, outcomes, strict=True)):
            assert run.kind is SpanKind.CONSUMER
            assert run.context.trace_id == request.get_span_context().trace_id
            assert parent_of(run) == create.context.span_id
            assert dict(run.attributes or {}) == {
                "messaging.system": "pgqueuer",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": entrypoint,
                "messaging.message.id": str(ids[entrypoint]),
                "messaging.message.body.size": len(b"payload"),
                "pgqueuer.job.attempts": attempts,
                "pgqueuer.job.outcome": outcome,
                **({"error.type": "ValueError"} if outcome == "exception" else {}),
            }
            assert run.status.status_code is {
                "successful": StatusCode.OK,
                "exception": StatusCode.ERROR,
            }.get(outcome, StatusCode.UNSET)
    (failure,) = spans["process failing"]
    assert failure.status.description == "broken"
    (event,) = failure.events
    assert event.attributes is not None
    assert event.attributes["exception.message"] == "broken"
    (event,) = spans["process again"][0].events
    assert event.attributes is not None
    assert event.attributes["exception.message"] == "not yet"
    assert not spans["process waiting"][0].events


async def test_one_job_has_one_span_of_its_producer(
    traced: MakeTraced, exporter: InMemorySpanExporter, tracer: Tracer
) -> None:
    queue = await traced(OpenTelemetryTracing(tracer))
    await queue.producer.enqueue("quick", None, headers={"own": "kept"})
    await queue.drain()
    send, process = exporter.get_finished_spans()
    assert (send.name, send.kind) == ("send quick", SpanKind.PRODUCER)
    assert (process.name, parent_of(process)) == ("process quick", send.context.span_id)


async def test_the_handler_runs_in_the_span(
    traced: MakeTraced, exporter: InMemorySpanExporter, tracer: Tracer
) -> None:
    queue = await traced(OpenTelemetryTracing(tracer))

    @queue.worker.entrypoint("outer")
    async def outer(job: object) -> None:
        with tracer.start_as_current_span("inner"):
            await queue.enqueue("quick")

    await queue.enqueue("outer")
    await queue.drain()
    spans = by_name(exporter)
    # From one job to the next the trace goes on.
    line = ["send outer", "process outer", "inner", "send quick", "process quick"]
    for above, below in itertools.pairwise(line):
        assert parent_of(spans[below][0]) == spans[above][0].context.span_id
    assert len({span.context.trace_id for span in exporter.get_finished_spans()}) == 1


async def test_jobs_without_a_trace_have_no_span(
    traced: MakeTraced, exporter: InMemorySpanExporter, tracer: Tracer
) -> None:
    queue = await traced(OpenTelemetryTracing(tracer))
    queue.producer.tracer = None
    await queue.enqueue("quick")
    await queue.producer.enqueue("quick", None, headers={"otel": "no dict"})
    await queue.drain()
    assert await queue.producer.queue_size() == []
    assert exporter.get_finished_spans() == ()
