"""Spans of OpenTelemetry around enqueueing and around handlers.

Names, kinds and attributes are those of OpenTelemetry's conventions for messaging.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Generator, Mapping
from typing import Final

from pgq_fast.errors import MissingExtraError

try:
    from opentelemetry import context as contexts, propagate, trace
    from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
except ImportError as error:
    raise MissingExtraError("OpenTelemetryTracing", "opentelemetry") from error

from pgq_fast.models import Job
from pgq_fast.tracing import TracingProtocol
from pgq_fast.tracing.outcome import ATTEMPTS, ENDINGS, OUTCOME, outcome_of

__all__ = ["OpenTelemetryTracing"]

SYSTEM: Final = "pgqueuer"


def _attributes(operation: str, destination: str | None = None) -> dict[str, str | int]:
    """What spans of all operations say."""
    attributes: dict[str, str | int] = {
        "messaging.system": SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }
    if destination is not None:
        attributes["messaging.destination.name"] = destination
    return attributes


class OpenTelemetryTracing(TracingProtocol):
    """Carries the trace of whoever enqueues a job to the handler, in the job's headers.

    What travels is what the propagator of the process writes, W3C trace context and baggage by
    default. A job that was enqueued without is run without a span.

    Args:
        tracer: Makes the spans; None: that of the process's provider, looked up for each use.
        instrumentation_name: Under which it is looked up.
    """

    def __init__(
        self, tracer: Tracer | None = None, instrumentation_name: str = "pgqueuer"
    ) -> None:
        self._tracer = tracer
        self._instrumentation_name = instrumentation_name

    @property
    def _active(self) -> Tracer:
        return self._tracer or trace.get_tracer(self._instrumentation_name)

    def trace_publish(self, entrypoints: list[str]) -> Generator[dict[str, object], None, None]:
        """A span ``send NAME`` for one job; for more a span ``send`` around ``create NAME`` each.

        The headers lead to the span of the single job.
        """
        tracer = self._active
        if len(entrypoints) == 1:
            yield from self._created(tracer, "send", entrypoints)
            return
        with tracer.start_as_current_span(
            "send",
            kind=SpanKind.CLIENT,
            attributes={
                **_attributes("send"),
                "messaging.batch.message_count": len(entrypoints),
            },
        ):
            yield from self._created(tracer, "create", entrypoints)

    @staticmethod
    def _created(
        tracer: Tracer, operation: str, entrypoints: list[str]
    ) -> Generator[dict[str, object], None, None]:
        for entrypoint in entrypoints:
            with tracer.start_span(
                f"{operation} {entrypoint}",
                kind=SpanKind.PRODUCER,
                attributes=_attributes(operation, entrypoint),
            ) as span:
                carrier: dict[str, str] = {}
                propagate.inject(carrier, trace.set_span_in_context(span))
                yield {"otel": carrier}

    @contextlib.asynccontextmanager
    async def trace_process(self, job: Job) -> AsyncIterator[None]:
        """A span ``process NAME`` around the run of *job*, below the one that enqueued it.

        An error is recorded and makes the span one. A retry is recorded, and is no error.
        """
        headers = job.otel_headers()
        if not headers:
            yield
            return
        error: BaseException | None = None
        with (
            _remote(headers),
            self._active.start_as_current_span(
                f"process {job.entrypoint}",
                kind=SpanKind.CONSUMER,
                attributes={
                    **_attributes("process", job.entrypoint),
                    "messaging.message.id": str(job.id),
                    "messaging.message.body.size": len(job.payload or b""),
                    ATTEMPTS: job.attempts,
                },
                record_exception=False,
                set_status_on_exception=False,
            ) as span,
        ):
            try:
                yield
            except ENDINGS as ending:
                error = ending
            _end(span, error)
        if error is not None:
            raise error


@contextlib.contextmanager
def _remote(headers: Mapping[str, object]) -> Generator[None]:
    """A block in the context that *headers* carry."""
    token = contexts.attach(propagate.extract(headers))
    try:
        yield
    finally:
        contexts.detach(token)


def _end(span: Span, error: BaseException | None) -> None:
    outcome = outcome_of(error)
    span.set_attribute(OUTCOME, outcome)
    if error is None:
        span.set_status(StatusCode.OK)
        return
    if outcome != "canceled":
        span.record_exception(error)
    if outcome == "exception":
        span.set_attribute("error.type", type(error).__qualname__)
        span.set_status(StatusCode.ERROR, str(error))
