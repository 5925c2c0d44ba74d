"""Installations of every kind: other names, durability, roles, and other people's additions."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from migrate.helpers import OTHER, contents, drive, fill, left_overs, on, steps
from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.errors import MigrationRefusedError, OpenTransactionError
from pgq_fast.schema import manage
from pgq_fast.schema.statements import run_sync
from pgq_fast.settings import Durability, Layout
from support.drivers import MakeDriver
from support.layouts import queries_of
from support.pg_programs import schema_dump
from support.server import Databases

NAMES: dict[str, dict[str, Any]] = {
    "prefix-and-schema": {"prefix": "acme_", "db_schema": "billing"},
    "own-names": {
        "queue_table": "jobs",
        "queue_table_log": "jobs_done",
        "statistics_table": "jobs_counted",
        "schedules_table": "jobs_planned",
        "queue_status_type": "job_state",
        "function": "tell",
        "trigger": "teller",
        "channel": "Jobs.Changed-1",
    },
    "capitals": {"prefix": "Acme_", "queue_status_type": "Job_Status"},
    "schemas": {
        "queue_table": "one.jobs",
        "queue_table_log": "two.jobs_log",
        "statistics_table": "two.jobs_statistics",
        "schedules_table": "two.jobs_schedules",
        "queue_status_type": "two.job_status",
        "function": "one.jobs_changed",
    },
    "long": {"prefix": "x" * 40},
}


@pytest.mark.parametrize("values", NAMES.values(), ids=NAMES.keys())
async def test_names(
    values: dict[str, Any],
    source: Layout,
    dsn: str,
    databases: Databases,
    make_driver: MakeDriver,
) -> None:
    with ExitStack() as stack:
        _, other = stack.enter_context(databases.temporary())
        for name in (dsn, other):
            with psycopg.connect(name, autocommit=True) as connection:
                connection.execute("CREATE SCHEMA one; CREATE SCHEMA two")
        driver = await make_driver("asyncpg", dsn)
        queries = queries_of(driver, on(source, **values))
        await queries.install()
        if "schema" not in str(values):
            # A second queue, which is none of the migration's business.
            await queries_of(driver, on(source, prefix="other_")).install()
            await queries_of(
                await make_driver("asyncpg", other), on(source, prefix="other_")
            ).install()
        await fill(queries)
        before = contents(dsn, **values)
        target = OTHER[source]
        await queries.migrate(target, batch_size=5)
        assert contents(dsn, **values) == before
        moved = queries_of(driver, on(target, **values))
        if values is not NAMES["long"]:
            # PostgreSQL cuts names off, and then the two do not agree on all.
            assert await moved.verify() == []
            await queries_of(await make_driver("asyncpg", other), on(target, **values)).install()
            assert schema_dump(dsn) == schema_dump(other)
        await moved.migrate(source.value, batch_size=5)
        assert contents(dsn, **values) == before


@pytest.mark.parametrize("level", list(Durability))
async def test_durability_stays_whatever_the_settings_say(
    level: Durability,
    source: Layout,
    dsn: str,
    databases: Databases,
    make_driver: MakeDriver,
) -> None:
    driver = await make_driver("asyncpg", dsn)
    await queries_of(driver, on(source, durability=level)).install()
    await queries_of(driver, source).migrate(OTHER[source])
    with databases.temporary() as (_, other):
        await queries_of(
            await make_driver("asyncpg", other), on(OTHER[source], durability=level)
        ).install()
        assert schema_dump(dsn) == schema_dump(other)


async def test_search_path_decides_where_no_schema_is_set(
    source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    driver = await make_driver("psycopg", filled_dsn)
    before = contents(filled_dsn)
    await driver.execute("CREATE SCHEMA tenant")
    await driver.execute("SET search_path = tenant, public")
    with pytest.raises(MigrationRefusedError, match="no installation"):
        await queries_of(driver, source).migrate(OTHER[source])
    await queries_of(driver, source).install()
    await queries_of(driver, source).migrate(OTHER[source])
    assert contents(filled_dsn) == before


async def test_nothing_to_do(source: Layout, filled_dsn: str, make_driver: MakeDriver) -> None:
    before, dump = contents(filled_dsn), schema_dump(filled_dsn)
    queries = queries_of(await make_driver("asyncpg", filled_dsn), OTHER[source])
    report = await queries.migrate(source)
    assert (report.source, report.target, report.jobs) == (source, source, 0)
    assert contents(filled_dsn) == before
    assert schema_dump(filled_dsn) == dump


OBSTACLES = {
    Layout.compat: {
        "ALTER TABLE pgqueuer ADD COLUMN tenant text": "column pgqueuer.tenant",
        "CREATE VIEW mine AS SELECT id FROM pgqueuer": "view mine of pgqueuer",
        "CREATE TABLE mine (id bigint REFERENCES pgqueuer)": "foreign key mine_id_fkey of mine",
        "CREATE TRIGGER mine BEFORE INSERT ON pgqueuer "
        "EXECUTE FUNCTION fn_pgqueuer_changed()": "trigger mine on pgqueuer",
        "DROP INDEX pgqueuer_ep_ea_idx": "run 'pgq upgrade' first",
    },
    Layout.lease: {
        "ALTER TABLE pgqueuer_held ADD COLUMN tenant text": "column pgqueuer_held.tenant",
        "CREATE VIEW mine AS SELECT id FROM pgqueuer": "view mine of pgqueuer",
        "CREATE VIEW mine AS SELECT id FROM pgqueuer_log": "view mine of pgqueuer_log",
        "CREATE TRIGGER mine BEFORE INSERT ON pgqueuer_lease "
        "EXECUTE FUNCTION fn_pgqueuer_changed_lease('work')": "trigger mine on pgqueuer_lease",
        "DROP INDEX pgqueuer_lease_worker_idx": "run 'pgq upgrade' first",
    },
}


@pytest.mark.parametrize(
    ("source", "statement", "words"),
    [(source, *each) for source, group in OBSTACLES.items() for each in group.items()],
)
async def test_what_would_be_lost_is_named_and_nothing_is_changed(
    source: Layout, statement: str, words: str, filled_dsn: str, make_driver: MakeDriver
) -> None:
    driver = await make_driver("asyncpg", filled_dsn)
    await driver.execute(statement)
    dump = schema_dump(filled_dsn)
    with pytest.raises(MigrationRefusedError) as caught:
        await queries_of(driver, source).migrate(OTHER[source])
    assert words in str(caught.value)
    assert schema_dump(filled_dsn) == dump


@pytest.mark.parametrize("source", [Layout.compat])
async def test_what_hangs_on_the_log_goes_along(filled_dsn: str, make_driver: MakeDriver) -> None:
    driver = await make_driver("asyncpg", filled_dsn)
    await driver.execute("CREATE INDEX mine ON pgqueuer_log (entrypoint)")
    await driver.execute(
        "CREATE VIEW failures AS SELECT * FROM pgqueuer_log WHERE traceback IS NOT NULL"
    )
    before = await driver.fetch("SELECT * FROM failures ORDER BY id")
    assert before
    await queries_of(driver, Layout.compat).migrate("lease")
    assert await driver.fetch("SELECT * FROM failures ORDER BY id") == before
    await queries_of(driver, Layout.lease).migrate("compat")
    assert await driver.fetch("SELECT * FROM failures ORDER BY id") == before


async def test_roles_with_few_rights_notice_nothing_before_the_switch(
    source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    owner = await make_driver("asyncpg", filled_dsn)
    role = "pgq_test_few_rights"
    tables = (
        "pgqueuer, pgqueuer_log"
        if source is Layout.compat
        else (
            "pgqueuer_ready, pgqueuer_deferred, pgqueuer_dedupe, pgqueuer_lease, pgqueuer_waiting"
        )
    )
    sequence = "pgqueuer_id_seq" if source is Layout.compat else "pgqueuer_ids"
    await owner.execute(
        f"DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN END $$"
    )
    try:
        await owner.execute(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role};"
            f"GRANT USAGE, SELECT ON SEQUENCE {sequence} TO {role}"
            + (
                "; GRANT USAGE, SELECT ON SEQUENCE pgqueuer_log_id_seq TO " + role
                if source is Layout.compat
                else ""
            )
        )
        poor = await make_driver("asyncpg", filled_dsn)
        await poor.execute(f"SET ROLE {role}")
        producer = queries_of(poor, source)
        new: list[int] = []

        async def look_in(number: int, step: Any) -> None:
            if "pgq_capture_insert" in left_overs(filled_dsn):
                new.extend(await producer.enqueue("plain", b"poor"))

        report = await drive(owner, steps(on(source), OTHER[source], batch_size=7), look_in)
        assert len(new) > 3
        assert set(new) <= {row[0] for row in contents(filled_dsn)["jobs"]}
        assert any("pgqueuer" in note and "grant" in note for note in report.notes)
    finally:
        await owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_open_transaction(source: Layout, filled_dsn: str, make_driver: MakeDriver) -> None:
    for kind in ("asyncpg", "psycopg"):
        driver = await make_driver(kind, filled_dsn)
        await driver.execute("BEGIN")
        with pytest.raises(OpenTransactionError):
            await queries_of(driver, source).migrate(OTHER[source])
        await driver.execute("ROLLBACK")


async def test_wrong_arguments(source: Layout, filled_dsn: str, make_driver: MakeDriver) -> None:
    queries = queries_of(await make_driver("asyncpg", filled_dsn), source)
    with pytest.raises(ValueError, match="batch_size is 0"):
        await queries.migrate(OTHER[source], batch_size=0)
    with pytest.raises(ValueError, match="'other'"):
        await queries.migrate("other")  # type: ignore[arg-type]


def test_blocking_driver(source: Layout, filled_dsn: str) -> None:
    before = contents(filled_dsn)
    with psycopg.connect(filled_dsn, autocommit=True) as connection:
        driver = SyncPsycopgDriver(connection)
        run_sync(driver, steps(on(source), OTHER[source]))
        assert run_sync(driver, manage.verify(on(OTHER[source]))) == []
    assert contents(filled_dsn) == before


async def test_driver_that_is_not_ours(
    source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    driver = await make_driver("asyncpg", filled_dsn)

    class Plain:
        """Just what the protocol promises."""

        async def fetch(self, sql: str, *args: object) -> list[dict[str, object]]:
            rows: list[dict[str, object]] = await driver.fetch(sql, *args)
            return rows

        async def execute(self, sql: str, *args: object) -> str:
            tag: str = await driver.execute(sql, *args)
            return tag

    before = contents(filled_dsn)
    await queries_of(Plain(), source).migrate(OTHER[source])
    assert contents(filled_dsn) == before


async def test_sessions_with_one_snapshot_by_default(
    source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    """Producers' transactions that began before are noticed all the same."""
    driver = await make_driver("asyncpg", filled_dsn)
    producer = await make_driver("asyncpg", filled_dsn)
    for each in (driver, producer):
        await each.execute("SET default_transaction_isolation = 'repeatable read'")
    queries = queries_of(producer, source)
    new: list[int] = []
    running = False

    async def look_in(number: int, step: Any) -> None:
        nonlocal running
        text = getattr(step, "sql", "")
        if "CREATE TRIGGER pgq_capture_insert" in text:
            await producer.execute("BEGIN")
            await producer.fetch("SELECT count(*) FROM pgqueuer_log")
            running = True
        elif running and "AS silent" in text:
            new.extend(await queries.enqueue(["plain"] * 2, [b""] * 2, [0, 0]))
            await producer.execute("COMMIT")
            running = False

    await drive(driver, steps(on(source), OTHER[source]), look_in)
    assert len(new) == 2
    assert set(new) <= {row[0] for row in contents(filled_dsn)["jobs"]}


async def test_times_whatever_the_session_s_style(
    source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    driver = await make_driver("asyncpg", filled_dsn)
    queries = queries_of(driver, source)
    # The style that is the hardest to read: which IST is it?
    for style in ("datestyle = 'SQL, DMY'", "timezone = 'Asia/Kolkata'"):
        await driver.execute(f"SET {style}")
    await queries.enqueue(
        ["late"] * 20, [b""] * 20, [0] * 20, [timedelta(days=n) for n in range(20)]
    )
    table = "pgqueuer" if source is Layout.compat else "pgqueuer_deferred"
    await driver.execute(
        f"UPDATE {table} SET execute_after = 'infinity' WHERE id = (SELECT max(id) FROM {table})"
    )
    shown = "SELECT id, execute_after::text FROM pgqueuer ORDER BY id"
    before = await driver.fetch(shown)
    await queries.migrate(OTHER[source], batch_size=2)
    assert await driver.fetch(shown) == before
    await queries_of(driver, OTHER[source]).migrate(source, batch_size=2)
    assert await driver.fetch(shown) == before
