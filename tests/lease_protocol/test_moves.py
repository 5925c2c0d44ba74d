"""How a job moves from place to place, one move at a time or two in each other's way."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from lease_protocol.conftest import Join

pytestmark = [pytest.mark.layouts("lease"), pytest.mark.pg_matrix]

DAY = timedelta(days=1)


async def test_deferred_jobs_are_not_forgotten_over_a_steady_stream_of_others(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that hears of another job during each claim never gets to look when one is due."""
    # Another reason to look.
    monkeypatch.setattr("pgq_fast.layouts.lease.SLOW_CLAIM", float("inf"))
    member = await join()
    assert await member.claim() == []
    (deferred,) = await member.queries.enqueue(["e"], [None], [0], [DAY])
    await member.rows("UPDATE pgqueuer_deferred SET execute_after = now()")
    async with asyncio.timeout(30):
        seen: list[int] = []
        while deferred not in seen:
            await member.queries.enqueue("e", None)
            seen += [job.id for job in await member.claim()]
