"""The two implementations of each kernel, and what it takes to compare them."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from hypothesis import strategies as st

import pgq_fast._pure.codec
import pgq_fast._pure.notify


class Twin(NamedTuple):
    """One implementation of all kernels."""

    name: str
    codec: ModuleType
    notify: ModuleType


PURE = Twin("python", pgq_fast._pure.codec, pgq_fast._pure.notify)


def _load() -> tuple[Twin, ...]:
    """Both; without the compiled one only where the run declares that there is none."""
    try:
        import pgq_fast_ext.codec
        import pgq_fast_ext.notify
    except ModuleNotFoundError:
        if os.environ.get("PGQ_FAST_IMPL") != "python":
            raise
        return (PURE,)
    return (Twin("c", pgq_fast_ext.codec, pgq_fast_ext.notify), PURE)


TWINS = _load()


class Bare:
    """Takes the place of the model where a test is about the kernel alone."""

    __slots__ = ("__dict__",)


def outcome(function: Callable[..., Any], *args: Any) -> tuple[str, Any]:
    """What a call returned, or the type of what it raised."""
    try:
        return "returned", function(*args)
    except Exception as error:
        return "raised", type(error)


def agreed(kernel: str, function: str, *args: Any) -> tuple[str, Any]:
    """The outcome of *function* in every implementation of *kernel*, which must be the same."""
    outcomes = {
        twin.name: outcome(getattr(getattr(twin, kernel), function), *args) for twin in TWINS
    }
    expected = outcomes["python"]
    assert all(result == expected for result in outcomes.values()), outcomes
    return expected


def field(oid: int, value: bytes | None) -> bytes:
    """A field as ``record_send`` writes it."""
    if value is None:
        return struct.pack("!Ii", oid, -1)
    return struct.pack("!Ii", oid, len(value)) + value


COLUMNS: dict[str, Any] = {
    "id": 7,
    "priority": 0,
    "attempts": 0,
    "created": 0,
    "execute_after": 0,
    "updated": 0,
    "slot": None,
    "entrypoint": "fetch",
    "payload": b"data",
    "headers": None,
}


def fields(**columns: Any) -> list[bytes]:
    """The fields of a job's record. Text may be given as bytes that are none."""
    values = COLUMNS | columns
    assert values.keys() == COLUMNS.keys()
    encoded = []
    for name, value in values.items():
        if name in ("priority", "attempts"):
            encoded.append(field(23, struct.pack("!i", value)))
        elif isinstance(value, int):
            oid = 1184 if name in ("created", "execute_after", "updated") else 20
            encoded.append(field(oid, struct.pack("!q", value)))
        else:
            encoded.append(field(25, value.encode() if isinstance(value, str) else value))
    return encoded


def record(**columns: Any) -> bytes:
    """A job as a claim returns it."""
    return struct.pack("!i", len(COLUMNS)) + b"".join(fields(**columns))


# Unlike the default, with lone surrogates.
any_text = st.text(st.characters())

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    any_text,
    st.binary(max_size=40),
    st.binary(max_size=40).map(bytearray),
)
int32s = st.integers(-(2**31), 2**31 - 1)
int64s = st.integers(-(2**63), 2**63 - 1)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
