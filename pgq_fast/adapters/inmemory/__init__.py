"""Re-exports ``pgq_fast.memory``."""

from __future__ import annotations

from pgq_fast.memory import (
    InMemoryDriver,
    InMemoryQueries,
)

__all__ = ["InMemoryDriver", "InMemoryQueries"]
