"""Sentry's transactions and events over a real queue, as its transport gets them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from pgq_fast.adapters.tracing.sentry import SentryTracing
from tracing.conftest import OUTCOMES, MakeTraced


class Captured(Transport):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            if (transaction := item.get_transaction_event()) is not None:
                self.transactions.append(dict(transaction))
            elif (event := item.get_event()) is not None:
                self.events.append(dict(event))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [each for each in self.transactions if each["transaction"] == name]


def process_of(run: dict[str, Any]) -> dict[str, Any]:
    """The span of the run; Sentry itself adds one below for each statement that it sees."""
    (span,) = (span for span in run["spans"] if span["op"] == "queue.process")
    below = [other for other in run["spans"] if other is not span]
    assert all(other["parent_span_id"] == span["span_id"] for other in below)
    return dict(span)


@pytest.fixture
def captured() -> Iterator[Captured]:
    transport = Captured()
    with sentry_sdk.isolation_scope():
        sentry_sdk.init(
            dsn="https://key@sentry.invalid/1", transport=transport, traces_sample_rate=1.0
        )
        yield transport
        sentry_sdk.init()


@pytest.mark.layouts
async def test_from_the_producer_to_each_end(traced: MakeTraced, captured: Captured) -> None:
    queue = await traced(SentryTracing())
    with sentry_sdk.start_transaction(name="request"):
        ids = await queue.enqueue(*OUTCOMES)
    await queue.drain()

    (request,) = captured.named("request")
    assert captured.named("queue_producer_transaction") == []
    published = {
        span["data"]["messaging.destination.name"]: span
        for span in request["spans"]
        if span["op"] == "queue.publish"
    }
    assert published.keys() == OUTCOMES.keys()
    runs = captured.named("queue_consumer_transaction")
    assert len(runs) == sum(map(len, OUTCOMES.values()))
    statuses = {
        "successful": "ok",
        "retried": "aborted",
        "canceled": "cancelled",
        "exception": "internal_error",
    }
    for entrypoint, outcomes in OUTCOMES.items():
        own = [
            run
            for run in runs
            if process_of(run)["data"]["messaging.destination.name"] == entrypoint
        ]
        for attempts, (run, outcome) in enumerate(zip(own, outcomes, strict=True)):
            trace = run["contexts"]["trace"]
            assert trace["trace_id"] == request["contexts"]["trace"]["trace_id"]
            assert trace["parent_span_id"] == published[entrypoint]["span_id"]
            assert trace["status"] == statuses[outcome]
            span = process_of(run)
            data = span["data"]
            assert data["messaging.message.id"] == ids[entrypoint]
            assert data["messaging.message.body.size"] == len(b"payload")
            assert data["messaging.message.retry.count"] == attempts
            assert data["pgqueuer.job.outcome"] == outcome

    # The one failure is one event, though the worker logs it as well; it belongs to its run.
    (event,) = captured.events
    assert event["exception"]["values"][-1]["type"] == "ValueError"
    (failure,) = (run for run in runs if run["contexts"]["trace"]["status"] == "internal_error")
    assert event["contexts"]["trace"]["trace_id"] == failure["contexts"]["trace"]["trace_id"]
    assert event["contexts"]["trace"]["span_id"] == process_of(failure)["span_id"]


async def test_a_producer_without_a_transaction_makes_one(
    traced: MakeTraced, captured: Captured
) -> None:
    queue = await traced(SentryTracing())
    await queue.enqueue("quick")
    await queue.drain()
    (producer,) = captured.named("queue_producer_transaction")
    (run,) = captured.named("queue_consumer_transaction")
    assert run["contexts"]["trace"]["parent_span_id"] == producer["spans"][0]["span_id"]


async def test_what_a_handler_tags_stays_with_its_job(
    traced: MakeTraced, captured: Captured
) -> None:
    queue = await traced(SentryTracing())

    @queue.worker.entrypoint("tags")
    async def tags(job: object) -> None:
        sentry_sdk.set_tag("seen", "yes")

    await queue.enqueue("tags", "failing")
    await queue.drain()
    tagged = [run.get("tags", {}) for run in captured.named("queue_consumer_transaction")]
    assert tagged.count({"seen": "yes"}) == 1
    assert [event.get("tags", {}) for event in captured.events] == [{}]
