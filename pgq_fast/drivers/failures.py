"""What an exception of asyncpg or psycopg says, without importing either."""

from __future__ import annotations

from typing import Final

from pgq_fast.errors import PgqException

__all__ = [
    "TransactionAbortedError",
    "constraint_of",
    "is_beyond_python",
    "is_connection_lost",
    "is_server_unavailable",
    "sqlstate_of",
]

# The server ends the session: shutdown by an administrator, crash of another backend, start-up
# or recovery in progress.
_SESSION_ENDED: Final = frozenset({"57P01", "57P02", "57P03"})
_CONNECTION_CLASS: Final = "08"
_TOO_MANY_CONNECTIONS: Final = "53300"
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
        or sqlstate_of(exc) == _TOO_MANY_CONNECTIONS
        # During a failover no server may be the primary.
        or _is_a(exc, "asyncpg", "TargetServerAttributeNotMatched")
    )


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
