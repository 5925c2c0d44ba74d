"""The kernels one by one: compiled, pure, and where it has one, the way pgqueuer does it.

    pytest bench/test_kernels.py --benchmark-enable --benchmark-columns=median,iqr,rounds

Each benchmark handles ``ROWS`` items a round; divide for the cost of one.
"""

from __future__ import annotations

import struct
import uuid
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pgqueuer
import pgqueuer.models
import pytest

import pgq_fast_ext.codec
import pgq_fast_ext.notify
from pgq_fast import Job
from pgq_fast._pure import codec as pure_codec
from pgq_fast._pure import notify as pure_notify

ROWS = 1000
OWNER = uuid.uuid4()
NOW = datetime.now(UTC)
TIMES = struct.pack("!qqq", 1, 2, 3)
IDS = struct.pack(f"!{ROWS}q", *range(ROWS))
PAYLOAD = (
    '{"channel" : "ch_pgqueuer", "operation" : "insert", '
    '"sent_at" : "2026-01-01T12:00:00.123456+00:00", "table" : "pgqueuer", '
    '"type" : "table_changed_event"}'
)

CODECS = {"compiled": pgq_fast_ext.codec, "pure": pure_codec}
NOTIFIES = {"compiled": pgq_fast_ext.notify, "pure": pure_notify}


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Any:
    """Each implementation of the codec."""
    return CODECS[request.param]


@pytest.mark.benchmark(group="rows to jobs")
def test_build_jobs(benchmark: Any, codec: ModuleType) -> None:
    """What a claim costs after the driver has its rows."""
    rows = [(i, 0, "bench", b"x" * 32, 0, None, TIMES, None) for i in range(ROWS)]
    jobs, faults = benchmark(codec.build_jobs, Job, rows, OWNER)
    assert len(jobs) == ROWS
    assert not faults


@pytest.mark.benchmark(group="rows to jobs")
def test_build_jobs_as_pgqueuer(benchmark: Any) -> None:
    """A dictionary of 14 columns, validated: rows already decoded, as for the others."""
    row = {
        "id": 1,
        "priority": 0,
        "queue_manager_id": OWNER,
        "created": NOW,
        "updated": NOW,
        "heartbeat": NOW,
        "execute_after": NOW,
        "status": "picked",
        "entrypoint": "bench",
        "dedupe_key": None,
        "payload": b"x" * 32,
        "headers": None,
        "attempts": 0,
        "slot": None,
    }
    rows = list(row.items())

    def validate() -> list[Any]:
        return [pgqueuer.Job.model_validate(dict(rows)) for _ in range(ROWS)]

    assert len(benchmark(validate)) == ROWS


@pytest.mark.benchmark(group="jobs to COPY")
def test_encode_copy_jobs(benchmark: Any, codec: ModuleType) -> None:
    """What a list costs before the driver sends it."""
    nothing: list[bytes | None] = [None] * ROWS
    data = benchmark(
        codec.encode_copy_jobs,
        IDS,
        [0] * ROWS,
        ["bench"] * ROWS,
        [b"x" * 32] * ROWS,
        nothing,
        None,
    )
    assert data.startswith(b"PGCOPY")


@pytest.mark.benchmark(group="outcomes to parameters")
def test_outcome_columns(benchmark: Any, codec: ModuleType) -> None:
    """What an acknowledgement costs before the driver sends it."""
    rows = [(i, 0, "bench", None, 0, None, TIMES, None) for i in range(ROWS)]
    jobs, _ = codec.build_jobs(Job, rows, OWNER)
    ids, statuses, _ = benchmark(codec.outcome_columns, [(job, "successful", None) for job in jobs])
    assert ids == list(range(ROWS))
    assert statuses is None


@pytest.mark.benchmark(group="NOTIFY to event")
@pytest.mark.parametrize("implementation", NOTIFIES)
def test_parse_event(benchmark: Any, implementation: str) -> None:
    """One notification of the trigger."""
    parse = NOTIFIES[implementation].parse_event
    assert benchmark(parse, PAYLOAD) == ("table_changed_event", "insert")


@pytest.mark.benchmark(group="NOTIFY to event")
def test_parse_event_as_pgqueuer(benchmark: Any) -> None:
    """The same, validated by pgqueuer's models."""
    event = benchmark(pgqueuer.models.AnyEvent.model_validate_json, PAYLOAD)
    assert event.root.operation == "insert"
