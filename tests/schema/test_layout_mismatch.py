"""Settings for one layout, tables of the other: everything says so, and changes nothing."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import psycopg
import pytest

from pgq_fast import models
from pgq_fast.builders import QueryQueueBuilder
from pgq_fast.db import AsyncpgDriver, PsycopgDriver, SyncPsycopgDriver
from pgq_fast.errors import LayoutMismatchError
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries, SyncQueries
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.schema import layout as layouts, manage
from pgq_fast.schema.statements import run_sync
from pgq_fast.settings import DBSettings, Layout
from pgq_fast.types import QueueExecutionMode
from support.drivers import KINDS, MakeDriver
from support.layouts import Templates, queries_of
from support.pg_programs import schema_dump
from support.server import Databases

pytestmark = [pytest.mark.impl_agnostic, pytest.mark.pg_matrix]

COMPAT, LEASE = DBSettings(layout=Layout.compat), DBSettings(layout=Layout.lease)
OTHER = {Layout.compat: LEASE, Layout.lease: COMPAT}

NOW = models.utc_now()
JOB = models.Job(
    id=1,
    priority=0,
    created=NOW,
    updated=NOW,
    heartbeat=NOW,
    execute_after=NOW,
    status="picked",
    entrypoint="e",
    payload=None,
    headers=None,
    attempts=0,
    queue_manager_id=uuid.uuid4(),
)

Call = Callable[[Any], Awaitable[Any]]

# Each way a job takes into the queue.
ENQUEUE: dict[str, Callable[[Any], Any]] = {
    "single": lambda queries: queries.enqueue("e", b"x"),
    "deferred": lambda queries: queries.enqueue("e", b"x", 0, timedelta(hours=1)),
    "key": lambda queries: queries.enqueue("e", b"x", dedupe_key="k"),
    "skip": lambda queries: queries.enqueue("e", b"x", dedupe_key="k", on_conflict="skip"),
    "update_priority": lambda queries: queries.enqueue(
        "e", b"x", dedupe_key="k", on_conflict="update_priority"
    ),
    "few": lambda queries: queries.enqueue(["e"] * 3, [None] * 3, [0] * 3),
    "few with keys": lambda queries: queries.enqueue(
        ["e"] * 2, [None] * 2, [0] * 2, dedupe_key=["a", "b"]
    ),
    "many": lambda queries: queries.enqueue(["e"] * 300, [None] * 300, [0] * 300),
}


def _dequeue(queries: Queries, limit: int = 0) -> Awaitable[Any]:
    return queries.dequeue(
        1,
        {"e": EntrypointExecutionParameter(limit)},  # type: ignore[dict-item]
        uuid.uuid4(),  # type: ignore[arg-type]
        None,
        timedelta(seconds=30),
    )


CLAIM: dict[str, Call] = {"claim": _dequeue, "limited claim": lambda queries: _dequeue(queries, 1)}

# What writes to pgqueuer's tables.
WRITE: dict[str, Call] = {
    "clear": lambda queries: queries.clear_queue(),
    "clear one": lambda queries: queries.clear_queue("e"),
    "cancel": lambda queries: queries.mark_job_as_cancelled([1]),
    "end": lambda queries: queries.log_jobs([(JOB, "successful", None)]),
    "retry": lambda queries: queries.retry_job(JOB, timedelta(0), None),
    "requeue": lambda queries: queries.requeue_jobs([1]),
    "heartbeat": lambda queries: queries.update_heartbeat([1]),
    "clear log": lambda queries: queries.clear_queue_log(),
    "clear log of one": lambda queries: queries.clear_queue_log("e"),
    "prune": lambda queries: queries.prune_log(timedelta(0)),
    "aggregate": lambda queries: queries.aggregate_logs(),
    "statistics": lambda queries: queries.log_statistics(None),
    "throughput": lambda queries: queries.throughput_summary(),
}

# What reads has the views in lease; in compat there is nothing of the other layout.
READ: dict[str, Call] = {
    "size": lambda queries: queries.queue_size(),
    "work": lambda queries: queries.queued_work(["e"]),
    "due": lambda queries: queries.next_deferred_eta(["e"]),
    "status": lambda queries: queries.job_status([1]),
    "history": lambda queries: queries.job_log_history(1),
    "job": lambda queries: queries.queue_job_by_id(1),
    "watch": lambda queries: queries.watch_ends(uuid.uuid4(), timedelta(seconds=1)),
    "unwatch": lambda queries: queries.unwatch_ends(uuid.uuid4()),
}

MANAGE: dict[str, Call] = {
    "install": lambda queries: queries.install(),
    "uninstall": lambda queries: queries.uninstall(),
    "upgrade": lambda queries: queries.upgrade(),
    "plan": lambda queries: queries.plan_upgrade(),
    "durability": lambda queries: queries.alter_durability(),
    "autovacuum": lambda queries: queries.optimize_autovacuum(),
    "autovacuum back": lambda queries: queries.optimize_autovacuum_rollback(),
    "require": lambda queries: queries.require_layout(),
}


@pytest.fixture(params=list(Layout), ids=lambda layout: f"{layout.value} installed")
def installed(request: pytest.FixtureRequest) -> Layout:
    """The layout that is there."""
    layout: Layout = request.param
    return layout


@pytest.fixture
def dsn(installed: Layout, queue_templates: Templates, databases: Databases) -> Iterator[str]:
    """A database with that layout and two jobs."""
    with databases.temporary(queue_templates.name(installed)) as (_, dsn):
        table, columns, values = (
            ("pgqueuer_ready", "", "")
            if installed is Layout.lease
            else ("pgqueuer", ", status", ", 'queued'")
        )
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                f"INSERT INTO {table} (priority, entrypoint{columns}) "
                f"SELECT n, 'e'{values} FROM generate_series(1, 2) AS n".encode()
            )
        yield dsn


def state(dsn: str) -> tuple[str, list[Any]]:
    """The schema, and the jobs."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute("SELECT * FROM pgqueuer ORDER BY id").fetchall()
    return schema_dump(dsn), rows


def assert_says(error: LayoutMismatchError, installed: Layout | None, wanted: Layout) -> None:
    assert (error.installed, error.wanted) == (installed and installed.value, wanted.value)
    text = str(error)
    assert "PGQUEUER_LAYOUT" in text
    assert "DBSettings.layout" in text
    assert "Queries.migrate(to=" in text
    for layout in (installed, wanted):
        assert layout is None or layout.value in text


@pytest.mark.parametrize("kind", KINDS)
async def test_every_method_that_fails_says_why(
    kind: str, installed: Layout, dsn: str, make_driver: MakeDriver
) -> None:
    settings = OTHER[installed]
    queries = queries_of(await make_driver(kind, dsn), settings)
    before = state(dsn)
    calls = {**ENQUEUE, **CLAIM, **WRITE, **(READ if installed is Layout.compat else {})}
    for name, call in calls.items():
        with pytest.raises(LayoutMismatchError) as caught:
            await call(queries)
        assert_says(caught.value, installed, settings.layout)
        # What the server said is kept.
        assert getattr(caught.value.__cause__, "sqlstate", None) in layouts._SUSPICIOUS, name
    assert state(dsn) == before


def test_every_way_into_the_queue_says_why_over_a_blocking_driver(
    installed: Layout, dsn: str
) -> None:
    settings = OTHER[installed]
    before = state(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        queries = SyncQueries(SyncPsycopgDriver(connection), QueryQueueBuilder(settings))
        assert queries.installed_layout() is installed
        for call in ENQUEUE.values():
            with pytest.raises(LayoutMismatchError) as caught:
                call(queries)
            assert_says(caught.value, installed, settings.layout)
            assert isinstance(caught.value.__cause__, psycopg.Error)
        if installed is Layout.compat:
            with pytest.raises(LayoutMismatchError):
                queries.queue_size()
        for change in (queries.install, queries.uninstall, queries.upgrade):
            with pytest.raises(LayoutMismatchError):
                change()
        (problem,) = queries.verify()
    assert f"the queue has the layout {installed.value}" in problem
    assert state(dsn) == before


async def test_concurrent_producers_are_all_told(installed: Layout, dsn: str) -> None:
    """They share a statement, but not the exception."""
    connection = await asyncpg.connect(dsn)
    try:
        queries = queries_of(AsyncpgDriver(connection), OTHER[installed])
        failures = await asyncio.gather(
            *(queries.enqueue("e", b"x") for _ in range(20)), return_exceptions=True
        )
    finally:
        await connection.close()
    assert {type(failure) for failure in failures} == {LayoutMismatchError}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_schema_is_not_touched(
    kind: str, installed: Layout, dsn: str, make_driver: MakeDriver
) -> None:
    settings = OTHER[installed]
    queries = queries_of(await make_driver(kind, dsn), settings)
    before = state(dsn)
    for call in MANAGE.values():
        with pytest.raises(LayoutMismatchError) as caught:
            await call(queries)
        assert_says(caught.value, installed, settings.layout)
    (problem,) = await queries.verify()
    assert problem == str(caught.value)
    assert await queries.verify("absent") != []
    assert await queries.installed_layout() is installed
    assert state(dsn) == before


async def test_worker_does_not_start(installed: Layout, dsn: str, make_driver: MakeDriver) -> None:
    manager = QueueManager(queries_of(await make_driver("asyncpg", dsn), OTHER[installed]))
    started: list[models.Job] = []

    @manager.entrypoint("e")
    async def handler(job: models.Job) -> None:
        started.append(job)

    before = state(dsn)
    with pytest.raises(LayoutMismatchError) as caught:
        await manager.run(mode=QueueExecutionMode.drain)
    assert_says(caught.value, installed, OTHER[installed].layout)
    assert started == []
    assert state(dsn) == before


async def test_worker_says_what_is_missing_of_its_own_layout(
    installed: Layout, dsn: str, make_driver: MakeDriver
) -> None:
    driver = await make_driver("asyncpg", dsn)
    manager = QueueManager(queries_of(driver, DBSettings(layout=installed)))
    await manager.verify_structure()
    damages = {
        Layout.compat: [
            ("DROP INDEX pgqueuer_picked_slot_idx", "'pgqueuer_picked_slot_idx' is missing"),
            ("DROP TABLE pgqueuer_log", "pgqueuer_log table is missing"),
        ],
        Layout.lease: [
            ("DROP INDEX pgqueuer_lease_seat_idx", "'pgqueuer_lease_seat_idx' is missing"),
            ("DROP INDEX pgqueuer_ready_order_idx", "'pgqueuer_ready_order_idx' is missing"),
            ("DROP TABLE pgqueuer_waiting", "'pgqueuer_waiting' is missing"),
        ],
    }
    for damage, problem in damages[installed]:
        await driver.execute(damage)
        with pytest.raises(RuntimeError, match=problem):
            await manager.run(mode=QueueExecutionMode.drain)


async def test_success_costs_no_look_at_the_layout(
    installed: Layout, dsn: str, make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = queries_of(await make_driver("asyncpg", dsn), DBSettings(layout=installed))

    def unexpected(*_: object) -> None:
        raise AssertionError("the layout was looked up")

    monkeypatch.setattr(layouts, "installed_layout", unexpected)
    for call in {**ENQUEUE, **CLAIM}.values():
        await call(queries)


@pytest.mark.parametrize("name", ["single", "many"])
async def test_asyncpg_transaction_of_the_user_s_gets_the_original_with_a_note(
    name: str, installed: Layout, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = forbid_looking(monkeypatch)
    connection = await asyncpg.connect(dsn)
    try:
        queries = queries_of(AsyncpgDriver(connection), OTHER[installed])
        with pytest.raises(asyncpg.PostgresError) as caught:
            async with connection.transaction():
                await ENQUEUE[name](queries)
        assert_noted(caught.value, OTHER[installed])
        assert looked_up == []
    finally:
        await connection.close()


@pytest.mark.parametrize("name", ["single", "many"])
async def test_psycopg_transaction_of_the_user_s_gets_the_original_with_a_note(
    name: str, installed: Layout, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = forbid_looking(monkeypatch)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        queries = queries_of(PsycopgDriver(connection), OTHER[installed])
        with pytest.raises(psycopg.Error) as caught:
            async with connection.transaction():
                await ENQUEUE[name](queries)
    assert_noted(caught.value, OTHER[installed])
    assert looked_up == []


@pytest.mark.parametrize("name", ["single", "many"])
def test_blocking_transaction_of_the_user_s_gets_the_original_with_a_note(
    name: str, installed: Layout, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = forbid_looking(monkeypatch)
    with psycopg.connect(dsn, autocommit=True) as connection:
        queries = SyncQueries(SyncPsycopgDriver(connection), QueryQueueBuilder(OTHER[installed]))
        with pytest.raises(psycopg.Error) as caught, connection.transaction():
            ENQUEUE[name](queries)
    assert_noted(caught.value, OTHER[installed])
    assert looked_up == []


def forbid_looking(monkeypatch: pytest.MonkeyPatch) -> list[DBSettings]:
    """Notes each look at the layout, which there should be none of."""
    looks: list[DBSettings] = []

    def noted(settings: DBSettings) -> Iterator[Any]:
        looks.append(settings)
        yield from ()

    monkeypatch.setattr(layouts, "require_layout", noted)
    return looks


def assert_noted(error: BaseException, settings: DBSettings) -> None:
    (note,) = error.__notes__
    assert f"the layout {settings.layout.value}" in note
    assert "Queries.installed_layout()" in note


class PlainDriver:
    """Somebody's own driver, which does not say whether a transaction is open."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        return [dict(row) for row in await self.connection.fetch(query, *args)]

    async def execute(self, query: str, *args: object) -> str:
        result: str = await self.connection.execute(query, *args)
        return result


async def test_somebody_s_own_driver(installed: Layout, dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        queries = queries_of(PlainDriver(connection), OTHER[installed])
        with pytest.raises(LayoutMismatchError):
            await queries.enqueue("e", b"x")
        with pytest.raises(asyncpg.PostgresError) as caught:
            async with connection.transaction():
                await queries.enqueue("e", b"x")
        assert_noted(caught.value, OTHER[installed])
    finally:
        await connection.close()


@pytest.mark.parametrize("settings", [COMPAT, LEASE], ids=["compat", "lease"])
async def test_failures_for_other_reasons_stay_as_they_are(
    settings: DBSettings, databases: Databases, make_driver: MakeDriver
) -> None:
    with databases.temporary() as (_, empty):
        queries = queries_of(await make_driver("asyncpg", empty), settings)
        assert await queries.installed_layout() is None
        for call in (ENQUEUE["single"], _dequeue):
            with pytest.raises(asyncpg.UndefinedTableError) as caught:
                await call(queries)
            assert not hasattr(caught.value, "__notes__")
        await queries.install()
        assert await queries.installed_layout() is settings.layout
        await queries.driver.execute(
            "ALTER TABLE pgqueuer_ready DROP COLUMN attempts CASCADE"
            if settings.layout is Layout.lease
            else "ALTER TABLE pgqueuer DROP COLUMN attempts"
        )
        with pytest.raises(asyncpg.UndefinedColumnError):
            await _dequeue(queries)


async def test_schedules_are_the_same_tables(
    installed: Layout, dsn: str, make_driver: MakeDriver
) -> None:
    key = models.CronExpressionEntrypoint(entrypoint="e", expression="* * * * *")  # type: ignore[arg-type]
    for settings in (OTHER[installed], DBSettings(layout=installed)):
        queries = queries_of(await make_driver("asyncpg", dsn), settings)
        await queries.insert_schedule({key: timedelta(0)})
        assert len(await queries.peek_schedule()) == 1


@pytest.mark.parametrize("settings", [COMPAT, LEASE], ids=["compat", "lease"])
async def test_migration_under_way(
    settings: DBSettings, dsn: str, installed: Layout, make_driver: MakeDriver
) -> None:
    driver = await make_driver("asyncpg", dsn)
    if installed is Layout.compat:
        await driver.execute("CREATE TABLE pgqueuer_ready (LIKE pgqueuer)")
    else:
        await driver.execute("DROP VIEW pgqueuer; CREATE TABLE pgqueuer (LIKE pgqueuer_ready)")
    queries = queries_of(driver, settings)
    before = state(dsn)
    for call in (*MANAGE.values(), lambda queries: queries.installed_layout()):
        with pytest.raises(LayoutMismatchError, match="migration between the layouts") as caught:
            await call(queries)
        assert_says(caught.value, None, settings.layout)
        assert "a table pgqueuer and a table pgqueuer_ready" in str(caught.value)
    assert await queries.verify() == [str(caught.value)]
    with pytest.raises(LayoutMismatchError):
        await QueueManager(queries).run()
    assert state(dsn) == before


def test_names_decide_which_queue_it_is(databases: Databases) -> None:
    """Layouts of other prefixes and schemas in the same database are no mismatch."""
    here = [
        DBSettings(layout="lease"),
        DBSettings(layout="compat", prefix="q_"),
        DBSettings(layout="compat", db_schema="one"),
        DBSettings(layout="lease", db_schema="two"),
    ]
    with (
        databases.temporary() as (_, empty),
        psycopg.connect(empty, autocommit=True) as connection,
    ):
        driver = SyncPsycopgDriver(connection)
        for settings in here:
            run_sync(driver, manage.install(settings))
        for settings in here:
            assert run_sync(driver, layouts.installed_layout(settings)) is settings.layout
            other = DBSettings(
                layout=OTHER[settings.layout].layout,
                prefix=settings.prefix,
                db_schema=settings.db_schema,
            )
            with pytest.raises(LayoutMismatchError) as caught:
                run_sync(driver, manage.install(other))
            assert (settings.db_schema or "pgqueuer") in str(caught.value)
