"""How a job moves from place to place, one move at a time or two in each other's way."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from lease_protocol.conftest import Join
from pgq_fast.layouts.base import Outcome, Retry

pytestmark = [pytest.mark.layouts("lease"), pytest.mark.pg_matrix]

NOW = timedelta(0)
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


async def test_a_retry_that_is_told_twice_spares_the_next_run(join: Join) -> None:
    """The answer got lost, and the same worker has claimed the job again before it repeats."""
    member = await join()
    ids = await member.queries.enqueue(["e"] * 3, [None] * 3, [0] * 3)
    first = await member.claim()
    await member.layout.retry([Retry(job, NOW, None) for job in first], member.owner)
    second = await member.claim()
    assert [(job.id, job.attempts) for job in second] == [(job_id, 1) for job_id in ids]
    await member.layout.retry([Retry(job, NOW, None) for job in first], member.owner)
    await member.layout.acknowledge([Outcome(first[0], "exception", None)], member.owner)
    assert await member.claim() == []
    await member.finish(ids[:1])
    await member.layout.acknowledge(
        [Outcome(second[1], "canceled", None), Outcome(second[2], "failed", None)], member.owner
    )
    assert await member.rows(
        "SELECT job_id, status::text FROM pgqueuer_log"
        " WHERE status NOT IN ('queued', 'picked') ORDER BY job_id"
    ) == [(ids[0], "successful"), (ids[1], "canceled"), (ids[2], "failed")]
    assert await member.rows("SELECT id, attempts FROM pgqueuer") == [(ids[2], 1)]
