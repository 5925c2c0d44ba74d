"""Re-exports the queries of ``pgq_fast.memory``."""

from __future__ import annotations

from pgq_fast.memory import (
    InMemoryQueries,
)

__all__ = ["InMemoryQueries"]
