"""Re-exports ``pgq_fast.applications``."""

from __future__ import annotations

from pgq_fast.applications import (
    PgQueuer,
)

__all__ = ["PgQueuer"]
