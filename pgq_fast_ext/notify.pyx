"""The payload of a NOTIFY to what it says. The twin of ``pgq_fast._pure.notify``."""

from libc.string cimport memcmp

import json
from uuid import UUID


cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object)
    bint PyUnicode_CheckExact(object)
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL


cdef inline bint _is(const char* text, Py_ssize_t start, Py_ssize_t end, const char* word,
                     Py_ssize_t length) noexcept nogil:
    return end - start == length and memcmp(text + start, word, <size_t>length) == 0


cdef Py_ssize_t _space(const char* text, Py_ssize_t at, Py_ssize_t size) noexcept nogil:
    """First position from *at* that is no JSON white space, *size* at the end."""
    while at < size and text[at] in (c' ', c'\t', c'\n', c'\r'):
        at += 1
    return at


cdef Py_ssize_t _string(const char* text, Py_ssize_t at, Py_ssize_t size) noexcept nogil:
    """Position of the closing quote of the string that opens at *at*; -1 if it is not simple."""
    if at >= size or text[at] != c'"':
        return -1
    at += 1
    while at < size:
        if text[at] == c'"':
            return at
        if text[at] == c'\\' or <unsigned char>text[at] < 0x20:
            return -1
        at += 1
    return -1


cdef str _changed(const char* text, Py_ssize_t size):
    """The operation of a table_changed_event in the trigger's shape; None for anything else.

    Accepts only a flat object of strings without escapes, so that what it accepts means the same
    to a complete JSON parser. The last of several equal keys counts, as there.
    """
    cdef Py_ssize_t at, key, key_end, value, value_end
    cdef bint changed = False, table = False
    cdef str operation = None
    at = _space(text, 0, size)
    if at >= size or text[at] != c'{':
        return None
    at += 1
    while True:
        key = _space(text, at, size)
        key_end = _string(text, key, size)
        if key_end < 0:
            return None
        at = _space(text, key_end + 1, size)
        if at >= size or text[at] != c':':
            return None
        value = _space(text, at + 1, size)
        value_end = _string(text, value, size)
        if value_end < 0:
            return None
        key += 1
        value += 1
        if _is(text, key, key_end, b"type", 4):
            changed = _is(text, value, value_end, b"table_changed_event", 19)
        elif _is(text, key, key_end, b"table", 5):
            table = True
        elif _is(text, key, key_end, b"operation", 9):
            if _is(text, value, value_end, b"insert", 6):
                operation = "insert"
            elif _is(text, value, value_end, b"delete", 6):
                operation = "delete"
            elif _is(text, value, value_end, b"update", 6):
                operation = "update"
            elif _is(text, value, value_end, b"truncate", 8):
                operation = "truncate"
            else:
                operation = None
        at = _space(text, value_end + 1, size)
        if at >= size:
            return None
        if text[at] == c'}':
            break
        if text[at] != c',':
            return None
        at += 1
    if _space(text, at + 1, size) != size:
        return None
    return operation if changed and table else None


def parse_event(payload):
    """What *payload*, received on the queue's channel, says.

    Args:
        payload: JSON, UTF-8 where it is bytes.

    Returns:
        ``("table_changed_event", operation)``, or ``("cancellation_event", event)``, or
        ``("health_check_event", event)`` with *event* the decoded object.

    Raises:
        ValueError: *payload* is none of these.
    """
    cdef Py_ssize_t size
    cdef const char* text
    if PyUnicode_CheckExact(payload) and PyUnicode_IS_ASCII(payload):
        text = PyUnicode_AsUTF8AndSize(payload, &size)
        operation = _changed(text, size)
        if operation is not None:
            return "table_changed_event", operation
    try:
        event = json.loads(payload if isinstance(payload, str) else payload.decode())
    except RecursionError:
        raise ValueError("the payload is nested too deeply") from None
    if not isinstance(event, dict):
        raise ValueError("the payload is no JSON object")
    kind = event.get("type")
    if kind == "table_changed_event":
        operation = event.get("operation")
        if operation not in ("insert", "update", "delete", "truncate"):
            raise ValueError("a table_changed_event names no known operation")
        if not isinstance(event.get("table"), str):
            raise ValueError("a table_changed_event names no table")
        return kind, operation
    if kind == "cancellation_event":
        ids = event.get("ids")
        if not isinstance(ids, list) or not all([type(value) is int for value in ids]):
            raise ValueError("a cancellation_event lists no job ids")
        return kind, event
    if kind == "health_check_event":
        token = event.get("id")
        if not isinstance(token, str):
            raise ValueError("a health_check_event carries no id")
        UUID(token)
        return kind, event
    raise ValueError("the payload is no known event")
