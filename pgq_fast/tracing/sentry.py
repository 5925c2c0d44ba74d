"""Transactions of Sentry around enqueueing and around handlers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Generator
from typing import Final

from pgq_fast.errors import MissingExtraError

try:
    import sentry_sdk
except ImportError as error:
    raise MissingExtraError("SentryTracing", "sentry") from error

from pgq_fast.models import Job
from pgq_fast.tracing import TracingProtocol
from pgq_fast.tracing.outcome import ATTEMPTS, ENDINGS, OUTCOME, Outcome, outcome_of

__all__ = ["SentryTracing"]

_STATUS: Final[dict[Outcome, str]] = {
    "successful": "ok",
    "retried": "aborted",
    "canceled": "cancelled",
    "exception": "internal_error",
}


class SentryTracing(TracingProtocol):
    """Carries the trace of whoever enqueues a job to the handler, in the job's headers.

    A job that was enqueued without is run without a transaction. Each run has a scope of its own,
    so that what one handler sets is not on the events of another. Call ``sentry_sdk.init`` before
    the first use.
    """

    def trace_publish(self, entrypoints: list[str]) -> Generator[dict[str, object], None, None]:
        """A span ``queue.publish`` for each job, to which its headers lead.

        They are below the span that is current, such as that of a web request; where there is none,
        in a transaction of their own.
        """
        if sentry_sdk.get_current_span() is not None:
            yield from self._published(entrypoints)
            return
        with sentry_sdk.start_transaction(
            op="function", name="queue_producer_transaction"
        ) as transaction:
            yield from self._published(entrypoints)
            transaction.set_status("ok")

    @staticmethod
    def _published(entrypoints: list[str]) -> Generator[dict[str, object], None, None]:
        for entrypoint in entrypoints:
            with sentry_sdk.start_span(op="queue.publish", name="queue_producer") as span:
                span.set_data("messaging.destination.name", entrypoint)
                yield {
                    "sentry": {
                        "sentry-trace": sentry_sdk.get_traceparent(),
                        "baggage": sentry_sdk.get_baggage(),
                    }
                }

    @contextlib.asynccontextmanager
    async def trace_process(self, job: Job) -> AsyncIterator[None]:
        """A transaction with a span ``queue.process`` around the run of *job*.

        An error is captured as an event of it. A retry is not.
        """
        headers = job.sentry_headers()
        if not headers:
            yield
            return
        error: BaseException | None = None
        with (
            sentry_sdk.isolation_scope(),
            sentry_sdk.start_transaction(
                sentry_sdk.continue_trace(headers, op="function", name="queue_consumer_transaction")
            ) as transaction,
            sentry_sdk.start_span(op="queue.process", name="queue_consumer") as span,
        ):
            span.set_data("messaging.message.id", job.id)
            span.set_data("messaging.destination.name", job.entrypoint)
            span.set_data("messaging.message.body.size", len(job.payload or b""))
            span.set_data("messaging.message.retry.count", job.attempts)
            span.set_data(
                "messaging.message.receive.latency",
                round((job.updated - job.created).total_seconds() * 1000),
            )
            span.set_data(ATTEMPTS, job.attempts)
            try:
                yield
            except ENDINGS as ending:
                error = ending
            outcome = outcome_of(error)
            span.set_data(OUTCOME, outcome)
            if error is not None and outcome == "exception":
                sentry_sdk.capture_exception(error)
            for each in (span, transaction):
                each.set_status(_STATUS[outcome])
        if error is not None:
            raise error
