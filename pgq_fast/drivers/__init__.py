"""Database drivers: asyncpg and psycopg behind one set of methods.

Neither library is imported before a driver on it is made, so either may be missing.
"""

from __future__ import annotations
