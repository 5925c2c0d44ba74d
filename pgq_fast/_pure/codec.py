"""Rows to jobs, outcomes to parameters, jobs to binary COPY.

The twin of ``pgq_fast_ext.codec``. Integers on the wire are big-endian; the layout of binary COPY
is that of the PostgreSQL documentation, page COPY, "Binary Format"; arrays and timestamps are laid
out as the server's ``array_recv`` and ``timestamptz_recv`` read them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from operator import index
from typing import Any, Final, TypeVar
from uuid import UUID

JobT = TypeVar("JobT")

# Positions of the columns that a claim returns.
ID: Final = 0
PRIORITY: Final = 1
ENTRYPOINT: Final = 2
PAYLOAD: Final = 3
ATTEMPTS: Final = 4
HEADERS: Final = 5
TIMES: Final = 6
SLOT: Final = 7
CLAIM_COLUMNS: Final = 8

MAX_FIELD: Final = 0x3FFFFFFF
"""Bytes that PostgreSQL accepts in one value: its allocator stops short of 1 GB."""

_PG_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MAX_TIME: Final = datetime.max.replace(tzinfo=UTC)
_MIN_TIME: Final = datetime.min.replace(tzinfo=UTC)
_TIMES: Final = struct.Struct("!qqq")
_COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + struct.pack("!ii", 0, 0)
_COPY_TRAILER: Final = struct.pack("!h", -1)
_QUEUED: Final = struct.pack("!i", 6) + b"queued"
_NULL: Final = struct.pack("!i", -1)
_INT8_OID: Final = 20


def _row_fault(row: Any) -> str | None:
    """What keeps *row* from being a job; None if nothing does."""
    try:
        return _value_fault(row)
    except Exception as error:
        return f"a row fails to be read: {type(error).__name__}"


def _value_fault(row: Any) -> str | None:
    try:
        length = len(row)
    except TypeError:
        return f"a row is a sequence of values, not {type(row).__name__}"
    if length != CLAIM_COLUMNS:
        return f"a row has {CLAIM_COLUMNS} columns, not {length}"
    for column, name in ((ID, "id"), (PRIORITY, "priority"), (ATTEMPTS, "attempts")):
        if not isinstance(row[column], int):
            return f"{name} is {type(row[column]).__name__}, not int"
    if not isinstance(row[ENTRYPOINT], str):
        return f"entrypoint is {type(row[ENTRYPOINT]).__name__}, not str"
    if row[PAYLOAD] is not None and not isinstance(row[PAYLOAD], bytes):
        return f"payload is {type(row[PAYLOAD]).__name__}, not bytes"
    if row[HEADERS] is not None and not isinstance(row[HEADERS], str):
        return f"headers are {type(row[HEADERS]).__name__}, not str"
    if not isinstance(row[TIMES], bytes) or len(row[TIMES]) != _TIMES.size:
        return "times are not 24 bytes"
    if row[SLOT] is not None and not isinstance(row[SLOT], int):
        return f"slot is {type(row[SLOT]).__name__}, not int"
    return None


def build_jobs(
    job_type: type[JobT], rows: Sequence[Any], owner: UUID
) -> tuple[list[JobT], list[tuple[int, str]]]:
    """Make a job of each row of a claim.

    Args:
        job_type: The model; an instance gets its fields as ``__dict__`` and the row as ``_row``,
            from which it decodes the rest itself.
        rows: Sequences of the columns ``ID`` to ``SLOT``.
        owner: The worker that claimed them.

    Returns:
        The jobs in the order of the rows, and for each row that is none its position and why.
    """
    jobs: list[JobT] = []
    faults: list[tuple[int, str]] = []
    new = object.__new__
    # Past the model's own __setattr__, which validates.
    put = object.__setattr__
    for position, row in enumerate(rows):
        fault = _row_fault(row)
        if fault is not None:
            faults.append((position, fault))
            continue
        job = new(job_type)
        put(
            job,
            "__dict__",
            {
                "id": row[ID],
                "priority": row[PRIORITY],
                "status": "picked",
                "entrypoint": row[ENTRYPOINT],
                "payload": row[PAYLOAD],
                "attempts": row[ATTEMPTS],
                "queue_manager_id": owner,
                "slot": row[SLOT],
            },
        )
        put(job, "_row", row)
        jobs.append(job)
    return jobs, faults


def _decode_time(microseconds: int) -> datetime:
    try:
        return _PG_EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return _MAX_TIME if microseconds > 0 else _MIN_TIME


def decode_times(raw: bytes) -> tuple[datetime, datetime, datetime]:
    """Three ``timestamptz`` in binary, as UTC.

    Infinity, and what lies outside the range of ``datetime``, becomes its first or last instant.

    Raises:
        ValueError: *raw* is not 24 bytes long.
    """
    _require_type("raw", raw, bytes)
    if len(raw) != _TIMES.size:
        raise ValueError(f"three timestamps take 24 bytes, not {len(raw)}")
    first, second, third = _TIMES.unpack(raw)
    return _decode_time(first), _decode_time(second), _decode_time(third)


def decode_ids(raw: bytes) -> list[int]:
    """A run of ``int8`` in binary.

    Raises:
        ValueError: *raw* is no whole number of them.
    """
    _require_type("raw", raw, bytes)
    if len(raw) % 8:
        raise ValueError(f"ids take 8 bytes each, and {len(raw)} is no multiple of it")
    return list(struct.unpack(f"!{len(raw) // 8}q", raw))


def encode_int8_array(ids: Sequence[int]) -> bytes:
    """*ids* as a one-dimensional ``bigint[]`` in binary.

    Raises:
        ValueError: An id does not fit 64 bits.
        TypeError: An id is no integer.
    """
    count = len(ids)
    if count == 0:
        return struct.pack("!iiI", 0, 0, _INT8_OID)
    parts = [struct.pack("!iiIii", 1, 0, _INT8_OID, count, 1)]
    item = struct.Struct("!iq")
    for value in ids:
        try:
            parts.append(item.pack(8, index(value)))
        except struct.error:
            raise ValueError(f"id {value} does not fit 64 bits") from None
    if len(parts) != count + 1:
        raise ValueError("the ids changed while they were encoded")
    return b"".join(parts)


def outcome_columns(
    outcomes: Sequence[tuple[Any, str, Any]],
) -> tuple[list[int], list[str] | None, list[str | None] | None]:
    """The parameters that acknowledge *outcomes*.

    Args:
        outcomes: Triples of a job, its status, and its traceback record as JSON or None.

    Returns:
        Ids, statuses and traceback records; the last two are None where every job was successful
        and has no record.
    """
    ids: list[int] = []
    statuses: list[str] = []
    records: list[str | None] = []
    plain = True
    for job, status, record in outcomes:
        ids.append(job.id)
        statuses.append(status)
        records.append(record)
        if record is not None or status != "successful":
            plain = False
    if plain:
        return ids, None, None
    return ids, statuses, records


def _int32(value: Any, position: int, what: str) -> int:
    number = index(value)
    if not -(2**31) <= number < 2**31:
        raise ValueError(f"job {position}: {what} {number} does not fit 32 bits")
    return number


def _text(value: str, position: int, what: str) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"job {position}: {what} is {type(value).__name__}, not str")
    data = value.encode()
    if b"\x00" in data:
        raise ValueError(f"job {position}: {what} contains NUL, which PostgreSQL's text cannot")
    return _sized(data, position, what)


def _sized(data: bytes, position: int, what: str) -> bytes:
    if len(data) > MAX_FIELD:
        raise ValueError(
            f"job {position}: {what} has {len(data)} bytes, PostgreSQL takes {MAX_FIELD}"
        )
    return struct.pack("!i", len(data)) + data


def _bytes(value: Any, position: int, what: str) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return bytes(memoryview(value))
    except TypeError:
        raise TypeError(f"job {position}: {what} is {type(value).__name__}, not bytes") from None


def _require_type(name: str, value: object, expected: type) -> None:
    """Refuse what is not exactly of type *expected*, as the compiled twin's arguments do."""
    if type(value) is not expected:
        raise TypeError(f"{name} is {type(value).__name__}, not {expected.__name__}")


def _check_lengths(raw_ids: bytes, *columns: Sequence[object]) -> int:
    _require_type("raw_ids", raw_ids, bytes)
    for column in columns:
        _require_type("a column", column, list)
    if len(raw_ids) % 8:
        raise ValueError(f"ids take 8 bytes each, and {len(raw_ids)} is no multiple of it")
    count = len(raw_ids) // 8
    for column in columns:
        if len(column) != count:
            raise ValueError(f"{count} ids, but a column of {len(column)} values")
    return count


def encode_copy_jobs(
    raw_ids: bytes,
    priorities: list[int],
    entrypoints: list[str],
    payloads: list[bytes | None],
    headers: list[bytes | None],
    execute_after: list[int] | None,
) -> bytes:
    """Queued jobs as a binary COPY stream.

    Columns: id int8, priority int4, status (an enum, by its label), entrypoint text, payload bytea,
    headers jsonb, and execute_after timestamptz unless it is None.

    Args:
        raw_ids: The ids, 8 bytes each, big-endian.
        priorities: 32-bit integers.
        entrypoints: Names without NUL.
        payloads: Bytes-like or None.
        headers: JSON text or None.
        execute_after: Microseconds since 2000-01-01 UTC, or None for the column's default.

    Raises:
        ValueError: A value is out of range, or the columns differ in length.
        TypeError: A value is of the wrong type.
    """
    columns: list[Sequence[object]] = [priorities, entrypoints, payloads, headers]
    if execute_after is not None:
        columns.append(execute_after)
    count = _check_lengths(raw_ids, *columns)
    fields = struct.pack("!h", 6 if execute_after is None else 7)
    parts = [_COPY_HEADER]
    for position in range(count):
        parts.append(fields)
        parts.append(b"\x00\x00\x00\x08" + raw_ids[8 * position : 8 * position + 8])
        parts.append(struct.pack("!ii", 4, _int32(priorities[position], position, "priority")))
        parts.append(_QUEUED)
        parts.append(_text(entrypoints[position], position, "entrypoint"))
        payload = payloads[position]
        if payload is None:
            parts.append(_NULL)
        else:
            parts.append(_sized(_bytes(payload, position, "payload"), position, "payload"))
        header = headers[position]
        if header is None:
            parts.append(_NULL)
        else:
            # jsonb_recv expects a version number before the text.
            data = b"\x01" + _bytes(header, position, "headers")
            parts.append(_sized(data, position, "headers"))
        if execute_after is not None:
            try:
                parts.append(struct.pack("!iq", 8, index(execute_after[position])))
            except struct.error:
                raise ValueError(f"job {position}: execute_after does not fit 64 bits") from None
    parts.append(_COPY_TRAILER)
    return b"".join(parts)


def encode_copy_log(raw_ids: bytes, priorities: list[int], entrypoints: list[str]) -> bytes:
    """Log entries of newly queued jobs as a binary COPY stream.

    Columns: job_id int8, status (an enum, by its label), priority int4, entrypoint text. Arguments
    and errors as for ``encode_copy_jobs``.
    """
    count = _check_lengths(raw_ids, priorities, entrypoints)
    fields = struct.pack("!h", 4)
    parts = [_COPY_HEADER]
    for position in range(count):
        parts.append(fields)
        parts.append(b"\x00\x00\x00\x08" + raw_ids[8 * position : 8 * position + 8])
        parts.append(_QUEUED)
        parts.append(struct.pack("!ii", 4, _int32(priorities[position], position, "priority")))
        parts.append(_text(entrypoints[position], position, "entrypoint"))
    parts.append(_COPY_TRAILER)
    return b"".join(parts)
