"""A job queue on PostgreSQL: a drop-in for pgqueuer with a compiled hot path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgq_fast._impl import __impl__ as __impl__
from pgq_fast.applications import PgQueuer
from pgq_fast.db import AsyncpgDriver, AsyncpgPoolDriver, PsycopgDriver
from pgq_fast.errors import RetryRequested
from pgq_fast.executors import DatabaseRetryEntrypointExecutor
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries
from pgq_fast.sm import SchedulerManager
from pgq_fast.supervisor import run
from pgq_fast.types import JobId

if TYPE_CHECKING:
    from pgq_fast._alias import install_as_pgqueuer as install_as_pgqueuer
    from pgq_fast.memory import InMemoryDriver, InMemoryQueries

    __version__: str

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


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """What few programs need, imported when it is asked for."""
        value: object
        if name in ("InMemoryDriver", "InMemoryQueries"):
            from pgq_fast import memory

            value = getattr(memory, name)
        elif name == "install_as_pgqueuer":
            from pgq_fast._alias import install_as_pgqueuer as value
        elif name == "__version__":
            from importlib.metadata import version

            value = version("pgq-fast")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # Once: the next look-up finds it like everything else.
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """All names, those that were not imported yet as well."""
        return sorted({*globals(), *__all__, "__version__", "install_as_pgqueuer"})
