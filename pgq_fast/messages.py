"""What this side sends on the channel of a queue, to the workers that listen there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pgq_fast import models
from pgq_fast.types import Channel, HealthCheckId, JobId

LONGEST_MESSAGE: Final = 7999
"""Bytes that PostgreSQL takes as the payload of a NOTIFY."""


def cancellations(channel: str, ids: Sequence[int]) -> Iterator[str]:
    """Messages that ask to cancel *ids*: as many as it takes, one at least."""
    event = models.CancellationEvent(
        channel=Channel(channel), ids=[], sent_at=models.utc_now(), type="cancellation_event"
    )
    room = LONGEST_MESSAGE - len(event.model_dump_json().encode())
    start = size = 0
    for place, job_id in enumerate(ids):
        more = len(f"{job_id},")
        if size + more > room:
            event.ids = [*map(JobId, ids[start:place])]
            yield event.model_dump_json()
            start, size = place, 0
        size += more
    event.ids = [*map(JobId, ids[start:])]
    yield event.model_dump_json()


def health_check(channel: str, check: HealthCheckId) -> str:
    """The message by which a worker sees that it hears."""
    return models.HealthCheckEvent(
        channel=Channel(channel), id=check, sent_at=models.utc_now(), type="health_check_event"
    ).model_dump_json()
