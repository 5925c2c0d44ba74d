"""Records to jobs: whatever arrives, the twins agree, and no job suffers for another."""

from __future__ import annotations

import struct
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.twins import (
    TWINS,
    Bare,
    Twin,
    agreed,
    any_text,
    field,
    fields,
    int32s,
    int64s,
    names,
    record,
    scalars,
    times,
)

pytestmark = pytest.mark.impl_agnostic

OWNER = uuid.UUID(int=5)
ALL_FIELDS = [
    "id",
    "priority",
    "status",
    "entrypoint",
    "payload",
    "attempts",
    "queue_manager_id",
    "slot",
]

good_columns = st.fixed_dictionaries(
    {
        "id": int64s,
        "priority": int32s,
        "attempts": int32s,
        "created": int64s,
        "execute_after": int64s,
        "updated": int64s,
        "slot": st.none() | int64s,
        "entrypoint": names,
        "payload": st.none() | st.binary(),
        "headers": st.none() | st.binary(),
    }
)
bad_names = st.none() | st.sampled_from([b"\xff", b"\xed\xa0\x80", b"a\xc3"])


def built(twin: Twin, raw: Any) -> Any:
    """Jobs and faults, jobs as their fields and what they keep to decode later."""
    jobs, faults = twin.codec.build_jobs(Bare, raw, OWNER)
    return [(dict(vars(job)), job._row) for job in jobs], faults


def explained(twin: Twin, raw: Any) -> Any:
    """As ``built``, or the message of the ``ValueError``."""
    try:
        return built(twin, raw)
    except ValueError as error:
        return str(error)


@given(st.lists(good_columns, max_size=8))
def test_records_become_jobs_in_their_order(batch: list[dict[str, Any]]) -> None:
    raw = b"".join(record(**columns) for columns in batch)
    for twin in TWINS:
        jobs, faults = built(twin, raw)
        assert faults == []
        for (found, kept), columns in zip(jobs, batch, strict=True):
            assert list(found) == ALL_FIELDS
            assert found["queue_manager_id"] is OWNER
            assert found["status"] == "picked"
            for name in ("id", "priority", "attempts", "slot", "entrypoint", "payload"):
                assert found[name] == columns[name]
            assert kept == (
                times(columns["created"], columns["execute_after"], columns["updated"]),
                columns["headers"],
            )


@given(st.lists(st.tuples(good_columns, st.booleans(), bad_names), max_size=8))
def test_one_bad_record_costs_no_other(batch: list[tuple[dict[str, Any], bool, Any]]) -> None:
    raw = b"".join(
        record(**columns | {"entrypoint": name} if spoilt else columns)
        for columns, spoilt, name in batch
    )
    for twin in TWINS:
        jobs, faults = built(twin, raw)
        assert [job_id for job_id, _ in faults] == [
            columns["id"] for columns, spoilt, _ in batch if spoilt
        ]
        assert [found["id"] for found, _ in jobs] == [
            columns["id"] for columns, spoilt, _ in batch if not spoilt
        ]
        assert {reason for _, reason in faults} <= {"entrypoint is NULL", "entrypoint is no UTF-8"}


def agreed_on(raw: Any) -> Any:
    """What every twin makes of *raw*; they must make the same of it, to the word."""
    results = [explained(twin, raw) for twin in TWINS]
    assert all(result == results[0] for result in results), results
    return results[0]


@given(st.lists(good_columns, min_size=1, max_size=3), st.data())
def test_a_claim_that_breaks_off(batch: list[dict[str, Any]], data: st.DataObject) -> None:
    records = [record(**columns) for columns in batch]
    raw = b"".join(records)
    whole = {0, *(len(b"".join(records[:count])) for count in range(1, len(records) + 1))}
    end = data.draw(st.integers(0, len(raw)))
    assert isinstance(agreed_on(raw[:end]), str) is (end not in whole)


@given(st.lists(good_columns, min_size=1, max_size=3), st.data())
def test_a_claim_with_a_changed_byte(batch: list[dict[str, Any]], data: st.DataObject) -> None:
    raw = bytearray(b"".join(record(**columns) for columns in batch))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    agreed_on(bytes(raw))


lengths = st.sampled_from([-(2**31), -2, -1, 0, 1, 3, 4, 5, 7, 8, 9, 2**31 - 1]) | int32s


@given(st.integers(0, 9), lengths, st.binary(max_size=12))
def test_a_field_of_any_length(place: int, length: int, value: bytes) -> None:
    parts = fields()
    parts[place] = struct.pack("!Ii", 25, length) + value
    agreed_on(struct.pack("!i", 10) + b"".join(parts) + record())


@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    agreed_on(raw)


@given(scalars.filter(lambda value: type(value) is not bytes))
def test_no_bytes(raw: Any) -> None:
    for twin in TWINS:
        with pytest.raises(TypeError, match="raw is"):
            twin.codec.build_jobs(Bare, raw, OWNER)


def test_what_is_wrong_with_a_claim(twin: Twin) -> None:
    def refused(raw: bytes) -> str:
        with pytest.raises(ValueError, match="claim") as caught:
            twin.codec.build_jobs(Bare, raw, OWNER)
        return str(caught.value)

    def changed(place: int, new: bytes) -> bytes:
        parts = fields()
        parts[place] = new
        return struct.pack("!i", 10) + b"".join(parts)

    assert "breaks off at byte 3, at the start" in refused(b"\0" * 3)
    assert "has 9 fields, not 10" in refused(struct.pack("!i", 9) + b"\0" * 200)
    assert "length 4, not 8" in refused(changed(0, field(23, b"1234")))
    assert "length -1, not 4" in refused(changed(1, field(23, None)))
    assert "slot of a claim has length 4" in refused(changed(6, field(23, b"1234")))
    assert "has length -2" in refused(changed(8, struct.pack("!Ii", 17, -2)))
    assert "within a field of 2147483647 bytes" in refused(
        changed(9, struct.pack("!Ii", 17, 2**31 - 1))
    )


def test_what_a_job_keeps_does_not_keep_the_claim(twin: Twin) -> None:
    raw = record(payload=b"p" * 1000, headers=b"{}")
    (job,), _ = twin.codec.build_jobs(Bare, raw, OWNER)
    times_kept, headers_kept = job._row
    assert type(times_kept) is type(headers_kept) is type(vars(job)["payload"]) is bytes
    assert len(times_kept) == 40


@given(int64s, int64s, int64s)
def test_any_times(first: int, second: int, third: int) -> None:
    kind, value = agreed("codec", "decode_times", times(first, second, third))
    assert kind == "returned"
    assert all(moment.tzinfo is not None for moment in value)


def test_times_of_the_epoch_and_beyond_what_datetime_holds(twin: Twin) -> None:
    last, first = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    decode = twin.codec.decode_times
    assert decode(times(0, 1, -1)) == (
        datetime(2000, 1, 1, tzinfo=UTC),
        datetime(2000, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    )
    # "infinity" and "-infinity" are the ends of int64.
    assert decode(times(2**63 - 1, -(2**63), 0))[:2] == (last, first)
    in_range = int((last - datetime(2000, 1, 1, tzinfo=UTC)).total_seconds() * 10**6)
    assert decode(times(in_range, in_range * 2, 0))[1] == last


@given(st.binary(min_size=38, max_size=42) | st.binary(max_size=80) | scalars)
def test_any_value_as_times_or_ids(raw: Any) -> None:
    agreed("codec", "decode_times", raw)
    kind, value = agreed("codec", "decode_ids", raw)
    assert (kind, value) != ("returned", None)


@given(st.lists(int64s))
def test_ids(ids: list[int]) -> None:
    raw = b"".join(number.to_bytes(8, "big", signed=True) for number in ids)
    assert agreed("codec", "decode_ids", raw) == ("returned", ids)


def test_lengths_are_refused(twin: Twin) -> None:
    with pytest.raises(ValueError, match="40 bytes"):
        twin.codec.decode_times(b"\0" * 39)
    with pytest.raises(ValueError, match="40 bytes"):
        twin.codec.decode_times(b"\0" * 41)
    with pytest.raises(ValueError, match="multiple"):
        twin.codec.decode_ids(b"\0" * 9)


class Ended:
    def __init__(self, job_id: Any) -> None:
        self.id = job_id


@given(
    st.lists(
        st.tuples(
            st.integers().map(Ended),
            st.sampled_from(["successful", "exception", "canceled", "failed"]),
            st.none() | any_text,
        )
    )
)
def test_outcome_columns(outcomes: list[tuple[Any, str, str | None]]) -> None:
    kind, (ids, statuses, records) = agreed("codec", "outcome_columns", outcomes)
    assert kind == "returned"
    assert ids == [job.id for job, _, _ in outcomes]
    if all(status == "successful" and record is None for _, status, record in outcomes):
        assert statuses is None
        assert records is None
    else:
        assert statuses == [status for _, status, _ in outcomes]
        assert records == [record for _, _, record in outcomes]


@given(st.lists(st.tuples(scalars, scalars, scalars) | st.tuples(scalars), max_size=3) | scalars)
def test_outcomes_that_are_none(outcomes: Any) -> None:
    agreed("codec", "outcome_columns", outcomes)
