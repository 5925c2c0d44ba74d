"""What the kernels are given where they are measured: ``ITEMS`` items of each kind, each alike."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from typing import Any, Final

ITEMS: Final = 1000
OWNER: Final = uuid.UUID(int=1)
ENTRYPOINT: Final = "bench"
PAYLOAD: Final = b"x" * 32
NUMBERS: Final = tuple(range(10_000, 10_000 + ITEMS))
IDS: Final = struct.pack(f"!{ITEMS}q", *NUMBERS)
EVENT: Final = (
    '{"channel" : "ch_pgqueuer", "operation" : "insert", '
    '"sent_at" : "2026-01-01T12:00:00.123456+00:00", "table" : "pgqueuer", '
    '"type" : "table_changed_event"}'
)
# Types, as the server numbers them.
BYTEA, INT8, INT4, TEXT, TIMESTAMPTZ = 17, 20, 23, 25, 1184


def claim_answer() -> bytes:
    """What ``build_jobs`` gets: the answer to a claim in the compat layout."""

    def field(oid: int, value: bytes) -> bytes:
        return struct.pack("!Ii", oid, len(value)) + value

    null = struct.pack("!Ii", TEXT, -1)
    times = b"".join(field(TIMESTAMPTZ, struct.pack("!q", moment)) for moment in (1, 2, 3))
    return b"".join(
        struct.pack("!i", 10)
        + field(INT8, struct.pack("!q", number))
        + field(INT4, bytes(4)) * 2
        + times
        + null
        + field(BYTEA, ENTRYPOINT.encode())
        + field(BYTEA, PAYLOAD)
        + null
        for number in NUMBERS
    )


def array(oid: int, elements: Sequence[bytes]) -> bytes:
    """Elements as ``array_send`` writes them."""
    head = struct.pack("!iiIii", 1, 0, oid, len(elements), 1)
    return head + b"".join(struct.pack("!i", len(element)) + element for element in elements)


def lease_columns() -> tuple[Any, ...]:
    """What ``build_leased_jobs`` gets of a lease, from its entrypoint on.

    As of jobs that were enqueued in one call: what they have in common is there once.
    """
    return (
        ENTRYPOINT.encode(),
        None,
        struct.pack("!q", 2),
        array(INT8, [struct.pack("!q", number) for number in NUMBERS]),
        array(INT4, [bytes(4)]),
        array(INT4, [bytes(4)]),
        array(TIMESTAMPTZ, [struct.pack("!q", 1)]),
        None,
        array(BYTEA, [PAYLOAD] * ITEMS),
        None,
    )


def read_all(jobs: Sequence[Any]) -> int:
    """Read every field of every job; how many there are."""
    count = 0
    for job in jobs:
        fields = (
            job.id,
            job.priority,
            job.created,
            job.updated,
            job.heartbeat,
            job.execute_after,
            job.status,
            job.entrypoint,
            job.payload,
            job.attempts,
            job.queue_manager_id,
            job.slot,
            job.headers,
        )
        count += fields[2] is not None
    return count
