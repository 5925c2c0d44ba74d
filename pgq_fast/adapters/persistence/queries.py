"""Re-exports ``pgq_fast.queries``."""

from __future__ import annotations

from pgq_fast.queries import (
    Queries,
    SyncQueries,
    is_unique_violation,
)

__all__ = ["Queries", "SyncQueries", "is_unique_violation"]
