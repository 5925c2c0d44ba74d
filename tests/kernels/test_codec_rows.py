"""Rows to jobs: whatever a row holds, the twins agree and no other row suffers."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.twins import TWINS, Bare, Twin, agreed, any_text, int64s, outcome, row, scalars, times

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

good_columns: dict[str, st.SearchStrategy[Any]] = {
    "id": st.integers(),
    "priority": st.integers(),
    "entrypoint": any_text,
    "payload": st.none() | st.binary(),
    "attempts": st.integers(),
    "headers": st.none() | any_text,
    "times": st.binary(min_size=24, max_size=24),
    "slot": st.none() | st.integers(),
}
good_rows = st.fixed_dictionaries(good_columns).map(lambda columns: row(**columns))
spoilt_rows = st.tuples(good_rows, st.integers(0, 7), scalars).map(
    lambda spoilt: (*spoilt[0][: spoilt[1]], spoilt[2], *spoilt[0][spoilt[1] + 1 :])
)
rows = st.one_of(
    good_rows,
    spoilt_rows,
    good_rows.map(list),
    st.lists(scalars, max_size=10),
    st.lists(scalars, max_size=10).map(tuple),
    st.binary(min_size=8, max_size=8),
    scalars,
)


def built(twin: Twin, batch: list[Any]) -> Any:
    """Jobs and faults, jobs as their fields and the row that they keep."""
    jobs, faults = twin.codec.build_jobs(Bare, batch, OWNER)
    return [(dict(vars(job)), job._row) for job in jobs], faults


@given(st.lists(rows, max_size=12))
def test_any_rows(batch: list[Any]) -> None:
    outcomes = [outcome(built, twin, batch) for twin in TWINS]
    assert all(result == outcomes[0] for result in outcomes)
    assert outcomes[0][0] == "returned"
    jobs, faults = outcomes[0][1]
    assert len(jobs) + len(faults) == len(batch)
    assert [position for position, _ in faults] == sorted({position for position, _ in faults})
    assert all(isinstance(reason, str) and reason for _, reason in faults)


@given(st.lists(good_rows, max_size=8))
def test_good_rows_become_jobs_in_their_order(batch: list[Any]) -> None:
    for twin in TWINS:
        jobs, faults = built(twin, batch)
        assert faults == []
        for (fields, kept), original in zip(jobs, batch, strict=True):
            assert list(fields) == ALL_FIELDS
            assert kept is original
            assert fields["queue_manager_id"] is OWNER
            assert fields["status"] == "picked"
            assert (
                fields["id"],
                fields["priority"],
                fields["entrypoint"],
                fields["payload"],
                fields["attempts"],
                fields["slot"],
            ) == (*original[:5], original[7])


@given(st.data())
def test_one_bad_row_costs_no_other(data: st.DataObject) -> None:
    batch: list[Any] = data.draw(st.lists(good_rows, min_size=1, max_size=6))
    place = data.draw(st.integers(0, len(batch)))
    bad = data.draw(st.lists(scalars, max_size=7))
    batch.insert(place, bad)
    for twin in TWINS:
        jobs, faults = built(twin, batch)
        assert [position for position, _ in faults] == [place]
        assert [kept for _, kept in jobs] == batch[:place] + batch[place + 1 :]


def test_a_fault_says_what_is_wrong(twin: Twin) -> None:
    batch = [
        None,
        (1, 2),
        row(id="1"),
        row(priority=None),
        row(entrypoint=b"x"),
        row(payload="text"),
        row(attempts=0.5),
        row(headers={}),
        row(times=b"short"),
        row(slot="a"),
    ]
    jobs, faults = twin.codec.build_jobs(Bare, batch, OWNER)
    assert jobs == []
    assert faults == [
        (0, "a row is a sequence of values, not NoneType"),
        (1, "a row has 8 columns, not 2"),
        (2, "id is str, not int"),
        (3, "priority is NoneType, not int"),
        (4, "entrypoint is bytes, not str"),
        (5, "payload is str, not bytes"),
        (6, "attempts is float, not int"),
        (7, "headers are dict, not str"),
        (8, "times are not 24 bytes"),
        (9, "slot is str, not int"),
    ]


def test_rows_that_cannot_be_iterated(twin: Twin) -> None:
    with pytest.raises(TypeError):
        twin.codec.build_jobs(Bare, None, OWNER)


def test_a_row_that_fails_when_it_is_read() -> None:
    class Failing(list[Any]):
        def __getitem__(self, place: Any) -> Any:
            raise KeyError(place)

    batch = [row(id=1), Failing(row()), row(id=2)]
    for twin in TWINS:
        jobs, faults = built(twin, batch)
        assert [fields["id"] for fields, _ in jobs] == [1, 2]
        assert [position for position, _ in faults] == [1]


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


@given(st.binary(max_size=80) | scalars)
def test_any_value_as_times_or_ids(raw: Any) -> None:
    agreed("codec", "decode_times", raw)
    kind, value = agreed("codec", "decode_ids", raw)
    assert (kind, value) != ("returned", None)


@given(st.lists(int64s))
def test_ids(ids: list[int]) -> None:
    raw = b"".join(number.to_bytes(8, "big", signed=True) for number in ids)
    assert agreed("codec", "decode_ids", raw) == ("returned", ids)


def test_lengths_are_refused(twin: Twin) -> None:
    with pytest.raises(ValueError, match="24 bytes"):
        twin.codec.decode_times(b"\0" * 23)
    with pytest.raises(ValueError, match="24 bytes"):
        twin.codec.decode_times(b"\0" * 25)
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
