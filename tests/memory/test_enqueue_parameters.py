"""Arguments of ``enqueue``: their shapes, and what is refused before it is sent."""

from __future__ import annotations

import enum
import json
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from pgq_fast.enqueue import (
    EnqueueBatch,
    check_on_conflict,
    encode_headers,
    normalize,
    reject_repeated_dedupe_keys,
    trace_headers,
)
from pgq_fast.errors import InvalidJobError
from pgq_fast.models import Job

pytestmark = pytest.mark.impl_agnostic

HOUR = timedelta(hours=1)
ZERO = timedelta(0)


class Color(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 7


class Indexable:
    def __index__(self) -> int:
        return 3


def test_single_values_make_a_batch_of_one() -> None:
    assert normalize("ep", b"x", 3, HOUR, "key", {"a": "b"}) == EnqueueBatch(
        entrypoint=["ep"],
        payload=[b"x"],
        priority=[3],
        execute_after=[HOUR],
        dedupe_key=["key"],
        headers=[{"a": "b"}],
        deferred=True,
        keyed=True,
    )


def test_what_is_left_out_is_filled_in_for_every_job() -> None:
    assert normalize(["a", "b"], [None, b"y"], [0, 1]) == EnqueueBatch(
        entrypoint=["a", "b"],
        payload=[None, b"y"],
        priority=[0, 1],
        execute_after=[ZERO, ZERO],
        dedupe_key=[None, None],
        headers=[None, None],
        deferred=False,
        keyed=False,
    )


def test_none_within_a_list_means_no_delay_no_key_no_headers() -> None:
    batch = normalize(("a", "b"), (b"", b""), (0, 0), [None, HOUR], [None, "k"], [None, {"h": 1}])
    assert batch.execute_after == [ZERO, HOUR]
    assert batch.dedupe_key == [None, "k"]
    assert batch.headers == [None, {"h": 1}]
    assert batch.deferred
    assert batch.keyed
    assert len(batch) == 2


def test_a_zero_delay_does_not_defer() -> None:
    assert not normalize(["a"], [None], [0], [ZERO]).deferred


def test_an_empty_batch() -> None:
    batch = normalize([], [], [])
    assert len(batch) == 0
    assert encode_headers(batch.headers) == []


def test_the_batch_does_not_follow_later_changes_of_the_callers_lists() -> None:
    entrypoints, payloads = ["a"], [b"x"]
    batch = normalize(entrypoints, payloads, [0])
    entrypoints[0] = "changed"
    payloads.append(b"more")
    assert batch.entrypoint == ["a"]
    assert batch.payload == [b"x"]


def test_subclasses_become_the_plain_types() -> None:
    arguments: Any = (
        [Color.RED, "b"],
        [bytearray(b"x"), memoryview(b"y")],
        [Level.HIGH, Indexable()],
        None,
        [Color.RED, None],
        [MappingProxyType({"a": 1}), None],
    )
    batch = normalize(*arguments)
    assert [type(value) for value in batch.entrypoint] == [str, str]
    assert batch.entrypoint == ["red", "b"]
    assert [type(value) for value in batch.payload] == [bytes, bytes]
    assert batch.payload == [b"x", b"y"]
    assert [type(value) for value in batch.priority] == [int, int]
    assert batch.priority == [7, 3]
    assert batch.dedupe_key == ["red", None]
    assert type(batch.dedupe_key[0]) is str
    assert encode_headers(batch.headers) == [b'{"a":1}', None]


@pytest.mark.parametrize(
    ("parameter", "arguments"),
    [
        ("payload", (["a", "b"], [b""], [0, 0])),
        ("priority", (["a", "b"], [b"", b""], 0)),
        ("execute_after", (["a", "b"], [b"", b""], [0, 0], [HOUR])),
        ("execute_after", (["a", "b"], [b"", b""], [0, 0], HOUR)),
        ("dedupe_key", (["a", "b"], [b"", b""], [0, 0], None, "k")),
        ("headers", (["a", "b"], [b"", b""], [0, 0], None, None, [{}, {}, {}])),
        ("payload", ("a", [b"", b""], 0)),
    ],
)
def test_different_lengths_are_refused_by_name(parameter: str, arguments: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{parameter} has \d value"):
        normalize(*arguments)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (r"entrypoint\[1\] is a int", (["a", 1], [b"", b""], [0, 0])),
        (r"entrypoint\[0\] is a NoneType", (None, b"", 0)),
        (r"entrypoint\[1\] contains a NUL", (["a", "b\0"], [b"", b""], [0, 0])),
        (r"entrypoint\[0\] contains a lone surrogate", ("\ud800", b"", 0)),
        (r"payload\[1\] is a str", (["a", "b"], [b"", "text"], [0, 0])),
        (r"payload\[0\] is a dict", ("a", {}, 0)),
        (r"payload\[0\] is a int", ("a", 5, 0)),
        (r"priority\[1\] is a str", (["a", "b"], [b"", b""], [0, "1"])),
        (r"priority\[0\] is a float", ("a", b"", 1.0)),
        (r"priority\[1\] is 2147483648", (["a", "b"], [b"", b""], [0, 2**31])),
        (r"priority\[0\] is -2147483649", ("a", b"", -(2**31) - 1)),
        (r"execute_after\[0\] is a int", ("a", b"", 0, 5)),
        (r"execute_after\[1\] is a float", (["a", "b"], [b"", b""], [0, 0], [None, 1.5])),
        (r"execute_after\[0\] ends outside", ("a", b"", 0, timedelta.max)),
        (r"execute_after\[0\] ends outside", ("a", b"", 0, timedelta.min)),
        (r"dedupe_key\[0\] is a int", ("a", b"", 0, None, 5)),
        (r"dedupe_key\[1\] contains a NUL", (["a"] * 2, [b""] * 2, [0] * 2, None, [None, "\0"])),
        (r"dedupe_key\[0\] contains a lone", ("a", b"", 0, None, "é\udfff")),
        (r"headers\[0\] is a str", ("a", b"", 0, None, None, "x")),
        (r"headers\[1\] is a tuple", (["a"] * 2, [b""] * 2, [0] * 2, None, None, [None, ()])),
    ],
)
def test_bad_values_are_refused_with_their_position(message: str, arguments: Any) -> None:
    with pytest.raises(InvalidJobError, match=message):
        normalize(*arguments)


def test_the_range_of_a_priority_is_that_of_its_column() -> None:
    assert normalize(["a", "b"], [b"", b""], [-(2**31), 2**31 - 1]).priority == [
        -2147483648,
        2147483647,
    ]


def test_a_repeated_key_is_refused_where_one_statement_could_not_update_it_twice() -> None:
    batch = normalize(["a"] * 3, [None] * 3, [0] * 3, None, ["k", None, "k"])
    with pytest.raises(InvalidJobError, match=r"dedupe_key\[2\] repeats 'k' of position 0"):
        reject_repeated_dedupe_keys(batch)
    with pytest.raises(InvalidJobError, match="update_priority"):
        check_on_conflict("update_priority", batch)
    check_on_conflict("raise", batch)
    check_on_conflict("skip", batch)


def test_jobs_without_a_key_do_not_repeat_one() -> None:
    reject_repeated_dedupe_keys(normalize(["a"] * 2, [None] * 2, [0] * 2))
    reject_repeated_dedupe_keys(normalize(["a"] * 3, [None] * 3, [0] * 3, None, [None, "k", None]))


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="on_conflict='replace' is not known"):
        check_on_conflict("replace", normalize("a", b"", 0))


class Tracer:
    """Yields *extra* for each job, and once more or less where it is to be wrong."""

    def __init__(self, difference: int = 0) -> None:
        self.difference = difference

    def trace_publish(self, entrypoints: list[str]) -> Generator[dict[str, object], None, None]:
        for number in range(len(entrypoints) + self.difference):
            yield {"trace": number, "shared": "tracer"}

    @asynccontextmanager
    async def trace_process(self, job: Job) -> AsyncIterator[None]:
        yield


def test_a_tracers_headers_join_those_of_the_user() -> None:
    batch = normalize(["a"] * 2, [None] * 2, [0] * 2, None, None, [{"own": 1, "shared": 2}, None])
    traced = trace_headers(batch, Tracer())
    assert traced.headers == [
        {"own": 1, "shared": "tracer", "trace": 0},
        {"shared": "tracer", "trace": 1},
    ]
    assert batch.headers == [{"own": 1, "shared": 2}, None]
    assert traced.entrypoint == batch.entrypoint


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_tracer_must_yield_once_a_job(difference: int) -> None:
    with pytest.raises(InvalidJobError, match="must yield once for each"):
        trace_headers(normalize(["a"] * 2, [None] * 2, [0] * 2), Tracer(difference))


def test_headers_become_json_and_none_stays_none() -> None:
    headers = [{"a": [1, None, "é"]}, None, {}]
    encoded = encode_headers(headers)
    assert [None if text is None else json.loads(text) for text in encoded] == headers


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -float("inf"), "a\0b", {"\0": 1}, [["\0"]], object(), "\ud800"],
)
def test_what_jsonb_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(InvalidJobError, match=r"headers\[1\] cannot be stored as JSON"):
        encode_headers([None, {"key": value}])


@pytest.mark.parametrize("text", ["NaN", "Infinity", "\\u0000"])
def test_text_that_only_looks_like_it_is_stored(text: str) -> None:
    (encoded,) = encode_headers([{"key": text}])
    assert encoded is not None
    assert json.loads(encoded) == {"key": text}
