"""The scheduler on PostgreSQL: what the statements and the server's clock have a part in."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

import asyncpg
import psycopg
import pytest

import pgq_fast
from pgq_fast import sm
from pgq_fast.applications import PgQueuer
from pgq_fast.models import CronExpressionEntrypoint, Schedule, ScheduleContext
from pgq_fast.queries import Queries
from pgq_fast.sm import SchedulerManager
from pgq_fast.types import CronEntrypoint, CronExpression

if TYPE_CHECKING:
    from scheduler.conftest import Eventually, Running

    from support.drivers import MakeDriver

pytestmark = pytest.mark.impl_agnostic

ROOT = Path(pgq_fast.__file__).parents[1]
EVERY_SECOND = "* * * * * *"
ONCE_A_YEAR = "0 0 1 1 *"


async def rows(driver: Any) -> dict[str, dict[str, Any]]:
    found = await driver.fetch("SELECT *, now() AS now FROM pgqueuer_schedules")
    return {row["entrypoint"]: row for row in found}


async def test_ticks_are_shared_and_stored(
    anydriver: Any,
    make_driver: MakeDriver,
    queue_dsn: str,
    running: Running,
    eventually: Eventually,
) -> None:
    ticks: list[tuple[datetime, str]] = []
    drivers = [anydriver, await make_driver("psycopg", queue_dsn)]
    workers = [SchedulerManager(Queries(each), {"name": i}) for i, each in enumerate(drivers)]
    for worker in workers:

        @worker.schedule("tick", EVERY_SECOND)
        async def record(schedule: Schedule, context: ScheduleContext) -> None:
            assert schedule.status == "picked"
            # What a claim stores is the tick after the one that it claims.
            ticks.append((schedule.next_run, str(context.resources["name"])))

    async with running(workers[0]), running(workers[1]):
        await eventually(lambda: len(ticks) >= 4)
    assert len({tick for tick, _ in ticks}) == len(ticks)
    assert all(tick.microsecond == 0 for tick, _ in ticks)
    row = (await rows(anydriver))["tick"]
    assert row["status"] == "queued"
    assert row["expression"] == EVERY_SECOND
    assert row["last_run"] is not None
    assert row["next_run"] == ticks[-1][0]


@pytest.mark.layouts
@pytest.mark.pg_matrix
async def test_what_is_due_at_once_runs_once_over_many_schedulers(
    make_driver: MakeDriver, queue_dsn: str, running: Running, eventually: Eventually
) -> None:
    names = [f"schedule {number}" for number in range(20)]
    rounds = 3
    runs: Counter[str] = Counter()
    clock: list[datetime] = []
    managers = [
        SchedulerManager(Queries(await make_driver(kind, queue_dsn)))
        for kind in ("asyncpg", "asyncpg", "psycopg")
    ]
    for manager in managers:

        @manager.schedule("clock", EVERY_SECOND)
        async def tick(schedule: Schedule) -> None:
            clock.append(schedule.next_run)

        for name in names:

            @manager.schedule(name, ONCE_A_YEAR)
            async def count(schedule: Schedule) -> None:
                runs[schedule.entrypoint] += 1

    admin = await make_driver("asyncpg", queue_dsn)
    async with contextlib.AsyncExitStack() as stack:
        for manager in managers:
            await stack.enter_async_context(running(manager))

        async def all_idle() -> bool:
            found = [row for name, row in (await rows(admin)).items() if name in names]
            return len(found) == len(names) and all(row["status"] == "queued" for row in found)

        for done in range(rounds):
            await eventually(all_idle)
            assert runs.total() == done * len(names)
            # All of them ask at the same moment, at each tick of the clock.
            await admin.execute(
                "UPDATE pgqueuer_schedules SET next_run = now() WHERE entrypoint <> 'clock'"
            )
            await eventually(lambda done=done: runs.total() >= (done + 1) * len(names))  # type: ignore[misc]
        ticks = len(clock)
        await eventually(lambda: len(clock) > ticks)
    assert runs == dict.fromkeys(names, rounds)
    assert len(set(clock)) == len(clock)


@pytest.mark.parametrize(
    ("package", "layout"),
    [("pgq_fast", "compat"), ("pgqueuer", "compat"), ("pgq_fast", "lease")],
    indirect=["layout"],
)
async def test_missed_ticks_collapse_into_one_run_at_once(
    package: str, make_driver: MakeDriver, queue_dsn: str, eventually: Eventually
) -> None:
    """What pgqueuer does after a time without a scheduler, and so do we."""
    module = importlib.import_module(package)
    driver = await make_driver("asyncpg", queue_dsn)
    missed = CronExpressionEntrypoint(CronEntrypoint("missed"), CronExpression("0 0 * * *"))
    await Queries(driver).insert_schedule({missed: timedelta(days=-10)})
    runs: list[Any] = []
    others: list[Any] = []
    connection = await asyncpg.connect(queue_dsn)
    try:
        pgq = module.PgQueuer.from_asyncpg_connection(connection)

        @pgq.schedule("missed", "0 0 * * *")
        async def late(schedule: Any) -> None:
            runs.append(schedule)

        @pgq.schedule("other", EVERY_SECOND)
        async def other(schedule: Any) -> None:
            others.append(schedule)

        run = asyncio.create_task(pgq.sm.run())
        await eventually(lambda: len(others) >= 3)
        pgq.sm.shutdown.set()
        await run
    finally:
        await connection.close()
    [first, *more] = runs
    # Midnight may have come meanwhile.
    assert len(more) == (first.next_run <= others[-1].updated)
    assert first.updated < first.next_run <= first.updated + timedelta(days=1, seconds=1)
    assert first.next_run.astimezone(UTC).time().replace(second=0) == datetime.min.time()


@pytest.mark.layouts
async def test_the_time_zone_of_the_session_moves_no_tick(
    make_driver: MakeDriver, queue_dsn: str
) -> None:
    """A day is 24 hours, also across a change of clocks where the server is."""
    zone = ZoneInfo("Europe/Berlin")
    now = datetime.now(UTC)
    # Delays to times with the other offset from UTC.
    delay = next(
        timedelta(days=days)
        for days in range(1, 366)
        if (now + timedelta(days=days)).astimezone(zone).utcoffset()
        != now.astimezone(zone).utcoffset()
    )
    key = CronExpressionEntrypoint(CronEntrypoint("tick"), CronExpression(ONCE_A_YEAR))
    driver = await make_driver("asyncpg", queue_dsn)
    await driver.execute("SET timezone = 'Europe/Berlin'")
    queries = Queries(driver)

    async def distance() -> timedelta:
        row = (await rows(driver))["tick"]
        found: timedelta = row["next_run"] - row["now"]
        return abs(found - delay)

    await queries.insert_schedule({key: delay})
    assert await distance() < timedelta(minutes=1)
    await driver.execute("UPDATE pgqueuer_schedules SET next_run = now()")
    [_] = await queries.fetch_schedule({key: delay})
    assert await distance() < timedelta(minutes=1)


@pytest.mark.layouts
@pytest.mark.pg_matrix
async def test_a_run_keeps_its_row_by_heartbeats(
    anydriver: Any,
    make_driver: MakeDriver,
    queue_dsn: str,
    running: Running,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sm, "HEARTBEAT_INTERVAL", 0.1)
    monkeypatch.setattr(sm, "LONGEST_WAIT", 0.2)
    other = await make_driver("asyncpg", queue_dsn)
    entered, leave, runs = asyncio.Event(), asyncio.Event(), 0

    async def long(schedule: Schedule) -> None:
        nonlocal runs
        runs += 1
        entered.set()
        await leave.wait()

    queries = Queries(anydriver)
    key = CronExpressionEntrypoint(CronEntrypoint("long"), CronExpression(ONCE_A_YEAR))
    await queries.insert_schedule({key: timedelta(seconds=-5)})
    managers = [SchedulerManager(queries), SchedulerManager(Queries(other))]
    for manager in managers:
        manager.schedule("long", ONCE_A_YEAR)(long)

    async with running(managers[0]), running(managers[1]):
        await entered.wait()

        async def fresh() -> bool:
            row = (await rows(other))["long"]
            return bool(row["heartbeat"] > row["now"] - timedelta(seconds=5))

        # A long time in the life of the row, in steps too short to lose it.
        for _ in range(3):
            await other.execute(
                "UPDATE pgqueuer_schedules SET heartbeat = now() - interval '20 seconds'"
            )
            await eventually(fresh)
        assert runs == 1
        leave.set()
        await eventually(lambda: not any(each.active_heartbeat_ids for each in managers))
    assert runs == 1
    assert (await rows(other))["long"]["status"] == "queued"


@pytest.mark.layouts
async def test_a_killed_scheduler_loses_its_run_to_another(
    make_driver: MakeDriver,
    queue_dsn: str,
    running: Running,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sm, "LONGEST_WAIT", 0.1)
    driver = await make_driver("asyncpg", queue_dsn)
    code = textwrap.dedent(
        """
        import asyncio, os, sys
        import asyncpg
        from pgq_fast.db import AsyncpgDriver
        from pgq_fast.queries import Queries
        from pgq_fast.sm import SchedulerManager

        async def main():
            connection = await asyncpg.connect(sys.argv[1])
            manager = SchedulerManager(Queries(AsyncpgDriver(connection)))

            @manager.schedule("tick", "* * * * * *")
            async def tick(schedule):
                print("running", flush=True)
                os._exit(9)

            await manager.run()

        asyncio.run(main())
        """
    )
    process = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code, queue_dsn],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (process.returncode, process.stdout) == (9, "running\n")
    assert (await rows(driver))["tick"]["status"] == "picked"

    runs: list[Schedule] = []
    manager = SchedulerManager(Queries(driver))

    @manager.schedule("tick", EVERY_SECOND)
    async def record(schedule: Schedule) -> None:
        runs.append(schedule)

    async with running(manager):
        await driver.execute(
            "UPDATE pgqueuer_schedules SET heartbeat = now() - interval '31 seconds'"
        )
        await eventually(lambda: bool(runs))
    assert (await rows(driver))["tick"]["status"] == "queued"


async def test_a_failing_function_leaves_its_row_ready(
    anydriver: Any, running: Running, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    manager = SchedulerManager(Queries(anydriver))
    runs = 0

    @manager.schedule("tick", EVERY_SECOND)
    async def fail(schedule: Schedule) -> None:
        nonlocal runs
        runs += 1
        raise LookupError("nothing there")

    async with running(manager):
        await eventually(lambda: runs >= 2)
    assert (await rows(anydriver))["tick"]["status"] == "queued"
    assert "nothing there" in caplog.text


async def test_shutdown_and_cancellation_leave_no_row_behind(anydriver: Any) -> None:
    for end in ("shutdown", "cancel"):
        manager = SchedulerManager(Queries(anydriver))
        entered, leave, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def work(
            schedule: Schedule,
            entered: asyncio.Event = entered,
            leave: asyncio.Event = leave,
            finished: asyncio.Event = finished,
        ) -> None:
            entered.set()
            await leave.wait()
            finished.set()

        manager.schedule("tick", EVERY_SECOND)(work)
        run = asyncio.create_task(manager.run())
        await entered.wait()
        assert (await rows(anydriver))["tick"]["status"] == "picked"
        if end == "shutdown":
            manager.shutdown.set()
        else:
            run.cancel()
        leave.set()
        await asyncio.wait({run})
        assert run.cancelled() == (end == "cancel")
        assert finished.is_set()
        assert (await rows(anydriver))["tick"]["status"] == "queued"


@pytest.mark.layouts
@pytest.mark.pg_matrix
async def test_clean_old_replaces_what_is_stored(anydriver: Any, running: Running) -> None:
    queries = Queries(anydriver)
    stored = [
        CronExpressionEntrypoint(CronEntrypoint(name), CronExpression(expression))
        for name, expression in (("tick", "1 1 1 1 *"), ("other", "2 2 2 2 *"))
    ]
    await queries.insert_schedule(dict.fromkeys(stored, timedelta(days=5000)))
    manager = SchedulerManager(queries)

    @manager.schedule("tick", ONCE_A_YEAR, clean_old=True)
    async def tick(schedule: Schedule) -> None: ...

    async with running(manager):
        pass
    assert {name: row["expression"] for name, row in (await rows(anydriver)).items()} == {
        "tick": ONCE_A_YEAR,
        "other": "2 2 2 2 *",
    }


async def test_a_database_without_the_tables_is_told_apart(
    make_driver: MakeDriver, dsn: str
) -> None:
    manager = SchedulerManager(Queries(await make_driver("asyncpg", dsn)))
    with pytest.raises(RuntimeError, match=r"pgqueuer_schedules is missing.*pgq install"):
        await manager.run()


async def test_a_lost_connection_of_the_user_ends_the_run(
    make_driver: MakeDriver, queue_dsn: str, eventually: Eventually
) -> None:
    from pgq_fast.drivers.failures import is_connection_lost

    for kind in ("asyncpg", "psycopg"):
        driver = await make_driver(kind, queue_dsn)
        [backend] = await driver.fetch("SELECT pg_backend_pid() AS pid")
        ticks: list[Schedule] = []
        manager = SchedulerManager(Queries(driver))

        @manager.schedule("tick", EVERY_SECOND)
        async def record(schedule: Schedule, ticks: list[Schedule] = ticks) -> None:
            ticks.append(schedule)

        run = asyncio.create_task(manager.run())
        await eventually(lambda ticks=ticks: bool(ticks))  # type: ignore[misc]
        admin = await make_driver("asyncpg", queue_dsn)
        await admin.fetch("SELECT pg_terminate_backend($1)", backend["pid"])
        with pytest.raises(Exception) as caught:  # noqa: PT011 (the library's own class)
            await run
        assert is_connection_lost(caught.value)


async def test_the_original_and_this_share_their_ticks(
    make_driver: MakeDriver, queue_dsn: str, running: Running, eventually: Eventually
) -> None:
    import asyncpg
    import pgqueuer.db
    import pgqueuer.queries
    import pgqueuer.sm

    ticks: list[tuple[datetime, str]] = []
    ours = SchedulerManager(Queries(await make_driver("asyncpg", queue_dsn)))
    connection = await asyncpg.connect(queue_dsn)
    try:
        theirs = pgqueuer.sm.SchedulerManager(
            pgqueuer.queries.Queries(pgqueuer.db.AsyncpgDriver(connection))
        )

        @ours.schedule("tick", "* * * * * */2")
        async def here(schedule: Schedule) -> None:
            ticks.append((schedule.next_run, "ours"))

        @theirs.schedule("tick", "* * * * * */2")
        async def there(schedule: Any) -> None:
            ticks.append((schedule.next_run, "theirs"))

        other = asyncio.create_task(theirs.run())
        async with running(ours):
            await eventually(lambda: len(ticks) >= 4)
        theirs.shutdown.set()
        await other
    finally:
        await connection.close()
    assert len({tick for tick, _ in ticks}) == len(ticks)


@pytest.mark.parametrize("library", ["asyncpg", "psycopg"])
async def test_a_function_that_blocks_the_loop_costs_nobody_a_run(
    queue_dsn: str,
    library: Literal["asyncpg", "psycopg"],
    running: Running,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was claimed with it, and has not begun, keeps its row as well."""
    monkeypatch.setattr(sm, "LONGEST_WAIT", 1.0)
    pgq = PgQueuer.from_dsn(queue_dsn, library)
    begun: list[str] = []
    beats: set[datetime] = set()

    async def blocks(schedule: Schedule) -> None:
        begun.append(schedule.entrypoint)
        end = time.monotonic() + 30
        with psycopg.connect(queue_dsn, autocommit=True) as connection:
            while len(beats) < 4 and time.monotonic() < end:
                found = connection.execute(
                    "SELECT heartbeat FROM pgqueuer_schedules WHERE status = 'picked'"
                ).fetchall()
                # Of one statement.
                if len(found) == 2 and found[0] == found[1]:
                    beats.update(found[0])
                time.sleep(0.02)  # noqa: ASYNC251

    pgq.schedule("one", EVERY_SECOND)(blocks)
    pgq.schedule("other", EVERY_SECOND)(blocks)
    async with running(pgq.sm):
        await eventually(lambda: len(begun) >= 2)
    assert len(beats) >= 4
    assert f"by schedule {begun[0]} in " in caplog.text
    assert "heartbeats are sent from outside" in caplog.text
    assert not any(each.name == "pgq_fast watchdog" for each in threading.enumerate())
