"""Records to jobs: whatever arrives, the twins agree, and no job suffers for another."""

from __future__ import annotations

import gc
import struct
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

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
)
from pgq_fast.models import Job

pytestmark = pytest.mark.impl_agnostic

OWNER = uuid.UUID(int=5)
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
ALL_FIELDS = list(Job.model_fields)

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


def pass_on(job_id: int, text: bytes) -> Any:
    """In place of what parses headers: shows what it was called with."""
    return (job_id, text)


def built(twin: Twin, raw: Any) -> Any:
    """The fields of the jobs, and the faults."""
    jobs, faults = twin.codec.build_jobs(Bare, raw, OWNER, pass_on)
    return [dict(vars(job)) for job in jobs], faults


def moment(microseconds: int) -> datetime:
    """A ``timestamptz``; what ``datetime`` does not hold becomes the nearest that it does."""
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return (datetime.max if microseconds > 0 else datetime.min).replace(tzinfo=UTC)


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
        for found, columns in zip(jobs, batch, strict=True):
            assert list(found) == ALL_FIELDS
            assert found["queue_manager_id"] is OWNER
            assert found["status"] == "picked"
            for name in ("id", "priority", "attempts", "slot", "entrypoint", "payload"):
                assert found[name] == columns[name]
                assert type(found[name]) is type(columns[name])
            for name in ("created", "execute_after", "updated"):
                assert found[name] == moment(columns[name])
                assert found[name].tzinfo is UTC
            assert found["heartbeat"] == found["updated"]
            text = columns["headers"]
            assert found["headers"] == (None if text is None else (columns["id"], text))


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
        assert [found["id"] for found in jobs] == [
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
            twin.codec.build_jobs(Bare, raw, OWNER, pass_on)


def test_what_is_wrong_with_a_claim(twin: Twin) -> None:
    def refused(raw: bytes) -> str:
        with pytest.raises(ValueError, match="claim") as caught:
            twin.codec.build_jobs(Bare, raw, OWNER, pass_on)
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


def test_what_a_job_holds_does_not_hold_the_claim(twin: Twin) -> None:
    (job,), _ = twin.codec.build_jobs(Bare, record(payload=b"p" * 1000), OWNER, pass_on)
    assert type(vars(job)["payload"]) is bytes
    assert gc.get_referents(vars(job)["payload"]) == []


def test_headers_that_fail_to_be_parsed(twin: Twin) -> None:
    def fail(job_id: int, text: bytes) -> Any:
        raise LookupError(job_id)

    with pytest.raises(LookupError, match="9"):
        twin.codec.build_jobs(Bare, record() + record(id=9, headers=b"{}"), OWNER, fail)


@given(st.lists(st.sampled_from([0, 1, -1, 10**15, -(2**63) + 1]) | int64s, max_size=5))
def test_any_times(moments: list[int]) -> None:
    raw = b"".join(record(created=at, execute_after=~at, updated=at // 2) for at in moments)
    jobs, _ = agreed_on(raw)
    assert [job["created"] for job in jobs] == [moment(at) for at in moments]
    assert [job["execute_after"] for job in jobs] == [moment(~at) for at in moments]
    assert [job["updated"] for job in jobs] == [moment(at // 2) for at in moments]


@pytest.mark.parametrize("year", [1, 4, 100, 400, 1600, 1999, 2000, 2001, 2004, 2100, 9999])
def test_the_days_around_each_end_of_a_month(twin: Twin, year: int) -> None:
    firsts = [datetime(year, month, 1, tzinfo=UTC) for month in range(1, 13)]
    days = [first + timedelta(days=step) for first in firsts for step in (0, 27, 28, 29)]
    expected = [day + timedelta(hours=23, minutes=59, seconds=58, microseconds=7) for day in days]
    raw = b"".join(record(created=(day - EPOCH) // timedelta(microseconds=1)) for day in expected)
    jobs, _ = twin.codec.build_jobs(Bare, raw, OWNER, pass_on)
    assert [vars(job)["created"] for job in jobs] == expected


def test_times_at_the_ends_of_what_datetime_holds(twin: Twin) -> None:
    last, first = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    ends = [(end - EPOCH) // timedelta(microseconds=1) for end in (last, first)]
    # "infinity" and "-infinity" are the ends of int64.
    for at, expected in (
        (ends[0], last),
        (ends[0] + 1, last),
        (2**63 - 1, last),
        (ends[1], first),
        (ends[1] - 1, first),
        (-(2**63), first),
        (ends[0] - 1, last - timedelta(microseconds=1)),
        (ends[1] + 1, first + timedelta(microseconds=1)),
    ):
        (job,), _ = twin.codec.build_jobs(Bare, record(created=at), OWNER, pass_on)
        assert vars(job)["created"] == expected


@given(st.binary(max_size=80) | scalars)
def test_any_value_as_ids(raw: Any) -> None:
    kind, value = agreed("codec", "decode_ids", raw)
    assert (kind, value) != ("returned", None)


@given(st.lists(int64s))
def test_ids(ids: list[int]) -> None:
    raw = b"".join(number.to_bytes(8, "big", signed=True) for number in ids)
    assert agreed("codec", "decode_ids", raw) == ("returned", ids)


def test_lengths_are_refused(twin: Twin) -> None:
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
