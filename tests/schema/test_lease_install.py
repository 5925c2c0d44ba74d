"""What install, durability, autovacuum settings and uninstall leave of the lease layout."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest

from pgq_fast.builders import QueryBuilderEnvironment, QueryQueueBuilder
from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.errors import NamesTooLongError
from pgq_fast.queries import Queries, SyncQueries
from pgq_fast.schema import Plan, ddl, manage
from pgq_fast.schema.statements import run_async, run_sync
from pgq_fast.settings import DBSettings, Durability
from support.drivers import MakeDriver
from support.layouts import queries_of
from support.pg_programs import objects, psql, schema_dump
from support.server import Databases

pytestmark = [pytest.mark.impl_agnostic, pytest.mark.pg_matrix]


def lease(**values: Any) -> DBSettings:
    return DBSettings(layout="lease", **values)


SETTINGS = {
    "default": lease(),
    "prefix": lease(prefix="acme_"),
    "prefix-and-schema": lease(prefix="acme_", db_schema="billing"),
    "own-names": lease(
        queue_table="jobs",
        queue_table_log="jobs_done",
        statistics_table="jobs_counted",
        schedules_table="jobs_planned",
        queue_status_type="job_state",
        function="tell",
        trigger="teller",
        channel="Jobs.Changed-1",
    ),
    "capitals": lease(prefix="Acme_", queue_status_type="Job_Status"),
    "long-prefix": lease(prefix="x" * 40),
    **{level.value: lease(durability=level) for level in Durability},
}


@pytest.mark.parametrize("length", [42, 60])
def test_names_that_postgresql_would_cut_to_the_same_are_refused(
    length: int, driver: SyncPsycopgDriver, dsn: str
) -> None:
    before = schema_dump(dsn)
    with pytest.raises(NamesTooLongError, match="choose a shorter prefix") as caught:
        run_sync(driver, manage.install(lease(prefix="x" * length)))
    first, second = caught.value.names
    assert first != second
    assert first[:63] == second[:63]
    assert schema_dump(dsn) == before


OWN_TABLES = ("ready", "deferred", "lease", "held", "dedupe", "waiting")


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_fresh_installation_is_complete_and_uninstalls_without_trace(
    settings: DBSettings, driver: SyncPsycopgDriver, dsn: str
) -> None:
    empty = schema_dump(dsn)
    assert run_sync(driver, manage.verify(settings, "absent")) == []
    assert not run_sync(driver, manage.schema_is_installed(settings))

    run_sync(driver, manage.install(settings))
    assert run_sync(driver, manage.schema_is_installed(settings))
    assert run_sync(driver, manage.verify(settings)) == []
    assert run_sync(driver, manage.plan_upgrade(settings)) == Plan()
    assert len(run_sync(driver, manage.verify(settings, "absent"))) == 17

    # The schema may hold objects of others, so it stays.
    run_sync(driver, manage.uninstall(settings))
    assert run_sync(driver, manage.verify(settings, "absent")) == []
    left = schema_dump(dsn).replace(f"CREATE SCHEMA {settings.db_schema};", "").strip()
    assert left == empty


@pytest.mark.parametrize("kind", ["asyncpg", "asyncpg-pool", "psycopg"])
async def test_same_through_every_driver(
    kind: str, make_driver: MakeDriver, dsn: str, fresh_lease_dump: str
) -> None:
    queries = queries_of(await make_driver(kind, dsn), lease())
    assert not await queries.schema_is_installed()
    await queries.install()
    assert await queries.verify() == []
    assert (await queries.apply_upgrade()).statements == ()
    assert schema_dump(dsn) == fresh_lease_dump
    await queries.optimize_autovacuum()
    assert schema_dump(dsn) != fresh_lease_dump
    # Storage parameters beyond those of a new table are no difference that an upgrade would undo.
    assert await queries.plan_upgrade() == Plan()
    await queries.optimize_autovacuum_rollback()
    assert schema_dump(dsn) == fresh_lease_dump
    await queries.uninstall()
    assert await queries.verify("absent") == []


def test_same_through_a_blocking_driver(
    driver: SyncPsycopgDriver, dsn: str, fresh_lease_dump: str
) -> None:
    queries = SyncQueries(driver, QueryQueueBuilder(lease()))
    queries.install()
    assert queries.verify() == []
    queries.upgrade()
    assert schema_dump(dsn) == fresh_lease_dump
    queries.uninstall()
    assert queries.verify("absent") == []


def test_text_says_what_it_is_for() -> None:
    settings = lease(prefix="acme_", db_schema="billing", durability="balanced")
    text = ddl.install_sql(settings)
    assert text.splitlines()[0] == (
        "-- pgq_fast, layout lease: prefix='acme_' schema='billing' durability=balanced"
    )
    assert "CREATE SCHEMA IF NOT EXISTS billing;" in text
    assert "CREATE SCHEMA" not in ddl.install_sql(settings, create_schema=False)
    # A new name cannot be forgotten: everything is created with the prefix and in the schema.
    for kind, name in re.findall(
        r"^CREATE (?:UNLOGGED )?(TABLE|VIEW|SEQUENCE|TYPE) (\S+)", text, re.M
    ):
        assert name.startswith("billing.acme_"), (kind, name)


def test_install_is_all_or_nothing(driver: SyncPsycopgDriver, dsn: str) -> None:
    empty = schema_dump(dsn)
    # The last one of all.
    driver.execute("CREATE VIEW pgqueuer_log AS SELECT 1 AS id")
    with pytest.raises(psycopg.errors.DuplicateTable):
        run_sync(driver, manage.install(lease()))
    driver.execute("DROP VIEW pgqueuer_log")
    assert schema_dump(dsn) == empty


def test_install_into_a_schema_that_must_exist(driver: SyncPsycopgDriver) -> None:
    settings = lease(db_schema="billing")
    with pytest.raises(psycopg.errors.InvalidSchemaName):
        run_sync(driver, manage.install(settings, create_schema=False))
    driver.execute("CREATE SCHEMA billing")
    run_sync(driver, manage.install(settings, create_schema=False))
    assert run_sync(driver, manage.verify(settings)) == []


def test_layouts_share_a_database_under_names_of_their_own(driver: SyncPsycopgDriver) -> None:
    every = (DBSettings(), lease(prefix="fast_"), lease(db_schema="billing"))
    for settings in every:
        run_sync(driver, manage.install(settings))
    for settings in every:
        assert run_sync(driver, manage.verify(settings)) == []
    run_sync(driver, manage.uninstall(every[1]))
    assert run_sync(driver, manage.verify(every[1], "absent")) == []
    for settings in (every[0], every[2]):
        assert run_sync(driver, manage.verify(settings)) == []
    run_sync(driver, manage.uninstall(every[0]))
    assert run_sync(driver, manage.verify(every[2])) == []


def test_names_that_bring_their_schema(driver: SyncPsycopgDriver) -> None:
    driver.execute("CREATE SCHEMA one; CREATE SCHEMA two")
    settings = lease(
        queue_table="one.jobs",
        queue_table_log="two.jobs_log",
        statistics_table="two.jobs_statistics",
        schedules_table="two.jobs_schedules",
        queue_status_type="two.job_status",
        function="one.jobs_changed",
    )
    run_sync(driver, manage.install(settings))
    assert run_sync(driver, manage.verify(settings)) == []
    assert run_sync(driver, manage.plan_upgrade(settings)) == Plan()
    driver.execute("DROP INDEX one.jobs_ready_order_idx; DROP VIEW two.jobs_log")
    assert run_sync(driver, manage.verify(settings)) == [
        "missing index 'jobs_ready_order_idx'",
        "missing view 'two.jobs_log'",
    ]
    run_sync(driver, manage.apply_upgrade(settings))
    assert run_sync(driver, manage.verify(settings)) == []
    run_sync(driver, manage.uninstall(settings))
    assert run_sync(driver, manage.verify(settings, "absent")) == []


def test_search_path_decides_where_no_schema_is_set(driver: SyncPsycopgDriver) -> None:
    run_sync(driver, manage.install(lease()))
    driver.execute("CREATE SCHEMA tenant; SET search_path = tenant, public")
    assert not run_sync(driver, manage.schema_is_installed(lease()))
    run_sync(driver, manage.install(lease()))
    assert run_sync(driver, manage.verify(lease())) == []
    run_sync(driver, manage.uninstall(lease()))
    driver.execute("SET search_path = public")
    assert run_sync(driver, manage.verify(lease())) == []


def test_what_both_layouts_have_is_the_same(fresh_dump: str, fresh_lease_dump: str) -> None:
    def shared(dump: str) -> list[str]:
        words = ("pgqueuer_statistics", "pgqueuer_schedules", "TYPE public.pgqueuer_status ")
        return [each for each in objects(dump) if any(word in each for word in words)]

    theirs = [each for each in shared(fresh_dump) if "TABLE public.pgqueuer (" not in each]
    assert len(theirs) >= 10
    # Of the views only their name is another one.
    assert theirs == shared(fresh_lease_dump)


def test_views_have_the_columns_of_pgqueuer_s_tables(
    databases: Databases, driver: SyncPsycopgDriver
) -> None:
    columns = """
        SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod) AS type
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE c.relname IN ('pgqueuer', 'pgqueuer_log') ORDER BY c.relname, a.attnum
    """
    run_sync(driver, manage.install(lease()))
    with (
        databases.temporary() as (_, other),
        psycopg.connect(other, autocommit=True) as connection,
    ):
        compat = SyncPsycopgDriver(connection)
        run_sync(compat, manage.install(DBSettings()))
        assert driver.fetch(columns) == compat.fetch(columns)


def test_unlogged_tables_of_each_level(databases: Databases) -> None:
    unlogged: dict[Durability, set[str]] = {}
    for level in Durability:
        with databases.temporary() as (_, dsn):
            psql(dsn, ddl.install_sql(lease(durability=level)))
            unlogged[level] = set(
                re.findall(r"CREATE UNLOGGED TABLE public\.pgqueuer_(\w+)", schema_dump(dsn))
            )
    # Who waits is nothing that a crash could lose.
    assert unlogged[Durability.durable] == {"waiting"}
    records = {"log_batches", "log_entries", "statistics"}
    assert unlogged[Durability.balanced] == {"waiting", *records}
    assert unlogged[Durability.volatile] == {*OWN_TABLES, *records, "schedules"}


@pytest.mark.parametrize("level", list(Durability))
@pytest.mark.parametrize("before", list(Durability))
def test_durability_changes_to_that_of_a_fresh_installation(
    before: Durability, level: Durability, databases: Databases, driver: SyncPsycopgDriver, dsn: str
) -> None:
    run_sync(driver, manage.install(lease(durability=before)))
    driver.execute("INSERT INTO pgqueuer_ready (priority, entrypoint) VALUES (7, 'e')")
    run_sync(driver, manage.alter_durability(lease(durability=level)))
    assert driver.fetch("SELECT priority, status::text FROM pgqueuer") == [
        {"priority": 7, "status": "queued"}
    ]
    with databases.temporary() as (_, other):
        psql(other, ddl.install_sql(lease(durability=level)))
        assert schema_dump(dsn) == schema_dump(other)


def test_autovacuum_settings_of_the_installation_are_set_again(driver: SyncPsycopgDriver) -> None:
    run_sync(driver, manage.install(lease()))
    options = (
        "SELECT relname::text, reloptions FROM pg_class "
        "WHERE relname IN ('pgqueuer_ready', 'pgqueuer_lease') ORDER BY relname"
    )
    before = driver.fetch(options)
    driver.execute("ALTER TABLE pgqueuer_ready RESET (vacuum_truncate)")
    driver.execute("ALTER TABLE pgqueuer_lease SET (autovacuum_vacuum_threshold = 5)")
    run_sync(driver, manage.optimize_autovacuum(lease()))
    after = driver.fetch(options)
    for row in before + after:
        row["reloptions"].sort()
    assert after == before
    # They are part of the tables, so they stay when the others go.
    run_sync(driver, manage.optimize_autovacuum_rollback(lease()))
    assert run_sync(driver, manage.verify(lease())) == []


@pytest.mark.parametrize(
    "settings", [lease(), SETTINGS["prefix-and-schema"]], ids=["default", "schema"]
)
async def test_builders_give_the_sql_behind_the_operations(
    settings: DBSettings, make_driver: MakeDriver, dsn: str
) -> None:
    builder = QueryBuilderEnvironment(settings)
    driver = await make_driver("psycopg", dsn)
    await driver.execute(builder.build_install_query())
    await driver.execute("\n".join(builder.build_alter_durability_query()))
    await driver.execute(builder.build_optimize_autovacuum_query())
    await driver.execute(builder.build_optimize_autovacuum_rollback_query())
    assert await run_async(driver, manage.verify(settings)) == []
    await driver.execute(builder.build_uninstall_query())
    assert await run_async(driver, manage.verify(settings, "absent")) == []


async def test_lookups_find_the_views(make_driver: MakeDriver, dsn: str) -> None:
    queries: Queries = queries_of(await make_driver("asyncpg", dsn), lease())
    await queries.install()
    assert await queries.has_table("pgqueuer")
    assert await queries.has_table("pgqueuer_ready")
    assert await queries.table_has_column("pgqueuer", "slot")
    assert await queries.table_has_index("pgqueuer_lease", "pgqueuer_lease_seat_idx")
    assert await queries.has_function("fn_pgqueuer_changed_lease")
    assert await queries.has_trigger("tg_pgqueuer_changed_end")
    assert await queries.has_user_defined_enum("failed", "pgqueuer_status")
