"""What is said on the channel of a queue: to its workers, or by them to themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, Field, RootModel

from pgq_fast.fields import utc_now
from pgq_fast.types import EVENT_TYPES, OPERATIONS, Channel, HealthCheckId, JobId

__all__ = [
    "AnyEvent",
    "CancellationEvent",
    "Event",
    "HealthCheckEvent",
    "TableChangedEvent",
]


class Event(BaseModel, defer_build=True):
    """What a NOTIFY on the queue's channel says; ``received_at`` is stamped when it is read."""

    channel: Channel
    sent_at: AwareDatetime
    type: EVENT_TYPES
    received_at: AwareDatetime = Field(init=False, default_factory=utc_now)

    @property
    def latency(self) -> timedelta:
        """Time from the sender's clock to the receiver's."""
        return self.received_at - self.sent_at


class TableChangedEvent(Event):
    """A statement touched the queue table."""

    type: Literal["table_changed_event"]
    operation: OPERATIONS
    table: str


class CancellationEvent(Event):
    """Workers that run one of *ids* are asked to cancel it."""

    type: Literal["cancellation_event"]
    ids: list[JobId]


class HealthCheckEvent(Event):
    """A worker's message to itself, to see that LISTEN works."""

    type: Literal["health_check_event"]
    id: HealthCheckId


class AnyEvent(
    RootModel[
        Annotated[
            TableChangedEvent | CancellationEvent | HealthCheckEvent,
            Field(discriminator="type"),
        ]
    ],
    defer_build=True,
):
    """Any of the events, told apart by ``type``."""
