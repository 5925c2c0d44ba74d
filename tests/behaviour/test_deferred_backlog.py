"""A claim is quick where one job is due among many that are not."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

from pgq_fast.layouts import compat
from pgq_fast.queries import Queries
from pgq_fast.settings import DBSettings
from pgq_fast.types import QueueEntrypoint, QueueManagerId

OWNER = QueueManagerId(uuid.UUID(int=1))
LIMITS = {QueueEntrypoint("e"): 0}
HOUR = timedelta(hours=1)


@pytest.fixture
def looking_layout(
    driver: Any, monkeypatch: pytest.MonkeyPatch
) -> tuple[compat.CompatLayout, list[str]]:
    """A layout, and how each of its claims looked for jobs: by due time or in order."""
    layout = compat.CompatLayout(driver, DBSettings())
    ways: list[str] = []
    make = compat.claim_statement

    def noting(*args: Any, by_due_time: bool, **more: Any) -> compat.Statement:
        ways.append("due" if by_due_time else "ordered")
        return make(*args, by_due_time=by_due_time, **more)

    monkeypatch.setattr(compat, "claim_statement", noting)
    return layout, ways


async def claim(layout: compat.CompatLayout, count: int) -> list[int]:
    return [job.id for job in (await layout.claim(count, LIMITS, OWNER, None, 2**24)).jobs]


async def test_after_a_slow_scan_jobs_are_looked_for_by_due_time(
    queries: Queries,
    looking_layout: tuple[compat.CompatLayout, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looking, ways = looking_layout
    await queries.enqueue(["e"] * 300, [None] * 300, [0] * 300, [HOUR] * 300)
    first = await queries.enqueue("e", None)
    # As if the deferred ones were a million.
    monkeypatch.setattr(compat, "SLOW_SCAN", 0.0)
    assert await claim(looking, 10) == first
    assert await claim(looking, 10) == []
    due = await queries.enqueue(["e"] * 5, [None] * 5, [0, 5, 0, 9, 0])
    # The best of those that have been due longest, the best first. A full claim says that order
    # matters again.
    assert len(await claim(looking, 5)) == 5
    assert await claim(looking, 5) == []
    assert ways == ["ordered", "due", "due", "ordered"]
    assert sorted(await queries.job_status(due)) == [(job_id, "picked") for job_id in due]


async def test_a_quick_scan_and_a_full_claim_keep_the_order(
    queries: Queries,
    looking_layout: tuple[compat.CompatLayout, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looking, ways = looking_layout
    await queries.enqueue(["e"] * 4, [None] * 4, [0] * 4)
    monkeypatch.setattr(compat, "SLOW_SCAN", 3600.0)
    assert len(await claim(looking, 3)) == 3
    assert len(await claim(looking, 3)) == 1
    monkeypatch.setattr(compat, "SLOW_SCAN", 0.0)
    await queries.enqueue(["e"] * 4, [None] * 4, [0] * 4)
    assert len(await claim(looking, 4)) == 4
    await claim(looking, 1)
    assert ways == ["ordered"] * 4
