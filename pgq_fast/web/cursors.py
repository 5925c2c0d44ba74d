"""Where a page of a list ended, as a word that can stand in an address."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from datetime import datetime
from typing import Self

from pgq_fast.errors import InvalidCursorError

__all__ = ["Cursor"]

_LONGEST = 4096


@dataclasses.dataclass(frozen=True)
class Cursor:
    """The values of a key. It comes back from outside, so each use says which type it expects.

    Attributes:
        values: Integers, strings, or None; moments as text.
    """

    values: tuple[int | str | None, ...]

    @classmethod
    def of(cls, *values: int | str | datetime | None) -> Self:
        """The cursor with these values."""
        return cls(
            tuple(value.isoformat() if isinstance(value, datetime) else value for value in values)
        )

    @classmethod
    def parse(cls, word: str) -> Self | None:
        """The cursor that *word* stands for; None for an empty word.

        Raises:
            InvalidCursorError: It stands for none.
        """
        if not word:
            return None
        if len(word) > _LONGEST:
            raise InvalidCursorError
        try:
            text = base64.b64decode(word.encode() + b"=" * (-len(word) % 4), b"-_", validate=True)
            values = json.loads(text)
        except (binascii.Error, ValueError, RecursionError):
            raise InvalidCursorError from None
        if not isinstance(values, list) or not all(
            value is None or isinstance(value, str) or type(value) is int for value in values
        ):
            raise InvalidCursorError
        return cls(tuple(values))

    def __str__(self) -> str:
        text = json.dumps(self.values, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(text).decode().rstrip("=")

    def _value(self, index: int) -> int | str | None:
        if index >= len(self.values):
            raise InvalidCursorError
        return self.values[index]

    def integer(self, index: int) -> int:
        """The integer at *index*: one that fits into 64 bits.

        Raises:
            InvalidCursorError: There is none.
        """
        value = self._value(index)
        if type(value) is not int or not -(2**63) <= value < 2**63:
            raise InvalidCursorError
        return value

    def text(self, index: int) -> str:
        """The text at *index*.

        Raises:
            InvalidCursorError: There is none.
        """
        value = self._value(index)
        if not isinstance(value, str) or "\0" in value:
            raise InvalidCursorError
        return value

    def time(self, index: int) -> datetime | None:
        """The moment at *index*, or None where that is None.

        Raises:
            InvalidCursorError: There is something else.
        """
        value = self._value(index)
        if value is None:
            return None
        try:
            moment = datetime.fromisoformat(value if isinstance(value, str) else "")
        except ValueError:
            raise InvalidCursorError from None
        if moment.tzinfo is None:
            raise InvalidCursorError
        return moment
