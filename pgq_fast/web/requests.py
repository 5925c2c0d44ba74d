"""What requests say, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from pgq_fast.errors import InvalidCursorError
from pgq_fast.types import JobId
from pgq_fast.web.cursors import Cursor
from pgq_fast.web.faults import PageError
from pgq_fast.web.reads import PLACES, Filters, Place

__all__ = ["AGES", "Asked", "cursor_of", "ids_of", "job_id_of"]

AGES: Final = {
    "": None,
    "1m": timedelta(minutes=1),
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
}
"""Choices for how long ago a job was enqueued at least."""

MOST_IDS: Final = 1_000
"""Jobs that one action takes."""

_LONGEST_NAME: Final = 1_000
_INT4: Final = 2**31
_INT8: Final = 2**63


@dataclasses.dataclass(frozen=True)
class Asked:
    """The filters of the list of jobs, as text and as meant."""

    words: Mapping[str, str]
    filters: Filters

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Asked:
        """The filters in *query*.

        Raises:
            PageError: One cannot be meant.
        """
        status = query.get("status", "")
        # pgqueuer's pages know "any" too; here each place has a list of its own.
        place: Place = status if status in PLACES else "queued"
        entrypoint = query.get("entrypoint", "").strip()
        if len(entrypoint) > _LONGEST_NAME or not _storable(entrypoint):
            raise PageError(400, "There is no entrypoint of this name.")
        lowest, highest = query.get("lowest", "").strip(), query.get("highest", "").strip()
        older = query.get("older", "") if query.get("older", "") in AGES else ""
        default = Filters()
        return cls(
            {
                "status": place,
                "entrypoint": entrypoint,
                "lowest": lowest,
                "highest": highest,
                "older": older,
            },
            Filters(
                place,
                entrypoint or None,
                _integer(lowest, _INT4, "priority") if lowest else default.lowest,
                _integer(highest, _INT4, "priority") if highest else default.highest,
                AGES[older],
            ),
        )


def _storable(text: str) -> bool:
    """Whether PostgreSQL takes *text* at all."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _integer(text: str, bound: int, what: str) -> int:
    # Not isdigit alone, which takes what int() refuses, nor int() alone, which takes underscores.
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) < 20 and -bound <= int(text) < bound:
        return int(text)
    raise PageError(400, f"This is no {what}: a whole number is needed.")


def job_id_of(text: str) -> JobId:
    """The id of a job.

    Raises:
        PageError: It is none.
    """
    return JobId(_integer(text.strip(), _INT8, "job id"))


def ids_of(texts: Sequence[str]) -> list[JobId]:
    """The ids of an action.

    Raises:
        PageError: There are too many, or one is none.
    """
    if len(texts) > MOST_IDS:
        raise PageError(400, f"Choose {MOST_IDS:,} jobs at most.")
    return [job_id_of(text) for text in texts]


def cursor_of(word: str) -> Cursor | None:
    """Where a page begins.

    Raises:
        PageError: *word* does not say.
    """
    try:
        return Cursor.parse(word)
    except InvalidCursorError as error:
        raise PageError(400, str(error)) from None
