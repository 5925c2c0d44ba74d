"""The drivers: what connects a queue to a database."""

from __future__ import annotations

from pgq_fast.drivers.asyncpg import AsyncpgDriver, AsyncpgPoolDriver
from pgq_fast.drivers.base import Driver, SyncDriver
from pgq_fast.drivers.psycopg import PsycopgDriver, SyncPsycopgDriver

__all__ = [
    "AsyncpgDriver",
    "AsyncpgPoolDriver",
    "Driver",
    "PsycopgDriver",
    "SyncDriver",
    "SyncPsycopgDriver",
]
