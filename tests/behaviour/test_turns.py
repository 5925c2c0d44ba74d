"""Large claims of the lease layout take turns, and none waits for ever."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import pytest

from behaviour.helpers import Tables
from pgq_fast.layouts import lease
from pgq_fast.layouts.lease import LeaseLayout
from pgq_fast.queries import Queries
from pgq_fast.settings import DBSettings
from pgq_fast.types import QueueEntrypoint, QueueManagerId

pytestmark = pytest.mark.layouts("lease")

OWNER = QueueManagerId(uuid.UUID(int=1))
LIMITS = {QueueEntrypoint("e"): 0}


async def claim(layout: LeaseLayout, count: int) -> int:
    return len((await layout.claim(count, LIMITS, OWNER, None, 2**24)).jobs)


async def take_all_turns(tables: Tables) -> None:
    for turn in (1, 2, 3):
        await tables.rows("SELECT pg_advisory_lock(hashtext('pgqueuer_ready'), $1)", turn)


async def test_a_large_claim_waits_for_its_turn_and_a_small_one_does_not(
    driver: Any,
    queries: Queries,
    tables: Tables,
    queue_settings: DBSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, "PATIENCE", 60.0)
    layout = LeaseLayout(driver, queue_settings)
    await queries.enqueue(["e"] * 500, [None] * 500, [0] * 500)
    await take_all_turns(tables)
    assert await claim(layout, 10) == 10
    large = asyncio.create_task(claim(layout, lease.TURNS_FROM))
    await asyncio.sleep(0.2)
    assert not large.done()
    await tables.rows("SELECT pg_advisory_unlock(hashtext('pgqueuer_ready'), 2)")
    assert await large == lease.TURNS_FROM


async def test_whoever_gets_no_turn_claims_in_the_end(
    driver: Any,
    queries: Queries,
    tables: Tables,
    queue_settings: DBSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What holds the turns may be anything: two keys of 32 bits belong to nobody."""
    monkeypatch.setattr(lease, "PATIENCE", 0.2)
    layout = LeaseLayout(driver, queue_settings)
    await queries.enqueue(["e"] * 500, [None] * 500, [0] * 500)
    await take_all_turns(tables)
    assert await claim(layout, 300) == 300


async def test_what_rides_on_a_claim_without_a_turn_has_ended(
    driver: Any,
    queries: Queries,
    tables: Tables,
    queue_settings: DBSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, "PATIENCE", 60.0)
    layout = LeaseLayout(driver, queue_settings)
    ids = await queries.enqueue(["e"] * 500, [None] * 500, [0] * 500)
    jobs = (await layout.claim(100, LIMITS, OWNER, None, 2**24)).jobs
    await take_all_turns(tables)
    riding = asyncio.create_task(
        layout.claim(300, LIMITS, OWNER, None, 2**24, [job.id for job in jobs])
    )
    async with asyncio.timeout(30):
        while len(await tables.ended()) < 100:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not riding.done()
    await tables.rows("SELECT pg_advisory_unlock_all()")
    assert len((await riding).jobs) == 300
    await layout.finish([job.id for job in (await riding).jobs], OWNER)
    assert await tables.ended() == ids[:400]
    # Once each, however often the claim was tried.
    assert await tables.count() == 100
    assert timedelta(0) == (await layout.rest(list(LIMITS), OWNER, False)).due
