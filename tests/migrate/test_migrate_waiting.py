"""The end of a migration: no more claims, running jobs come to an end, the switch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from migrate.helpers import (
    OTHER,
    contents,
    drive,
    left_overs,
    let_lapse,
    on,
    pick,
    steps,
)
from pgq_fast.errors import (
    LayoutMismatchError,
    MigrationBlockedError,
    MigrationLapsedError,
    MigrationUnderWayError,
)
from pgq_fast.qm import QueueManager
from pgq_fast.schema import migrate as migration_module
from pgq_fast.settings import Layout
from support.drivers import KINDS, MakeDriver
from support.layouts import queries_of
from support.pg_programs import schema_dump

NO_TIME = timedelta(0)


async def at_gate(driver: Any, migration: Any, act: Any) -> Any:
    """Carry out *migration*; *act* once, when the gate is shut and running jobs are looked at."""
    acted = False

    async def look_in(number: int, step: Any) -> None:
        nonlocal acted
        if not acted and "AS silent" in getattr(step, "sql", ""):
            acted = True
            await act()

    report = await drive(driver, migration, look_in)
    assert acted
    return report


async def test_nobody_claims_while_running_jobs_are_waited_for(
    source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    queries = queries_of(await make_driver("asyncpg", filled_dsn), source)
    (running,) = await pick(queries, "plain")
    seen: list[str] = []

    async def act() -> None:
        assert await pick(queries, "plain", 5) == []
        assert await pick(queries, "plain", 5, limit=2) == []
        await queries.enqueue("plain", b"new")
        assert await pick(queries, "plain", 5) == []
        await queries.update_heartbeat([running.id])
        await queries.log_jobs([(running, "successful", None)])
        seen.append("act")

    driver = await make_driver("asyncpg", filled_dsn)
    report = await at_gate(driver, steps(on(source), OTHER[source]), act)
    assert seen == ["act"]
    assert timedelta(0) < report.standstill < timedelta(seconds=20)
    assert report.requeued == 0
    jobs = [row for row in contents(filled_dsn)["jobs"] if row[5] == "plain"]
    assert len(jobs) == 6
    queries = queries_of(driver, OTHER[source])
    assert await queries.job_status([running.id]) == [(running.id, "successful")]
    assert len(await pick(queries, "plain", 9)) == 6


async def test_running_jobs_that_do_not_end_are_named_and_nothing_has_changed(
    source: Layout, filled_dsn: str, fresh_dumps: dict[Layout, str], make_driver: MakeDriver
) -> None:
    queries = queries_of(await make_driver("asyncpg", filled_dsn), source)
    jobs = await pick(queries, "plain", 2) + await pick(queries, "keyed")
    owners = {job.queue_manager_id for job in jobs}
    before = contents(filled_dsn)
    with pytest.raises(MigrationBlockedError) as caught:
        await queries.migrate(OTHER[source], patience=NO_TIME)
    assert set(caught.value.workers) == owners
    assert sum(caught.value.workers.values()) == 3
    assert all(str(owner) in str(caught.value) for owner in owners)
    assert contents(filled_dsn) == before
    assert left_overs(filled_dsn) == []
    assert schema_dump(filled_dsn) == fresh_dumps[source]
    # Claims and ends go on.
    assert len(await pick(queries, "plain", 9)) == 4
    await queries.log_jobs([(job, "successful", None) for job in jobs])


async def test_jobs_are_taken_from_workers_on_demand(
    source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    queries = queries_of(await make_driver("asyncpg", filled_dsn), source)
    running = await pick(queries, "plain", 3) + await pick(queries, "keyed")
    ended, *running = running
    await queries.log_jobs([(ended, "successful", None)])
    report = await queries.migrate(OTHER[source], patience=NO_TIME, requeue_picked=True)
    assert report.requeued == 3
    with pytest.raises(LayoutMismatchError):
        await queries.log_jobs([(running[0], "successful", None)])
    driver = await make_driver("asyncpg", filled_dsn)
    moved = queries_of(driver, OTHER[source])
    again = await pick(moved, "plain", 9) + await pick(moved, "keyed")
    assert {job.id for job in running} <= {job.id for job in again}
    assert ended.id not in {job.id for job in again}
    by_id = {job.id: job for job in again}
    for job in running:
        same = ("priority", "created", "entrypoint", "payload", "headers", "attempts")
        assert [getattr(by_id[job.id], name) for name in same] == [
            getattr(job, name) for name in same
        ]
        history = [entry.status for entry in await moved.job_log_history(job.id)]
        assert history == ["queued", "picked", "picked"]
    # The key is still taken.
    assert await moved.enqueue("keyed", b"k", dedupe_key="one", on_conflict="skip") == [None]


async def test_the_dead_are_not_waited_for(
    source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    queries = queries_of(await make_driver("asyncpg", filled_dsn), source)
    jobs = await pick(queries, "plain", 3)
    with psycopg.connect(filled_dsn, autocommit=True) as connection:
        table = "pgqueuer" if source is Layout.compat else "pgqueuer_lease"
        connection.execute(f"UPDATE {table} SET heartbeat = now() - interval '31 seconds'")  # type: ignore[arg-type]
    report = await queries.migrate(OTHER[source], patience=NO_TIME)
    assert report.requeued == 3
    moved = queries_of(await make_driver("asyncpg", filled_dsn), OTHER[source])
    assert {job.id for job in jobs} <= {job.id for job in await pick(moved, "plain", 9)}


async def test_priority_that_was_raised_while_the_job_ran(
    filled_dsn: str, source: Layout, make_driver: MakeDriver
) -> None:
    queries = queries_of(await make_driver("asyncpg", filled_dsn), source)
    (job,) = await pick(queries, "keyed")
    await queries.enqueue("keyed", b"", 99, dedupe_key="one", on_conflict="update_priority")
    await queries.migrate(OTHER[source], patience=NO_TIME, requeue_picked=True)
    moved = queries_of(await make_driver("asyncpg", filled_dsn), OTHER[source])
    (again,) = await pick(moved, "keyed")
    assert (again.id, again.priority) == (job.id, 99)


async def test_gate_opens_by_itself_after_a_crash(
    source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    queries = queries_of(await make_driver("asyncpg", filled_dsn), source)
    (running,) = await pick(queries, "plain")

    class Killed(BaseException):
        pass

    async def act() -> None:
        assert await pick(queries, "plain") == []
        raise Killed

    with pytest.raises(Killed):
        await at_gate(
            await make_driver("asyncpg", filled_dsn), steps(on(source), OTHER[source]), act
        )
    assert await pick(queries, "plain") == []
    let_lapse(filled_dsn)
    assert len(await pick(queries, "plain")) == 1
    # No more notes are taken, which nobody would ever read.
    with psycopg.connect(filled_dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM pgqueuer_changes")
        await queries.enqueue("plain", b"new")
        await queries.log_jobs([(running, "successful", None)])
        assert connection.execute("SELECT count(*) FROM pgqueuer_changes").fetchone() == (0,)


def copies(step: Any) -> bool:
    """Whether it is a batch of copies."""
    return "found AS MATERIALIZED" in getattr(step, "sql", "")


async def test_who_was_held_up_for_too_long_does_nothing_more(
    source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    drivers = [await make_driver("asyncpg", filled_dsn) for _ in range(2)]
    before = contents(filled_dsn)
    turns = 0

    async def look_in(number: int, step: Any) -> None:
        nonlocal turns
        turns += copies(step)
        if turns == 2:
            let_lapse(filled_dsn)
            await queries_of(drivers[1], source).migrate(OTHER[source])

    with pytest.raises(MigrationLapsedError):
        await drive(drivers[0], steps(on(source), OTHER[source], batch_size=9), look_in)
    assert contents(filled_dsn) == before
    assert left_overs(filled_dsn) == []
    assert await queries_of(drivers[0], OTHER[source]).verify() == []


async def test_two_at_once_take_turns(
    source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    before = contents(filled_dsn)
    both = [queries_of(await make_driver("asyncpg", filled_dsn), source) for _ in range(2)]
    reports = await asyncio.gather(
        *(queries.migrate(OTHER[source], batch_size=5) for queries in both)
    )
    assert sorted(report.jobs for report in reports) == [0, len(before["jobs"])]
    assert {report.target for report in reports} == {OTHER[source]}
    assert contents(filled_dsn) == before
    assert left_overs(filled_dsn) == []


async def test_one_that_does_not_end_is_not_waited_for_for_ever(
    source: Layout,
    filled_dsn: str,
    make_driver: MakeDriver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drivers = [await make_driver("asyncpg", filled_dsn) for _ in range(2)]
    monkeypatch.setattr(migration_module, "TURN", NO_TIME)

    async def look_in(number: int, step: Any) -> None:
        if copies(step):
            with pytest.raises(MigrationUnderWayError, match="wait for its end"):
                await queries_of(drivers[1], source).migrate(OTHER[source], patience=NO_TIME)

    await drive(drivers[0], steps(on(source), OTHER[source], batch_size=9), look_in)


@asynccontextmanager
async def open_transaction(dsn: str, statement: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute(statement)  # type: ignore[arg-type]
        yield connection


async def test_locks_of_others_are_not_waited_for_for_ever(
    source: Layout, filled_dsn: str, fresh_dumps: dict[Layout, str], make_driver: MakeDriver
) -> None:
    queries = queries_of(await make_driver("asyncpg", filled_dsn), source)
    before = contents(filled_dsn)
    table = "pgqueuer" if source is Layout.compat else "pgqueuer_ready"
    # A producer that takes its time before it commits.
    async with open_transaction(
        filled_dsn, f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE"
    ) as connection:
        with pytest.raises(MigrationBlockedError) as caught:
            await queries.migrate(OTHER[source], patience=NO_TIME)
        assert caught.value.sessions == (connection.info.backend_pid,)
        # Whoever came later did not have to wait.
        await queries.enqueue("plain", b"")
    # A long report on the log, which only the switch has to wait for.
    async with open_transaction(filled_dsn, "SELECT * FROM pgqueuer_log") as connection:
        with pytest.raises(MigrationBlockedError) as caught:
            await queries.migrate(OTHER[source], patience=NO_TIME)
        assert caught.value.sessions == (connection.info.backend_pid,)
        (job,) = await pick(queries, "again")
        await queries.log_jobs([(job, "successful", None)])
        if source is Layout.compat:
            assert left_overs(filled_dsn) == []
            assert schema_dump(filled_dsn) == fresh_dumps[source]
        else:
            # The log is a view of all tables, so the triggers are still there. They do nothing.
            await queries.enqueue("plain", b"")
            cursor = await connection.execute("SELECT FROM pgqueuer_changes")
            assert await cursor.fetchall() == []
            before["jobs"].append("one more")
        await connection.rollback()
        await queries.migrate(OTHER[source])
    assert len(contents(filled_dsn)["jobs"]) == len(before["jobs"])
    assert left_overs(filled_dsn) == []


async def test_cancelled(
    source: Layout, filled_dsn: str, fresh_dumps: dict[Layout, str], make_driver: MakeDriver
) -> None:
    queries = queries_of(await make_driver("asyncpg", filled_dsn), source)
    await pick(queries, "plain")
    before = contents(filled_dsn)
    shut = asyncio.Event()

    def progress(each: Any) -> None:
        if each.phase == "drain":
            shut.set()

    task = asyncio.create_task(queries.migrate(OTHER[source], on_progress=progress))
    async with asyncio.timeout(20):
        await shut.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert contents(filled_dsn) == before
    assert left_overs(filled_dsn) == []
    assert schema_dump(filled_dsn) == fresh_dumps[source]
    assert len(await pick(queries, "plain")) == 1


async def test_progress(source: Layout, filled_dsn: str, make_driver: MakeDriver) -> None:
    queries = queries_of(await make_driver("asyncpg", filled_dsn), source)
    seen: list[Any] = []
    report = await queries.migrate(OTHER[source], batch_size=4, on_progress=seen.append)
    phases = list(dict.fromkeys(each.phase for each in seen))
    assert phases == [*(["log"] if source is Layout.lease else []), "copy", "drain", "settle"]
    for phase in phases:
        own = [each for each in seen if each.phase == phase]
        assert [each.done for each in own] == sorted(each.done for each in own)
        assert all(each.done <= each.total for each in own)
        assert own[-1].done == own[-1].total
    copied = [each.done for each in seen if each.phase == "copy"]
    assert copied[-1] == report.jobs
    assert len(copied) >= report.jobs / 4


@pytest.mark.parametrize("kind", KINDS)
async def test_idle_worker_says_why_it_ends(
    kind: str, source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    manager = QueueManager(queries_of(await make_driver(kind, filled_dsn), source))

    @manager.entrypoint("nothing to do")
    async def handle(job: Any) -> None:
        pass

    task = asyncio.create_task(manager.run())
    queries = queries_of(await make_driver("asyncpg", filled_dsn), source)
    await queries.migrate(OTHER[source])
    with pytest.raises(LayoutMismatchError, match=OTHER[source].value):
        async with asyncio.timeout(30):
            await task


async def test_working_worker_ends_its_jobs_before_the_switch(
    source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    manager = QueueManager(queries_of(await make_driver("asyncpg", filled_dsn), source))
    started, go_on = asyncio.Event(), asyncio.Event()
    ran: list[int] = []

    @manager.entrypoint("plain")
    async def handle(job: Any) -> None:
        started.set()
        await go_on.wait()
        ran.append(job.id)

    def progress(each: Any) -> None:
        if each.phase == "drain":
            go_on.set()

    task = asyncio.create_task(manager.run(dequeue_timeout=timedelta(seconds=0.1), batch_size=2))
    async with asyncio.timeout(30):
        await started.wait()
    queries = queries_of(await make_driver("asyncpg", filled_dsn), source)
    report = await queries.migrate(OTHER[source], on_progress=progress)
    assert report.requeued == 0
    with pytest.raises(LayoutMismatchError):
        async with asyncio.timeout(30):
            await task
    moved = queries_of(await make_driver("asyncpg", filled_dsn), OTHER[source])
    assert dict(await moved.job_status(ran)) == dict.fromkeys(ran, "successful")
    rest = [job.id for job in await pick(moved, "plain", 9)]
    assert len(ran) + len(rest) == len({*ran, *rest}) == 6
