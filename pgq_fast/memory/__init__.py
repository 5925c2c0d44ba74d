"""The queue without PostgreSQL, for tests and for programs of one process.

``InMemoryQueries`` on an ``InMemoryDriver`` behaves as ``Queries`` on a database does. Nothing
survives the process.
"""

from __future__ import annotations

from pgq_fast.memory.driver import InMemoryDriver
from pgq_fast.memory.queries import InMemoryQueries

__all__ = ["InMemoryDriver", "InMemoryQueries"]
