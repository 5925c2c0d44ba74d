"""Exceptions that pgq_fast raises. Each message says what to do about it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

__all__ = [
    "DuplicateJobError",
    "FailingListenerError",
    "PgqException",
    "RetryException",
    "RetryRequested",
]


class PgqException(Exception):
    """Base of every exception that this package defines."""


class RetryException(PgqException):
    """Base of the exceptions that ask for a job to be run again."""


class RetryRequested(RetryException):
    """Raise it in a handler to have the job run again after *delay*.

    The job goes back to ``queued`` with ``attempts`` one higher; it is not a failure.

    Args:
        delay: Time until the job may be claimed again.
        reason: Why, for the log; becomes the exception's message.
    """

    def __init__(self, delay: timedelta = timedelta(0), reason: str | None = None) -> None:
        super().__init__(reason or "Retry requested")
        self.delay = delay
        self.reason = reason


class InvalidRetryError(PgqException, ValueError):
    """A handler asked for a retry with a delay that cannot be kept; its job ends as a failure.

    Args:
        fault: What is wrong with the delay, and what to pass instead.
    """

    def __init__(self, fault: str) -> None:
        super().__init__(f"the delay of RetryRequested {fault}")


class UnrecordableOutcomeError(PgqException, RuntimeError):
    """How a job ended cannot be recorded; it ends as an exception with this one instead.

    Args:
        cause: The class of what kept it from being recorded.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(
            f"how the job ended cannot be recorded ({cause}): see the log of the worker, and what "
            "the handler, its exception or its executor gave for it"
        )


def retry_request(exc: BaseException) -> RetryRequested | None:
    """The retry that *exc* asks for, or None.

    A task group wraps what its children raise. A group in which every leaf is a
    ``RetryRequested`` asks for the retry with the longest delay; a group with any other
    exception in it is a failure. So is a request whose delay cannot be kept, see
    ``invalid_retry``.
    """
    requests = _requests(exc)
    if not requests or any(_delay_fault(request) for request in requests):
        return None
    return max(requests, key=lambda request: request.delay)


def invalid_retry(exc: BaseException) -> InvalidRetryError | None:
    """What is wrong where *exc* asks for a retry that cannot be kept; its cause is *exc*."""
    for request in _requests(exc):
        fault = _delay_fault(request)
        if fault is not None:
            error = InvalidRetryError(fault)
            error.__cause__ = exc
            return error
    return None


def _requests(exc: BaseException) -> list[RetryRequested]:
    """The requests that *exc* consists of; none where anything else is in it."""
    if isinstance(exc, RetryRequested):
        return [exc]
    if not isinstance(exc, BaseExceptionGroup):
        return []
    found: list[RetryRequested] = []
    for inner in exc.exceptions:
        requests = _requests(inner)
        if not requests:
            return []
        found += requests
    return found


def _delay_fault(request: RetryRequested) -> str | None:
    # A subclass may not have called our __init__.
    delay: object = getattr(request, "delay", None)
    if not isinstance(delay, timedelta):
        return f"is a {type(delay).__name__}: pass a timedelta"
    try:
        # The times that a job can have, as in enqueue.
        datetime.now(UTC) + delay
    except OverflowError:
        return "ends outside the years 1 to 9999: pass a shorter one"
    return None


class JobsDroppedError(PgqException, RuntimeError):
    """The server stored fewer jobs than it was given.

    Args:
        given: Jobs that were sent.
        stored: Jobs that were stored, and stay so.
    """

    def __init__(self, given: int, stored: int) -> None:
        super().__init__(
            f"the server was given {given} jobs and stored {stored} of them: a trigger or a rule "
            "on the queue table drops rows; have it raise an error instead"
        )


class DuplicateJobError(PgqException):
    """A queued or running job already holds one of the dedupe keys.

    Args:
        dedupe_key: The keys of the refused call, in its order; None for a job without one.
    """

    def __init__(self, dedupe_key: list[str | None]) -> None:
        super().__init__()
        self.dedupe_key = dedupe_key

    def __str__(self) -> str:
        keys = [key for key in self.dedupe_key if key is not None]
        shown = ", ".join(repr(key) for key in keys[:5]) + (", ..." if len(keys) > 5 else "")
        return (
            f"a queued or running job already has one of the dedupe keys {shown}; "
            "pass on_conflict='skip' or 'update_priority' to accept that"
        )


class FailingListenerError(PgqException):
    """A NOTIFY sent to the worker's own channel did not come back in time."""


class SchemaDriftError(PgqException):
    """An upgrade met a column whose type it knows no safe conversion for."""

    def __init__(self, *, table: str, column: str, installed: str, declared: str) -> None:
        super().__init__(
            f"column {table}.{column} has type {installed}, expected {declared}, and no "
            "conversion between them is known; change it by hand and run the upgrade again"
        )
        self.table = table
        self.column = column
        self.installed = installed
        self.declared = declared


class LayoutMismatchError(PgqException, RuntimeError):
    """The queue is kept in other tables than the settings say.

    Args:
        installed: The layout that is there, None while a migration between the two is under way.
        wanted: The layout that the settings ask for.
        found: The tables by which that was seen.
    """

    def __init__(self, *, installed: str | None, wanted: str, found: tuple[str, ...]) -> None:
        tables = " and ".join(found)
        if installed is None:
            message = (
                f"a migration between the layouts is under way (there are {tables}), while the "
                f"settings ask for {wanted}: let it end, or go on with Queries.migrate(to=...), "
                "and set PGQUEUER_LAYOUT or DBSettings.layout to its target"
            )
        else:
            message = (
                f"the queue has the layout {installed} (there is {tables}), while the settings ask "
                f"for {wanted}: set PGQUEUER_LAYOUT or DBSettings.layout to {installed}, or change "
                f"the tables with Queries.migrate(to={wanted!r})"
            )
        super().__init__(message)
        self.installed = installed
        self.wanted = wanted


class MigrationError(PgqException, RuntimeError):
    """A queue could not be moved to the other layout. It is as usable as it was before."""


class MigrationRefusedError(MigrationError):
    """What is in the database cannot be moved as it is; nothing was changed.

    Args:
        obstacles: What is in the way.
    """

    def __init__(self, obstacles: Sequence[str]) -> None:
        super().__init__(f"the queue cannot be migrated as it is: {'; '.join(obstacles)}")
        self.obstacles = tuple(obstacles)


class MigrationUnderWayError(MigrationError):
    """Another migration of the queue has not ended."""

    def __init__(self) -> None:
        super().__init__(
            "another migration of this queue is under way: wait for its end. One whose process was "
            "killed counts as ended after half a minute"
        )


class MigrationBlockedError(MigrationError):
    """Workers did not end their jobs in time, or others did not give the tables free.

    Until here everything was taken back: call it again when those are done.

    Args:
        workers: Number of jobs that each worker still held.
        sessions: Process ids of the server's sessions that held locks.
    """

    def __init__(
        self, workers: Mapping[uuid.UUID | None, int], sessions: Sequence[int] = ()
    ) -> None:
        if workers:
            shown = ", ".join(f"{worker} ({jobs})" for worker, jobs in list(workers.items())[:10])
            message = (
                f"workers still hold {sum(workers.values())} jobs, by their queue_manager_id: "
                f"{shown}. The queue is as before. Stop them or wait until these jobs end, and "
                "migrate again with more patience; or with requeue_picked=True, which runs these "
                "jobs once more"
            )
        else:
            shown = ", ".join(map(str, sessions)) or "which have ended since"
            message = (
                f"the tables of the queue were locked by other sessions (pid {shown}). The queue "
                "is as before. End their transactions, and migrate again"
            )
        super().__init__(message)
        self.workers = dict(workers)
        self.sessions = tuple(sessions)


class MigrationLapsedError(MigrationError):
    """The migration was held up for so long that it counts as dead; another one may have begun."""

    def __init__(self) -> None:
        super().__init__(
            "the migration was held up for longer than half a minute, or the server was restarted: "
            "migrate again, with a smaller batch_size if it was a batch that took so long"
        )


class NamesTooLongError(PgqException, ValueError):
    """Two objects would have one name, as PostgreSQL keeps no more than 63 bytes of each.

    Attributes:
        names: The two.
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        super().__init__(
            f"{' and '.join(names)} are one name for PostgreSQL, which keeps 63 bytes: choose a "
            "shorter prefix (PGQUEUER_PREFIX), or shorter names of tables"
        )


class InvalidArgumentError(PgqException, ValueError):
    """A call with an argument that the queue cannot work with; nothing was sent to the server."""


class InvalidJobError(InvalidArgumentError):
    """A job that cannot be enqueued as given; nothing was sent to the server."""


class MalformedRowError(PgqException, ValueError):
    """A row of the queue table does not describe a job."""


class OpenTransactionError(PgqException, RuntimeError):
    """The connection has a transaction open where the operation must commit by itself."""

    def __init__(self, operation: str) -> None:
        super().__init__(
            f"{operation} needs a connection without an open transaction: claims and LISTEN "
            "take effect at commit. End the transaction, or give the worker its own connection."
        )
        self.operation = operation


class SessionStateError(PgqException, RuntimeError):
    """A statement needs a session of its own, which a pooler in transaction mode does not give."""

    def __init__(self, operation: str) -> None:
        super().__init__(
            f"{operation} belongs to a session, and this driver's session changes with each "
            "transaction (transaction_pooling): connect to PostgreSQL directly for this"
        )
        self.operation = operation


class StatementCacheError(PgqException, ValueError):
    """An asyncpg connection prepares statements by name, behind a pooler that loses the names."""

    def __init__(self) -> None:
        super().__init__(
            "transaction_pooling needs an asyncpg connection that prepares nothing by name: make "
            "it, or its pool, with statement_cache_size=0"
        )


class EnqueueOnlyDriverError(PgqException, TypeError):
    """A worker was built on a driver that can only enqueue."""

    def __init__(self, driver: object) -> None:
        super().__init__(
            f"{type(driver).__name__} is synchronous: it can enqueue and manage the schema, but "
            "not run jobs. Build the worker on AsyncpgDriver, AsyncpgPoolDriver or PsycopgDriver."
        )


class ConnectionLostError(PgqException, ConnectionError):
    """The connection to PostgreSQL went away during a statement.

    Whether the statement took effect is unknown: it may have committed just before.
    """


class DashboardError(PgqException):
    """Base of the errors of the web dashboard."""


class UnprotectedDashboardError(DashboardError, RuntimeError):
    """The dashboard was to be reachable from other machines without a login.

    Args:
        host: The address it was to listen on.
    """

    def __init__(self, host: str) -> None:
        super().__init__(
            f"the dashboard does not listen on {host} without a login: set PGQUEUER_WEB_USER and "
            "PGQUEUER_WEB_PASSWORD, or PGQUEUER_WEB_TOKEN, or listen on 127.0.0.1"
        )
        self.host = host


class IncompleteLoginError(DashboardError, ValueError):
    """A login was given in part."""

    def __init__(self) -> None:
        super().__init__(
            "a login of the dashboard takes both PGQUEUER_WEB_USER and PGQUEUER_WEB_PASSWORD, and "
            "none of them empty: set the other one too, or neither"
        )


class UnreadableQueueError(DashboardError, TypeError):
    """The dashboard was given something that is not on tables."""

    def __init__(self, queries: object) -> None:
        super().__init__(
            f"the dashboard reads the tables of a queue, which {type(queries).__name__} does not "
            "have: set app.state.pgq_queries to a pgq_fast.queries.Queries before the first request"
        )


class SlowReadError(DashboardError):
    """A look at the queue took too long and was given up.

    Args:
        timeout: How long it was waited for.
    """

    def __init__(self, timeout: timedelta) -> None:
        super().__init__(
            f"the database did not answer within {timeout.total_seconds():g} seconds: try again "
            "when it is less busy, or with narrower filters"
        )


class InvalidCursorError(DashboardError, ValueError):
    """An address of a page does not say where the page begins."""

    def __init__(self) -> None:
        super().__init__("this address is not one of the dashboard's: start from the first page")


class MissingImplementationError(PgqException, ImportError):
    """``PGQ_FAST_IMPL`` asks for an implementation that is not installed."""


class MissingExtraError(PgqException, ImportError):
    """A library of an optional part is not installed, or not in a version that the part can use.

    Args:
        part: What needs it.
        extra: The extra of this package that brings it.
    """

    def __init__(self, part: str, extra: str) -> None:
        super().__init__(
            f"{part} needs libraries that are an extra: pip install 'pgq-fast[{extra}]'"
        )


class InvalidLogFormatError(PgqException, ValueError):
    """``PGQUEUER_LOG_FORMAT`` names no format."""
