"""pgqueuer and pgq_fast, in processes of their own, on the same tables at the same time."""

from __future__ import annotations

import asyncio
import importlib
from collections import Counter
from typing import Any

import pytest

from behaviour.helpers import eventually
from fleet.conftest import Fleet
from support.drivers import MakeDriver

pytestmark = pytest.mark.timeout(100)

KINDS = ("pgqueuer", "pgq_fast")
OTHER = {"pgqueuer": "pgq_fast", "pgq_fast": "pgqueuer"}


async def queries_of(package: str, dsn: str, make_driver: MakeDriver) -> Any:
    """The ``Queries`` of either package in this process."""
    if package == "pgq_fast":
        from pgq_fast.queries import Queries

        return Queries(await make_driver("asyncpg", dsn))
    import asyncpg

    db = importlib.import_module("pgqueuer.db")
    connection = await asyncpg.connect(dsn)
    return importlib.import_module("pgqueuer.queries").Queries(db.AsyncpgDriver(connection))


async def test_each_job_runs_once_whoever_enqueued_it(fleet: Fleet) -> None:
    workers = [fleet.start(kind) for kind in KINDS * 2]
    # All are there before the work is.
    await eventually(
        lambda: fleet.tables.value(
            "SELECT count(*) >= 4 FROM pg_stat_activity"
            " WHERE datname = current_database() AND query ILIKE '%pgqueuer%'"
            " AND pid <> pg_backend_pid()"
        )
    )
    await fleet.finished(
        *[fleet.start(kind, "produce", name="once", count=400) for kind in KINDS * 2]
    )

    async def all_ended() -> bool:
        return await fleet.tables.count() == 0

    await eventually(all_ended)
    await fleet.end(*workers)
    ids = await fleet.tables.rows(
        "SELECT job_id FROM pgqueuer_log WHERE status = 'queued' ORDER BY job_id"
    )
    assert len(ids) == len(set(ids)) == 1600
    assert sorted(await fleet.notes("job_id")) == ids
    assert await fleet.tables.ended() == ids
    assert await fleet.tables.ended("picked") == ids
    by_kind = Counter(await fleet.notes("kind"))
    assert min(by_kind[kind] for kind in KINDS) > 50, by_kind


async def test_one_limit_for_both(fleet: Fleet, make_driver: MakeDriver) -> None:
    workers = [fleet.start(kind, poll=0.2) for kind in KINDS * 2]
    queries = await queries_of("pgq_fast", fleet.dsn, make_driver)
    await queries.enqueue(["limited"] * 200, [None] * 200, [0] * 200)

    async def all_ended() -> bool:
        return await fleet.tables.count() == 0

    await eventually(all_ended)
    await fleet.end(*workers)
    assert len(await fleet.notes("job_id", event="end")) == 200
    # Noted starts and ends lie within a job's time in the table.
    most = await fleet.tables.value(
        "SELECT max(running) FROM (SELECT sum(CASE event WHEN 'start' THEN 1 ELSE -1 END)"
        " OVER (ORDER BY at, event) AS running FROM fleet) AS jobs"
    )
    assert most == 3
    by_kind = Counter(await fleet.notes("kind", event="start"))
    assert set(by_kind) == set(KINDS), by_kind


@pytest.mark.parametrize("worker", KINDS)
async def test_a_cancellation_reaches_the_other_kind(
    fleet: Fleet, make_driver: MakeDriver, worker: str
) -> None:
    member = fleet.start(worker)
    queries = await queries_of(OTHER[worker], fleet.dsn, make_driver)
    ids = await queries.enqueue([f"scope-{worker}"] * 3, [None] * 3, [0] * 3)

    async def started() -> bool:
        return len(await fleet.notes("job_id", event="start")) == 3

    await eventually(started)
    await queries.mark_job_as_cancelled(ids[:2])

    async def cancelled() -> bool:
        return set(await fleet.notes("job_id", event="cancelled")) == set(ids[:2])

    await eventually(cancelled)
    assert dict(await queries.job_status(ids)) == {
        ids[0]: "canceled",
        ids[1]: "canceled",
        ids[2]: "picked",
    }
    await queries.mark_job_as_cancelled(ids[2:])
    await fleet.end(member)


@pytest.mark.parametrize("worker", KINDS)
async def test_a_watcher_sees_what_the_other_kind_completes(
    fleet: Fleet, make_driver: MakeDriver, worker: str
) -> None:
    member = fleet.start(worker)
    queries = await queries_of(OTHER[worker], fleet.dsn, make_driver)
    watcher_type: Any = importlib.import_module(
        f"{OTHER[worker]}.core.completion"
    ).CompletionWatcher
    # No polling: it is the other kind's notification that tells it.
    async with watcher_type(queries.driver, queries=queries, refresh_interval=None) as watcher:
        (good,) = await queries.enqueue(f"only-{worker}", b"")
        (bad,) = await queries.enqueue(f"only-{worker}", b"fail")
        futures = [watcher.wait_for(good), watcher.wait_for(bad)]
        assert await asyncio.wait_for(asyncio.gather(*futures), 30) == ["successful", "exception"]
    (entry,) = await queries.exception_logs()
    assert entry.traceback.exception_message == "as it was told to"
    await fleet.end(member)


@pytest.mark.parametrize("dying", KINDS)
async def test_the_other_kind_rescues_the_jobs_of_a_killed_worker(
    fleet: Fleet, make_driver: MakeDriver, dying: str
) -> None:
    victim = fleet.start(dying, block=True, heartbeat=1)
    queries = await queries_of("pgq_fast", fleet.dsn, make_driver)
    ids = await queries.enqueue(["first-blocks"] * 5, [b"x"] * 5, [0] * 5)

    async def started() -> bool:
        return len(await fleet.notes("job_id", event="start")) == 5

    await eventually(started)
    heir = fleet.start(OTHER[dying], heartbeat=1, poll=0.2)
    # While the victim lives, its jobs are its own.
    await asyncio.sleep(2.5)
    assert len(await fleet.notes("job_id")) == 5
    victim.kill()
    victim.wait()

    async def all_ended() -> bool:
        return await fleet.tables.count() == 0

    await eventually(all_ended)
    await fleet.end(heir)
    assert sorted(await fleet.notes("job_id", kind=OTHER[dying], event="end")) == ids
    assert await fleet.tables.ended() == ids
