"""Re-exports ``pgq_fast.errors``."""

from __future__ import annotations

from pgq_fast.errors import (
    DuplicateJobError,
    FailingListenerError,
    PgqException,
    RetryException,
    RetryRequested,
    SchemaDriftError,
    retry_request,
)

__all__ = [
    "DuplicateJobError",
    "FailingListenerError",
    "PgqException",
    "RetryException",
    "RetryRequested",
    "SchemaDriftError",
    "retry_request",
]
