"""Logfire's spans over a real queue, as its testing exporter has them."""

from __future__ import annotations

from typing import Any

import logfire
import pytest
from logfire.testing import CaptureLogfire, capfire  # noqa: F401

from pgq_fast.adapters.tracing.logfire import LogfireTracing
from tracing.conftest import OUTCOMES, MakeTraced

ERROR_LEVEL = 17


def spans_of(capture: CaptureLogfire, template: str) -> list[dict[str, Any]]:
    return [
        span
        for span in capture.exporter.exported_spans_as_dict()
        if span["attributes"]["logfire.msg_template"] == template
    ]


@pytest.mark.layouts
async def test_from_the_producer_to_each_end(
    traced: MakeTraced,
    capfire: CaptureLogfire,  # noqa: F811
) -> None:
    queue = await traced(LogfireTracing())
    with logfire.span("request"):
        ids = await queue.enqueue(*OUTCOMES)
    await queue.drain()

    (request,) = spans_of(capfire, "request")
    (enqueue,) = spans_of(capfire, "Enqueue")
    assert enqueue["parent"]["span_id"] == request["context"]["span_id"]
    created = {
        span["attributes"]["entrypoint"]: span
        for span in spans_of(capfire, "Enqueued: {entrypoint=}")
    }
    runs = spans_of(capfire, "Processing job: {job_id=}")
    assert len(runs) == sum(map(len, OUTCOMES.values()))
    for entrypoint, outcomes in OUTCOMES.items():
        own = [run for run in runs if run["attributes"]["entrypoint"] == entrypoint]
        assert created[entrypoint]["parent"]["span_id"] == enqueue["context"]["span_id"]
        for attempts, (run, outcome) in enumerate(zip(own, outcomes, strict=True)):
            attributes = run["attributes"]
            assert run["context"]["trace_id"] == request["context"]["trace_id"]
            assert run["parent"]["span_id"] == created[entrypoint]["context"]["span_id"]
            assert attributes["job_id"] == ids[entrypoint]
            assert attributes["payload_size"] == len(b"payload")
            assert attributes["pgqueuer.job.attempts"] == attempts
            assert attributes["pgqueuer.job.outcome"] == outcome
            is_error = attributes.get("logfire.level_num", 0) >= ERROR_LEVEL
            assert is_error == (outcome == "exception")
            messages = [event["attributes"]["exception.message"] for event in run.get("events", [])]
            assert messages == {"exception": ["broken"], "retried": ["not yet"]}.get(outcome, [])
