"""A job queue on PostgreSQL: a drop-in for pgqueuer with a compiled hot path."""

from __future__ import annotations

from pgq_fast._alias import install_as_pgqueuer as install_as_pgqueuer
from pgq_fast._impl import __impl__ as __impl__
from pgq_fast.applications import PgQueuer
from pgq_fast.db import AsyncpgDriver, AsyncpgPoolDriver, PsycopgDriver
from pgq_fast.errors import RetryRequested
from pgq_fast.executors import DatabaseRetryEntrypointExecutor
from pgq_fast.memory import InMemoryDriver, InMemoryQueries
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries
from pgq_fast.sm import SchedulerManager
from pgq_fast.supervisor import run
from pgq_fast.types import JobId

__all__ = [
    "AsyncpgDriver",
    "AsyncpgPoolDriver",
    "DatabaseRetryEntrypointExecutor",
    "InMemoryDriver",
    "InMemoryQueries",
    "Job",
    "JobId",
    "PgQueuer",
    "PsycopgDriver",
    "Queries",
    "QueueManager",
    "RetryRequested",
    "SchedulerManager",
    "run",
]


def __getattr__(name: str) -> str:
    """``__version__``, read from the installed package when it is asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("pgq-fast")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
