"""Spans of Logfire around enqueueing and around handlers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Generator

from pgq_fast.errors import MissingExtraError

try:
    import logfire
    from logfire.propagate import attach_context, get_context
except ImportError as error:
    raise MissingExtraError("LogfireTracing", "logfire") from error

from pgq_fast.models import Job
from pgq_fast.tracing import TracingProtocol
from pgq_fast.tracing.outcome import ATTEMPTS, ENDINGS, OUTCOME, outcome_of

__all__ = ["LogfireTracing"]


class LogfireTracing(TracingProtocol):
    """Carries the trace of whoever enqueues a job to the handler, in the job's headers.

    A job that was enqueued without is run without a span. Configure Logfire before the first use.
    """

    def trace_publish(self, entrypoints: list[str]) -> Generator[dict[str, object], None, None]:
        """A span ``Enqueue`` around a span for each job, to which its headers lead."""
        with logfire.span("Enqueue"):
            for entrypoint in entrypoints:
                with logfire.span("Enqueued: {entrypoint=}", entrypoint=entrypoint):
                    yield {"logfire": dict(get_context())}

    @contextlib.asynccontextmanager
    async def trace_process(self, job: Job) -> AsyncIterator[None]:
        """A span around the run of *job*, below the one that enqueued it.

        An error is recorded and makes the span one. A retry is recorded, and is no error.
        """
        headers = job.logfire_headers()
        if not headers:
            yield
            return
        error: BaseException | None = None
        with (
            attach_context(headers),
            logfire.span(
                "Processing job: {job_id=}",
                job_id=job.id,
                entrypoint=job.entrypoint,
                payload_size=len(job.payload or b""),
            ) as span,
        ):
            span.set_attribute(ATTEMPTS, job.attempts)
            try:
                yield
            except ENDINGS as ending:
                error = ending
            outcome = outcome_of(error)
            span.set_attribute(OUTCOME, outcome)
            if error is not None and outcome != "canceled":
                span.record_exception(error)
            if outcome == "exception":
                span.set_level("error")
        if error is not None:
            raise error
