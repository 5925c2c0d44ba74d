"""A claim is quick where one job is due among many that are not."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

from behaviour.helpers import Tables, drain
from pgq_fast.layouts import compat
from pgq_fast.layouts.lease import LeaseLayout
from pgq_fast.layouts.promotion import ROWS
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
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


# -- The lease layout -------------------------------------------------------------------------


@pytest.fixture
def lease_layout(driver: Any, queue_settings: DBSettings) -> LeaseLayout:
    return LeaseLayout(driver, queue_settings)


async def read_of_deferred(driver: Any) -> int:
    """Rows that statements of *driver* have read of the table so far."""
    await driver.execute("SELECT pg_stat_force_next_flush()")
    ((number,),) = await driver.fetch_rows(
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables"
        " WHERE relname = 'pgqueuer_deferred'"
    )
    return int(number)


async def defer(tables: Tables, name: str, count: int, when: str) -> None:
    await tables.rows(
        "INSERT INTO pgqueuer_deferred (priority, entrypoint, execute_after)"
        f" SELECT 0, $1, now() + interval '{when}' FROM generate_series(1, $2::int)",
        name,
        count,
    )


@pytest.mark.layouts("lease")
@pytest.mark.parametrize("kind", ["asyncpg"], indirect=True)
async def test_what_is_not_due_is_not_even_read(
    driver: Any, queries: Queries, tables: Tables, lease_layout: LeaseLayout
) -> None:
    await defer(tables, "e", 50_000, "1 hour")
    await defer(tables, "e", 1, "-1 s")
    before = await read_of_deferred(driver)
    (due,) = (await lease_layout.claim(10, LIMITS, OWNER, None, 2**24)).jobs
    for _ in range(20):
        assert (await lease_layout.claim(10, LIMITS, OWNER, None, 2**24)).jobs == []
        rest = await lease_layout.rest(list(LIMITS), OWNER, False)
        assert rest.due is not None
        assert rest.due > HOUR / 2
    await lease_layout.finish([due.id], OWNER)
    assert await read_of_deferred(driver) - before < 200


@pytest.mark.layouts("lease")
@pytest.mark.parametrize("kind", ["asyncpg"], indirect=True)
async def test_a_flood_that_becomes_due_leaves_room_for_other_entrypoints(
    tables: Tables, lease_layout: LeaseLayout
) -> None:
    await defer(tables, "flood", 2 * ROWS + 1, "-1 hour")
    await defer(tables, "quiet", 3, "-1 s")
    limits = {QueueEntrypoint("flood"): 0, QueueEntrypoint("quiet"): 0}
    claim = await lease_layout.claim(10, limits, OWNER, None, 2**24)
    names = [job.entrypoint for job in claim.jobs]
    assert (names.count("quiet"), names.count("flood")) == (3, 7)
    # The rest of it, without a pause that nobody needs.
    left = 2 * ROWS + 1 - 7
    for _ in range(4):
        left -= len((await lease_layout.claim(ROWS, limits, OWNER, None, 2**24)).jobs)
    assert left == 0


@pytest.mark.layouts
@pytest.mark.parametrize("kind", ["asyncpg"], indirect=True)
async def test_jobs_that_become_due_run_in_their_turn(
    manager: QueueManager, tables: Tables
) -> None:
    """By their priority, however full the queue is by then."""
    order: list[str] = []

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        order.append("deferred" if job.priority else "other")
        if len(order) < 20_000 and "deferred" not in order:
            # The queue does not get shorter before.
            await manager.queries.enqueue("e", None)

    await manager.queries.enqueue(["e"] * 100, [None] * 100, [0] * 100)
    await manager.queries.enqueue(
        ["e"] * 3, [None] * 3, [5] * 3, execute_after=[timedelta(seconds=0.3)] * 3
    )
    await drain(manager, batch_size=20)
    assert order.count("deferred") == 3
    assert len(order) < 20_000
