"""A lease's arrays to jobs: whatever arrives, the twins agree and read nothing beyond its end."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kernels.test_codec_rows import ALL_FIELDS, moment
from kernels.twins import TWINS, Bare, Twin, int32s, int64s, names, record, scalars
from pgq_fast.models import Job, parse_headers

pytestmark = pytest.mark.impl_agnostic

OWNER = uuid.UUID(int=5)
ARRAYS = ("ids", "priorities", "attempts", "created", "execute_after", "payloads", "headers")
OIDS = (20, 23, 23, 1184, 1184, 17, 17)
SHARED = (1, 2, 3)
"""Of these one element will do where all jobs have the same."""

jobs_of_a_lease = st.lists(
    st.tuples(
        int64s,
        int32s,
        int32s,
        int64s,
        int64s,
        st.none() | st.binary(max_size=20),
        st.none() | st.binary(max_size=20),
    ),
    min_size=1,
    max_size=6,
)


def array(oid: int, elements: Sequence[bytes | None]) -> bytes:
    """As ``array_send`` writes it."""
    nulls = any(element is None for element in elements)
    parts = [struct.pack("!iiIii", 1, nulls, oid, len(elements), 1)]
    for element in elements:
        parts.append(struct.pack("!i", -1 if element is None else len(element)))
        parts.append(element or b"")
    return b"".join(parts)


def encoded(place: int, value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return struct.pack("!i" if place in (1, 2) else "!q", value)


def arrays(jobs: Sequence[tuple[Any, ...]]) -> list[bytes]:
    """The columns of a lease with these jobs."""
    return [
        array(oid, [encoded(place, job[place]) for job in jobs]) for place, oid in enumerate(OIDS)
    ]


def brief(jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The same, with what all jobs have in common once."""
    columns: list[Any] = [*arrays(jobs)]
    for place in SHARED:
        if len({job[place] for job in jobs}) == 1:
            columns[place] = array(OIDS[place], [encoded(place, jobs[0][place])])
    if all(job[3] == job[4] for job in jobs):
        columns[4] = None
    if all(job[6] is None for job in jobs):
        columns[6] = None
    return columns


def pass_on(job_id: int, text: bytes) -> Any:
    """In place of what parses headers: shows what it was called with."""
    return (job_id, text)


def built(
    twin: Twin, columns: Sequence[Any], entrypoint: Any = b"e", picked: Any = bytes(8)
) -> Any:
    """The fields of the jobs, and their ids."""
    jobs, ids = twin.codec.build_leased_jobs(
        Bare, OWNER, pass_on, entrypoint, None, picked, *columns
    )
    return [dict(vars(job)) for job in jobs], ids


def agreed_on(columns: Sequence[Any], *more: Any) -> Any:
    """What every twin makes of it, or the type of its refusal; never anything else."""
    results: list[Any] = []
    for twin in TWINS:
        try:
            results.append(built(twin, columns, *more))
        except (ValueError, TypeError) as error:
            # One reads the arrays one after the other, one all of them in step, so that of several
            # faults they may name different ones.
            results.append(TypeError if isinstance(error, TypeError) else ValueError)
    assert all(result == results[0] for result in results), results
    return results[0]


@given(jobs_of_a_lease, names, st.none() | int64s, int64s, st.booleans())
def test_arrays_become_jobs_in_their_order(
    jobs: list[tuple[Any, ...]], entrypoint: str, slot: int | None, picked_at: int, headed: bool
) -> None:
    *columns, headers = arrays(jobs)
    picked = struct.pack("!q", picked_at)
    for twin in TWINS:
        found, ids = twin.codec.build_leased_jobs(
            Bare, OWNER, pass_on, entrypoint.encode(), slot, picked, *columns,
            headers if headed else None,
        )  # fmt: skip
        assert ids == [job[0] for job in jobs]
        for job, expected in zip(map(vars, found), jobs, strict=True):
            assert list(job) == ALL_FIELDS
            assert [job[name] for name in ("id", "priority", "attempts")] == list(expected[:3])
            assert [job["created"], job["execute_after"]] == [*map(moment, expected[3:5])]
            assert job["updated"] == job["heartbeat"] == moment(picked_at)
            assert job["created"].tzinfo is UTC
            assert job["payload"] == expected[5]
            assert type(job["payload"]) is type(expected[5])
            text = expected[6] if headed else None
            assert job["headers"] == (None if text is None else (expected[0], text))
            assert (job["entrypoint"], job["slot"], job["status"]) == (entrypoint, slot, "picked")
            assert job["queue_manager_id"] is OWNER


@given(jobs_of_a_lease, st.sets(st.sampled_from(SHARED)), st.booleans(), st.booleans())
def test_what_jobs_have_in_common_is_there_once(
    jobs: list[tuple[Any, ...]], shared: set[int], due_at_once: bool, headed: bool
) -> None:
    jobs = [
        tuple(
            jobs[0][place]
            if place in shared
            else job[3]
            if place == 4 and due_at_once
            else None
            if place == 6 and not headed
            else value
            for place, value in enumerate(job)
        )
        for job in jobs
    ]
    if due_at_once and 3 in shared:
        jobs = [(*job[:4], job[3], *job[5:]) for job in jobs]
    assert agreed_on(brief(jobs)) == agreed_on(arrays(jobs))


def test_the_same_job_as_from_a_record(twin: Twin) -> None:
    job = (7, 3, 2, 10**15, 10**15 + 1, b"data", b'{"a": "b"}')
    claimed = struct.pack("!q", 10**15 + 2)
    (leased,), _ = twin.codec.build_leased_jobs(
        Job, OWNER, parse_headers, b"fetch", 4, claimed, *arrays([job])
    )
    raw = record(
        id=7, priority=3, attempts=2, created=10**15, execute_after=10**15 + 1,
        updated=10**15 + 2, payload=b"data", headers=b'{"a": "b"}', slot=4,
    )  # fmt: skip
    (recorded,), _ = twin.codec.build_jobs(Job, raw, OWNER, parse_headers)
    assert leased == recorded
    assert leased.model_dump() == recorded.model_dump()
    assert repr(leased) == repr(recorded)


@given(jobs_of_a_lease, st.data())
def test_an_array_that_breaks_off(jobs: list[tuple[Any, ...]], data: st.DataObject) -> None:
    columns = arrays(jobs)
    place = data.draw(st.integers(0, 6))
    end = data.draw(st.integers(0, len(columns[place]) - 1))
    columns[place] = columns[place][:end]
    assert agreed_on(columns) is ValueError


@given(jobs_of_a_lease, st.data(), st.binary(min_size=1, max_size=20))
def test_an_array_that_goes_on(
    jobs: list[tuple[Any, ...]], data: st.DataObject, more: bytes
) -> None:
    columns = arrays(jobs)
    place = data.draw(st.integers(0, 6))
    columns[place] += more
    assert agreed_on(columns) is ValueError


@given(jobs_of_a_lease, st.data())
def test_changed_bytes(jobs: list[tuple[Any, ...]], data: st.DataObject) -> None:
    columns = [bytearray(column) for column in arrays(jobs)]
    for _ in range(data.draw(st.integers(1, 4))):
        column = columns[data.draw(st.integers(0, 6))]
        column[data.draw(st.integers(0, len(column) - 1))] = data.draw(st.integers(0, 255))
    agreed_on([bytes(column) for column in columns])


numbers = st.sampled_from([-(2**31), -2, -1, 0, 1, 2, 3, 4, 5, 8, 2**30, 2**31 - 1]) | int32s


@given(jobs_of_a_lease, st.integers(0, 6), st.sampled_from([0, 12]), numbers)
def test_any_number_of_dimensions_and_elements(
    jobs: list[tuple[Any, ...]], place: int, at: int, number: int
) -> None:
    columns = arrays(jobs)
    column = bytearray(columns[place])
    column[at : at + 4] = struct.pack("!i", number)
    columns[place] = bytes(column)
    result = agreed_on(columns)
    if number != (1 if at == 0 else len(jobs)):
        assert result is ValueError


@given(jobs_of_a_lease, st.integers(0, 6), numbers, st.data())
def test_an_element_of_any_length(
    jobs: list[tuple[Any, ...]], place: int, length: int, data: st.DataObject
) -> None:
    columns = arrays(jobs)
    column = bytearray(columns[place])
    at = 20
    for job in jobs[: data.draw(st.integers(0, len(jobs) - 1))]:
        at += 4 + len(encoded(place, job[place]) or b"")
    column[at : at + 4] = struct.pack("!i", length)
    columns[place] = bytes(column)
    result = agreed_on(columns)
    if place < 5 and length != (4 if place in (1, 2) else 8):
        assert result is ValueError


@given(jobs_of_a_lease, st.integers(0, 4), st.data())
def test_nulls_where_none_can_be(
    jobs: list[tuple[Any, ...]], place: int, data: st.DataObject
) -> None:
    number = data.draw(st.integers(0, len(jobs) - 1))
    spoilt = list(jobs[number])
    spoilt[place] = None
    jobs[number] = tuple(spoilt)
    assert agreed_on(arrays(jobs)) is ValueError


@given(st.lists(st.binary(max_size=60), min_size=7, max_size=7), st.binary(max_size=9))
def test_any_bytes(columns: list[bytes], picked: bytes) -> None:
    assert agreed_on(columns, b"e", picked) is ValueError


@given(jobs_of_a_lease, st.integers(0, 6), scalars.filter(lambda value: type(value) is not bytes))
def test_no_bytes(jobs: list[tuple[Any, ...]], place: int, value: Any) -> None:
    columns: list[Any] = [*arrays(jobs)]
    columns[place] = value
    if place in (4, 6) and value is None:
        assert len(agreed_on(columns)[0]) == len(jobs)
    else:
        assert agreed_on(columns) is TypeError


def test_what_is_wrong_with_a_lease(twin: Twin) -> None:
    job = (7, 3, 2, 1, 2, b"data", None)

    def refused(columns: Sequence[Any], entrypoint: Any = b"e", picked: Any = bytes(8)) -> str:
        with pytest.raises((ValueError, TypeError)) as caught:
            built(twin, columns, entrypoint, picked)
        return str(caught.value)

    good = arrays([job])
    for place, name in enumerate(ARRAYS):
        columns: list[Any] = [*good]
        columns[place] = array(OIDS[place], [])
        assert ("differ in length" if place else "no jobs") in refused(columns)
        columns[place] = b"\0" * 24
        assert f"{name} is no array of one dimension" in refused(columns)
        columns[place] = 17
        assert f"{name} is int" in refused(columns)
    assert "picked_at has 7 bytes" in refused(good, picked=bytes(7))
    assert "picked_at is str" in refused(good, picked="")
    assert "entrypoint is str" in refused(good, entrypoint="e")
    assert "utf-8" in refused(good, entrypoint=b"\xff")


def test_headers_that_fail_to_be_parsed(twin: Twin) -> None:
    def fail(job_id: int, text: bytes) -> Any:
        raise LookupError(job_id)

    columns = arrays([(1, 0, 0, 0, 0, None, None), (9, 0, 0, 0, 0, None, b"{}")])
    with pytest.raises(LookupError, match="9"):
        twin.codec.build_leased_jobs(Bare, OWNER, fail, b"e", None, bytes(8), *columns)


@given(st.lists(st.sampled_from([0, 1, -1, 10**15, -(2**63)]) | int64s, min_size=1, max_size=5))
def test_any_times(moments: list[int]) -> None:
    jobs, _ = agreed_on(arrays([(1, 0, 0, at, ~at, None, None) for at in moments]))
    assert [job["created"] for job in jobs] == [moment(at) for at in moments]
    assert [job["execute_after"] for job in jobs] == [moment(~at) for at in moments]
