"""Rows to jobs, outcomes to parameters, jobs to binary COPY.

The twin of ``pgq_fast._pure.codec``. Integers on the wire are big-endian; the layout of binary COPY
is that of the PostgreSQL documentation, page COPY, "Binary Format"; arrays and timestamps are laid
out as the server's ``array_recv`` and ``timestamptz_recv`` read them.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.datetime cimport datetime_new, import_datetime
from cpython.dict cimport PyDict_Copy, PyDict_SetItem
from cpython.object cimport PyObject_GenericSetAttr
from cpython.unicode cimport PyUnicode_Check, PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memchr, memcmp

from pgq_fast_ext.wire cimport Writer, read_int32, read_int64

from datetime import datetime, timezone
from operator import index

import_datetime()

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL
    object PyLong_FromLong(long)
    object PyLong_FromLongLong(long long)


# Fields of a record that a claim returns, in order: id, priority, attempts, created, execute_after,
# updated, slot, entrypoint, payload, headers.
CLAIM_FIELDS = 10

# Bytes that PostgreSQL accepts in one value: its allocator stops short of 1 GB.
MAX_FIELD = 0x3FFFFFFF

cdef Py_ssize_t _MAX_FIELD = 0x3FFFFFFF
cdef object _UTC = timezone.utc
cdef object _MAX_TIME = datetime.max.replace(tzinfo=_UTC)
cdef object _MIN_TIME = datetime.min.replace(tzinfo=_UTC)
cdef int64_t _DAY = 86_400_000_000
# Those two in microseconds since 2000.
cdef int64_t _FIRST_TIME = -730119 * _DAY
cdef int64_t _LAST_TIME = 2921940 * _DAY - 1
cdef bytes _COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + b"\x00" * 8
cdef object _new = object.__new__


cdef struct Field:
    Py_ssize_t start
    # -1 for NULL.
    Py_ssize_t length


cdef int _read_field(
    const char* source, Py_ssize_t size, Py_ssize_t* at, Field* field
) except -1:
    """Take the field at *at*, which moves behind it: an oid, a length, as many bytes."""
    cdef int32_t length
    if size - at[0] < 8:
        raise ValueError(f"a claim breaks off at byte {size}, before the length of a field")
    length = read_int32(source + at[0] + 4)
    at[0] += 8
    if length < -1:
        raise ValueError(f"a field before byte {at[0]} of a claim has length {length}")
    if length > size - at[0]:
        raise ValueError(f"a claim breaks off at byte {size}, within a field of {length} bytes")
    field.start = at[0]
    field.length = length
    if length > 0:
        at[0] += length
    return 0


cdef int _read_fixed(
    const char* source, Py_ssize_t size, Py_ssize_t* at, Field* field, Py_ssize_t length
) except -1:
    _read_field(source, size, at, field)
    if field.length != length:
        raise ValueError(
            f"a field at byte {field.start} of a claim has length {field.length}, not {length}"
        )
    return 0


cdef object _decode_time(int64_t microseconds):
    """A ``timestamptz`` in UTC: microseconds since 2000 as a date of the Gregorian calendar.

    The days are counted from 1 March 0000, so that the leap day ends a year, and split into eras of
    400 years, which all have as many days.
    """
    cdef int64_t days, second, era, day_of_era, year_of_era, day_of_year, month
    if microseconds < _FIRST_TIME or microseconds > _LAST_TIME:
        return _MAX_TIME if microseconds > 0 else _MIN_TIME
    days = microseconds // _DAY
    microseconds -= days * _DAY
    if microseconds < 0:
        # C rounds towards zero.
        microseconds += _DAY
        days -= 1
    days += 730425
    era = days // 146097
    day_of_era = days - era * 146097
    year_of_era = (
        day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096
    ) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    # Months from March on have 31, 30, 31, 30, 31 days, and again.
    month = (5 * day_of_year + 2) // 153
    second = microseconds // 1000000
    return datetime_new(
        <int>(year_of_era + era * 400 + (month >= 10)),
        <int>(month + 3 if month < 10 else month - 9),
        <int>(day_of_year - (153 * month + 2) // 5 + 1),
        <int>(second // 3600),
        <int>(second // 60 % 60),
        <int>(second % 60),
        <int>(microseconds % 1000000),
        _UTC,
    )


def build_jobs(job_type, raw, owner, parse_headers):
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
    if type(raw) is not bytes:
        raise TypeError(f"raw is {type(raw).__name__}, not bytes")
    cdef list jobs = []
    cdef list faults = []
    cdef dict fields
    # In the order of the model's fields, which dumps and repr follow. It is copied for each job and
    # keeps what the last one had, since most of it is the same for the next: invariant, the
    # variables `last_...` are what it holds in binary.
    cdef dict template = {
        "id": None,
        "priority": 0,
        "created": None,
        "updated": None,
        "heartbeat": None,
        "execute_after": None,
        "status": "picked",
        "entrypoint": None,
        "payload": None,
        "attempts": 0,
        "queue_manager_id": owner,
        "slot": None,
        "headers": None,
    }
    cdef int32_t last_priority = 0, last_attempts = 0
    cdef int64_t last_created = 0, last_updated = 0, last_execute_after = 0
    cdef const char* last_entrypoint = NULL
    cdef Py_ssize_t last_entrypoint_length = -1
    cdef int32_t small
    cdef int64_t moment
    cdef const char* source = PyBytes_AS_STRING(raw)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(raw)
    cdef Py_ssize_t at = 0
    cdef int32_t count
    cdef Field number, priority, attempts, created, execute_after, updated
    cdef Field slot, entrypoint, payload, headers
    for name in ("created", "updated", "heartbeat", "execute_after"):
        template[name] = _decode_time(0)
    while at < size:
        if size - at < 4:
            raise ValueError(f"a claim breaks off at byte {size}, at the start of a record")
        count = read_int32(source + at)
        at += 4
        if count != 10:
            raise ValueError(f"a record of a claim has {count} fields, not {CLAIM_FIELDS}")
        _read_fixed(source, size, &at, &number, 8)
        _read_fixed(source, size, &at, &priority, 4)
        _read_fixed(source, size, &at, &attempts, 4)
        _read_fixed(source, size, &at, &created, 8)
        _read_fixed(source, size, &at, &execute_after, 8)
        _read_fixed(source, size, &at, &updated, 8)
        _read_field(source, size, &at, &slot)
        if slot.length != -1 and slot.length != 8:
            raise ValueError(f"a slot of a claim has length {slot.length}, not 8")
        _read_field(source, size, &at, &entrypoint)
        _read_field(source, size, &at, &payload)
        _read_field(source, size, &at, &headers)
        job_id = PyLong_FromLongLong(read_int64(source + number.start))
        if entrypoint.length < 0:
            faults.append((job_id, "entrypoint is NULL"))
            continue
        if (
            entrypoint.length != last_entrypoint_length
            or memcmp(source + entrypoint.start, last_entrypoint, <size_t>entrypoint.length) != 0
        ):
            try:
                name = PyUnicode_DecodeUTF8(
                    source + entrypoint.start, entrypoint.length, "strict"
                )
            except UnicodeDecodeError:
                faults.append((job_id, "entrypoint is no UTF-8"))
                continue
            PyDict_SetItem(template, "entrypoint", name)
            last_entrypoint = source + entrypoint.start
            last_entrypoint_length = entrypoint.length
        small = read_int32(source + priority.start)
        if small != last_priority:
            PyDict_SetItem(template, "priority", PyLong_FromLong(small))
            last_priority = small
        small = read_int32(source + attempts.start)
        if small != last_attempts:
            PyDict_SetItem(template, "attempts", PyLong_FromLong(small))
            last_attempts = small
        moment = read_int64(source + created.start)
        if moment != last_created:
            PyDict_SetItem(template, "created", _decode_time(moment))
            last_created = moment
        moment = read_int64(source + execute_after.start)
        if moment != last_execute_after:
            PyDict_SetItem(template, "execute_after", _decode_time(moment))
            last_execute_after = moment
        moment = read_int64(source + updated.start)
        if moment != last_updated:
            time = _decode_time(moment)
            PyDict_SetItem(template, "updated", time)
            PyDict_SetItem(template, "heartbeat", time)
            last_updated = moment
        fields = PyDict_Copy(template)
        PyDict_SetItem(fields, "id", job_id)
        if payload.length >= 0:
            PyDict_SetItem(
                fields,
                "payload",
                PyBytes_FromStringAndSize(source + payload.start, payload.length),
            )
        if slot.length == 8:
            PyDict_SetItem(fields, "slot", PyLong_FromLongLong(read_int64(source + slot.start)))
        if headers.length >= 0:
            text = PyBytes_FromStringAndSize(source + headers.start, headers.length)
            PyDict_SetItem(fields, "headers", parse_headers(job_id, text))
        job = _new(job_type)
        # Past the model's own __setattr__, which validates.
        PyObject_GenericSetAttr(job, "__dict__", fields)
        jobs.append(job)
    return jobs, faults


def decode_ids(raw):
    """A run of ``int8`` in binary.

    Raises:
        ValueError: *raw* is no whole number of them.
    """
    if type(raw) is not bytes:
        raise TypeError(f"raw is {type(raw).__name__}, not bytes")
    cdef Py_ssize_t size = PyBytes_GET_SIZE(raw)
    if size % 8:
        raise ValueError(f"ids take 8 bytes each, and {size} is no multiple of it")
    cdef const char* source = PyBytes_AS_STRING(raw)
    cdef Py_ssize_t i
    return [PyLong_FromLongLong(read_int64(source + 8 * i)) for i in range(size // 8)]


cdef int _put_int8_field(Writer out, object value, str complaint) except -1:
    cdef int64_t number
    try:
        number = index(value)
    except OverflowError:
        raise ValueError(complaint) from None
    out.put_int32(8)
    out.put_int64(number)
    return 0


def encode_int8_array(ids):
    """*ids* as a one-dimensional ``bigint[]`` in binary.

    Raises:
        ValueError: An id does not fit 64 bits.
        TypeError: An id is no integer.
    """
    cdef Py_ssize_t count = len(ids)
    cdef Writer out = Writer(20 + 12 * count)
    cdef Py_ssize_t written = 0
    out.put_int32(1 if count else 0)
    out.put_int32(0)
    out.put_int32(20)
    if count == 0:
        return out.finish()
    if count > 0x7FFFFFFF:
        raise ValueError(f"{count} ids are more than an array holds")
    out.put_int32(<int32_t>count)
    out.put_int32(1)
    for value in ids:
        _put_int8_field(out, value, f"id {value} does not fit 64 bits")
        written += 1
    if written != count:
        raise ValueError("the ids changed while they were encoded")
    return out.finish()


def outcome_columns(outcomes):
    """The parameters that acknowledge *outcomes*.

    Args:
        outcomes: Triples of a job, its status, and its traceback record as JSON or None.

    Returns:
        Ids, statuses and traceback records; the last two are None where every job was successful
        and has no record.
    """
    cdef list ids = []
    cdef list statuses = []
    cdef list records = []
    cdef bint plain = True
    for job, status, record in outcomes:
        ids.append(job.id)
        statuses.append(status)
        records.append(record)
        if plain and (record is not None or status != "successful"):
            plain = False
    if plain:
        return ids, None, None
    return ids, statuses, records


cdef int _put_int32_field(Writer out, object value, Py_ssize_t position, str what) except -1:
    cdef int64_t number
    try:
        number = index(value)
    except OverflowError:
        raise ValueError(f"job {position}: {what} {value} does not fit 32 bits") from None
    if number < -0x80000000LL or number > 0x7FFFFFFFLL:
        raise ValueError(f"job {position}: {what} {value} does not fit 32 bits")
    out.put_int32(4)
    out.put_int32(<int32_t>number)
    return 0


cdef int _put_sized(
    Writer out, const char* source, Py_ssize_t length, Py_ssize_t position, str what
) except -1:
    if length > _MAX_FIELD:
        raise ValueError(
            f"job {position}: {what} has {length} bytes, PostgreSQL takes {MAX_FIELD}"
        )
    out.put_int32(<int32_t>length)
    out.put_bytes(source, length)
    return 0


cdef int _put_text(Writer out, object value, Py_ssize_t position, str what) except -1:
    cdef Py_ssize_t length
    cdef const char* source
    if not PyUnicode_Check(value):
        raise TypeError(f"job {position}: {what} is {type(value).__name__}, not str")
    source = PyUnicode_AsUTF8AndSize(value, &length)
    if memchr(source, 0, <size_t>length) != NULL:
        raise ValueError(f"job {position}: {what} contains NUL, which PostgreSQL's text cannot")
    return _put_sized(out, source, length, position, what)


cdef int _put_blob(
    Writer out, object value, Py_ssize_t position, str what, bint versioned
) except -1:
    """A bytes-like value or NULL; *versioned* puts jsonb's version number before it."""
    cdef Py_buffer view
    if value is None:
        out.put_int32(-1)
        return 0
    if not isinstance(value, bytes):
        if not PyObject_CheckBuffer(value):
            raise TypeError(f"job {position}: {what} is {type(value).__name__}, not bytes")
        value = bytes(memoryview(value))
    PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
    try:
        if versioned:
            if view.len >= _MAX_FIELD:
                raise ValueError(
                    f"job {position}: {what} has {view.len + 1} bytes, PostgreSQL takes {MAX_FIELD}"
                )
            out.put_int32(<int32_t>(view.len + 1))
            out.put_bytes(b"\x01", 1)
            out.put_bytes(<const char*>view.buf, view.len)
        else:
            _put_sized(out, <const char*>view.buf, view.len, position, what)
    finally:
        PyBuffer_Release(&view)
    return 0


cdef Py_ssize_t _check_lengths(bytes raw_ids, tuple columns) except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(raw_ids)
    cdef Py_ssize_t count = size // 8
    if size % 8:
        raise ValueError(f"ids take 8 bytes each, and {size} is no multiple of it")
    for column in columns:
        if len(column) != count:
            raise ValueError(f"{count} ids, but a column of {len(column)} values")
    return count


def encode_copy_jobs(
    bytes raw_ids not None,
    list priorities not None,
    list entrypoints not None,
    list payloads not None,
    list headers not None,
    list execute_after,
):
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
    cdef tuple columns = (priorities, entrypoints, payloads, headers)
    if execute_after is not None:
        columns += (execute_after,)
    cdef Py_ssize_t count = _check_lengths(raw_ids, columns)
    cdef const char* ids = PyBytes_AS_STRING(raw_ids)
    cdef Writer out = Writer(32 + 96 * count)
    cdef Py_ssize_t i
    out.put_bytes(PyBytes_AS_STRING(_COPY_HEADER), PyBytes_GET_SIZE(_COPY_HEADER))
    for i in range(count):
        out.put_int16(6 if execute_after is None else 7)
        out.put_int32(8)
        out.put_bytes(ids + 8 * i, 8)
        _put_int32_field(out, priorities[i], i, "priority")
        out.put_int32(6)
        out.put_bytes(b"queued", 6)
        _put_text(out, entrypoints[i], i, "entrypoint")
        _put_blob(out, payloads[i], i, "payload", False)
        _put_blob(out, headers[i], i, "headers", True)
        if execute_after is not None:
            _put_int8_field(
                out, execute_after[i], f"job {i}: execute_after does not fit 64 bits"
            )
    out.put_int16(-1)
    return out.finish()


def encode_copy_log(
    bytes raw_ids not None, list priorities not None, list entrypoints not None
):
    """Log entries of newly queued jobs as a binary COPY stream.

    Columns: job_id int8, status (an enum, by its label), priority int4, entrypoint text. Arguments
    and errors as for ``encode_copy_jobs``.
    """
    cdef Py_ssize_t count = _check_lengths(raw_ids, (priorities, entrypoints))
    cdef const char* ids = PyBytes_AS_STRING(raw_ids)
    cdef Writer out = Writer(32 + 48 * count)
    cdef Py_ssize_t i
    out.put_bytes(PyBytes_AS_STRING(_COPY_HEADER), PyBytes_GET_SIZE(_COPY_HEADER))
    for i in range(count):
        out.put_int16(4)
        out.put_int32(8)
        out.put_bytes(ids + 8 * i, 8)
        out.put_int32(6)
        out.put_bytes(b"queued", 6)
        _put_int32_field(out, priorities[i], i, "priority")
        _put_text(out, entrypoints[i], i, "entrypoint")
    out.put_int16(-1)
    return out.finish()
