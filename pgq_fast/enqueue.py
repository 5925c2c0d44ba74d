"""Arguments of ``enqueue``: one shape for single jobs and batches, checked before anything is sent.

Every check passes over a whole list with C-level builtins and looks for the culprit only when
something is off, so that a batch of 100,000 jobs costs a few milliseconds.
"""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple, NoReturn, get_args

from pydantic_core import from_json, to_json

from pgq_fast._impl import codec
from pgq_fast.arguments import MAX_NAME_BYTES, delay_bounds, is_storable, shown, text_fault
from pgq_fast.errors import InvalidJobError
from pgq_fast.tracing import TracingProtocol
from pgq_fast.types import OnConflict

NOW: Final = timedelta(0)
PRIORITY_MIN: Final = -(2**31)
PRIORITY_MAX: Final = 2**31 - 1

MAX_PAYLOAD_BYTES: Final = 500_000_000
"""The most bytes of a payload. PostgreSQL keeps a row, and sends or takes a message, of less than
2**30 bytes, and as text, as psycopg has it sent for listings, a payload has twice its bytes."""

MAX_HEADERS_BYTES: Final = 8_000_000
"""The most bytes of the JSON text of a job's headers, which as ``jsonb`` may take six times as
many."""

_SURELY_READ: Final = 400
"""Bytes of JSON in which nothing nests so deep, nor is any number so long, that the parser of the
workers gives up: that takes 200 pairs of brackets, or 4301 digits."""

_NONE_TYPE: Final = type(None)
_CONFLICT_MODES: Final[frozenset[object]] = frozenset(get_args(OnConflict))
# What the JSON text of a header may hold although jsonb refuses it; the same letters inside a
# string are fine, so a hit asks for a closer look.
_NOT_JSONB: Final = (b"NaN", b"Infinity", b"\\u0000")


@dataclasses.dataclass(frozen=True, slots=True)
class EnqueueBatch:
    """Jobs to insert, column by column.

    Invariants: all lists have the same length and belong to the batch alone; strings are plain
    ``str`` that PostgreSQL can store, payloads plain ``bytes``, priorities fit 32 bits.

    Attributes:
        entrypoint: Name of the handler.
        payload: The job's data.
        priority: Higher runs first.
        execute_after: Delay from now; ``timedelta(0)`` where none was given.
        dedupe_key: At most one queued or running job has the key; None for no such promise.
        headers: What travels along for tracers and the like.
        deferred: Whether any ``execute_after`` is not zero.
        keyed: Whether any ``dedupe_key`` is given.
    """

    entrypoint: list[str]
    payload: list[bytes | None]
    priority: list[int]
    execute_after: list[timedelta]
    dedupe_key: list[str | None]
    headers: list[Mapping[str, object] | None]
    deferred: bool
    keyed: bool

    def __len__(self) -> int:
        """Number of jobs."""
        return len(self.entrypoint)


class SingleJob(NamedTuple):
    """One job as the parameters of a statement; the promises are those of a batch.

    Attributes:
        entrypoint: Name of the handler.
        payload: The job's data.
        priority: Higher runs first.
        execute_after: Delay from now.
        dedupe_key: As in :class:`EnqueueBatch`.
        headers: JSON text.
    """

    entrypoint: str
    payload: bytes | None
    priority: int
    execute_after: timedelta = NOW
    dedupe_key: str | None = None
    headers: str | None = None


def plain_job(entrypoint: object, payload: object, priority: object) -> SingleJob | None:
    """The job of these arguments where they need no more than a look, as most do.

    None for anything else, be it a list or a mistake: :func:`normalize` tells.
    """
    if (
        type(entrypoint) is str
        and entrypoint.isascii()
        and "\0" not in entrypoint
        and len(entrypoint) <= MAX_NAME_BYTES
        and (payload is None or (type(payload) is bytes and len(payload) <= MAX_PAYLOAD_BYTES))
        and type(priority) is int
        and PRIORITY_MIN <= priority <= PRIORITY_MAX
    ):
        return SingleJob(entrypoint, payload, priority)
    return None


def only_job(batch: EnqueueBatch) -> SingleJob:
    """The one job of *batch*.

    Raises:
        InvalidJobError: Its headers have no JSON form that ``jsonb`` accepts.
    """
    (headers,) = encode_headers(batch.headers)
    return SingleJob(
        batch.entrypoint[0],
        batch.payload[0],
        batch.priority[0],
        batch.execute_after[0],
        batch.dedupe_key[0],
        None if headers is None else headers.decode(),
    )


def normalize(
    entrypoint: str | Sequence[str],
    payload: bytes | Sequence[bytes | None] | None,
    priority: int | Sequence[int] = 0,
    execute_after: timedelta | Sequence[timedelta | None] | None = None,
    dedupe_key: str | Sequence[str | None] | None = None,
    headers: Mapping[str, object] | Sequence[Mapping[str, object] | None] | None = None,
) -> EnqueueBatch:
    """The jobs that these arguments of ``enqueue`` describe.

    Each argument is a single value, or a list or tuple with a value for every job. The three
    optional ones may be None whatever the number of jobs.

    Raises:
        InvalidJobError: Lengths differ, or a value is not what the queue can hold; the message
            names the parameter, the position and the remedy.
    """
    entrypoints = _column(entrypoint)
    count = len(entrypoints)
    payloads = _column(payload)
    priorities = _column(priority)
    delays = None if execute_after is None else _column(execute_after)
    keys = None if dedupe_key is None else _column(dedupe_key)
    extras = None if headers is None else _column(headers)
    for parameter, column in (
        ("payload", payloads),
        ("priority", priorities),
        ("execute_after", delays),
        ("dedupe_key", keys),
        ("headers", extras),
    ):
        if column is not None and len(column) != count:
            raise InvalidJobError(
                f"{parameter} has {len(column)} value(s) for {count} entrypoint(s): pass one "
                "value a job"
            )

    # What was left out needs no look at each job.
    checked_delays, deferred = ([NOW] * count, False) if delays is None else _delays(delays)
    checked_keys: list[str | None] = [None] * count
    keyed = False
    if keys is not None:
        checked_keys, keyed = _keys(keys)
    if not codec.plain_columns(
        entrypoints, payloads, priorities, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES
    ):
        entrypoints = _entrypoints(entrypoints)
        payloads = _payloads(payloads)
        priorities = _priorities(priorities)
    return EnqueueBatch(
        entrypoint=entrypoints,
        payload=payloads,
        priority=priorities,
        execute_after=checked_delays,
        dedupe_key=checked_keys,
        headers=[None] * count if extras is None else _mappings(extras),
        deferred=deferred,
        keyed=keyed,
    )


def check_conflict_mode(on_conflict: object) -> None:
    """Refuse a mode that does not exist.

    Raises:
        ValueError: *on_conflict* is none of the known modes.
    """
    if on_conflict not in _CONFLICT_MODES:
        known = ", ".join(repr(mode) for mode in get_args(OnConflict))
        raise ValueError(f"on_conflict={on_conflict!r} is not known: pass one of {known}")


def check_on_conflict(on_conflict: object, batch: EnqueueBatch) -> None:
    """Refuse a mode that does not exist, or that the batch does not allow.

    Raises:
        ValueError: *on_conflict* is none of the known modes.
        InvalidJobError: See :func:`reject_repeated_dedupe_keys`.
    """
    check_conflict_mode(on_conflict)
    if on_conflict == "update_priority":
        reject_repeated_dedupe_keys(batch)


def reject_repeated_dedupe_keys(batch: EnqueueBatch) -> None:
    """Refuse a batch that has a dedupe key twice.

    For ``on_conflict='update_priority'``: one statement cannot update the same row twice.

    Raises:
        InvalidJobError: A key occurs at a second position.
    """
    if not batch.keyed:
        return
    keys = [key for key in batch.dedupe_key if key is not None]
    if len(set(keys)) == len(keys):
        return
    first: dict[str, int] = {}
    for position, key in enumerate(batch.dedupe_key):
        if key is not None and first.setdefault(key, position) != position:
            raise InvalidJobError(
                f"dedupe_key[{position}] repeats {key!r} of position {first[key]}: with "
                "on_conflict='update_priority' each dedupe_key may occur once per call"
            )


def trace_headers(batch: EnqueueBatch, tracer: TracingProtocol) -> EnqueueBatch:
    """*batch* with the headers that *tracer* wants on each job; its own win over the user's.

    Raises:
        InvalidJobError: The tracer yields another number of headers than there are jobs.
    """
    traced = list(tracer.trace_publish(batch.entrypoint))
    if len(traced) != len(batch):
        raise InvalidJobError(
            f"{type(tracer).__name__}.trace_publish yielded {len(traced)} time(s) for "
            f"{len(batch)} job(s): it must yield once for each"
        )
    headers: list[Mapping[str, object] | None] = [
        {**(own or {}), **(added or {})} for own, added in zip(batch.headers, traced, strict=True)
    ]
    return dataclasses.replace(batch, headers=headers)


def has_headers(headers: Sequence[Mapping[str, object] | None]) -> bool:
    """Whether a job has any; an empty dict is some, as it is stored."""
    return headers.count(None) != len(headers)


def encode_headers(headers: Sequence[Mapping[str, object] | None]) -> list[bytes | None]:
    """JSON text of each of *headers*; None, which is stored as NULL, stays None.

    Raises:
        InvalidJobError: A value has no JSON form that ``jsonb`` accepts.
    """
    if not has_headers(headers):
        return [None] * len(headers)
    return [
        None if header is None else _encode_header(position, header)
        for position, header in enumerate(headers)
    ]


def _encode_header(position: int, header: Mapping[str, object]) -> bytes:
    try:
        text = to_json(header if isinstance(header, dict) else dict(header))
        if any(mark in text for mark in _NOT_JSONB):
            _refuse_nul(json.loads(text, parse_constant=_refuse_constant))
    except ValueError as error:
        raise InvalidJobError(
            f"headers[{position}] cannot be stored as JSON: {error}. Pass strings, finite "
            "numbers, booleans, None, and lists and dicts of these"
        ) from error
    if len(text) > MAX_HEADERS_BYTES:
        raise InvalidJobError(
            f"headers[{position}] have {len(text)} bytes as JSON, and {MAX_HEADERS_BYTES} is the "
            "most that the queue takes: put the data into the payload"
        )
    if len(text) >= _SURELY_READ:
        try:
            from_json(text)
        except ValueError as error:
            raise InvalidJobError(
                f"headers[{position}] could be stored, but no worker could read them: {error}"
            ) from error
    return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _refuse_nul(value: object) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("a string contains a NUL character")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _refuse_nul(key)
            _refuse_nul(inner)
    elif isinstance(value, list):
        for inner in value:
            _refuse_nul(inner)


def _column(value: object) -> list[Any]:
    """One value a job; a copy, since the caller may change its list while the query runs."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _types(values: Iterable[object]) -> set[type]:
    return set(map(type, values))


def _entrypoints(values: list[Any]) -> list[str]:
    if _types(values) - {str}:
        for position, value in enumerate(values):
            if not isinstance(value, str):
                raise InvalidJobError(
                    f"entrypoint[{position}] is a {type(value).__name__}: pass the name as str"
                )
        values = [_plain(value) for value in values]
    # A batch repeats few names, so each is looked at once.
    different = set(values)
    if not is_storable(different):
        _refuse_text("entrypoint", values)
    if not _are_short(different):
        _refuse_long("entrypoint", values)
    return values


def _keys(values: list[Any]) -> tuple[list[str | None], bool]:
    kinds = _types(values)
    if kinds <= {_NONE_TYPE}:
        return values, False
    if kinds - {str, _NONE_TYPE}:
        for position, value in enumerate(values):
            if not (value is None or isinstance(value, str)):
                raise InvalidJobError(
                    f"dedupe_key[{position}] is a {type(value).__name__}: pass a str, or None "
                    "for a job without a key"
                )
        values = [None if value is None else _plain(value) for value in values]
    given = [value for value in values if value is not None]
    if not is_storable(given):
        _refuse_text("dedupe_key", values)
    if not _are_short(given):
        _refuse_long("dedupe_key", values)
    return values, True


def _plain(value: str) -> str:
    """The characters of a ``str`` subclass; ``str()`` of an enum member would be its name."""
    return str.__str__(value)


def _are_short(values: Iterable[str]) -> bool:
    """Whether all of *values*, which are storable, may be keys of an index."""
    # A character takes 4 bytes at most.
    return max(map(len, values), default=0) <= MAX_NAME_BYTES // 4 or all(
        len(value.encode()) <= MAX_NAME_BYTES for value in values
    )


def _refuse_text(parameter: str, values: list[Any]) -> NoReturn:
    for position, value in enumerate(values):
        if value is None or is_storable([value]):
            continue
        raise InvalidJobError(
            f"{parameter}[{position}] contains {text_fault(value)}, which PostgreSQL cannot store "
            "as text: remove it"
        )
    raise AssertionError("no value is at fault")


def _refuse_long(parameter: str, values: list[Any]) -> NoReturn:
    for position, value in enumerate(values):
        if value is not None and (size := len(value.encode())) > MAX_NAME_BYTES:
            remedy = "pass a hash of it" if parameter == "dedupe_key" else "choose a shorter name"
            raise InvalidJobError(
                f"{parameter}[{position}] has {size} bytes, and PostgreSQL's indexes take "
                f"{MAX_NAME_BYTES}: {remedy}"
            )
    raise AssertionError("no value is at fault")


def _payloads(values: list[Any]) -> list[bytes | None]:
    if not _types(values) - {bytes, _NONE_TYPE}:
        return _not_too_large(values)
    payloads: list[bytes | None] = []
    for position, value in enumerate(values):
        try:
            payloads.append(None if value is None else bytes(memoryview(value)))
        except TypeError:
            raise InvalidJobError(
                f"payload[{position}] is a {type(value).__name__}: encode it to bytes, or pass None"
            ) from None
    return _not_too_large(payloads)


def _not_too_large(values: list[bytes | None]) -> list[bytes | None]:
    if max(map(len, filter(None, values)), default=0) > MAX_PAYLOAD_BYTES:
        for position, value in enumerate(values):
            if value is not None and len(value) > MAX_PAYLOAD_BYTES:
                raise InvalidJobError(
                    f"payload[{position}] has {len(value)} bytes, and {MAX_PAYLOAD_BYTES} is the "
                    "most that the queue takes: keep the data elsewhere, and pass where it is"
                )
    return values


def _priorities(values: list[Any]) -> list[int]:
    if _types(values) - {int}:
        plain: list[int] = []
        for position, value in enumerate(values):
            try:
                plain.append(operator.index(value))
            except TypeError:
                raise InvalidJobError(
                    f"priority[{position}] is a {type(value).__name__}: pass an int"
                ) from None
        # An int subclass is its own index.
        values = [int(value) for value in plain]
    if values and (min(values) < PRIORITY_MIN or max(values) > PRIORITY_MAX):
        position = next(
            position
            for position, value in enumerate(values)
            if not PRIORITY_MIN <= value <= PRIORITY_MAX
        )
        raise InvalidJobError(
            f"priority[{position}] is {shown(values[position])}: the column holds "
            f"{PRIORITY_MIN} to {PRIORITY_MAX}"
        )
    return values


def _delays(values: list[Any]) -> tuple[list[timedelta], bool]:
    kinds = _types(values)
    if kinds <= {_NONE_TYPE}:
        return [NOW] * len(values), False
    if kinds - {timedelta, _NONE_TYPE}:
        for position, value in enumerate(values):
            if not (value is None or isinstance(value, timedelta)):
                raise InvalidJobError(
                    f"execute_after[{position}] is a {type(value).__name__}: pass a timedelta "
                    "from now, or None"
                )
    delays = [value or NOW for value in values]
    if not any(delays):
        return delays, False
    earliest, latest = delay_bounds()
    if min(delays) < earliest or max(delays) > latest:
        position = next(
            position for position, value in enumerate(delays) if not earliest <= value <= latest
        )
        raise InvalidJobError(
            f"execute_after[{position}] ends outside the years 1 to 9999: pass a shorter time"
        )
    return delays, True


def _mappings(values: list[Any]) -> list[Mapping[str, object] | None]:
    if _types(values) - {dict, _NONE_TYPE}:
        for position, value in enumerate(values):
            if not (value is None or isinstance(value, Mapping)):
                raise InvalidJobError(
                    f"headers[{position}] is a {type(value).__name__}: pass a dict, or None"
                )
    return values
