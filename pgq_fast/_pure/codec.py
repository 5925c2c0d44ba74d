"""Rows to jobs, outcomes to parameters, jobs to binary COPY.

The twin of ``pgq_fast_ext.codec``. Integers on the wire are big-endian; the layout of binary COPY
is that of the PostgreSQL documentation, page COPY, "Binary Format"; arrays and timestamps are laid
out as the server's ``array_recv`` and ``timestamptz_recv`` read them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from operator import index
from typing import Any, Final, NoReturn, TypeVar
from uuid import UUID

JobT = TypeVar("JobT")

# Fields of a record that a claim returns, in order: id, priority, attempts, created, execute_after,
# updated, slot, entrypoint, payload, headers.
CLAIM_FIELDS: Final = 10

MAX_FIELD: Final = 0x3FFFFFFF
"""Bytes that PostgreSQL accepts in one value: its allocator stops short of 1 GB."""

_PG_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MAX_TIME: Final = datetime.max.replace(tzinfo=UTC)
_MIN_TIME: Final = datetime.min.replace(tzinfo=UTC)
_INT32: Final = struct.Struct("!i")
_INT64: Final = struct.Struct("!q")
# The start of a record: the number of fields, and of each its oid, its length and its value.
_FIXED: Final = struct.Struct("!i 4xiq 4xii 4xii 4xiq 4xiq 4xiq")
_FIXED_LENGTHS: Final = (8, 4, 4, 8, 8, 8)
# An element of an array: its length and its value.
_INT32_ELEMENT: Final = struct.Struct("!ii")
_INT64_ELEMENT: Final = struct.Struct("!iq")
# Bytes of an array before its first element, where it has one dimension.
_ARRAY_HEAD: Final = 20
_COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + struct.pack("!ii", 0, 0)
_COPY_TRAILER: Final = struct.pack("!h", -1)
_QUEUED: Final = struct.pack("!i", 6) + b"queued"
_NULL: Final = struct.pack("!i", -1)
_INT8_OID: Final = 20


def _read_field(raw: bytes, at: int) -> tuple[int, int]:
    """Start and length of the field at *at*: an oid, a length or -1 for NULL, as many bytes."""
    if len(raw) - at < 8:
        raise ValueError(f"a claim breaks off at byte {len(raw)}, before the length of a field")
    (length,) = _INT32.unpack_from(raw, at + 4)
    at += 8
    if length < -1:
        raise ValueError(f"a field before byte {at} of a claim has length {length}")
    if length > len(raw) - at:
        raise ValueError(f"a claim breaks off at byte {len(raw)}, within a field of {length} bytes")
    return at, length


def _refuse_record(raw: bytes, at: int) -> NoReturn:
    """Say what is wrong with the fixed part of the record at *at*."""
    if len(raw) - at < 4:
        raise ValueError(f"a claim breaks off at byte {len(raw)}, at the start of a record")
    (count,) = _INT32.unpack_from(raw, at)
    if count != CLAIM_FIELDS:
        raise ValueError(f"a record of a claim has {count} fields, not {CLAIM_FIELDS}")
    at += 4
    for expected in _FIXED_LENGTHS:
        at, length = _read_field(raw, at)
        if length != expected:
            raise ValueError(f"a field at byte {at} of a claim has length {length}, not {expected}")
        at += length
    raise AssertionError("nothing is wrong with the record")


def _decode_time(microseconds: int) -> datetime:
    """A ``timestamptz`` in UTC: microseconds since 2000."""
    try:
        return _PG_EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return _MAX_TIME if microseconds > 0 else _MIN_TIME


def build_jobs(
    job_type: type[JobT],
    raw: bytes,
    owner: UUID,
    parse_headers: Callable[[int, bytes], dict[str, Any] | None],
) -> tuple[list[JobT], list[tuple[int, str]]]:
    """Make a job of each record of a claim.

    The format is that of the server's ``record_send``: the number of fields, and for each its oid,
    its length or -1 for NULL, and its value in binary. Times that ``datetime`` cannot hold become
    the first or the last one that it can.

    Args:
        job_type: The model; an instance gets its fields as ``__dict__``.
        raw: Any number of records with ``CLAIM_FIELDS`` fields, one behind the other.
        owner: The worker that claimed them.
        parse_headers: Called with the id of a job and its headers as JSON; the dict, or None.

    Returns:
        The jobs in the order of the records, and for each record that is none its id and why.

    Raises:
        ValueError: *raw* is no run of such records.
    """
    _require_type("raw", raw, bytes)
    jobs: list[JobT] = []
    faults: list[tuple[int, str]] = []
    new = object.__new__
    # Past the model's own __setattr__, which validates.
    put = object.__setattr__
    # The jobs of a batch have few entrypoints: the name of the one before is likely the next.
    name = ""
    name_bytes = b""
    # They were claimed at one instant, and many were enqueued at one.
    claimed_at = created_at = due_at = 0
    claimed = enqueued = due = _decode_time(0)
    at = 0
    size = len(raw)
    while at < size:
        if size - at < _FIXED.size:
            _refuse_record(raw, at)
        (
            count,
            id_length,
            job_id,
            priority_length,
            priority,
            attempts_length,
            attempts,
            created_length,
            created,
            due_length,
            execute_after,
            updated_length,
            updated,
        ) = _FIXED.unpack_from(raw, at)
        if (
            count != CLAIM_FIELDS
            or (
                id_length,
                priority_length,
                attempts_length,
                created_length,
                due_length,
                updated_length,
            )
            != _FIXED_LENGTHS
        ):
            _refuse_record(raw, at)
        at += _FIXED.size
        at, length = _read_field(raw, at)
        slot = None
        if length == 8:
            (slot,) = _INT64.unpack_from(raw, at)
            at += length
        elif length != -1:
            raise ValueError(f"a slot of a claim has length {length}, not 8")
        at, length = _read_field(raw, at)
        entrypoint = None
        if length >= 0:
            entrypoint = raw[at : at + length]
            at += length
        at, length = _read_field(raw, at)
        payload = None
        if length >= 0:
            payload = raw[at : at + length]
            at += length
        at, length = _read_field(raw, at)
        headers = None
        if length >= 0:
            headers = raw[at : at + length]
            at += length
        if entrypoint is None:
            faults.append((job_id, "entrypoint is NULL"))
            continue
        if entrypoint != name_bytes:
            try:
                name = entrypoint.decode()
            except UnicodeDecodeError:
                faults.append((job_id, "entrypoint is no UTF-8"))
                continue
            name_bytes = entrypoint
        if updated != claimed_at:
            claimed_at, claimed = updated, _decode_time(updated)
        if created != created_at:
            created_at, enqueued = created, _decode_time(created)
        if execute_after != due_at:
            due_at, due = execute_after, _decode_time(execute_after)
        parsed = None if headers is None else parse_headers(job_id, headers)
        job = new(job_type)
        put(
            job,
            "__dict__",
            # In the order of the model's fields, which dumps and repr follow.
            {
                "id": job_id,
                "priority": priority,
                "created": enqueued,
                "updated": claimed,
                "heartbeat": claimed,
                "execute_after": due,
                "status": "picked",
                "entrypoint": name,
                "payload": payload,
                "attempts": attempts,
                "queue_manager_id": owner,
                "slot": slot,
                "headers": parsed,
            },
        )
        jobs.append(job)
    return jobs, faults


def _array_length(raw: bytes, what: str) -> int:
    """How many elements the array in *raw* has."""
    _require_type(what, raw, bytes)
    if len(raw) < _ARRAY_HEAD or _INT32.unpack_from(raw)[0] != 1:
        raise ValueError(f"{what} is no array of one dimension")
    count: int = _INT32.unpack_from(raw, 12)[0]
    # Each element takes at least its length.
    if count < 0 or count > (len(raw) - _ARRAY_HEAD) // 4:
        raise ValueError(f"{what} cannot have {count} elements in {len(raw)} bytes")
    return count


def _fixed_elements(raw: bytes, what: str, count: int, item: struct.Struct) -> list[int]:
    """The *count* elements of an array, each a length and an integer of that length."""
    if len(raw) != _ARRAY_HEAD + count * item.size:
        raise ValueError(f"{what} has {len(raw)} bytes, not those of {count} elements")
    length = item.size - 4
    values = []
    for found, value in item.iter_unpack(raw[_ARRAY_HEAD:]):
        if found != length:
            raise ValueError(f"{what} has an element that is not {length} long")
        values.append(value)
    return values


def _same_or_own(raw: bytes, what: str, count: int, item: struct.Struct) -> list[int]:
    """*count* values: those of the array, or its only one so many times."""
    found = _array_length(raw, what)
    values = _fixed_elements(raw, what, found, item)
    return values if found == count else values * count


def _elements(raw: bytes, what: str, count: int) -> list[bytes | None]:
    """The *count* elements of an array of any length or none."""
    values: list[bytes | None] = []
    at = _ARRAY_HEAD
    for _ in range(count):
        if len(raw) - at < 4:
            raise ValueError(f"{what} breaks off at byte {len(raw)}")
        (length,) = _INT32.unpack_from(raw, at)
        at += 4
        if length < -1 or length > len(raw) - at:
            raise ValueError(f"{what} has an element of length {length} at byte {at}")
        if length < 0:
            values.append(None)
        else:
            values.append(raw[at : at + length])
            at += length
    if at != len(raw):
        raise ValueError(f"{what} goes on for {len(raw) - at} bytes after its end")
    return values


def build_leased_jobs(
    job_type: type[JobT],
    owner: UUID,
    parse_headers: Callable[[int, bytes], dict[str, Any] | None],
    entrypoint: bytes,
    slot: int | None,
    picked_at: bytes,
    ids: bytes,
    priorities: bytes,
    attempts: bytes,
    created: bytes,
    execute_after: bytes | None,
    payloads: bytes,
    headers: bytes | None,
) -> tuple[list[JobT], list[int]]:
    """Make a job of each place in the arrays of a lease.

    The format of arrays is that of the server's ``array_send``: the number of dimensions, whether
    there are NULLs, the type's oid, length and lower bound of the dimension, and for each element
    its length or -1 for NULL, and its value in binary. Times as in ``build_jobs``.

    Args:
        job_type: The model; an instance gets its fields as ``__dict__``.
        owner: The worker that claimed them.
        parse_headers: Called with the id of a job and its headers as JSON; the dict, or None.
        entrypoint: Of all of them, in UTF-8.
        slot: The seat of the only job, or None.
        picked_at: ``timestamptz`` in binary.
        ids: ``bigint[]``.
        priorities: ``integer[]``; like the next two, one element if it is the same for all.
        attempts: ``integer[]``.
        created: ``timestamptz[]``.
        execute_after: ``timestamptz[]``; None where it is as *created*.
        payloads: ``bytea[]``.
        headers: ``bytea[]`` of JSON text; None where no job has any.

    Returns:
        The jobs in the order of the arrays, and their ids.

    Raises:
        ValueError: A value is not what it should be, or the arrays differ in length.
        TypeError: A value is not ``bytes``.
    """
    _require_type("entrypoint", entrypoint, bytes)
    _require_type("picked_at", picked_at, bytes)
    if len(picked_at) != 8:
        raise ValueError(f"picked_at has {len(picked_at)} bytes, not 8")
    count = _array_length(ids, "ids")
    if count == 0:
        raise ValueError("a lease has no jobs")
    if (
        _array_length(priorities, "priorities") not in (1, count)
        or _array_length(attempts, "attempts") not in (1, count)
        or _array_length(created, "created") not in (1, count)
        or (execute_after is not None and _array_length(execute_after, "execute_after") != count)
        or _array_length(payloads, "payloads") != count
        or (headers is not None and _array_length(headers, "headers") != count)
    ):
        raise ValueError("the arrays of a lease differ in length")
    name = entrypoint.decode()
    claimed = _decode_time(_INT64.unpack(picked_at)[0])
    numbers = _fixed_elements(ids, "ids", count, _INT64_ELEMENT)
    moments = _same_or_own(created, "created", count, _INT64_ELEMENT)
    dues = moments
    if execute_after is not None:
        dues = _fixed_elements(execute_after, "execute_after", count, _INT64_ELEMENT)
    texts = [None] * count if headers is None else _elements(headers, "headers", count)
    # Many were enqueued at one instant.
    created_at = due_at = 0
    enqueued = due = _decode_time(0)
    jobs: list[JobT] = []
    new = object.__new__
    # Past the model's own __setattr__, which validates.
    put = object.__setattr__
    for job_id, priority, attempt, moment, due_moment, payload, text in zip(
        numbers,
        _same_or_own(priorities, "priorities", count, _INT32_ELEMENT),
        _same_or_own(attempts, "attempts", count, _INT32_ELEMENT),
        moments,
        dues,
        _elements(payloads, "payloads", count),
        texts,
        strict=True,
    ):
        if moment != created_at:
            created_at, enqueued = moment, _decode_time(moment)
        if due_moment != due_at:
            due_at, due = due_moment, _decode_time(due_moment)
        parsed = None if text is None else parse_headers(job_id, text)
        job = new(job_type)
        put(
            job,
            "__dict__",
            # In the order of the model's fields, which dumps and repr follow.
            {
                "id": job_id,
                "priority": priority,
                "created": enqueued,
                "updated": claimed,
                "heartbeat": claimed,
                "execute_after": due,
                "status": "picked",
                "entrypoint": name,
                "payload": payload,
                "attempts": attempt,
                "queue_manager_id": owner,
                "slot": slot,
                "headers": parsed,
            },
        )
        jobs.append(job)
    return jobs, numbers


def decode_ids(raw: bytes) -> list[int]:
    """A run of ``int8`` in binary.

    Raises:
        ValueError: *raw* is no whole number of them.
    """
    _require_type("raw", raw, bytes)
    if len(raw) % 8:
        raise ValueError(f"ids take 8 bytes each, and {len(raw)} is no multiple of it")
    return list(struct.unpack(f"!{len(raw) // 8}q", raw))


def encode_ids(ids: Sequence[int]) -> str:
    """*ids* as the text of an array, which is quicker to send than a list for every driver.

    Raises:
        ValueError: An id does not fit 64 bits.
        TypeError: An id is no integer.
    """
    try:
        numbers = [index(value) for value in ids]
    except TypeError:
        # Of several values that are wrong the first one counts, as in a look at each in turn.
        if any(not -(2**63) <= index(value) < 2**63 for value in ids):
            raise ValueError("an id does not fit 64 bits") from None
        raise
    if numbers and (min(numbers) < -(2**63) or max(numbers) >= 2**63):
        raise ValueError("an id does not fit 64 bits")
    return "{" + ",".join(map(str, map(int, numbers))) + "}"


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


def _check_size(data: bytes, position: int, what: str) -> None:
    if len(data) > MAX_FIELD:
        raise ValueError(
            f"job {position}: {what} has {len(data)} bytes, PostgreSQL takes {MAX_FIELD}"
        )


def _sized(data: bytes, position: int, what: str) -> bytes:
    _check_size(data, position, what)
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
    status: bool = True,
) -> bytes:
    """Queued jobs as a binary COPY stream.

    Columns: id int8, priority int4, status (an enum, by its label) unless there is none, entrypoint
    text, payload bytea, headers jsonb, and execute_after timestamptz unless it is None.

    Args:
        raw_ids: The ids, 8 bytes each, big-endian.
        priorities: 32-bit integers.
        entrypoints: Names without NUL.
        payloads: Bytes-like or None.
        headers: JSON text or None.
        execute_after: Microseconds since 2000-01-01 UTC, or None for the column's default.
        status: Whether there is such a column.

    Raises:
        ValueError: A value is out of range, or the columns differ in length.
        TypeError: A value is of the wrong type.
    """
    columns: list[Sequence[object]] = [priorities, entrypoints, payloads, headers]
    if execute_after is not None:
        columns.append(execute_after)
    count = _check_lengths(raw_ids, *columns)
    fields = struct.pack("!h", 5 + bool(status) + (execute_after is not None))
    parts = [_COPY_HEADER]
    for position in range(count):
        parts.append(fields)
        parts.append(b"\x00\x00\x00\x08" + raw_ids[8 * position : 8 * position + 8])
        parts.append(struct.pack("!ii", 4, _int32(priorities[position], position, "priority")))
        if status:
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


def pack_jobs(
    entrypoints: list[str], payloads: list[bytes | None], priorities: list[int]
) -> tuple[list[str], str, str, str, str, bytes]:
    """Jobs as a few values, which both sides read faster than a list for each column.

    Args:
        entrypoints: Names without NUL.
        payloads: Bytes-like or None.
        priorities: 32-bit integers.

    Returns:
        The different names; for each job the place of its name among them, from 1, its priority,
        the place in the last value where its payload begins, from 1, and the length of that, NULL
        for no payload, each of these as the text of an ``int[]``; all payloads in one.

    Raises:
        ValueError: A value is out of range, or the columns differ in length.
        TypeError: A value is of the wrong type.
    """
    for column in (entrypoints, payloads, priorities):
        _require_type("a column", column, list)
    count = len(entrypoints)
    for other in (payloads, priorities):
        if len(other) != count:
            raise ValueError(f"{count} entrypoints, but a column of {len(other)} values")
    known: dict[str, int] = {}
    places: list[int] = []
    ranks: list[int] = []
    starts: list[int] = []
    lengths: list[int | str] = []
    parts: list[bytes] = []
    start = 1
    place = 0
    last: object = known
    for position, name in enumerate(entrypoints):
        if name is not last:
            # Before it is looked up: what is no str need not have a hash.
            _text(name, position, "entrypoint")
            place = known.setdefault(name, len(known) + 1)
            last = name
        places.append(place)
        # A bool is its own index, and its text no number.
        ranks.append(int(_int32(priorities[position], position, "priority")))
        starts.append(start)
        payload = payloads[position]
        if payload is None:
            lengths.append("NULL")
            continue
        data = _bytes(payload, position, "payload")
        _check_size(data, position, "payload")
        start += len(data)
        if start - 1 > MAX_FIELD:
            raise ValueError(
                f"job {position}: with its payload all have {start - 1} bytes, PostgreSQL takes "
                f"{MAX_FIELD}"
            )
        lengths.append(len(data))
        parts.append(data)
    return (
        list(known),
        _array_text(places),
        _array_text(ranks),
        _array_text(starts),
        _array_text(lengths),
        b"".join(parts),
    )


def _array_text(items: Sequence[int | str]) -> str:
    return "{" + ",".join(map(str, items)) + "}"


def plain_columns(
    entrypoints: list[Any],
    payloads: list[Any],
    priorities: list[Any],
    longest_name: int,
    longest_payload: int,
) -> bool:
    """Whether jobs can be sent as they are: one look at most batches, instead of one a rule.

    True where entrypoints are ``str`` that PostgreSQL can store, payloads ``bytes`` or None and
    priorities ``int`` of 32 bits, subclasses of these not included, and where no entrypoint has
    more than *longest_name* bytes as UTF-8, and no payload more than *longest_payload*. False says
    no more than that something needs a closer look.
    """
    for column in (entrypoints, payloads, priorities):
        _require_type("a column", column, list)
    if not (
        set(map(type, entrypoints)) <= {str}
        and set(map(type, payloads)) <= {bytes, type(None)}
        and set(map(type, priorities)) <= {int}
    ):
        return False
    if priorities and not -(2**31) <= min(priorities) <= max(priorities) < 2**31:
        return False
    if max(map(len, filter(None, payloads)), default=0) > longest_payload:
        return False
    # A batch repeats few names.
    names = set(entrypoints)
    try:
        return b"\0" not in "".join(names).encode() and all(
            len(name.encode()) <= min(longest_name, MAX_FIELD) for name in names
        )
    except UnicodeEncodeError:
        return False
