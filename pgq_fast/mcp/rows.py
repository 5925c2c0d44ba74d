"""Rows as the tools give them away: plain JSON values of bounded size."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias

from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_jsonable_python

Row: TypeAlias = dict[str, Any]

MAX_ROWS: Final = 500
"""Rows of an answer: more than anybody reads, and what a model pays for by the token."""

MAX_OFFSET: Final = 10_000
"""Rows that a page may skip, which the server has to read all the same."""

MAX_PAYLOAD: Final = 4096
"""Bytes of a payload that are shown."""

MAX_TRACEBACK: Final = 10_000
"""Characters of a traceback that are shown: its end, where the error is."""

_DURATION: Final = TypeAdapter(timedelta)


def rows_of(models: Iterable[BaseModel]) -> list[Row]:
    """*models* as rows, no more than fit into an answer."""
    return [model.model_dump(mode="json") for model in itertools.islice(models, MAX_ROWS)]


def bounded(limit: int) -> int:
    """*limit*, or the largest number of rows if that is less.

    Raises:
        ToolError: It is less than one.
    """
    if limit < 1:
        raise ToolError(f"limit is {limit}, must be at least 1")
    return min(limit, MAX_ROWS)


def bounded_offset(offset: int) -> int:
    """*offset*, if it is one that a page may have.

    Raises:
        ToolError: It is not.
    """
    if not 0 <= offset <= MAX_OFFSET:
        raise ToolError(f"offset is {offset}, must be from 0 to {MAX_OFFSET}")
    return offset


def duration(text: str | None) -> timedelta | None:
    """The ISO 8601 duration *text*; None for none.

    Raises:
        ToolError: It is no duration, or not a positive one.
    """
    if not text:
        return None
    try:
        value = _DURATION.validate_python(text.strip().upper())
    except ValidationError:
        raise ToolError(f"{text!r} is no ISO 8601 duration, such as PT1H or P7D") from None
    if value <= timedelta(0):
        raise ToolError(f"the duration {text!r} must be positive")
    return value


def plain_row(record: Mapping[str, Any]) -> Row:
    """A row without payload or traceback."""
    row: Row = to_jsonable_python(dict(record))
    return row


def log_row(record: Mapping[str, Any]) -> Row:
    """A log entry, with as much of its traceback as fits."""
    row = plain_row(record)
    traceback = row.get("traceback")
    if isinstance(traceback, str):
        traceback = from_json(traceback)
    if isinstance(traceback, dict):
        text = traceback.get("traceback")
        if isinstance(text, str) and len(text) > MAX_TRACEBACK:
            traceback = {**traceback, "traceback": "[...] " + text[-MAX_TRACEBACK:]}
    row["traceback"] = traceback
    return row


def queue_row(record: Mapping[str, Any], show_payload: bool) -> Row:
    """A row of the queue; payload and headers are None unless they may be shown.

    ``payload_size`` is that of the whole payload. One that is no UTF-8 is given in base64, as
    ``payload_encoding`` says.
    """
    values = dict(record)
    payload: bytes | None = values.pop("payload")
    headers = values.pop("headers")
    row = plain_row(values)
    row["payload_size"] = None if payload is None else len(payload)
    row["payload"] = row["headers"] = None
    if show_payload:
        if payload is not None:
            row["payload"], row["payload_encoding"] = _text(payload[:MAX_PAYLOAD])
        row["headers"] = from_json(headers) if isinstance(headers, str | bytes) else headers
    return row


def _text(part: bytes) -> tuple[str, str]:
    try:
        return part.decode(), "utf-8"
    except UnicodeDecodeError as error:
        # It may have been cut within a character.
        if error.reason == "unexpected end of data" and error.start > 0:
            return part[: error.start].decode(), "utf-8"
    return base64.b64encode(part).decode(), "base64"


def checked_ids(ids: Sequence[int]) -> list[int]:
    """Ids of jobs for one change.

    Raises:
        ToolError: There are none, or too many.
    """
    if not 0 < len(ids) <= MAX_ROWS:
        raise ToolError(f"{len(ids)} ids are given, must be from 1 to {MAX_ROWS}")
    return list(ids)
