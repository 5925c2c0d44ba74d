from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import pytest

from pgq_fast import sm
from pgq_fast.errors import ConnectionLostError, PgqException
from pgq_fast.executors import (
    AbstractScheduleExecutor,
    ScheduleExecutor,
    ScheduleExecutorFactoryParameters,
)
from pgq_fast.memory import InMemoryDriver, InMemoryQueries, queries as memory_module
from pgq_fast.models import CronExpressionEntrypoint, Schedule, ScheduleContext, utc_now
from pgq_fast.sm import SchedulerManager
from pgq_fast.types import CronEntrypoint, CronExpression, ScheduleId

if TYPE_CHECKING:
    from scheduler.conftest import Eventually, Running

pytestmark = pytest.mark.impl_agnostic

EVERY_SECOND = "* * * * * *"
ONCE_A_YEAR = "0 0 1 1 *"


@pytest.fixture
def queries() -> InMemoryQueries:
    return InMemoryQueries(InMemoryDriver())


@pytest.fixture
def manager(queries: InMemoryQueries) -> SchedulerManager:
    return SchedulerManager(queries)


class Gate:
    """A function that stays inside until it is opened."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()
        self.cancelled = False
        self.left = 0

    async def __call__(self, *args: object) -> None:
        self.entered.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        self.left += 1


def key(entrypoint: str, expression: str) -> CronExpressionEntrypoint:
    return CronExpressionEntrypoint(CronEntrypoint(entrypoint), CronExpression(expression))


async def status(queries: InMemoryQueries, entrypoint: str = "tick") -> str:
    (row,) = [row for row in await queries.peek_schedule() if row.entrypoint == entrypoint]
    return row.status


async def only_row(queries: InMemoryQueries) -> Schedule:
    (row,) = await queries.peek_schedule()
    return row


# Registration


async def tick(schedule: Schedule) -> None: ...


def test_registering_returns_the_function(manager: SchedulerManager) -> None:
    assert manager.schedule("tick", "* * * * *")(tick) is tick
    executor = manager.registry[key("tick", "* * * * *")]
    assert isinstance(executor, ScheduleExecutor)
    assert executor.parameters == ScheduleExecutorFactoryParameters(
        entrypoint=CronEntrypoint("tick"),
        expression=CronExpression("* * * * *"),
        func=tick,
        clean_old=False,
        accepts_context=False,
    )


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("  */5   *  * *   * ", "*/5 * * * *"),
        ("* * * * * */5", "* * * * * */5"),
        ("0 9 * * mon-fri", "0 9 * * mon-fri"),
        ("0 9 * * MON", "0 9 * * mon"),
    ],
)
def test_expressions_are_stored_in_the_spelling_of_the_original(
    manager: SchedulerManager, given: str, stored: str
) -> None:
    import pgqueuer

    theirs = pgqueuer.PgQueuer.in_memory().sm
    manager.schedule("tick", given)(tick)
    theirs.schedule("tick", given)(tick)  # type: ignore[arg-type]
    assert [tuple(each) for each in manager.registry] == [("tick", stored)]
    assert [tuple(each) for each in theirs.registry] == [("tick", stored)]


@pytest.mark.parametrize(
    "expression", ["", "tomorrow", "* * * *", "61 * * * *", "* * * * * * * * *", "0 25 * * *"]
)
def test_an_invalid_expression_is_refused_and_named(
    manager: SchedulerManager, expression: str
) -> None:
    with pytest.raises(ValueError, match="is not a cron expression") as caught:
        manager.schedule("tick", expression)
    assert repr(expression) in str(caught.value)
    assert "'tick'" in str(caught.value)
    assert isinstance(caught.value, PgqException)
    assert manager.registry == {}


def test_a_name_and_expression_can_be_taken_once(manager: SchedulerManager) -> None:
    manager.schedule("tick", "0 * * * *")(tick)
    manager.schedule("tick", "1 * * * *")(tick)
    manager.schedule("tock", "0 * * * *")(tick)
    with pytest.raises(RuntimeError, match=r"'tick' .*'0 \* \* \* \*' is already registered"):
        manager.schedule("tick", "@hourly")
    assert len(manager.registry) == 3


async def test_contexts_carry_the_resources(
    queries: InMemoryQueries, running: Running, eventually: Eventually
) -> None:
    resources: dict[str, object] = {"name": "shared"}
    manager = SchedulerManager(queries, resources)
    seen: list[object] = []

    @manager.schedule("by annotation", EVERY_SECOND)
    async def annotated(schedule: Schedule, context: ScheduleContext) -> None:
        seen.append(context.resources)

    @manager.schedule("by order", EVERY_SECOND, accepts_context=True)
    async def ordered(schedule, context) -> None:  # type: ignore[no-untyped-def]
        seen.append(context.resources)

    @manager.schedule("without", EVERY_SECOND, accepts_context=False)
    async def without(schedule: Schedule, context: ScheduleContext | None = None) -> None:
        seen.append(context)

    async with running(manager):
        await eventually(lambda: len(seen) >= 3)
    assert sum(each is resources for each in seen) >= 2
    assert None in seen


async def test_executors_can_be_replaced(
    manager: SchedulerManager, running: Running, eventually: Eventually
) -> None:
    seen: list[tuple[str, object]] = []

    class Loud(AbstractScheduleExecutor):
        async def execute(self, schedule: Schedule, context: ScheduleContext) -> None:
            seen.append((schedule.entrypoint, self.parameters.func))

    manager.schedule("tick", EVERY_SECOND, executor_factory=Loud)(tick)
    async with running(manager):
        await eventually(lambda: bool(seen))
    assert seen[0] == ("tick", tick)


# Ticks


async def test_every_tick_runs_once_over_all_schedulers(
    queries: InMemoryQueries, running: Running, eventually: Eventually
) -> None:
    ticks: list[object] = []
    workers = [SchedulerManager(queries) for _ in range(3)]
    for worker in workers:

        @worker.schedule("tick", EVERY_SECOND)
        async def record(schedule: Schedule) -> None:
            # What a claim stores is the tick after the one that it claims.
            ticks.append(schedule.next_run)

    async with running(workers[0]), running(workers[1]), running(workers[2]):
        await eventually(lambda: len(ticks) >= 4)
    assert len(set(ticks)) == len(ticks)


async def test_a_tick_is_run_soon_and_the_row_says_so(
    manager: SchedulerManager, queries: InMemoryQueries, running: Running, eventually: Eventually
) -> None:
    runs: list[Schedule] = []

    @manager.schedule("tick", "* * * * * */2")
    async def record(schedule: Schedule) -> None:
        runs.append(schedule)

    async with running(manager):
        await eventually(lambda: len(runs) >= 2)
        await eventually(lambda: _queued(queries))
    row = await only_row(queries)
    assert row.last_run is not None
    assert row.last_run >= runs[-1].updated
    assert row.next_run == runs[-1].next_run
    assert all(run.status == "picked" for run in runs)
    assert all(run.next_run.second % 2 == 0 and run.next_run.microsecond == 0 for run in runs)


def _queued(queries: InMemoryQueries) -> Any:
    async def check() -> bool:
        return (await only_row(queries)).status == "queued"

    return check()


async def test_a_server_with_another_clock_does_not_make_a_tick_run_twice(
    manager: SchedulerManager,
    queries: InMemoryQueries,
    running: Running,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The delay is measured here and added there; a clock some ms behind must not undo a tick."""
    monkeypatch.setattr(memory_module, "utc_now", lambda: utc_now() - timedelta(milliseconds=300))
    ticks: list[object] = []

    @manager.schedule("tick", "* * * * * */2")
    async def record(schedule: Schedule) -> None:
        ticks.append(schedule.next_run)

    async with running(manager):
        await eventually(lambda: len(ticks) >= 3)
    assert len(set(ticks)) == len(ticks)
    assert all(tick.second % 2 == 0 for tick in ticks)  # type: ignore[attr-defined]


async def test_missed_ticks_collapse_into_one_run(
    manager: SchedulerManager, queries: InMemoryQueries, running: Running, eventually: Eventually
) -> None:
    late = key("late", ONCE_A_YEAR)
    await queries.insert_schedule({late: timedelta(days=-800)})
    runs: list[Schedule] = []

    @manager.schedule("late", ONCE_A_YEAR)
    async def record(schedule: Schedule) -> None:
        runs.append(schedule)

    others: list[Schedule] = []

    @manager.schedule("other", EVERY_SECOND)
    async def clock(schedule: Schedule) -> None:
        others.append(schedule)

    async with running(manager):
        await eventually(lambda: len(others) >= 3)
    assert len(runs) == 1
    assert runs[0].next_run > runs[0].updated


async def test_a_known_schedule_keeps_its_next_run(
    manager: SchedulerManager, queries: InMemoryQueries, running: Running
) -> None:
    await queries.insert_schedule({key("tick", ONCE_A_YEAR): timedelta(days=5000)})
    before = await queries.peek_schedule()
    manager.schedule("tick", ONCE_A_YEAR)(tick)
    async with running(manager):
        pass
    assert await queries.peek_schedule() == before


async def test_clean_old_forgets_what_the_name_stood_for(
    manager: SchedulerManager, queries: InMemoryQueries, running: Running
) -> None:
    stored = [key("tick", "1 1 1 1 *"), key("tick", ONCE_A_YEAR), key("other", "2 2 2 2 *")]
    await queries.insert_schedule(dict.fromkeys(stored, timedelta(days=5000)))
    manager.schedule("tick", ONCE_A_YEAR, clean_old=True)(tick)
    async with running(manager):
        pass
    rows = {key(row.entrypoint, row.expression): row for row in await queries.peek_schedule()}
    assert set(rows) == {key("tick", ONCE_A_YEAR), key("other", "2 2 2 2 *")}
    row = rows[key("tick", ONCE_A_YEAR)]
    assert row.next_run - row.created < timedelta(days=367)


async def test_a_long_run_delays_its_own_ticks_and_no_others(
    manager: SchedulerManager, queries: InMemoryQueries, running: Running, eventually: Eventually
) -> None:
    gate = Gate()
    manager.schedule("long", EVERY_SECOND)(gate)
    others: list[Schedule] = []

    @manager.schedule("short", EVERY_SECOND)
    async def short(schedule: Schedule) -> None:
        others.append(schedule)

    async with running(manager):
        await gate.entered.wait()
        before = len(others)
        await eventually(lambda: len(others) >= before + 3)
        assert gate.left == 0
        assert await status(queries, "long") == "picked"
        gate.opened.set()
        await eventually(lambda: gate.left >= 2)


async def test_running_schedules_beat_together_once_a_second(
    manager: SchedulerManager,
    queries: InMemoryQueries,
    running: Running,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beats: list[set[ScheduleId]] = []
    original = queries.update_schedule_heartbeat

    async def record(ids: set[ScheduleId]) -> None:
        beats.append(set(ids))
        await original(ids)

    monkeypatch.setattr(queries, "update_schedule_heartbeat", record)
    monkeypatch.setattr(sm, "HEARTBEAT_INTERVAL", 0.1)
    gates = [Gate(), Gate()]
    manager.schedule("one", EVERY_SECOND)(gates[0])
    manager.schedule("two", EVERY_SECOND)(gates[1])

    async with running(manager):
        for gate in gates:
            await gate.entered.wait()
        beats.clear()
        await eventually(lambda: len(beats) >= 3)
        assert all(len(ids) == 2 for ids in beats)
        picked = {row.id: row.heartbeat for row in await queries.peek_schedule()}

        async def later() -> bool:
            rows = await queries.peek_schedule()
            return all(row.heartbeat > picked[row.id] for row in rows)

        await eventually(later)
        # Shutdown with runs still going on: they keep their rows until they end.
        manager.shutdown.set()
        after = len(beats)
        await eventually(lambda: len(beats) >= after + 3)
        for gate in gates:
            gate.opened.set()
    assert manager.active_heartbeat_ids == set()


async def test_a_schedule_of_a_dead_scheduler_is_found_before_its_next_tick(
    manager: SchedulerManager,
    queries: InMemoryQueries,
    running: Running,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sm, "LONGEST_WAIT", 0.1)
    yearly = key("tick", ONCE_A_YEAR)
    await queries.insert_schedule({yearly: timedelta(seconds=-1)})
    (claimed,) = await queries.fetch_schedule({yearly: timedelta(days=300)})
    runs: list[Schedule] = []

    @manager.schedule("tick", ONCE_A_YEAR)
    async def record(schedule: Schedule) -> None:
        runs.append(schedule)

    fetches = 0
    original = queries.fetch_schedule

    async def count(entrypoints: Any) -> list[Schedule]:
        nonlocal fetches
        fetches += 1
        return await original(entrypoints)

    monkeypatch.setattr(queries, "fetch_schedule", count)
    async with running(manager):
        await eventually(lambda: fetches >= 3)
        assert runs == []
        monkeypatch.setattr(memory_module, "utc_now", lambda: utc_now() + timedelta(seconds=31))
        await eventually(lambda: bool(runs))
    assert [run.id for run in runs] == [claimed.id]


async def test_without_schedules_the_database_is_left_alone(
    queries: InMemoryQueries,
    running: Running,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    for name in (
        "fetch_schedule",
        "insert_schedule",
        "delete_schedule",
        "update_schedule_heartbeat",
    ):
        monkeypatch.setattr(queries, name, lambda *args, name=name: calls.append(name))
    clock = SchedulerManager(InMemoryQueries(InMemoryDriver()))
    ticks: list[Schedule] = []

    @clock.schedule("tick", EVERY_SECOND)
    async def record(schedule: Schedule) -> None:
        ticks.append(schedule)

    async with running(SchedulerManager(queries)), running(clock):
        await eventually(lambda: len(ticks) >= 3)
    assert calls == []


@pytest.mark.parametrize("table", ["pgqueuer_schedules", "pgqueuer_log"])
async def test_a_missing_table_is_named(
    manager: SchedulerManager,
    queries: InMemoryQueries,
    table: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def has_table(name: str) -> bool:
        return name != table

    monkeypatch.setattr(queries, "has_table", has_table)
    manager.schedule("tick", EVERY_SECOND)(tick)
    with pytest.raises(RuntimeError, match=f"table {table} is missing.*pgq upgrade"):
        await manager.run()
    assert await queries.peek_schedule() == []


# Failures


async def test_a_failing_function_is_logged_and_runs_again(
    manager: SchedulerManager,
    queries: InMemoryQueries,
    running: Running,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs = 0

    @manager.schedule("tick", EVERY_SECOND)
    async def fail(schedule: Schedule) -> None:
        nonlocal runs
        runs += 1
        raise LookupError("nothing there")

    with caplog.at_level(logging.ERROR, "pgqueuer"):
        async with running(manager):
            await eventually(lambda: runs >= 2)
    assert await status(queries) == "queued"
    assert "Schedule tick (* * * * * *) failed" in caplog.text
    assert "nothing there" in caplog.text


class Flaky:
    """Fails until it is healed, then passes calls on."""

    def __init__(self, error: Exception, call: Callable[..., Any]) -> None:
        self.error: Exception | None = error
        self.call = call
        self.failures = 0

    async def __call__(self, *args: Any) -> Any:
        if self.error is not None:
            self.failures += 1
            raise self.error
        return await self.call(*args)


STATEMENTS = [
    "insert_schedule",
    "fetch_schedule",
    "update_schedule_heartbeat",
    "set_schedule_queued",
]


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        *((name, ConnectionLostError("gone")) for name in STATEMENTS),
        ("fetch_schedule", asyncpg.LockNotAvailableError("")),
        ("set_schedule_queued", psycopg.errors.DiskFull()),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_a_server_that_fails_for_a_while_is_given_the_time(
    statement: str,
    error: Exception,
    manager: SchedulerManager,
    queries: InMemoryQueries,
    running: Running,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queries.driver, "owns_connections", True, raising=False)
    monkeypatch.setattr(sm, "FAILURE_PAUSE", 0.05)
    monkeypatch.setattr(sm, "HEARTBEAT_INTERVAL", 0.05)
    flaky = Flaky(error, getattr(queries, statement))
    monkeypatch.setattr(queries, statement, flaky)
    gate = Gate()
    manager.schedule("tick", EVERY_SECOND)(gate)

    async with running(manager):
        if statement != "update_schedule_heartbeat":
            gate.opened.set()
        await eventually(lambda: flaky.failures >= 3)
        flaky.error = None
        gate.opened.set()
        await eventually(lambda: gate.left >= 2)
    assert await status(queries) == "queued"


@pytest.mark.parametrize("statement", ["fetch_schedule", "update_schedule_heartbeat"])
@pytest.mark.parametrize("owned", [False, None])
async def test_a_lost_connection_of_the_user_ends_the_run(
    statement: str,
    owned: bool | None,
    manager: SchedulerManager,
    queries: InMemoryQueries,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if owned is not None:
        monkeypatch.setattr(queries.driver, "owns_connections", owned, raising=False)
    monkeypatch.setattr(sm, "HEARTBEAT_INTERVAL", 0.05)
    gate = Gate()
    manager.schedule("tick", EVERY_SECOND)(gate)
    flaky = Flaky(ConnectionLostError("gone"), getattr(queries, statement))
    monkeypatch.setattr(queries, statement, flaky)
    run = asyncio.create_task(manager.run())
    await eventually(lambda: flaky.failures >= 1)
    gate.opened.set()
    with pytest.raises(ConnectionLostError):
        await run


async def test_another_error_of_a_claim_ends_the_run_whoever_owns_the_connection(
    manager: SchedulerManager, queries: InMemoryQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries.driver, "owns_connections", True, raising=False)
    monkeypatch.setattr(queries, "fetch_schedule", Flaky(KeyError("bug"), queries.fetch_schedule))
    manager.schedule("tick", EVERY_SECOND)(tick)
    with pytest.raises(KeyError, match="bug"):
        await manager.run()


async def test_another_error_of_a_heartbeat_is_logged_and_tried_again(
    manager: SchedulerManager,
    queries: InMemoryQueries,
    running: Running,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sm, "HEARTBEAT_INTERVAL", 0.05)
    flaky = Flaky(ValueError("lock timeout"), queries.update_schedule_heartbeat)
    monkeypatch.setattr(queries, "update_schedule_heartbeat", flaky)
    gate = Gate()
    manager.schedule("tick", EVERY_SECOND)(gate)
    async with running(manager):
        await eventually(lambda: flaky.failures >= 2)
        gate.opened.set()
        await eventually(lambda: gate.left >= 2)
    assert "lock timeout" in caplog.text


async def test_a_schedule_that_cannot_be_given_back_is_logged(
    manager: SchedulerManager,
    queries: InMemoryQueries,
    running: Running,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    flaky = Flaky(PermissionError("read only"), queries.set_schedule_queued)
    monkeypatch.setattr(queries, "set_schedule_queued", flaky)
    gate = Gate()
    gate.opened.set()
    manager.schedule("tick", EVERY_SECOND)(gate)
    async with running(manager):
        await eventually(lambda: flaky.failures >= 1)
    assert "Schedule tick could not be given back" in caplog.text
    assert "read only" in caplog.text
    assert manager.active_heartbeat_ids == set()


# Shutdown and cancellation


async def test_shutdown_awaits_running_functions(
    manager: SchedulerManager, queries: InMemoryQueries
) -> None:
    gate = Gate()
    manager.schedule("tick", EVERY_SECOND)(gate)
    run = asyncio.create_task(manager.run())
    await gate.entered.wait()
    manager.shutdown.set()
    assert await status(queries) == "picked"
    gate.opened.set()
    await run
    assert gate.left == 1
    assert await status(queries) == "queued"


async def test_a_cancelled_scheduler_finishes_what_runs(
    manager: SchedulerManager, queries: InMemoryQueries
) -> None:
    gate = Gate()
    manager.schedule("tick", EVERY_SECOND)(gate)
    run = asyncio.create_task(manager.run())
    await gate.entered.wait()
    run.cancel()
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert gate.left == 1
    assert await status(queries) == "queued"


async def test_a_second_cancellation_cancels_the_functions_and_frees_the_rows(
    manager: SchedulerManager,
    queries: InMemoryQueries,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = queries.set_schedule_queued

    async def slowly(ids: set[ScheduleId]) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        await release(ids)

    monkeypatch.setattr(queries, "set_schedule_queued", slowly)
    finishing = asyncio.Event()
    finish = sm._finish

    async def observed(running: Any) -> None:
        finishing.set()
        await finish(running)

    monkeypatch.setattr(sm, "_finish", observed)
    gate = Gate()
    manager.schedule("tick", EVERY_SECOND)(gate)
    run = asyncio.create_task(manager.run())
    await gate.entered.wait()
    run.cancel()
    await finishing.wait()
    assert not gate.cancelled
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert gate.cancelled
    assert gate.left == 0
    assert await status(queries) == "queued"


async def test_a_claim_that_is_cancelled_halfway_still_runs_what_it_claimed(
    manager: SchedulerManager, queries: InMemoryQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed, answered = asyncio.Event(), asyncio.Event()
    claim = queries.fetch_schedule

    async def slow_answer(entrypoints: Any) -> list[Schedule]:
        rows = await claim(entrypoints)
        if rows:
            claimed.set()
            await answered.wait()
        return rows

    monkeypatch.setattr(queries, "fetch_schedule", slow_answer)
    gate = Gate()
    gate.opened.set()
    manager.schedule("tick", EVERY_SECOND)(gate)
    run = asyncio.create_task(manager.run())
    await claimed.wait()
    run.cancel()
    answered.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert gate.left == 1
    assert await status(queries) == "queued"


async def test_a_claim_that_hangs_does_not_hold_up_a_cancellation_for_ever(
    manager: SchedulerManager, queries: InMemoryQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sm, "CANCEL_GRACE", 0.05)
    asked = asyncio.Event()

    async def hang(entrypoints: Any) -> list[Schedule]:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(queries, "fetch_schedule", hang)
    manager.schedule("tick", EVERY_SECOND)(tick)
    run = asyncio.create_task(manager.run())
    await asked.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


async def test_dispatch_runs_one_tick_and_gives_it_back(
    manager: SchedulerManager, queries: InMemoryQueries
) -> None:
    gate = Gate()
    manager.schedule("tick", ONCE_A_YEAR)(gate)
    await queries.insert_schedule({key("tick", ONCE_A_YEAR): timedelta(0)})
    (claimed,) = await queries.fetch_schedule({key("tick", ONCE_A_YEAR): timedelta(days=1)})
    task = asyncio.create_task(
        manager.dispatch(manager.registry[key("tick", ONCE_A_YEAR)], claimed)
    )
    await gate.entered.wait()
    assert manager.active_heartbeat_ids == {claimed.id}
    gate.opened.set()
    await task
    assert manager.active_heartbeat_ids == set()
    row = await only_row(queries)
    assert row.status == "queued"
    assert row.last_run is not None
