"""Re-exports ``pgq_fast.drivers.psycopg``."""

from __future__ import annotations

from pgq_fast.drivers.psycopg import (
    PsycopgDriver,
    SyncPsycopgDriver,
)

__all__ = ["PsycopgDriver", "SyncPsycopgDriver"]
