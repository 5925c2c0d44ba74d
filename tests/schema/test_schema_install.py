"""What install, durability, autovacuum settings and uninstall leave; pgqueuer 1.6.0 decides."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgq_fast.builders import QueryBuilderEnvironment
from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.queries import Queries
from pgq_fast.schema import ddl, manage
from pgq_fast.schema.statements import run_async, run_sync
from pgq_fast.settings import DBSettings, Durability
from support.drivers import MakeDriver
from support.original import pgqueuer_queries
from support.pg_programs import psql, schema_dump
from support.server import Databases

pytestmark = [pytest.mark.impl_agnostic, pytest.mark.pg_matrix]

DEFAULT: dict[str, Any] = {}
PREFIX_AND_SCHEMA: dict[str, Any] = {"prefix": "acme_", "db_schema": "billing"}
OWN_NAMES: dict[str, Any] = {
    "queue_table": "jobs",
    "queue_table_log": "jobs_done",
    "statistics_table": "jobs_counted",
    "schedules_table": "jobs_planned",
    "queue_status_type": "job_state",
    "function": "tell",
    "trigger": "teller",
    "channel": "Jobs.Changed-1",
}
SETTINGS = {
    "default": DEFAULT,
    "prefix-and-schema": PREFIX_AND_SCHEMA,
    "own-names": OWN_NAMES,
    "volatile": {"durability": "volatile"},
    "balanced": {"durability": "balanced"},
    "durable": {"durability": "durable"},
}
# PostgreSQL cuts names off; pgqueuer then does not find its own indexes, so only what it installs
# can be compared.
LONG_PREFIX = {"long-prefix": {"prefix": "x" * 40}}


EVERY = {**SETTINGS, **LONG_PREFIX}


@pytest.mark.parametrize("values", EVERY.values(), ids=EVERY.keys())
async def test_installs_what_pgqueuer_installs(
    values: dict[str, Any], databases: Databases, driver: SyncPsycopgDriver, dsn: str
) -> None:
    run_sync(driver, manage.install(DBSettings(**values)))
    with databases.temporary() as (_, other):
        async with pgqueuer_queries(other, **values) as queries:
            await queries.install()
        assert schema_dump(dsn) == schema_dump(other)


@pytest.mark.parametrize("values", SETTINGS.values(), ids=SETTINGS.keys())
async def test_neither_wants_to_upgrade_what_the_other_installed(
    values: dict[str, Any], databases: Databases, driver: SyncPsycopgDriver, dsn: str
) -> None:
    settings = DBSettings(**values)
    run_sync(driver, manage.install(settings))
    async with pgqueuer_queries(dsn, **values) as queries:
        planned = await queries.plan_upgrade()
    assert (planned.statements, planned.notes) == ((), ())
    with databases.temporary() as (_, other):
        async with pgqueuer_queries(other, **values) as queries:
            await queries.install()
        with psycopg.connect(other, autocommit=True) as connection:
            ours = run_sync(SyncPsycopgDriver(connection), manage.plan_upgrade(settings))
    assert (ours.statements, ours.notes) == ((), ())


@pytest.mark.parametrize("values", EVERY.values(), ids=EVERY.keys())
def test_fresh_installation_is_complete_and_uninstalls_without_trace(
    values: dict[str, Any], driver: SyncPsycopgDriver, dsn: str
) -> None:
    settings = DBSettings(**values)
    empty = schema_dump(dsn)
    assert run_sync(driver, manage.verify(settings, "absent")) == []
    assert not run_sync(driver, manage.schema_is_installed(settings))

    run_sync(driver, manage.install(settings))
    assert run_sync(driver, manage.schema_is_installed(settings))
    assert run_sync(driver, manage.verify(settings)) == []
    assert run_sync(driver, manage.plan_upgrade(settings)).statements == ()
    assert len(run_sync(driver, manage.verify(settings, "absent"))) == 7

    run_sync(driver, manage.uninstall(settings))
    assert run_sync(driver, manage.verify(settings, "absent")) == []
    # The schema may hold objects of others, so it stays.
    left = schema_dump(dsn).replace(f"CREATE SCHEMA {settings.db_schema};", "").strip()
    assert left == empty


@pytest.mark.parametrize("kind", ["asyncpg", "asyncpg-pool", "psycopg"])
async def test_same_through_every_driver(
    kind: str, make_driver: MakeDriver, dsn: str, fresh_dump: str
) -> None:
    queries = Queries(await make_driver(kind, dsn))
    assert not await queries.schema_is_installed()
    await queries.install()
    assert await queries.verify() == []
    assert (await queries.apply_upgrade()).statements == ()
    assert schema_dump(dsn) == fresh_dump
    await queries.optimize_autovacuum()
    assert schema_dump(dsn) != fresh_dump
    await queries.optimize_autovacuum_rollback()
    assert schema_dump(dsn) == fresh_dump
    await queries.uninstall()
    assert await queries.verify("absent") == []


def test_install_is_all_or_nothing(driver: SyncPsycopgDriver, dsn: str) -> None:
    empty = schema_dump(dsn)
    driver.execute("CREATE FUNCTION fn_pgqueuer_changed() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    with pytest.raises(psycopg.errors.DuplicateFunction):
        run_sync(driver, manage.install(DBSettings()))
    driver.execute("DROP FUNCTION fn_pgqueuer_changed")
    assert schema_dump(dsn) == empty


def test_install_into_a_schema_that_must_exist(driver: SyncPsycopgDriver) -> None:
    settings = DBSettings(**PREFIX_AND_SCHEMA)
    with pytest.raises(psycopg.errors.InvalidSchemaName):
        run_sync(driver, manage.install(settings, create_schema=False))
    driver.execute("CREATE SCHEMA billing")
    run_sync(driver, manage.install(settings, create_schema=False))
    assert run_sync(driver, manage.verify(settings)) == []


def test_two_installations_share_a_database(driver: SyncPsycopgDriver) -> None:
    one, other = DBSettings(), DBSettings(**PREFIX_AND_SCHEMA)
    third = DBSettings(prefix="third_")
    for settings in (one, other, third):
        run_sync(driver, manage.install(settings))
    run_sync(driver, manage.uninstall(one))
    assert run_sync(driver, manage.verify(one, "absent")) == []
    for settings in (other, third):
        assert run_sync(driver, manage.verify(settings)) == []


def test_names_that_bring_their_schema(driver: SyncPsycopgDriver) -> None:
    driver.execute("CREATE SCHEMA one; CREATE SCHEMA two")
    settings = DBSettings(
        queue_table="one.jobs",
        queue_table_log="one.jobs_log",
        statistics_table="two.jobs_statistics",
        schedules_table="two.jobs_schedules",
        queue_status_type="two.job_status",
        function="one.jobs_changed",
    )
    run_sync(driver, manage.install(settings))
    assert run_sync(driver, manage.verify(settings)) == []
    assert run_sync(driver, manage.plan_upgrade(settings)).statements == ()
    driver.execute("DROP INDEX one.jobs_ep_ea_idx; DROP TRIGGER tg_pgqueuer_changed ON one.jobs")
    assert run_sync(driver, manage.verify(settings)) == [
        "missing index 'jobs_ep_ea_idx'",
        "missing trigger 'tg_pgqueuer_changed'",
    ]
    run_sync(driver, manage.apply_upgrade(settings))
    assert run_sync(driver, manage.verify(settings)) == []
    run_sync(driver, manage.uninstall(settings))
    assert run_sync(driver, manage.verify(settings, "absent")) == []


def test_names_with_capitals(driver: SyncPsycopgDriver) -> None:
    settings = DBSettings(prefix="Acme_", queue_status_type="Job_Status")
    run_sync(driver, manage.install(settings))
    assert run_sync(driver, manage.verify(settings)) == []
    assert run_sync(driver, manage.plan_upgrade(settings)).statements == ()


def test_search_path_decides_where_no_schema_is_set(driver: SyncPsycopgDriver) -> None:
    settings = DBSettings()
    run_sync(driver, manage.install(settings))
    driver.execute("CREATE SCHEMA tenant; SET search_path = tenant, public")
    assert not run_sync(driver, manage.schema_is_installed(settings))
    run_sync(driver, manage.install(settings))
    run_sync(driver, manage.uninstall(settings))
    assert run_sync(driver, manage.verify(settings, "absent")) == []
    driver.execute("SET search_path = public")
    assert run_sync(driver, manage.verify(settings)) == []


@pytest.mark.parametrize("level", list(Durability))
@pytest.mark.parametrize("before", list(Durability))
def test_durability_changes_to_that_of_a_fresh_installation(
    before: Durability, level: Durability, databases: Databases, driver: SyncPsycopgDriver, dsn: str
) -> None:
    run_sync(driver, manage.install(DBSettings(durability=before)))
    driver.execute("INSERT INTO pgqueuer (priority, status, entrypoint) VALUES (7, 'queued', 'e')")
    run_sync(driver, manage.alter_durability(DBSettings(durability=level)))
    assert driver.fetch("SELECT priority FROM pgqueuer") == [{"priority": 7}]
    with databases.temporary() as (_, other):
        psql(other, ddl.install_sql(DBSettings(durability=level)))
        assert schema_dump(dsn) == schema_dump(other)


async def test_autovacuum_settings_are_those_of_pgqueuer(
    databases: Databases, driver: SyncPsycopgDriver, dsn: str, fresh_dump: str
) -> None:
    run_sync(driver, manage.install(DBSettings()))
    run_sync(driver, manage.optimize_autovacuum(DBSettings()))
    options = (
        "SELECT relname, reloptions FROM pg_class WHERE relname LIKE 'pgqueuer%' "
        "AND relkind = 'r' ORDER BY relname"
    )
    with databases.temporary() as (_, other):
        async with pgqueuer_queries(other) as queries:
            await queries.install()
            await queries.optimize_autovacuum()
        with psycopg.connect(other, autocommit=True) as connection:
            theirs = SyncPsycopgDriver(connection).fetch(options)
    ours = driver.fetch(options)
    assert ours == theirs
    assert all(row["reloptions"] for row in ours)
    # Storage parameters are no difference that an upgrade would undo.
    assert run_sync(driver, manage.plan_upgrade(DBSettings())).statements == ()
    run_sync(driver, manage.optimize_autovacuum_rollback(DBSettings()))
    assert schema_dump(dsn) == fresh_dump


@pytest.mark.parametrize("values", [DEFAULT, PREFIX_AND_SCHEMA], ids=["default", "schema"])
async def test_lookups(values: dict[str, Any], make_driver: MakeDriver, dsn: str) -> None:
    settings = DBSettings(**values)
    driver = await make_driver("asyncpg", dsn)
    await run_async(driver, manage.install(settings))
    queue, log = settings.queue_table, settings.queue_table_log
    index = f"{queue}_unique_dedupe_key"

    async def answer(steps: Any) -> bool:
        return await run_async(driver, steps)

    assert await answer(manage.has_table(settings, queue))
    assert not await answer(manage.has_table(settings, "nothing"))
    assert not await answer(manage.has_table(settings, index))
    assert await answer(manage.table_has_column(settings, queue, "slot"))
    assert not await answer(manage.table_has_column(settings, log, "slot"))
    assert not await answer(manage.table_has_column(settings, queue, "ctid"))
    assert await answer(manage.table_has_index(settings, queue, index))
    assert not await answer(manage.table_has_index(settings, log, index))
    assert await answer(manage.has_function(settings, settings.function))
    assert not await answer(manage.has_function(settings, "nothing"))
    assert await answer(manage.has_trigger(settings, settings.trigger))
    assert not await answer(manage.has_trigger(settings, "nothing"))
    enum = settings.queue_status_type
    assert await answer(manage.has_user_defined_enum(settings, "failed", enum))
    assert not await answer(manage.has_user_defined_enum(settings, "nothing", enum))
    # Another installation's objects are not this one's.
    other = DBSettings(db_schema="elsewhere")
    assert not await answer(manage.has_table(other, queue))
    assert not await answer(manage.has_user_defined_enum(other, "failed", enum))


@pytest.mark.parametrize("values", [DEFAULT, PREFIX_AND_SCHEMA], ids=["default", "schema"])
async def test_builders_give_the_sql_behind_the_operations(
    values: dict[str, Any], make_driver: MakeDriver, dsn: str
) -> None:
    builder = QueryBuilderEnvironment(DBSettings(**values))
    names = builder.settings
    driver = await make_driver("psycopg", dsn)
    await driver.execute(builder.build_install_query())
    assert builder.qualified.queue_table == names.qualify(names.queue_table)
    for query, arguments in (
        (builder.build_has_table_query(), (names.queue_table,)),
        (builder.build_table_has_column_query(), (names.queue_table, "slot")),
        (
            builder.build_table_has_index_query(),
            (names.queue_table, f"{names.queue_table}_ep_ea_idx"),
        ),
        (builder.build_has_function_query(), (names.function,)),
        (builder.build_has_trigger_query(), (names.trigger,)),
    ):
        assert await driver.fetch(query, *arguments) == [{"exists": True}]
        assert await driver.fetch(query, *["nothing"] * len(arguments)) == [{"exists": False}]
    labels = await driver.fetch(builder.build_user_types_query())
    assert {"enumlabel": "failed", "typname": names.queue_status_type} in labels
    await driver.execute("\n".join(builder.build_alter_durability_query()))
    await driver.execute(builder.build_optimize_autovacuum_query())
    await driver.execute(builder.build_optimize_autovacuum_rollback_query())
    assert await run_async(driver, manage.verify(names)) == []
    await driver.execute(builder.build_uninstall_query())
    assert await run_async(driver, manage.verify(names, "absent")) == []
