"""Parameters in PostgreSQL's binary formats: the twins agree, and refuse the same."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kernels.twins import Twin, agreed, any_text, int32s, int64s, names, outcome, scalars

pytestmark = pytest.mark.impl_agnostic


def raw_ids(ids: list[int]) -> bytes:
    return struct.pack(f"!{len(ids)}q", *ids)


# -- bigint[] ---------------------------------------------------------------------------------


@given(st.lists(scalars) | st.lists(st.integers()) | scalars)
def test_any_value_as_an_array_of_ids(ids: Any) -> None:
    agreed("codec", "encode_int8_array", ids)


def test_ids_that_are_none(twin: Twin) -> None:
    with pytest.raises(ValueError, match="id 9223372036854775808 does not fit 64 bits"):
        twin.codec.encode_int8_array([1, 2**63])
    with pytest.raises(TypeError):
        twin.codec.encode_int8_array([1, "2"])


@given(st.lists(scalars) | st.lists(st.integers()) | scalars)
def test_any_value_as_the_text_of_ids(ids: Any) -> None:
    agreed("codec", "encode_ids", ids)


@given(st.lists(int64s | st.sampled_from([0, -1, 9, 10, -(2**63), 2**63 - 1])))
def test_ids_as_text(ids: list[int]) -> None:
    assert agreed("codec", "encode_ids", ids) == ("returned", "{" + ",".join(map(str, ids)) + "}")


def test_ids_that_have_no_text(twin: Twin) -> None:
    for ids in ([1, 2**63], [-(2**63) - 1]):
        with pytest.raises(ValueError, match="does not fit 64 bits"):
            twin.codec.encode_ids(ids)
    for mixed in ([1, "2"], [1, None, 2**63]):
        with pytest.raises(TypeError):
            twin.codec.encode_ids(mixed)
    with pytest.raises(ValueError, match="does not fit 64 bits"):
        twin.codec.encode_ids([2**63, None])
    assert twin.codec.encode_ids((True, 5)) == "{1,5}"


class Shrinking(list[int]):
    """Has fewer values than it says."""

    def __len__(self) -> int:
        return super().__len__() + 1


class Growing(list[int]):
    """Has more values than it says."""

    def __len__(self) -> int:
        return super().__len__() - 1


@pytest.mark.parametrize("ids", [Shrinking([1, 2]), Growing([1, 2]), Shrinking(), Growing([1])])
def test_a_sequence_that_lies_about_its_length_makes_no_broken_array(
    twin: Twin, ids: list[int]
) -> None:
    kind, value = outcome(twin.codec.encode_int8_array, ids)
    if kind == "returned":
        dimensions = struct.unpack_from("!i", value)[0]
        count = struct.unpack_from("!i", value, 12)[0] if dimensions else 0
        assert len(value) == (20 + 12 * count if dimensions else 12)
    else:
        assert value is ValueError


# -- COPY -------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
headers = st.none() | st.dictionaries(names, json_values, max_size=4).map(
    lambda value: json.dumps(value).encode()
)
jobs = st.lists(st.tuples(int32s, names, st.none() | st.binary(max_size=200), headers), max_size=12)


def columns(batch: list[tuple[Any, ...]]) -> tuple[list[Any], ...]:
    return tuple(list(column) for column in zip(*batch, strict=True)) or ([], [], [], [])


any_columns = st.lists(scalars, max_size=3)


@given(
    st.binary(max_size=32) | scalars,
    st.lists(int32s, max_size=3) | any_columns | scalars,
    st.lists(names, max_size=3) | st.lists(any_text, max_size=3) | any_columns | scalars,
    st.lists(st.binary(max_size=9), max_size=3) | any_columns | scalars,
    any_columns | scalars,
    st.none() | st.lists(int64s, max_size=3) | any_columns,
)
def test_any_values_in_copy_columns(
    ids: Any, priorities: Any, entrypoints: Any, payloads: Any, extras: Any, due: Any
) -> None:
    agreed("codec", "encode_copy_jobs", ids, priorities, entrypoints, payloads, extras, due)
    agreed("codec", "encode_copy_jobs", ids, priorities, entrypoints, payloads, extras, due, False)
    agreed("codec", "encode_copy_log", ids, priorities, entrypoints)


@given(st.data())
def test_one_bad_value_in_a_good_batch(data: st.DataObject) -> None:
    """Same error from both, and none that a caller would not expect."""
    batch = data.draw(st.lists(jobs.filter(bool).map(lambda some: some[0]), min_size=1, max_size=4))
    lists = [raw_ids([1] * len(batch)), *columns(batch), [0] * len(batch)]
    column = data.draw(st.integers(1, 5))
    place = data.draw(st.integers(0, len(batch) - 1))
    lists[column][place] = data.draw(scalars)  # type: ignore[index]
    kind, value = agreed("codec", "encode_copy_jobs", *lists)
    assert kind == "returned" or issubclass(value, (TypeError, ValueError))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"ids": b"\0" * 9}, ValueError, "no multiple"),
        ({"ids": b"\0" * 8}, ValueError, "1 ids, but a column of 2 values"),
        ({"payloads": [b"x"]}, ValueError, "2 ids, but a column of 1 values"),
        ({"due": [1]}, ValueError, "2 ids, but a column of 1 values"),
        ({"priorities": [0, 2**31]}, ValueError, "job 1: priority 2147483648 does not fit"),
        ({"priorities": [0, 2**70]}, ValueError, "job 1: priority 1180591620717411303424 does not"),
        ({"priorities": [0, "1"]}, TypeError, None),
        ({"entrypoints": ["a", "b\0c"]}, ValueError, "job 1: entrypoint contains NUL"),
        ({"entrypoints": ["a", "\ud800"]}, UnicodeEncodeError, None),
        ({"entrypoints": ["a", b"b"]}, TypeError, "job 1: entrypoint is bytes, not str"),
        ({"payloads": [b"", "text"]}, TypeError, "job 1: payload is str, not bytes"),
        ({"extras": [None, {}]}, TypeError, "job 1: headers is dict, not bytes"),
        ({"due": [0, 2**63]}, ValueError, "job 1: execute_after does not fit 64 bits"),
        ({"due": [0, None]}, TypeError, None),
    ],
)
def test_a_refusal_names_job_and_column(
    twin: Twin, change: dict[str, Any], error: type[Exception], message: str | None
) -> None:
    good = {
        "ids": raw_ids([1, 2]),
        "priorities": [0, 1],
        "entrypoints": ["a", "b"],
        "payloads": [None, b"x"],
        "extras": [None, b"{}"],
        "due": [0, 0],
    }
    before = twin.codec.encode_copy_jobs(*good.values())
    with pytest.raises(error, match=message):
        twin.codec.encode_copy_jobs(*(good | change).values())
    # Nothing of the refused batch is left for the next one.
    assert twin.codec.encode_copy_jobs(*good.values()) == before


def test_a_value_that_postgresql_cannot_hold(twin: Twin) -> None:
    # Zeroed pages, none of which is touched: the length is enough to refuse it.
    huge = bytes(twin.codec.MAX_FIELD + 1)
    with pytest.raises(ValueError, match="PostgreSQL takes 1073741823"):
        twin.codec.encode_copy_jobs(raw_ids([1]), [0], ["a"], [huge], [None], None)


def test_bytes_like_payloads(twin: Twin) -> None:
    def encoded(payload: Any) -> Any:
        return twin.codec.encode_copy_jobs(raw_ids([1]), [0], ["a"], [payload], [None], None)

    expected = encoded(b"abcd")
    assert encoded(bytearray(b"abcd")) == expected
    assert encoded(memoryview(b"abcd")) == expected
    assert encoded(memoryview(b"a-b-c-d-")[::2]) == expected


# -- Jobs as a few values ---------------------------------------------------------------------


@given(
    st.lists(names, max_size=3) | st.lists(any_text, max_size=3) | any_columns | scalars,
    st.lists(st.binary(max_size=9), max_size=3) | any_columns | scalars,
    st.lists(int32s, max_size=3) | st.lists(int64s, max_size=3) | any_columns | scalars,
)
def test_any_values_as_packed_jobs(entrypoints: Any, payloads: Any, priorities: Any) -> None:
    agreed("codec", "pack_jobs", entrypoints, payloads, priorities)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"payloads": [b"x"]}, ValueError, "2 entrypoints, but a column of 1 values"),
        ({"priorities": [1, 2, 3]}, ValueError, "2 entrypoints, but a column of 3 values"),
        ({"priorities": [0, -(2**31) - 1]}, ValueError, "job 1: priority -2147483649 does not fit"),
        ({"priorities": [0, "1"]}, TypeError, None),
        ({"entrypoints": ["a", "b\0c"]}, ValueError, "job 1: entrypoint contains NUL"),
        ({"entrypoints": ["a", "\ud800"]}, UnicodeEncodeError, None),
        ({"entrypoints": [None, "a"]}, TypeError, "job 0: entrypoint is NoneType, not str"),
        ({"entrypoints": ["a", []]}, TypeError, "job 1: entrypoint is list, not str"),
        ({"payloads": [b"", "text"]}, TypeError, "job 1: payload is str, not bytes"),
    ],
)
def test_what_cannot_be_packed(
    twin: Twin, change: dict[str, Any], error: type[Exception], message: str | None
) -> None:
    good = {"entrypoints": ["a", "b"], "payloads": [None, b"xy"], "priorities": [True, -1]}
    packed = (["a", "b"], "{1,2}", "{1,-1}", "{1,1}", "{NULL,2}", b"xy")
    assert twin.codec.pack_jobs(*good.values()) == packed
    with pytest.raises(error, match=message):
        twin.codec.pack_jobs(*(good | change).values())
    assert twin.codec.pack_jobs(*good.values()) == packed


def test_payloads_that_are_too_much_for_one_value(twin: Twin) -> None:
    # Zeroed pages, none of which is touched: the lengths are enough to refuse them.
    half = bytes(twin.codec.MAX_FIELD // 2 + 1)
    with pytest.raises(ValueError, match="job 1: with its payload all have 1073741824 bytes"):
        twin.codec.pack_jobs(["a", "b"], [half, half], [0, 0])
    with pytest.raises(ValueError, match="job 0: payload has 1073741824 bytes"):
        twin.codec.pack_jobs(["a"], [bytes(twin.codec.MAX_FIELD + 1)], [0])


# -- What needs no closer look ----------------------------------------------------------------

LONE_SURROGATE = "\ud800"
LIMITS = (6, 5)
"""Bytes of names and of payloads; those of the tests have more here and there."""


@given(
    st.lists(names, max_size=3) | st.lists(any_text, max_size=3) | any_columns | scalars,
    st.lists(st.binary(max_size=9), max_size=3) | any_columns | scalars,
    st.lists(int32s, max_size=3) | st.lists(int64s, max_size=3) | any_columns | scalars,
)
def test_any_values_as_plain_columns(entrypoints: Any, payloads: Any, priorities: Any) -> None:
    agreed("codec", "plain_columns", entrypoints, payloads, priorities, *LIMITS)


@given(batch=jobs)
def test_plain_columns_are_plain(batch: list[tuple[Any, ...]]) -> None:
    priorities, entrypoints, payloads, _ = columns(batch)
    assert agreed("codec", "plain_columns", entrypoints, payloads, priorities, 99, 99)[1] is True


class Name(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (0, "a\0b"),
        (0, LONE_SURROGATE),
        (0, Name("a")),
        (0, b"a"),
        (0, None),
        (1, bytearray(b"a")),
        (1, "a"),
        (2, True),
        (2, 1.0),
        (2, None),
        (2, 2**31),
        (2, -(2**31) - 1),
        (2, 2**63),
        (2, -(2**80)),
        (0, "\u00fc" * 4),
        (1, b"123456"),
    ],
)
def test_one_value_that_needs_a_closer_look(twin: Twin, column: int, value: Any) -> None:
    good: list[list[Any]] = [["e", "\u00fc"], [b"", None], [2**31 - 1, -(2**31)]]
    assert twin.codec.plain_columns(*good, *LIMITS) is True
    good[column][1] = value
    assert twin.codec.plain_columns(*good, *LIMITS) is False


def test_columns_as_long_as_they_may_be(twin: Twin) -> None:
    assert twin.codec.plain_columns(["\u00fc" * 3, "sixsix"], [b"12345"] * 2, [0, 0], *LIMITS)
