"""Re-exports ``pgq_fast.drivers.asyncpg``."""

from __future__ import annotations

from pgq_fast.drivers.asyncpg import (
    AsyncpgDriver,
    AsyncpgPoolDriver,
)

__all__ = ["AsyncpgDriver", "AsyncpgPoolDriver"]
