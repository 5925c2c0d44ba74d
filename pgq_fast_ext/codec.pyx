"""Rows to jobs, outcomes to parameters, jobs to binary COPY.

The twin of ``pgq_fast._pure.codec``. Integers on the wire are big-endian; the layout of binary COPY
is that of the PostgreSQL documentation, page COPY, "Binary Format"; arrays and timestamps are laid
out as the server's ``array_recv`` and ``timestamptz_recv`` read them.
"""

cimport cython
from cpython.buffer cimport PyObject_CheckBuffer
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.datetime cimport datetime_new, import_datetime
from cpython.dict cimport PyDict_Copy, PyDict_SetItem
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject_GenericSetAttr
from cpython.unicode cimport (
    PyUnicode_Check,
    PyUnicode_CheckExact,
    PyUnicode_DecodeASCII,
    PyUnicode_DecodeUTF8,
)
from libc.stdint cimport int16_t, int32_t, int64_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from pgq_fast_ext.wire cimport Writer, read_int32, read_int64, store_int16, store_int32

from datetime import datetime, timezone
from operator import index

import_datetime()

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL
    const int PY_VERSION_HEX
    void PyObject_GC_UnTrack(object)
    object PyLong_FromLong(long)
    object PyLong_FromLongLong(long long)
    long long PyLong_AsLongLongAndOverflow(object, int*) except? -1


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


@cython.final
cdef class _Template:
    """The fields of a claimed job in the order of the model's, which dumps and repr follow.

    It is copied for each job and keeps what the last one had, since most of it is the same for the
    next. Invariant: `priority` and the like are what `fields` holds, in binary.
    """

    cdef dict fields
    cdef int32_t priority
    cdef int32_t attempts
    cdef int64_t created
    cdef int64_t updated
    cdef int64_t execute_after

    def __cinit__(self, owner):
        moment = _decode_time(0)
        self.fields = {
            "id": None,
            "priority": 0,
            "created": moment,
            "updated": moment,
            "heartbeat": moment,
            "execute_after": moment,
            "status": "picked",
            "entrypoint": None,
            "payload": None,
            "attempts": 0,
            "queue_manager_id": owner,
            "slot": None,
            "headers": None,
        }
        # A worker has tens of thousands of jobs in hand, and each pass of the collector would look
        # at every field of each. Copies are as untracked as the original, and Python tracks them as
        # soon as something is put in that can be part of a cycle; from 3.14 on it no longer does.
        if PY_VERSION_HEX < 0x030E0000:
            PyObject_GC_UnTrack(self.fields)

    cdef inline int put_counts(self, int32_t priority, int32_t attempts) except -1:
        if priority != self.priority:
            PyDict_SetItem(self.fields, "priority", PyLong_FromLong(priority))
            self.priority = priority
        if attempts != self.attempts:
            PyDict_SetItem(self.fields, "attempts", PyLong_FromLong(attempts))
            self.attempts = attempts
        return 0

    cdef inline int put_times(self, int64_t created, int64_t execute_after) except -1:
        if created != self.created:
            PyDict_SetItem(self.fields, "created", _decode_time(created))
            self.created = created
        if execute_after != self.execute_after:
            PyDict_SetItem(self.fields, "execute_after", _decode_time(execute_after))
            self.execute_after = execute_after
        return 0

    cdef inline int put_updated(self, int64_t updated) except -1:
        if updated != self.updated:
            time = _decode_time(updated)
            PyDict_SetItem(self.fields, "updated", time)
            PyDict_SetItem(self.fields, "heartbeat", time)
            self.updated = updated
        return 0


cdef inline object _make_job(job_type, dict fields):
    job = _new(job_type)
    # Past the model's own __setattr__, which validates.
    PyObject_GenericSetAttr(job, "__dict__", fields)
    return job


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
    cdef _Template template = _Template(owner)
    cdef const char* last_entrypoint = NULL
    cdef Py_ssize_t last_entrypoint_length = -1
    cdef const char* source = PyBytes_AS_STRING(raw)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(raw)
    cdef Py_ssize_t at = 0
    cdef int32_t count
    cdef Field number, priority, attempts, created, execute_after, updated
    cdef Field slot, entrypoint, payload, headers
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
            PyDict_SetItem(template.fields, "entrypoint", name)
            last_entrypoint = source + entrypoint.start
            last_entrypoint_length = entrypoint.length
        template.put_counts(
            read_int32(source + priority.start), read_int32(source + attempts.start)
        )
        template.put_times(
            read_int64(source + created.start), read_int64(source + execute_after.start)
        )
        template.put_updated(read_int64(source + updated.start))
        fields = PyDict_Copy(template.fields)
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
        jobs.append(_make_job(job_type, fields))
    return jobs, faults


cdef struct Elements:
    const char* source
    Py_ssize_t size
    # Where the next element begins: its length or -1 for NULL, and as many bytes.
    Py_ssize_t at


cdef Py_ssize_t _open_array(object raw, str what, Elements* elements) except -1:
    """Stand before the first element of the array in *raw*; how many there are."""
    if type(raw) is not bytes:
        raise TypeError(f"{what} is {type(raw).__name__}, not bytes")
    cdef const char* source = PyBytes_AS_STRING(raw)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(raw)
    cdef int32_t count
    if size < 20 or read_int32(source) != 1:
        raise ValueError(f"{what} is no array of one dimension")
    count = read_int32(source + 12)
    # Each element takes at least its length.
    if count < 0 or count > (size - 20) // 4:
        raise ValueError(f"{what} cannot have {count} elements in {size} bytes")
    elements.source = source
    elements.size = size
    elements.at = 20
    return count


cdef bint _opens_many(
    object raw, str what, Elements* elements, Py_ssize_t count
) except -1:
    """Open an array of *count* elements, or of one that stands for all; whether it is so many."""
    cdef Py_ssize_t found = _open_array(raw, what, elements)
    if found != count and found != 1:
        raise ValueError("the arrays of a lease differ in length")
    return found == count


cdef int _next_element(Elements* elements, str what, Field* field) except -1:
    cdef int32_t length
    if elements.size - elements.at < 4:
        raise ValueError(f"{what} breaks off at byte {elements.size}")
    length = read_int32(elements.source + elements.at)
    elements.at += 4
    if length < -1 or length > elements.size - elements.at:
        raise ValueError(f"{what} has an element of length {length} at byte {elements.at}")
    field.start = elements.at
    field.length = length
    if length > 0:
        elements.at += length
    return 0


cdef const char* _next_fixed(Elements* elements, str what, Py_ssize_t length) except NULL:
    """The next element, which has *length* bytes."""
    if elements.size - elements.at < 4 + length:
        raise ValueError(f"{what} breaks off at byte {elements.size}")
    cdef const char* start = elements.source + elements.at + 4
    if read_int32(start - 4) != length:
        raise ValueError(f"{what} has an element at byte {elements.at} that is not {length} long")
    elements.at += 4 + length
    return start


cdef int _close_array(Elements* elements, str what) except -1:
    if elements.at != elements.size:
        raise ValueError(f"{what} goes on for {elements.size - elements.at} bytes after its end")
    return 0


def build_leased_jobs(
    job_type,
    owner,
    parse_headers,
    entrypoint,
    slot,
    picked_at,
    ids,
    priorities,
    attempts,
    created,
    execute_after,
    payloads,
    headers,
):
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
    cdef Elements id_elements, priority_elements, attempt_elements, created_elements
    cdef Elements due_elements, payload_elements, header_elements
    cdef Field payload, text
    cdef Py_ssize_t count, i
    cdef bint has_headers = headers is not None
    cdef bint is_deferred = execute_after is not None
    cdef bint many_priorities, many_attempts, many_created
    cdef int32_t priority = 0, attempt = 0
    cdef int64_t moment = 0, due
    cdef _Template template = _Template(owner)
    cdef dict fields
    cdef list jobs = []
    cdef list numbers = []
    if type(entrypoint) is not bytes:
        raise TypeError(f"entrypoint is {type(entrypoint).__name__}, not bytes")
    if type(picked_at) is not bytes:
        raise TypeError(f"picked_at is {type(picked_at).__name__}, not bytes")
    if len(picked_at) != 8:
        raise ValueError(f"picked_at has {len(picked_at)} bytes, not 8")
    count = _open_array(ids, "ids", &id_elements)
    if count == 0:
        raise ValueError("a lease has no jobs")
    many_priorities = _opens_many(priorities, "priorities", &priority_elements, count)
    many_attempts = _opens_many(attempts, "attempts", &attempt_elements, count)
    many_created = _opens_many(created, "created", &created_elements, count)
    if (
        (
            is_deferred
            and _open_array(execute_after, "execute_after", &due_elements) != count
        )
        or _open_array(payloads, "payloads", &payload_elements) != count
        or (has_headers and _open_array(headers, "headers", &header_elements) != count)
    ):
        raise ValueError("the arrays of a lease differ in length")
    PyDict_SetItem(template.fields, "entrypoint", entrypoint.decode())
    PyDict_SetItem(template.fields, "slot", slot)
    template.put_updated(read_int64(PyBytes_AS_STRING(picked_at)))
    for i in range(count):
        job_id = PyLong_FromLongLong(read_int64(_next_fixed(&id_elements, "ids", 8)))
        if many_priorities or i == 0:
            priority = read_int32(_next_fixed(&priority_elements, "priorities", 4))
        if many_attempts or i == 0:
            attempt = read_int32(_next_fixed(&attempt_elements, "attempts", 4))
        if many_created or i == 0:
            moment = read_int64(_next_fixed(&created_elements, "created", 8))
        due = moment
        if is_deferred:
            due = read_int64(_next_fixed(&due_elements, "execute_after", 8))
        template.put_counts(priority, attempt)
        template.put_times(moment, due)
        _next_element(&payload_elements, "payloads", &payload)
        fields = PyDict_Copy(template.fields)
        PyDict_SetItem(fields, "id", job_id)
        if payload.length >= 0:
            PyDict_SetItem(
                fields,
                "payload",
                PyBytes_FromStringAndSize(
                    payload_elements.source + payload.start, payload.length
                ),
            )
        if has_headers:
            _next_element(&header_elements, "headers", &text)
            if text.length >= 0:
                json = PyBytes_FromStringAndSize(header_elements.source + text.start, text.length)
                PyDict_SetItem(fields, "headers", parse_headers(job_id, json))
        numbers.append(job_id)
        jobs.append(_make_job(job_type, fields))
    _close_array(&id_elements, "ids")
    _close_array(&priority_elements, "priorities")
    _close_array(&attempt_elements, "attempts")
    _close_array(&created_elements, "created")
    if is_deferred:
        _close_array(&due_elements, "execute_after")
    _close_array(&payload_elements, "payloads")
    if has_headers:
        _close_array(&header_elements, "headers")
    return jobs, numbers


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


cdef Py_ssize_t _put_decimal(char* target, int64_t number) noexcept nogil:
    """Write *number* to *target*, which has room for 20 characters; how many it takes."""
    cdef char digits[20]
    cdef int count = 0
    cdef Py_ssize_t length = 0
    # The negative of the smallest number would not fit.
    cdef uint64_t rest = <uint64_t>number
    if number < 0:
        target[0] = c'-'
        length = 1
        rest = 0 - rest
    while True:
        digits[count] = <char>(c'0' + rest % 10)
        count += 1
        rest //= 10
        if rest == 0:
            break
    while count > 0:
        count -= 1
        target[length] = digits[count]
        length += 1
    return length


def encode_ids(ids):
    """*ids* as the text of an array, which is quicker to send than a list for every driver.

    Raises:
        ValueError: An id does not fit 64 bits.
        TypeError: An id is no integer.
    """
    cdef Writer out = Writer(2 + 12 * len(ids))
    cdef int64_t number
    cdef bint first = True
    out.put_bytes(b"{", 1)
    for value in ids:
        try:
            number = index(value)
        except OverflowError:
            raise ValueError("an id does not fit 64 bits") from None
        if not first:
            out.put_bytes(b",", 1)
        first = False
        out.reserve(20)
        out.size += _put_decimal(out.data + out.size, number)
    out.put_bytes(b"}", 1)
    return PyUnicode_DecodeASCII(out.data, out.size, NULL)


cdef int _put_int8_field(Writer out, object value) except -1:
    """OverflowError where *value* has more than 64 bits; what that means only the caller knows."""
    cdef int64_t number = index(value)
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
        try:
            _put_int8_field(out, value)
        except OverflowError:
            raise ValueError(f"id {value} does not fit 64 bits") from None
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


cdef int32_t _int32_of(object value, Py_ssize_t position, str what) except? -1:
    cdef int64_t number = 0
    cdef int overflow = 0
    if PyLong_CheckExact(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
    else:
        try:
            number = index(value)
        except OverflowError:
            overflow = 1
    if overflow or number < -0x80000000LL or number > 0x7FFFFFFFLL:
        raise ValueError(f"job {position}: {what} {value} does not fit 32 bits")
    return <int32_t>number


cdef int _check_size(Py_ssize_t length, Py_ssize_t position, str what) except -1:
    if length > _MAX_FIELD:
        raise ValueError(
            f"job {position}: {what} has {length} bytes, PostgreSQL takes {MAX_FIELD}"
        )
    return 0


@cython.final
cdef class _Name:
    """The last name in UTF-8: a batch repeats few, so most are looked at once."""

    # Invariant: `text` points to `length` bytes that belong to `value`, NULL before the first.
    cdef object value
    cdef const char* text
    cdef Py_ssize_t length

    cdef inline int take(self, object value, Py_ssize_t position) except -1:
        if value is self.value and self.text != NULL:
            return 0
        return self.encode(value, position)

    cdef int encode(self, object value, Py_ssize_t position) except -1:
        cdef Py_ssize_t length
        cdef const char* text
        if not PyUnicode_Check(value):
            raise TypeError(f"job {position}: entrypoint is {type(value).__name__}, not str")
        text = PyUnicode_AsUTF8AndSize(value, &length)
        if memchr(text, 0, <size_t>length) != NULL:
            raise ValueError(
                f"job {position}: entrypoint contains NUL, which PostgreSQL's text cannot"
            )
        _check_size(length, position, "entrypoint")
        self.value = value
        self.text = text
        self.length = length
        return 0


cdef bytes _bytes_of(object value, Py_ssize_t position, str what):
    """A bytes-like value as plain ``bytes``, whose length cannot change; None stays None."""
    if value is None or PyBytes_CheckExact(value):
        return <bytes>value
    if not PyObject_CheckBuffer(value):
        raise TypeError(f"job {position}: {what} is {type(value).__name__}, not bytes")
    return bytes(memoryview(value))


cdef inline int _put_payload(Writer out, bytes value, Py_ssize_t position) except -1:
    cdef Py_ssize_t length
    if value is None:
        return out.put_int32(-1)
    length = PyBytes_GET_SIZE(value)
    _check_size(length, position, "payload")
    out.reserve(4 + length)
    store_int32(out.data + out.size, <int32_t>length)
    memcpy(out.data + out.size + 4, PyBytes_AS_STRING(value), <size_t>length)
    out.size += 4 + length
    return 0


cdef inline int _put_headers(Writer out, bytes value, Py_ssize_t position) except -1:
    cdef Py_ssize_t length
    if value is None:
        return out.put_int32(-1)
    # jsonb_recv expects a version number before the text.
    length = PyBytes_GET_SIZE(value) + 1
    _check_size(length, position, "headers")
    out.put_int32(<int32_t>length)
    out.put_bytes(b"\x01", 1)
    return out.put_bytes(PyBytes_AS_STRING(value), length - 1)


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
    bint status=True,
):
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
    cdef tuple columns = (priorities, entrypoints, payloads, headers)
    if execute_after is not None:
        columns += (execute_after,)
    cdef Py_ssize_t count = _check_lengths(raw_ids, columns)
    cdef const char* ids = PyBytes_AS_STRING(raw_ids)
    cdef Writer out = Writer(32 + 96 * count)
    cdef int16_t fields = 5 + (1 if status else 0) + (0 if execute_after is None else 1)
    cdef _Name name = _Name()
    cdef int32_t priority
    cdef Py_ssize_t i
    cdef char* at
    out.put_bytes(PyBytes_AS_STRING(_COPY_HEADER), PyBytes_GET_SIZE(_COPY_HEADER))
    for i in range(count):
        priority = _int32_of(priorities[i], i, "priority")
        name.take(entrypoints[i], i)
        # No Python code runs from here to the last of these bytes.
        out.reserve(36 + name.length)
        at = out.data + out.size
        store_int16(at, fields)
        store_int32(at + 2, 8)
        memcpy(at + 6, ids + 8 * i, 8)
        store_int32(at + 14, 4)
        store_int32(at + 18, priority)
        at += 22
        if status:
            store_int32(at, 6)
            memcpy(at + 4, <const char*>b"queued", 6)
            at += 10
        store_int32(at, <int32_t>name.length)
        memcpy(at + 4, name.text, <size_t>name.length)
        out.size = at + 4 + name.length - out.data
        _put_payload(out, _bytes_of(payloads[i], i, "payload"), i)
        _put_headers(out, _bytes_of(headers[i], i, "headers"), i)
        if execute_after is not None:
            try:
                _put_int8_field(out, execute_after[i])
            except OverflowError:
                raise ValueError(f"job {i}: execute_after does not fit 64 bits") from None
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
    cdef _Name name = _Name()
    cdef int32_t priority
    cdef Py_ssize_t i
    cdef char* at
    out.put_bytes(PyBytes_AS_STRING(_COPY_HEADER), PyBytes_GET_SIZE(_COPY_HEADER))
    for i in range(count):
        priority = _int32_of(priorities[i], i, "priority")
        name.take(entrypoints[i], i)
        # No Python code runs from here to the last of these bytes.
        out.reserve(36 + name.length)
        at = out.data + out.size
        store_int16(at, 4)
        store_int32(at + 2, 8)
        memcpy(at + 6, ids + 8 * i, 8)
        store_int32(at + 14, 6)
        memcpy(at + 18, <const char*>b"queued", 6)
        store_int32(at + 24, 4)
        store_int32(at + 28, priority)
        store_int32(at + 32, <int32_t>name.length)
        memcpy(at + 36, name.text, <size_t>name.length)
        out.size += 36 + name.length
    out.put_int16(-1)
    return out.finish()


cdef inline int _put_item(Writer out, int64_t number) except -1:
    """Write *number* as the next item of an array's text."""
    out.reserve(21)
    out.data[out.size] = c',' if out.size else c'{'
    out.size += 1
    out.size += _put_decimal(out.data + out.size, number)
    return 0


cdef inline int _put_null_item(Writer out) except -1:
    return out.put_bytes(b",NULL" if out.size else b"{NULL", 5)


cdef str _array_text(Writer out):
    if out.size == 0:
        out.put_bytes(b"{", 1)
    out.put_bytes(b"}", 1)
    return PyUnicode_DecodeASCII(out.data, out.size, NULL)


def pack_jobs(
    list entrypoints not None, list payloads not None, list priorities not None
):
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
    cdef Py_ssize_t count = len(entrypoints)
    for column in (payloads, priorities):
        if len(column) != count:
            raise ValueError(f"{count} entrypoints, but a column of {len(column)} values")
    cdef Writer places = Writer(3 * count)
    cdef Writer ranks = Writer(3 * count)
    cdef Writer starts = Writer(6 * count)
    cdef Writer lengths = Writer(4 * count)
    cdef list parts = []
    cdef list names = []
    cdef dict known = {}
    cdef _Name name = _Name()
    cdef object last = None
    cdef int64_t place = 0
    cdef bytes payload, data
    cdef Py_ssize_t length, i
    cdef Py_ssize_t size = 0
    cdef char* at
    for i in range(count):
        entrypoint = entrypoints[i]
        if place == 0 or entrypoint is not last:
            name.take(entrypoint, i)
            found = known.get(entrypoint)
            if found is None:
                names.append(entrypoint)
                found = known[entrypoint] = len(names)
            place = found
            last = entrypoint
        _put_item(places, place)
        _put_item(ranks, _int32_of(priorities[i], i, "priority"))
        payload = _bytes_of(payloads[i], i, "payload")
        _put_item(starts, size + 1)
        if payload is None:
            _put_null_item(lengths)
            continue
        length = PyBytes_GET_SIZE(payload)
        _check_size(length, i, "payload")
        if length > _MAX_FIELD - size:
            raise ValueError(
                f"job {i}: with its payload all have {size + length} bytes, PostgreSQL takes "
                f"{MAX_FIELD}"
            )
        _put_item(lengths, length)
        size += length
        parts.append(payload)
    # Copied once they are known to fit.
    data = PyBytes_FromStringAndSize(NULL, size)
    at = PyBytes_AS_STRING(data)
    for part in parts:
        payload = <bytes>part
        memcpy(at, PyBytes_AS_STRING(payload), <size_t>PyBytes_GET_SIZE(payload))
        at += PyBytes_GET_SIZE(payload)
    return (
        names,
        _array_text(places),
        _array_text(ranks),
        _array_text(starts),
        _array_text(lengths),
        data,
    )


def plain_columns(
    list entrypoints not None,
    list payloads not None,
    list priorities not None,
    Py_ssize_t longest_name,
    Py_ssize_t longest_payload,
):
    """Whether jobs can be sent as they are: one look at most batches, instead of one a rule.

    True where entrypoints are ``str`` that PostgreSQL can store, payloads ``bytes`` or None and
    priorities ``int`` of 32 bits, subclasses of these not included, and where no entrypoint has
    more than *longest_name* bytes as UTF-8, and no payload more than *longest_payload*. False says
    no more than that something needs a closer look.
    """
    cdef _Name name = _Name()
    cdef int64_t number
    cdef int overflow = 0
    try:
        for entrypoint in entrypoints:
            if not PyUnicode_CheckExact(entrypoint):
                return False
            name.take(entrypoint, 0)
            if name.length > longest_name:
                return False
    except ValueError:
        return False
    for payload in payloads:
        if payload is not None and (
            not PyBytes_CheckExact(payload) or PyBytes_GET_SIZE(payload) > longest_payload
        ):
            return False
    for priority in priorities:
        if not PyLong_CheckExact(priority):
            return False
        number = PyLong_AsLongLongAndOverflow(priority, &overflow)
        if overflow or number < -0x80000000LL or number > 0x7FFFFFFFLL:
            return False
    return True
