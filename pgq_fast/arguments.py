"""Arguments of calls: what PostgreSQL could not take is refused, or cut, before anything is sent.

The arguments of ``enqueue``, which come by the hundred thousand, have checks of their own.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar, cast, get_args

from pgq_fast.errors import InvalidArgumentError
from pgq_fast.types import JOB_STATUS

KeyT = TypeVar("KeyT", bound=tuple[str, str])

INT8_MAX: Final = 2**63 - 1

LONGEST_SPAN: Final = timedelta(days=700_000)
"""What a longer look back becomes: it begins before the year 200 all the same, and further back
the server would run out of years."""

MAX_NAME_BYTES: Final = 2672
"""The most bytes of an entrypoint or a dedupe key, as UTF-8.

PostgreSQL keeps at most 2704 bytes in an entry of an index. The one of the statistics has, besides
the entrypoint, 8 bytes of its own, 20 of the other columns and 4 of the text's length."""

MAX_SCHEDULE_BYTES: Final = 2684
"""The most bytes of an expression and its entrypoint together, which are in one index, too: 8
bytes of the entry's own, 8 of the texts' lengths, and 3 that may be lost between them."""

_SHOWN_DIGITS: Final = 10**40


def shown(value: object) -> str:
    """*value* for a message: an integer of any size, which Python does not always print."""
    if isinstance(value, int) and not -_SHOWN_DIGITS < value < _SHOWN_DIGITS:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)


def is_storable(values: Iterable[str]) -> bool:
    """Whether PostgreSQL accepts all of *values* as text: valid UTF-8 without NUL."""
    joined = "".join(values)
    if "\0" in joined:
        return False
    if joined.isascii():
        return True
    try:
        joined.encode()
    except UnicodeEncodeError:
        return False
    # Two lone surrogates do not join to a valid pair, so no culprit can hide.
    return True


def text_fault(value: str) -> str:
    """Why *value* is not storable."""
    return "a NUL character" if "\0" in value else "a lone surrogate"


def integer(name: str, value: object, least: int) -> int:
    """The argument *name*, an integer of at least *least*; a larger one than any 64 bits hold is
    as good as the largest.

    Raises:
        InvalidArgumentError: It is no integer, or smaller.
    """
    number = _integer(name, value)
    if number < least:
        raise InvalidArgumentError(f"{name} is {shown(number)}, must be at least {least}")
    return min(number, INT8_MAX)


def row_limit(value: int | None) -> int | None:
    """The argument ``limit``: how many rows at most; None for all.

    Raises:
        InvalidArgumentError: It is no integer, or negative.
    """
    return None if value is None else integer("limit", value, 0)


def identity(name: str, value: object) -> int:
    """The argument *name*, an id.

    Raises:
        InvalidArgumentError: It is no integer of 64 bits.
    """
    number = _integer(name, value)
    if not -INT8_MAX - 1 <= number <= INT8_MAX:
        raise InvalidArgumentError(f"{name} is {shown(number)}: ids have 64 bits")
    return number


def identities(name: str, values: Iterable[object]) -> list[int]:
    """The argument *name*, ids, in their order.

    Raises:
        InvalidArgumentError: It cannot be iterated over, or one is no integer of 64 bits.
    """
    ids = _listed(name, values, "ids")
    if set(map(type, ids)) <= {int}:
        plain = cast("list[int]", ids)
        if not plain or (min(plain) >= -INT8_MAX - 1 and max(plain) <= INT8_MAX):
            return plain
    return [identity(f"{name}[{position}]", value) for position, value in enumerate(ids)]


def names(name: str, values: Iterable[object]) -> list[str]:
    """The argument *name*, names of entrypoints.

    Raises:
        InvalidArgumentError: It is a single ``str`` or cannot be iterated over, or one of the names
            is no ``str`` or cannot be stored, so that nothing can have it.
    """
    found: list[str] = []
    for position, value in enumerate(_listed(name, values, "names")):
        found.append(text(f"{name}[{position}]", value))
    return found


def text(name: str, value: object) -> str:
    """The argument *name*, as a plain ``str``.

    Raises:
        InvalidArgumentError: It is no ``str``, or PostgreSQL cannot store it.
    """
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{name} is a {type(value).__name__}: pass a str")
    if not is_storable([value]):
        raise InvalidArgumentError(
            f"{name} contains {text_fault(value)}, which PostgreSQL cannot store: nothing can have "
            "this name"
        )
    # The characters of a subclass; str() of an enum member would be its name.
    return str.__str__(value)


def statuses(name: str, values: Iterable[object]) -> list[JOB_STATUS]:
    """The argument *name*, statuses of jobs.

    Raises:
        InvalidArgumentError: One does not exist.
    """
    known = get_args(JOB_STATUS)
    found = names(name, values)
    for position, value in enumerate(found):
        if value not in known:
            raise InvalidArgumentError(
                f"{name}[{position}] is {value!r}: pass one of {', '.join(map(repr, known))}"
            )
    return cast("list[JOB_STATUS]", found)


def span(name: str, value: object) -> timedelta:
    """The argument *name*: how far to look back from now.

    Raises:
        InvalidArgumentError: It is no ``timedelta``.
    """
    return max(-LONGEST_SPAN, min(_timedelta(name, value), LONGEST_SPAN))


def delay(name: str, value: object) -> timedelta:
    """The argument *name*: the time from now until something is due.

    Raises:
        InvalidArgumentError: It is no ``timedelta``, or ends outside the years 1 to 9999.
    """
    wait = _timedelta(name, value)
    earliest, latest = delay_bounds()
    if not earliest <= wait <= latest:
        raise InvalidArgumentError(f"{name} ends outside the years 1 to 9999: pass a shorter time")
    return wait


def delay_bounds() -> tuple[timedelta, timedelta]:
    """The delays by which to arrive at the years 1 and 9999."""
    now = datetime.now(UTC)
    return datetime.min.replace(tzinfo=UTC) - now, datetime.max.replace(tzinfo=UTC) - now


def pruning(older_than: object, batch_size: object) -> tuple[timedelta, int]:
    """The arguments of a prune.

    Raises:
        InvalidArgumentError: *batch_size* is no integer of at least 1, or *older_than* no
            ``timedelta`` or negative: more would be deleted than anybody means, or nothing for
            ever.
    """
    age = span("older_than", older_than)
    if age < timedelta(0):
        raise InvalidArgumentError(f"older_than is {age}, must not be negative")
    return age, integer("batch_size", batch_size, 1)


def schedules(found: Mapping[KeyT, object]) -> None:
    """Refuse schedules, entrypoint and expression, that cannot be stored, or their delays.

    Raises:
        InvalidArgumentError: See :func:`schedule_key` and :func:`delay`.
    """
    for (entrypoint, expression), wait in found.items():
        schedule_key(entrypoint, expression)
        delay(f"the delay of {entrypoint}", wait)


def schedule_key(entrypoint: object, expression: object) -> None:
    """Refuse a schedule that cannot be stored.

    Raises:
        InvalidArgumentError: One of the two is no ``str`` or not storable, or they are too long.
    """
    name = text("entrypoint", entrypoint).encode()
    if len(name) > MAX_NAME_BYTES:
        raise InvalidArgumentError(
            f"entrypoint has {len(name)} bytes: a schedule's name has {MAX_NAME_BYTES} at most"
        )
    size = len(name) + len(text("expression", expression).encode())
    if size > MAX_SCHEDULE_BYTES:
        raise InvalidArgumentError(
            f"expression and entrypoint have {size} bytes: together they have "
            f"{MAX_SCHEDULE_BYTES} at most"
        )


def _integer(name: str, value: object) -> int:
    try:
        return int(operator.index(value))  # type: ignore[arg-type]
    except TypeError:
        raise InvalidArgumentError(f"{name} is a {type(value).__name__}: pass an int") from None


def _timedelta(name: str, value: object) -> timedelta:
    if not isinstance(value, timedelta):
        raise InvalidArgumentError(f"{name} is a {type(value).__name__}: pass a timedelta")
    return value


def _listed(name: str, values: Iterable[object], what: str) -> list[object]:
    if isinstance(values, (str, bytes, bytearray)):
        raise InvalidArgumentError(f"{name} is a {type(values).__name__}: pass a list of {what}")
    try:
        return list(values)
    except TypeError:
        raise InvalidArgumentError(
            f"{name} is a {type(values).__name__}: pass a list of {what}"
        ) from None
