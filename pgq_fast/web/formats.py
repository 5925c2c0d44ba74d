"""Values as people read them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["FILTERS", "age", "ahead", "bytes_", "duration", "moment", "payload", "percent"]

NOTHING: Final = "–"  # noqa: RUF001
"""Stands where there is no value."""

_SHOWN: Final = 64 * 1024
_UNITS: Final = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def duration(seconds: float | None) -> str:
    """A length of time."""
    if seconds is None:
        return NOTHING
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms"
    if seconds < 60:
        return f"{seconds:.{1 if seconds < 10 and seconds % 1 else 0}f} s"
    for size, unit, part, part_unit in _UNITS:
        if seconds >= size:
            whole, rest = divmod(int(seconds), size)
            return f"{whole} {unit}" + (f" {rest // part} {part_unit}" if rest // part else "")
    raise AssertionError("the smallest unit is a minute")


def moment(value: datetime | None) -> str:
    """A moment, in UTC."""
    return NOTHING if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def age(value: datetime | None) -> str:
    """How long ago *value* was, by this machine's clock."""
    if value is None:
        return NOTHING
    seconds = int(_since(value))
    return "just now" if seconds < 1 else f"{duration(seconds)} ago"


def ahead(value: datetime | None) -> str:
    """When *value* will be, by this machine's clock."""
    if value is None:
        return NOTHING
    seconds = -int(_since(value))
    return f"in {duration(seconds)}" if seconds > 0 else "due"


def _since(value: datetime) -> float:
    return (datetime.now(UTC) - value) / timedelta(seconds=1)


def percent(value: float | None) -> str:
    """A part of a whole."""
    return NOTHING if value is None else f"{value * 100:.1f} %"


def bytes_(value: int | None) -> str:
    """A number of bytes."""
    if value is None:
        return NOTHING
    if value < 1024:
        return f"{value} bytes"
    return f"{value / 1024:,.1f} KiB"


def payload(value: bytes | None) -> tuple[str, str]:
    """What kind of payload *value* is, and how to show it."""
    if not value:
        return "empty", ""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return "binary", value[:512].hex(" ") + (" ..." if len(value) > 512 else "")
    if len(value) >= _SHOWN:
        return "text, cut", text
    try:
        return "JSON", json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return "text", text


FILTERS: Final = {
    "age": age,
    "ahead": ahead,
    "bytes": bytes_,
    "duration": duration,
    "moment": moment,
    "percent": percent,
}
"""What templates may use."""
