"""Re-exports ``pgq_fast.connections``."""

from __future__ import annotations

from pgq_fast.connections import (
    connect_asyncpg,
    connect_psycopg,
    create_asyncpg_pool,
    create_psycopg_pool,
)

__all__ = ["connect_asyncpg", "connect_psycopg", "create_asyncpg_pool", "create_psycopg_pool"]
