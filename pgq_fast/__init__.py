"""A job queue on PostgreSQL: a drop-in for pgqueuer with a compiled hot path."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from pgq_fast._impl import __impl__ as __impl__
from pgq_fast.applications import PgQueuer
from pgq_fast.errors import RetryRequested
from pgq_fast.executors import DatabaseRetryEntrypointExecutor
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries
from pgq_fast.sm import SchedulerManager
from pgq_fast.types import JobId

if TYPE_CHECKING:
    from pgq_fast._alias import install_as_pgqueuer as install_as_pgqueuer
    from pgq_fast.db import AsyncpgDriver, AsyncpgPoolDriver, PsycopgDriver
    from pgq_fast.memory import InMemoryDriver, InMemoryQueries
    from pgq_fast.supervisor import run

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


# Where the names are that not every program needs: imported when they are asked for.
_ELSEWHERE: Final = {
    "AsyncpgDriver": "pgq_fast.db",
    "AsyncpgPoolDriver": "pgq_fast.db",
    "InMemoryDriver": "pgq_fast.memory",
    "InMemoryQueries": "pgq_fast.memory",
    "PsycopgDriver": "pgq_fast.db",
    "install_as_pgqueuer": "pgq_fast._alias",
    "run": "pgq_fast.supervisor",
}
# Modules that are there without an import of their own, `db` as in pgqueuer.
_MODULES: Final = frozenset({"db", "factories", "settings", "supervisor"})

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """A module or a name of one, or the version."""
        value: object
        if name in _ELSEWHERE:
            value = getattr(import_module(_ELSEWHERE[name]), name)
        elif name in _MODULES:
            value = import_module(f"pgq_fast.{name}")
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
        return sorted({*globals(), *__all__, *_ELSEWHERE, *_MODULES, "__version__"})
