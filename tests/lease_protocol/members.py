"""Who takes part in a queue: what a worker asks of its layout, without a worker around it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import asyncpg

from behaviour.helpers import eventually
from pgq_fast.layouts.base import Claim, Rest
from pgq_fast.layouts.lease import LeaseLayout
from pgq_fast.models import Job
from pgq_fast.queries import Queries
from pgq_fast.settings import DBSettings
from pgq_fast.types import JobId, QueueEntrypoint, QueueManagerId
from support.layouts import queries_of

PLENTY = 1 << 30
"""Bytes of payload that no test reaches."""


WAITS_FOR_A_LOCK = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


class Member:
    """A worker, a producer and an operator in one."""

    def __init__(self, driver: Any, settings: DBSettings) -> None:
        self.driver = driver
        self.settings = settings
        self.owner = QueueManagerId(uuid.uuid4())
        self.layout = LeaseLayout(driver, settings)
        self.queries: Queries = queries_of(driver, settings)
        self._limits: dict[QueueEntrypoint, int] = {}

    async def claim(
        self,
        size: int = 100,
        *,
        ending: Sequence[JobId] = (),
        stale_after: timedelta | None = None,
        max_bytes: int = PLENTY,
        budget: int | None = None,
        **limits: int,
    ) -> list[Job]:
        """The jobs of a claim of entrypoint ``e``, or of those that *limits* names."""
        claim = await self.claims(
            size, limits or {"e": 0}, ending, stale_after=stale_after, max_bytes=max_bytes,
            budget=budget,
        )  # fmt: skip
        return claim.jobs

    async def claims(
        self,
        size: int,
        limits: Mapping[str, int],
        ending: Sequence[JobId] = (),
        *,
        stale_after: timedelta | None = None,
        max_bytes: int = PLENTY,
        budget: int | None = None,
    ) -> Claim:
        wanted = {QueueEntrypoint(name): limit for name, limit in limits.items()}
        if wanted != self._limits:
            # A worker passes the same mapping until an entrypoint is added.
            self._limits = wanted
        return await self.layout.claim(
            size, self._limits, self.owner, stale_after, max_bytes, ending, budget
        )

    async def finish(self, ids: Sequence[JobId]) -> None:
        await self.layout.finish(ids, self.owner)

    async def rest(self, seats: bool = False, entrypoints: Sequence[str] = ("e",)) -> Rest:
        names = [QueueEntrypoint(name) for name in entrypoints]
        return await self.layout.rest(names, self.owner, seats)

    async def rows(self, query: str, *args: object) -> Sequence[Any]:
        return await self.driver.fetch_rows(query, *args)


async def blocked(session: asyncpg.Connection, sessions: int = 1) -> None:
    """Wait until so many sessions wait for a lock."""

    async def check() -> bool:
        return bool(await session.fetchval(WAITS_FOR_A_LOCK) >= sessions)

    await eventually(check)
