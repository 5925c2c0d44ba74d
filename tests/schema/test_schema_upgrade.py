"""Upgrades of what real releases of pgqueuer installed, with rows in the tables."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import asyncpg
import psycopg
import pytest

from pgq_fast.db import AsyncpgDriver, SyncPsycopgDriver
from pgq_fast.errors import SchemaDriftError
from pgq_fast.queries import Queries
from pgq_fast.schema import Plan, manage
from pgq_fast.schema.offline import upgrade_script
from pgq_fast.schema.statements import run_async, run_sync
from pgq_fast.schema.target import target
from pgq_fast.settings import DBSettings, Durability
from support.drivers import MakeDriver
from support.original import pgqueuer_queries
from support.pg_programs import ReleaseDatabase, objects, psql, schema_dump

pytestmark = [pytest.mark.impl_agnostic, pytest.mark.pg_matrix]

RELEASES = ("0.18.10", "1.0.2", "1.1.1", "1.3.2")
SETTINGS = DBSettings()

# A column with data that nothing fills any more stays until the operator drops it.
DROP_RETIRED = "ALTER TABLE pgqueuer_statistics DROP COLUMN IF EXISTS time_in_queue"


def fill(connection: psycopg.Connection, release: str) -> None:
    """Rows as that release writes them; two statistics rows of one bucket where it allows that."""
    connection.execute("""
        INSERT INTO pgqueuer (priority, status, entrypoint, payload, heartbeat)
        SELECT n, CASE WHEN n % 2 = 0 THEN 'picked' ELSE 'queued' END::pgqueuer_status,
               'job' || n, convert_to('payload ' || n, 'UTF8'), now()
        FROM generate_series(1, 20) AS n;
        INSERT INTO pgqueuer_schedules (expression, entrypoint)
        VALUES ('* * * * *', 'hourly'), ('0 0 * * *', 'daily')
    """)
    if release == "0.18.10":
        connection.execute("""
            INSERT INTO pgqueuer_statistics
                (created, count, priority, time_in_queue, status, entrypoint)
            SELECT timestamptz '2024-01-01 10:00:00+00', 10 + n, 3, n * interval '1 s',
                   'successful'::pgqueuer_statistics_status, 'job'
            FROM generate_series(1, 4) AS n
            UNION ALL
            SELECT timestamptz '2024-01-01 10:00:00+00', 1, 3, interval '1 s',
                   'exception'::pgqueuer_statistics_status, 'job'
        """)
    else:
        connection.execute("""
            INSERT INTO pgqueuer_log (job_id, status, priority, entrypoint)
            SELECT n, 'successful', 0, 'done' FROM generate_series(1, 5) AS n;
            INSERT INTO pgqueuer_statistics (created, count, priority, status, entrypoint)
            VALUES ('2024-01-01 10:00:00+00', 50, 3, 'successful', 'job'),
                   ('2024-01-01 10:00:00+00', 1, 3, 'exception', 'job')
        """)


def rows(connection: psycopg.Connection) -> dict[str, Any]:
    """The data that must survive, independent of the release."""
    queries = {
        "jobs": "SELECT id, priority, status::text, entrypoint, payload, created, heartbeat "
        "FROM pgqueuer ORDER BY id",
        "schedules": "SELECT id, expression, entrypoint, next_run, status::text "
        "FROM pgqueuer_schedules ORDER BY id",
        # As counts by bucket: rows of one bucket may be merged.
        "statistics": "SELECT created, sum(count), priority, status::text, entrypoint "
        "FROM pgqueuer_statistics GROUP BY 1, 3, 4, 5 ORDER BY 4",
        "log": "SELECT id, job_id, status::text, priority, entrypoint, created "
        "FROM pgqueuer_log ORDER BY id",
    }
    found: dict[str, Any] = {}
    for name, query in queries.items():
        table = query.partition("FROM ")[2].split()[0]
        exists = connection.execute("SELECT to_regclass(%s)", [table]).fetchone()
        found[name] = connection.execute(query).fetchall() if exists != (None,) else []
    return found


async def planned_by_pgqueuer(dsn: str, **settings: Any) -> tuple[str, ...]:
    async with pgqueuer_queries(dsn, **settings) as queries:
        statements: tuple[str, ...] = (await queries.plan_upgrade()).statements
        return statements


@pytest.mark.parametrize("release", RELEASES)
async def test_upgrade_reaches_the_schema_of_a_fresh_installation(
    release: str, release_database: ReleaseDatabase, fresh_dump: str
) -> None:
    dsn = release_database(release)
    with psycopg.connect(dsn, autocommit=True) as connection:
        driver = SyncPsycopgDriver(connection)
        fill(connection, release)
        before = rows(connection)
        assert run_sync(driver, manage.verify(SETTINGS)) != []

        planned = run_sync(driver, manage.plan_upgrade(SETTINGS))
        assert planned.statements
        assert run_sync(driver, manage.apply_upgrade(SETTINGS)) == planned

        assert rows(connection) == before
        assert run_sync(driver, manage.verify(SETTINGS)) == []
        assert run_sync(driver, manage.plan_upgrade(SETTINGS)).statements == ()
        assert await planned_by_pgqueuer(dsn) == ()
        connection.execute(DROP_RETIRED)
        assert run_sync(driver, manage.plan_upgrade(SETTINGS)) == Plan()
    assert objects(schema_dump(dsn)) == objects(fresh_dump)


@pytest.mark.parametrize("release", RELEASES)
async def test_nothing_is_left_to_do_after_an_upgrade_by_pgqueuer(
    release: str, release_database: ReleaseDatabase
) -> None:
    dsn = release_database(release)
    with psycopg.connect(dsn, autocommit=True) as connection:
        fill(connection, release)
        async with pgqueuer_queries(dsn) as queries:
            assert (await queries.apply_upgrade()).statements
        driver = SyncPsycopgDriver(connection)
        assert run_sync(driver, manage.plan_upgrade(SETTINGS)).statements == ()
        assert run_sync(driver, manage.verify(SETTINGS)) == []


@pytest.mark.parametrize("release", RELEASES)
async def test_offline_script_reaches_the_same_and_can_be_repeated(
    release: str, release_database: ReleaseDatabase, fresh_dump: str
) -> None:
    dsn = release_database(release)
    script = upgrade_script(SETTINGS)
    with psycopg.connect(dsn, autocommit=True) as connection:
        fill(connection, release)
        before = rows(connection)
        psql(dsn, script)
        once = schema_dump(dsn)
        indexes = "SELECT oid FROM pg_class WHERE relkind = 'i' AND relname LIKE 'pgq%' ORDER BY 1"
        built = connection.execute(indexes).fetchall()

        psql(dsn, script)
        assert schema_dump(dsn) == once
        # What is right is not built again.
        assert connection.execute(indexes).fetchall() == built
        assert rows(connection) == before
        driver = SyncPsycopgDriver(connection)
        assert run_sync(driver, manage.verify(SETTINGS)) == []
        assert run_sync(driver, manage.plan_upgrade(SETTINGS)).statements == ()
        assert await planned_by_pgqueuer(dsn) == ()
        connection.execute(DROP_RETIRED)
    assert objects(schema_dump(dsn)) == objects(fresh_dump)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"prefix": "acme_", "db_schema": "billing"},
        {"durability": "volatile"},
        {"queue_table": "Jobs", "queue_status_type": "State"},
    ],
    ids=["default", "schema", "volatile", "capitals"],
)
def test_offline_script_installs_and_then_changes_nothing(
    values: dict[str, Any], driver: SyncPsycopgDriver, dsn: str
) -> None:
    settings = DBSettings(**values)
    psql(dsn, upgrade_script(settings))
    assert run_sync(driver, manage.verify(settings)) == []
    assert run_sync(driver, manage.plan_upgrade(settings)) == Plan()
    indexes = "SELECT oid FROM pg_class WHERE relkind = 'i' ORDER BY oid"
    built = driver.fetch(indexes)
    psql(dsn, upgrade_script(settings))
    assert driver.fetch(indexes) == built


@pytest.mark.parametrize("release", RELEASES)
def test_plan_as_script_does_what_the_upgrade_does(
    release: str, release_database: ReleaseDatabase, fresh_dump: str
) -> None:
    dsn = release_database(release)
    with psycopg.connect(dsn, autocommit=True) as connection:
        driver = SyncPsycopgDriver(connection)
        psql(dsn, "\n".join(run_sync(driver, manage.plan_upgrade(SETTINGS)).statements))
        assert run_sync(driver, manage.plan_upgrade(SETTINGS)).statements == ()
        connection.execute(DROP_RETIRED)
    assert objects(schema_dump(dsn)) == objects(fresh_dump)


def test_upgrade_of_an_empty_database_installs(
    driver: SyncPsycopgDriver, dsn: str, fresh_dump: str
) -> None:
    done = run_sync(driver, manage.apply_upgrade(SETTINGS))
    assert len(done.statements) == 20
    assert done.notes == ()
    assert schema_dump(dsn) == fresh_dump


def test_upgrade_creates_the_schema(driver: SyncPsycopgDriver) -> None:
    settings = DBSettings(db_schema="billing")
    done = run_sync(driver, manage.apply_upgrade(settings))
    assert done.statements[0] == "CREATE SCHEMA IF NOT EXISTS billing;"
    assert run_sync(driver, manage.verify(settings)) == []


@pytest.mark.parametrize("kind", ["asyncpg", "asyncpg-pool", "psycopg"])
async def test_upgrade_through_every_driver(
    kind: str, release_database: ReleaseDatabase, make_driver: MakeDriver, fresh_dump: str
) -> None:
    dsn = release_database("1.0.2")
    queries = Queries(await make_driver(kind, dsn))
    await queries.upgrade()
    assert await queries.verify() == []
    assert objects(schema_dump(dsn)) == objects(fresh_dump)


def test_statistics_of_one_bucket_are_merged(release_database: ReleaseDatabase) -> None:
    with psycopg.connect(release_database("0.18.10"), autocommit=True) as connection:
        fill(connection, "0.18.10")
        ids = connection.execute(
            "SELECT min(id) FROM pgqueuer_statistics GROUP BY status ORDER BY 1"
        ).fetchall()
        run_sync(SyncPsycopgDriver(connection), manage.apply_upgrade(SETTINGS))
        merged = connection.execute(
            "SELECT id, status::text, count FROM pgqueuer_statistics ORDER BY id"
        ).fetchall()
    assert merged == [(ids[0][0], "successful", 50), (ids[1][0], "exception", 1)]


def test_upgraded_ids_pass_the_old_limit(release_database: ReleaseDatabase) -> None:
    with psycopg.connect(release_database("1.0.2"), autocommit=True) as connection:
        for table in ("pgqueuer", "pgqueuer_schedules", "pgqueuer_statistics"):
            connection.execute(f"SELECT setval('{table}_id_seq', 2147483647)")
        run_sync(SyncPsycopgDriver(connection), manage.apply_upgrade(SETTINGS))
        row = connection.execute(
            "INSERT INTO pgqueuer (priority, status, entrypoint) VALUES (0, 'failed', 'e') "
            "RETURNING id"
        ).fetchone()
    assert row == (2147483648,)


async def test_widening_can_be_switched_off(
    release_database: ReleaseDatabase, fresh_dump: str
) -> None:
    settings = DBSettings(widen_id=False)
    dsn = release_database("1.0.2")
    with psycopg.connect(dsn, autocommit=True) as connection:
        driver = SyncPsycopgDriver(connection)
        done = run_sync(driver, manage.apply_upgrade(settings))
        assert run_sync(driver, manage.plan_upgrade(settings)).statements == ()
        assert run_sync(driver, manage.verify(settings)) == []
        assert len([note for note in done.notes if "widening is switched off" in note]) == 6
        types = connection.execute(
            "SELECT DISTINCT data_type FROM information_schema.columns "
            "WHERE table_name IN ('pgqueuer', 'pgqueuer_schedules') AND column_name = 'id'"
        ).fetchall()
        assert types == [("integer",)]
        assert await planned_by_pgqueuer(dsn, widen_id=False) == ()

        psql(dsn, upgrade_script(settings))
        assert run_sync(driver, manage.plan_upgrade(settings)).statements == ()
        # The statements in the notes do what was left out.
        assert len(run_sync(driver, manage.verify(SETTINGS))) == 6
        for note in run_sync(driver, manage.plan_upgrade(settings)).notes:
            connection.execute(note.partition("later: ")[2].encode())
        assert run_sync(driver, manage.verify(SETTINGS)) == []
    assert objects(schema_dump(dsn)) == objects(fresh_dump)


def test_notes_name_long_locks_and_left_overs(
    release_database: ReleaseDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        psycopg.connect(release_database("0.18.10"), autocommit=True) as connection,
        caplog.at_level(logging.WARNING, logger="pgqueuer"),
    ):
        driver = SyncPsycopgDriver(connection)
        notes = run_sync(
            driver, manage.apply_upgrade(DBSettings(durability=Durability.balanced))
        ).notes
        text = "\n".join(notes)
        assert "rewrites pgqueuer to convert id to bigint" in text
        assert "rewrites pgqueuer_statistics to convert status to pgqueuer_status" in text
        assert "builds pgqueuer_statistics_unique_count" in text
        assert "DROP COLUMN time_in_queue" in text
        assert "pgq durability balanced" in text
        # The new log table was created unlogged, the old statistics were left as they were.
        assert not [note for note in notes if note.startswith("pgqueuer_log is")]
        assert [note for note in notes if note.startswith("pgqueuer_statistics is logged")]
        assert [record.message for record in caplog.records] == list(notes)


def test_drift_stops_an_upgrade_before_it_begins(release_database: ReleaseDatabase) -> None:
    dsn = release_database("1.3.2")
    with psycopg.connect(dsn, autocommit=True) as connection:
        driver = SyncPsycopgDriver(connection)
        connection.execute("ALTER TABLE pgqueuer ALTER COLUMN queue_manager_id TYPE text")
        before = schema_dump(dsn)
        with pytest.raises(SchemaDriftError) as caught:
            run_sync(driver, manage.apply_upgrade(SETTINGS))
        assert schema_dump(dsn) == before
        assert (caught.value.table, caught.value.column) == ("pgqueuer", "queue_manager_id")
        assert (caught.value.installed, caught.value.declared) == ("text", "uuid")
        assert (
            "different type of column 'pgqueuer.queue_manager_id': text, expected uuid"
            in run_sync(driver, manage.verify(SETTINGS))
        )
        assert locks_held(connection) == 0


def locks_held(connection: psycopg.Connection, *, granted: bool = True) -> int:
    row = connection.execute(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted = %s "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        [granted],
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_rebuild_that_fails_leaves_the_old_index_and_no_lock(
    driver: SyncPsycopgDriver, connection: psycopg.Connection, dsn: str, fresh_dump: str
) -> None:
    run_sync(driver, manage.install(SETTINGS))
    name = "pgqueuer_unique_dedupe_key"
    connection.execute(f"""
        DROP INDEX {name};
        CREATE INDEX {name} ON pgqueuer (dedupe_key);
        INSERT INTO pgqueuer (priority, status, entrypoint, dedupe_key)
        VALUES (0, 'queued', 'e', 'twice'), (0, 'queued', 'e', 'twice')
    """)
    with pytest.raises(psycopg.errors.UniqueViolation):
        run_sync(driver, manage.apply_upgrade(SETTINGS))
    assert locks_held(connection) == 0
    assert run_sync(driver, manage.table_has_index(SETTINGS, "pgqueuer", name))

    connection.execute("DELETE FROM pgqueuer WHERE id = 2")
    run_sync(driver, manage.apply_upgrade(SETTINGS))
    assert schema_dump(dsn) == fresh_dump


@pytest.mark.parametrize("stopped_after", range(4))
async def test_goes_on_where_pgqueuer_stopped_rebuilding(
    stopped_after: int, release_database: ReleaseDatabase, fresh_dump: str
) -> None:
    dsn = release_database("1.1.1")
    with psycopg.connect(dsn, autocommit=True) as connection:
        async with pgqueuer_queries(dsn) as queries:
            statements = (await queries.plan_upgrade()).statements
        first = next(i for i, text in enumerate(statements) if "DROP INDEX IF EXISTS pgq_" in text)
        for statement in statements[first : first + 1 + stopped_after]:
            connection.execute(statement.encode())
        driver = SyncPsycopgDriver(connection)
        run_sync(driver, manage.apply_upgrade(SETTINGS))
        assert run_sync(driver, manage.plan_upgrade(SETTINGS)) == Plan()
    assert objects(schema_dump(dsn)) == objects(fresh_dump)


def test_finished_but_not_renamed_index_is_taken_over(
    driver: SyncPsycopgDriver, dsn: str, fresh_dump: str
) -> None:
    run_sync(driver, manage.install(SETTINGS))
    for index in target(SETTINGS).indexes:
        driver.execute(f"ALTER INDEX {index.name} RENAME TO {index.rebuild_name}")
    built = driver.fetch("SELECT oid FROM pg_class WHERE relkind = 'i' ORDER BY oid")
    run_sync(driver, manage.apply_upgrade(SETTINGS))
    assert schema_dump(dsn) == fresh_dump
    assert driver.fetch("SELECT oid FROM pg_class WHERE relkind = 'i' ORDER BY oid") == built


def test_left_over_replacements_are_dropped(
    driver: SyncPsycopgDriver, dsn: str, fresh_dump: str
) -> None:
    run_sync(driver, manage.install(SETTINGS))
    index = target(SETTINGS).indexes[0]
    driver.execute(f"CREATE INDEX {index.rebuild_name} ON pgqueuer (id)")
    run_sync(driver, manage.apply_upgrade(SETTINGS))
    assert schema_dump(dsn) == fresh_dump

    driver.execute(f"CREATE INDEX {index.rebuild_name} ON pgqueuer (id)")
    driver.execute(f"DROP INDEX {index.name}")
    run_sync(driver, manage.apply_upgrade(SETTINGS))
    assert schema_dump(dsn) == fresh_dump


async def until_waiting(connection: psycopg.Connection) -> None:
    deadline = time.monotonic() + 30
    while not locks_held(connection, granted=False):
        assert time.monotonic() < deadline, "nobody waits for the lock"
        await asyncio.sleep(0.01)


async def test_concurrent_upgrades_take_turns(
    release_database: ReleaseDatabase, make_driver: MakeDriver, fresh_dump: str
) -> None:
    dsn = release_database("0.18.10")
    drivers = [await make_driver(kind, dsn) for kind in ("asyncpg", "psycopg", "asyncpg")]
    plans = await asyncio.gather(
        *(run_async(driver, manage.apply_upgrade(SETTINGS)) for driver in drivers)
    )
    assert sorted(bool(plan.statements) for plan in plans) == [False, False, True]
    await drivers[0].execute(DROP_RETIRED)
    assert objects(schema_dump(dsn)) == objects(fresh_dump)


async def test_waits_for_an_upgrade_by_pgqueuer(
    release_database: ReleaseDatabase, make_driver: MakeDriver
) -> None:
    dsn = release_database("1.3.2")
    driver = await make_driver("asyncpg", dsn)
    with psycopg.connect(dsn, autocommit=True) as observer:
        async with pgqueuer_queries(dsn) as queries, queries.schema_lock():
            upgrade = asyncio.create_task(run_async(driver, manage.apply_upgrade(SETTINGS)))
            await until_waiting(observer)
            assert run_sync(SyncPsycopgDriver(observer), manage.verify(SETTINGS)) != []
        assert (await upgrade).statements
        # ... and the other way round.
        await driver.execute("SELECT pg_advisory_lock($1)", *manage.lock(SETTINGS).args)
        async with pgqueuer_queries(dsn) as queries:
            theirs = asyncio.create_task(queries.apply_upgrade())
            await until_waiting(observer)
            await driver.execute("SELECT pg_advisory_unlock($1)", *manage.unlock(SETTINGS).args)
            assert (await theirs).statements == ()
        assert locks_held(observer) == 0


async def test_cancelled_upgrade_releases_the_lock(release_database: ReleaseDatabase) -> None:
    dsn = release_database("1.3.2")
    connection = await asyncpg.connect(dsn)
    try:
        driver = AsyncpgDriver(connection)
        with psycopg.connect(dsn) as other, psycopg.connect(dsn, autocommit=True) as observer:
            # A reader in an open transaction keeps the upgrade waiting for the table.
            other.execute("SELECT count(*) FROM pgqueuer")
            upgrade = asyncio.create_task(run_async(driver, manage.apply_upgrade(SETTINGS)))
            deadline = time.monotonic() + 30
            while not observer.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
                assert time.monotonic() < deadline, "the upgrade does not wait for the table"
                await asyncio.sleep(0.01)
            assert locks_held(observer) == 1
            upgrade.cancel()
            with pytest.raises(asyncio.CancelledError):
                await upgrade
            assert locks_held(observer) == 0
    finally:
        await connection.close()
