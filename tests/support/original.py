"""pgqueuer 1.6.0 itself, to compare with."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
from pgqueuer.adapters.persistence import qb
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries


@contextlib.asynccontextmanager
async def pgqueuer_queries(dsn: str, **settings: Any) -> AsyncIterator[Queries]:
    connection = await asyncpg.connect(dsn)
    try:
        environment = qb.QueryBuilderEnvironment(qb.DBSettings(**settings))
        yield Queries(AsyncpgDriver(connection), qbe=environment)
    finally:
        await connection.close()
