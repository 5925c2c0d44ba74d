"""What an exception of asyncpg or psycopg says, without importing either."""

from __future__ import annotations

import struct
from typing import Final

from pgq_fast.errors import PgqException

__all__ = [
    "READ_ONLY",
    "UNIQUE_VIOLATION",
    "TransactionAbortedError",
    "constraint_of",
    "described",
    "is_beyond_python",
    "is_connection_lost",
    "is_passing",
    "is_server_unavailable",
    "is_unsendable",
    "sqlstate_of",
]

# The server ends the session: shutdown by an administrator, crash of another backend, start-up
# or recovery in progress; a session, or a transaction of it, that was idle or open for too long.
_SESSION_ENDED: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "25P04"})
_CONNECTION_CLASS: Final = "08"
# Connections, disk space, memory.
_RESOURCES_CLASS: Final = "53"
# Deadlocks and serialization failures: the transaction was rolled back for the sake of others.
_ROLLBACK_CLASS: Final = "40"
READ_ONLY: Final = "25006"
"""SQLSTATE of a change on a server, or in a session, that takes none."""
UNIQUE_VIOLATION: Final = "23505"
"""SQLSTATE of a value that a unique index has already."""
# Locks that were not to be had, an object in use, a statement that took too long or was cancelled,
# a disk or a system call that failed; and a server that takes no changes, as one does that is no
# longer, or not yet, the primary, or whose disk is about to be full.
_PASSING: Final = frozenset({"55P03", "55006", "57014", "58000", "58030", READ_ONLY})
_DATETIME_OVERFLOW: Final = "22008"

# Errors without an SQLSTATE have nothing but their text. These parts of it come from asyncpg and
# psycopg themselves; libpq appends its own words, which depend on the locale.
_ASYNCPG_LOSS: Final = (
    "connection is closed",
    "connection was closed",
    "released back to the pool",
)
# What asyncpg says of itself where the end of the session comes just as a statement is being sent.
_ASYNCPG_CONFUSED: Final = ("cannot switch to state",)
_PSYCOPG_LOSS: Final = (
    "the connection is closed",
    "the connection is lost",
    "connection socket closed",
    "connection is bad",
    "connection failed",
    "consuming input failed",
    "flushing failed",
)
# What encoders raise for values that they do not know.
_NO_SUCH_FORM: Final = (TypeError, ValueError, ArithmeticError, AttributeError, struct.error)


class TransactionAbortedError(PgqException, RuntimeError):
    """The block ended normally, but a statement in it had failed: nothing was committed."""

    def __init__(self) -> None:
        super().__init__(
            "a statement of the transaction had failed, so PostgreSQL rolled it back at COMMIT: "
            "let the statement's exception leave the block, and repeat the block"
        )


def sqlstate_of(exc: BaseException) -> str | None:
    """The five-character code that PostgreSQL gave *exc*, None if it is not from the server."""
    code = getattr(exc, "sqlstate", None)
    return code if isinstance(code, str) else None


def constraint_of(exc: BaseException) -> str | None:
    """Name of the constraint that *exc* reports as violated."""
    name = getattr(exc, "constraint_name", None)  # asyncpg
    if name is None:
        name = getattr(getattr(exc, "diag", None), "constraint_name", None)  # psycopg
    return name if isinstance(name, str) else None


def is_connection_lost(exc: BaseException) -> bool:
    """Whether *exc* means that the connection it came from is gone.

    A statement that fails so may have taken effect before. A statement's timeout is not a loss.
    """
    code = sqlstate_of(exc)
    if code is not None:
        return code.startswith(_CONNECTION_CLASS) or code in _SESSION_ENDED
    if isinstance(exc, TimeoutError):
        # The kernel's gives an errno; asyncio's, of a statement's timeout, does not.
        return exc.errno is not None
    if isinstance(exc, OSError):
        return True
    if _is_a(exc, "asyncpg", "InterfaceError"):
        return _mentions(exc, _ASYNCPG_LOSS)
    if _is_a(exc, "asyncpg", "InternalClientError"):
        return _mentions(exc, _ASYNCPG_CONFUSED)
    if _is_a(exc, "psycopg", "OperationalError"):
        return _is_a(exc, "psycopg", "ConnectionTimeout") or _mentions(exc, _PSYCOPG_LOSS)
    return False


def is_beyond_python(exc: BaseException) -> bool:
    """Whether *exc* means that a row has a time that is infinite, or outside the years 1 to 9999.

    PostgreSQL fails to subtract such times, asyncpg and psycopg fail to read them.
    """
    code = sqlstate_of(exc)
    if code is not None:
        return code == _DATETIME_OVERFLOW
    return isinstance(exc, OverflowError) or _is_a(exc, "psycopg", "DataError")


def is_server_unavailable(exc: BaseException) -> bool:
    """Whether an attempt to connect that failed with *exc* may succeed later.

    False for what waiting does not cure, such as a wrong password or an unknown database, as far
    as the library tells: psycopg does not.
    """
    return (
        is_connection_lost(exc)
        or isinstance(exc, TimeoutError)
        or (sqlstate_of(exc) or "").startswith(_RESOURCES_CLASS)
        # During a failover no server may be the primary.
        or _is_a(exc, "asyncpg", "TargetServerAttributeNotMatched")
    )


def is_passing(exc: BaseException) -> bool:
    """Whether a statement that failed with *exc* may succeed a while later, unchanged.

    False for what somebody has to mend: missing rights, missing tables, wrong values. A statement
    whose connection was lost may have taken effect, any other of these did not.
    """
    code = sqlstate_of(exc) or ""
    return is_server_unavailable(exc) or code.startswith(_ROLLBACK_CLASS) or code in _PASSING


def is_unsendable(exc: BaseException) -> bool:
    """Whether *exc* says that a value has no form in which it could be sent; nothing was sent."""
    if sqlstate_of(exc) is not None or is_connection_lost(exc):
        return False
    # asyncpg's DataError of its own encoders is a ValueError, as are pydantic's errors.
    return isinstance(exc, _NO_SUCH_FORM) or any(
        _is_a(exc, "psycopg", name) for name in ("DataError", "ProgrammingError")
    )


def described(exc: BaseException) -> str:
    """The class of *exc* and the first line of its message, for a log."""
    # Not str(): asyncpg's fails where there is no message.
    message = ", ".join(str(part) for part in exc.args).partition("\n")[0]
    return f"{type(exc).__qualname__}: {message}" if message else type(exc).__qualname__


def _is_a(exc: BaseException, library: str, name: str) -> bool:
    """``isinstance`` by name: whether *name* of *library* is among the classes of *exc*."""
    return any(
        cls.__name__ == name and cls.__module__.partition(".")[0] == library
        for cls in type(exc).__mro__
    )


def _mentions(exc: BaseException, parts: tuple[str, ...]) -> bool:
    # Not str(): asyncpg's fails where there is no message.
    text = " ".join(str(part) for part in exc.args)
    return any(part in text for part in parts)
