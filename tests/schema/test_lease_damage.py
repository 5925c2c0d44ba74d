"""Damage of every kind to the lease layout: verification names it, an upgrade repairs it."""

from __future__ import annotations

import psycopg
import pytest

from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.schema import Plan, manage
from pgq_fast.schema.objects import View
from pgq_fast.schema.offline import upgrade_script
from pgq_fast.schema.statements import run_sync
from pgq_fast.schema.target import target
from pgq_fast.settings import DBSettings, Durability
from support.drivers import MakeDriver
from support.layouts import queries_of
from support.pg_programs import objects, psql, schema_dump

pytestmark = [pytest.mark.impl_agnostic, pytest.mark.pg_matrix]

SETTINGS = DBSettings(layout="lease")
TARGET = target(SETTINGS)
OWN_TABLES = [
    table for table in TARGET.tables if "schedules" not in table.name and "stat" not in table.name
]
FIRST = [
    (table, table.columns[0].name) for table in TARGET.tables if table.columns[0].numbering is None
]
NO_VIEWS = "DROP VIEW pgqueuer, pgqueuer_log; "
VIEWS_MISSING = ["missing view 'pgqueuer'", "missing view 'pgqueuer_log'"]
NO_TRIGGERS = (
    "DROP TRIGGER tg_pgqueuer_changed_work ON pgqueuer_ready; "
    "DROP TRIGGER tg_pgqueuer_changed_work ON pgqueuer_deferred; "
    "DROP TRIGGER tg_pgqueuer_changed_end ON pgqueuer_lease"
)
TRIGGERS_MISSING = [
    "missing trigger 'tg_pgqueuer_changed_work' of table 'pgqueuer_ready'",
    "missing trigger 'tg_pgqueuer_changed_work' of table 'pgqueuer_deferred'",
    "missing trigger 'tg_pgqueuer_changed_end'",
]

MISSING = {
    # Everything of a kind at once: each is found by itself.
    "indexes": (
        "; ".join(f"DROP INDEX {index.name}" for index in TARGET.indexes),
        [f"missing index '{index.name}'" for index in TARGET.indexes],
    ),
    **{
        f"columns of {table.name}": (
            "; ".join(f"ALTER TABLE {table.name} DROP COLUMN {name} CASCADE" for name in names),
            [f"missing column '{table.name}.{name}'" for name in names],
        )
        for table in TARGET.tables
        # Not all: a table without any column is beyond repair.
        for names in [[column.name for column in table.columns[1:]]]
    },
    "first columns": (
        "; ".join(f"ALTER TABLE {table.name} DROP COLUMN {name} CASCADE" for table, name in FIRST),
        [f"missing column '{table.name}.{name}'" for table, name in FIRST],
    ),
    **{
        f"table {table.name}": (
            f"DROP TABLE {table.name} CASCADE",
            [f"missing table '{table.name}'"],
        )
        for table in TARGET.tables
    },
    "views": (NO_VIEWS, VIEWS_MISSING),
    "sequence": (
        "DROP SEQUENCE pgqueuer_ids CASCADE",
        [
            "missing sequence 'pgqueuer_ids'",
            "different default of column 'pgqueuer_ready.id': None, "
            "expected nextval('pgqueuer_ids'::regclass)",
            "different default of column 'pgqueuer_deferred.id': None, "
            "expected nextval('pgqueuer_ids'::regclass)",
        ],
    ),
    "triggers": (NO_TRIGGERS, TRIGGERS_MISSING),
    "function": (
        "DROP FUNCTION fn_pgqueuer_changed_lease CASCADE",
        ["missing function 'fn_pgqueuer_changed_lease'", *TRIGGERS_MISSING],
    ),
    "constraints": (
        "; ".join(
            f"ALTER TABLE {table.name} DROP CONSTRAINT {table.name}_pkey"
            for table in TARGET.tables
            if table.primary_key
        ),
        [f"missing primary key of table '{table.name}'" for table in TARGET.tables
         if table.primary_key],
    ),
    "storage parameters": (
        "; ".join(
            f"ALTER TABLE {table.name} RESET ({', '.join(name for name, _ in table.parameters)})"
            for table in TARGET.tables
            if table.parameters
        ),
        [
            f"missing storage parameter '{name}' of table '{table.name}'"
            for table in TARGET.tables
            for name, _ in table.parameters
        ],
    ),
    "storage of columns": (
        "; ".join(
            f"ALTER TABLE {table.name} ALTER {column.name} SET STORAGE EXTENDED"
            for table in TARGET.tables
            for column in table.columns
            if column.external
        ),
        [
            f"different storage of column '{table.name}.{column.name}': expected external"
            for table in TARGET.tables
            for column in table.columns
            if column.external
        ],
    ),
}  # fmt: skip

DIFFERENT = [
    (
        "ALTER TABLE pgqueuer_ready ALTER COLUMN entrypoint DROP NOT NULL",
        "different column 'pgqueuer_ready.entrypoint': nullable",
    ),
    (
        "ALTER TABLE pgqueuer_lease ALTER COLUMN slot SET NOT NULL",
        "different column 'pgqueuer_lease.slot': not null",
    ),
    (
        "ALTER TABLE pgqueuer_deferred ALTER COLUMN execute_after SET DEFAULT now()",
        "different default of column 'pgqueuer_deferred.execute_after': now(), expected None",
    ),
    (
        "ALTER SEQUENCE pgqueuer_ids AS integer",
        "different type of sequence 'pgqueuer_ids': integer, expected bigint",
    ),
    (
        "ALTER TABLE pgqueuer_ready SET (vacuum_truncate = on)",
        "different storage parameter 'vacuum_truncate' of table 'pgqueuer_ready': on, expected off",
    ),
    (
        "DROP INDEX pgqueuer_lease_seat_idx; "
        "CREATE INDEX pgqueuer_lease_seat_idx ON pgqueuer_lease (entrypoint, slot)",
        "different index 'pgqueuer_lease_seat_idx': on pgqueuer_lease USING btree "
        "(entrypoint, slot), expected unique on pgqueuer_lease USING btree (entrypoint, slot) "
        "WHERE (slot IS NOT NULL)",
    ),
    (
        "UPDATE pg_index SET indisvalid = false "
        "WHERE indexrelid = 'pgqueuer_ready_order_idx'::regclass",
        "invalid index 'pgqueuer_ready_order_idx': its build broke off",
    ),
    (
        "CREATE OR REPLACE FUNCTION fn_pgqueuer_changed_lease() RETURNS trigger LANGUAGE plpgsql "
        "AS $$BEGIN RETURN NULL; END$$",
        "different function 'fn_pgqueuer_changed_lease'",
    ),
    # Each part of a trigger: events, columns, arguments, condition, function.
    (
        "CREATE OR REPLACE TRIGGER tg_pgqueuer_changed_end AFTER UPDATE OF done ON pgqueuer_lease "
        "EXECUTE FUNCTION fn_pgqueuer_changed_lease('end')",
        "different trigger 'tg_pgqueuer_changed_end'",
    ),
    (
        "CREATE OR REPLACE TRIGGER tg_pgqueuer_changed_end AFTER DELETE OR UPDATE ON "
        "pgqueuer_lease EXECUTE FUNCTION fn_pgqueuer_changed_lease('end')",
        "different trigger 'tg_pgqueuer_changed_end'",
    ),
    (
        "CREATE OR REPLACE TRIGGER tg_pgqueuer_changed_end AFTER DELETE OR UPDATE OF done ON "
        "pgqueuer_lease EXECUTE FUNCTION fn_pgqueuer_changed_lease('work')",
        "different trigger 'tg_pgqueuer_changed_end'",
    ),
    (
        "CREATE OR REPLACE TRIGGER tg_pgqueuer_changed_work AFTER INSERT ON pgqueuer_deferred "
        "WHEN (false) EXECUTE FUNCTION fn_pgqueuer_changed_lease('work')",
        "different trigger 'tg_pgqueuer_changed_work' of table 'pgqueuer_deferred'",
    ),
    (
        "CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$; "
        "CREATE OR REPLACE TRIGGER tg_pgqueuer_changed_work AFTER INSERT ON pgqueuer_ready "
        "EXECUTE FUNCTION other('work')",
        "different trigger 'tg_pgqueuer_changed_work' of table 'pgqueuer_ready'",
    ),
    (
        f"{NO_VIEWS}CREATE VIEW pgqueuer AS SELECT id, priority FROM pgqueuer_ready",
        "different columns of view 'pgqueuer'",
    ),
    (
        f"{NO_VIEWS}CREATE VIEW pgqueuer_log AS SELECT id, created, job_id, status, "
        "priority::bigint AS priority, entrypoint, traceback, aggregated FROM pgqueuer_log_entries",
        "different columns of view 'pgqueuer_log'",
    ),
    (
        f"{NO_VIEWS}CREATE VIEW pgqueuer_log AS SELECT id, created, job_id, status, "
        "priority, entrypoint, traceback, aggregated FROM pgqueuer_log_entries",
        "different view 'pgqueuer_log'",
    ),
]


@pytest.fixture
def installed(driver: SyncPsycopgDriver) -> SyncPsycopgDriver:
    run_sync(driver, manage.install(SETTINGS))
    return driver


@pytest.mark.parametrize(
    ("damage", "problems"),
    [*MISSING.values(), *((damage, [problem]) for damage, problem in DIFFERENT)],
    ids=[*MISSING.keys(), *(f"{i} {problem}" for i, (_, problem) in enumerate(DIFFERENT))],
)
def test_damage_is_named_and_repaired(
    damage: str,
    problems: list[str],
    installed: SyncPsycopgDriver,
    dsn: str,
    fresh_lease_dump: str,
) -> None:
    installed.execute(damage)
    assert set(problems) <= set(run_sync(installed, manage.verify(SETTINGS)))

    done = run_sync(installed, manage.apply_upgrade(SETTINGS))
    assert done.statements
    assert run_sync(installed, manage.verify(SETTINGS)) == []
    assert run_sync(installed, manage.plan_upgrade(SETTINGS)) == Plan()
    installed.execute("DROP FUNCTION IF EXISTS other")
    assert objects(schema_dump(dsn)) == objects(fresh_lease_dump)


@pytest.mark.parametrize("kind", MISSING.keys())
def test_offline_script_brings_back_what_is_missing(
    kind: str, installed: SyncPsycopgDriver, dsn: str, fresh_lease_dump: str
) -> None:
    installed.execute(MISSING[kind][0])
    psql(dsn, upgrade_script(SETTINGS))
    assert run_sync(installed, manage.verify(SETTINGS)) == []
    assert objects(schema_dump(dsn)) == objects(fresh_lease_dump)


@pytest.mark.parametrize(
    "values",
    [{}, {"prefix": "acme_", "db_schema": "billing"}, {"durability": "volatile"},
     {"queue_table": "Jobs", "queue_status_type": "State"}],
    ids=["default", "schema", "volatile", "capitals"],
)  # fmt: skip
def test_offline_script_installs_and_then_changes_nothing(
    values: dict[str, str], driver: SyncPsycopgDriver, dsn: str
) -> None:
    settings = DBSettings(layout="lease", **values)  # type: ignore[arg-type]
    psql(dsn, upgrade_script(settings))
    assert run_sync(driver, manage.verify(settings)) == []
    assert run_sync(driver, manage.plan_upgrade(settings)) == Plan()
    once = schema_dump(dsn)
    indexes = "SELECT oid FROM pg_class WHERE relkind = 'i' ORDER BY oid"
    built = driver.fetch(indexes)
    psql(dsn, upgrade_script(settings))
    assert schema_dump(dsn) == once
    assert driver.fetch(indexes) == built


def test_offline_script_stops_at_the_other_layout(driver: SyncPsycopgDriver, dsn: str) -> None:
    run_sync(driver, manage.install(DBSettings()))
    before = schema_dump(dsn)
    with pytest.raises(AssertionError, match="layout compat is installed"):
        psql(dsn, upgrade_script(SETTINGS))
    assert schema_dump(dsn) == before


def test_upgrade_of_an_empty_database_installs(
    driver: SyncPsycopgDriver, dsn: str, fresh_lease_dump: str
) -> None:
    done = run_sync(driver, manage.apply_upgrade(SETTINGS))
    assert done.notes == ()
    assert schema_dump(dsn) == fresh_lease_dump


@pytest.mark.parametrize("kind", ["asyncpg", "asyncpg-pool", "psycopg"])
async def test_upgrade_through_every_driver(
    kind: str, make_driver: MakeDriver, dsn: str, fresh_lease_dump: str
) -> None:
    driver = await make_driver(kind, dsn)
    queries = queries_of(driver, SETTINGS)
    await queries.install()
    await driver.execute("DROP TABLE pgqueuer_ready CASCADE")
    await driver.execute("DROP FUNCTION fn_pgqueuer_changed_lease CASCADE")
    assert await queries.verify() == [
        "missing table 'pgqueuer_ready'",
        "missing function 'fn_pgqueuer_changed_lease'",
        *TRIGGERS_MISSING,
        *VIEWS_MISSING,
    ]
    await queries.upgrade()
    assert await queries.verify() == []
    assert objects(schema_dump(dsn)) == objects(fresh_lease_dump)


def fill(driver: SyncPsycopgDriver) -> None:
    """A job in each place, the highest id in the lease."""
    driver.execute("""
        INSERT INTO pgqueuer_ready (id, priority, entrypoint) VALUES (11, 0, 'e');
        INSERT INTO pgqueuer_deferred (id, priority, entrypoint, execute_after)
        VALUES (12, 0, 'e', now() + interval '1 hour');
        INSERT INTO pgqueuer_held (id, priority, attempts, created, execute_after, entrypoint)
        VALUES (13, 0, 1, now(), now(), 'e');
        INSERT INTO pgqueuer_lease (worker, entrypoint, done, ids, priorities, attempts, created,
            execute_after, payloads)
        VALUES (gen_random_uuid(), 'e', B'00', ARRAY[41, 40], ARRAY[0, 0], ARRAY[0, 0],
            ARRAY[now(), now()], ARRAY[now(), now()], ARRAY['a', NULL]::bytea[]);
        INSERT INTO pgqueuer_log_batches (status, entrypoint, jobs, first_id, last_id, ids)
        VALUES ('successful', 'e', 2, 1, 2, ARRAY[1, 2]);
        INSERT INTO pgqueuer_log_entries (job_id, status, priority, entrypoint)
        VALUES (3, 'exception', 0, 'e')
    """)


JOBS = "SELECT id, status::text, payload FROM pgqueuer ORDER BY id"


@pytest.mark.parametrize("way", ["upgrade", "script"])
@pytest.mark.parametrize("highest", ["lease", "log", "ready"])
def test_ids_go_on_after_those_in_use_where_the_sequence_was_lost(
    way: str, highest: str, installed: SyncPsycopgDriver, dsn: str
) -> None:
    fill(installed)
    taken = 41
    if highest == "log":
        taken = 500
        installed.execute("UPDATE pgqueuer_log_entries SET job_id = 500")
    elif highest == "ready":
        taken = 600
        installed.execute("UPDATE pgqueuer_ready SET id = 600")
    before = installed.fetch(JOBS)
    installed.execute("DROP SEQUENCE pgqueuer_ids CASCADE")
    if way == "upgrade":
        (note,) = run_sync(installed, manage.apply_upgrade(SETTINGS)).notes
        assert "go on after those in the tables" in note
    else:
        psql(dsn, upgrade_script(SETTINGS))
    assert run_sync(installed, manage.verify(SETTINGS)) == []
    assert installed.fetch(JOBS) == before
    (row,) = installed.fetch(
        "INSERT INTO pgqueuer_ready (priority, entrypoint) VALUES (0, 'e') RETURNING id"
    )
    assert row["id"] == taken + 1


def test_repairs_keep_the_jobs(installed: SyncPsycopgDriver) -> None:
    fill(installed)
    before = installed.fetch(JOBS)
    assert len(before) == 5
    installed.execute(f"""
        {NO_VIEWS} {NO_TRIGGERS};
        ALTER TABLE pgqueuer_lease ALTER payloads SET STORAGE EXTENDED;
        ALTER TABLE pgqueuer_ready DROP COLUMN headers;
        DROP INDEX pgqueuer_ready_order_idx
    """)
    run_sync(installed, manage.apply_upgrade(SETTINGS))
    assert run_sync(installed, manage.verify(SETTINGS)) == []
    assert installed.fetch(JOBS) == before


def test_rights_to_a_view_survive_its_replacement(installed: SyncPsycopgDriver) -> None:
    text = next(view.query for view in TARGET.views if view.name == "pgqueuer_log")
    installed.execute(
        f"CREATE OR REPLACE VIEW pgqueuer_log AS {text.replace('batch.created', 'batch.picked_at')}"
    )
    installed.execute("GRANT SELECT ON pgqueuer_log TO PUBLIC")
    assert run_sync(installed, manage.verify(SETTINGS)) == ["different view 'pgqueuer_log'"]
    run_sync(installed, manage.apply_upgrade(SETTINGS))
    assert run_sync(installed, manage.verify(SETTINGS)) == []
    assert installed.fetch(
        "SELECT 'PUBLIC' = ANY(ARRAY(SELECT CASE grantee WHEN 0 THEN 'PUBLIC' END "
        "FROM pg_class, aclexplode(relacl) WHERE oid = 'pgqueuer_log'::regclass)) AS granted"
    ) == [{"granted": True}]


@pytest.mark.parametrize("view", TARGET.views, ids=[view.name for view in TARGET.views])
def test_every_line_of_a_view_counts(view: View, installed: SyncPsycopgDriver) -> None:
    """A view without one of its lines is another one, where PostgreSQL takes it at all."""
    lines = view.query.splitlines()
    problems = []
    for part in range(len(lines)):
        text = "\n".join(lines[:part] + lines[part + 1 :])
        try:
            installed.execute(f"DROP VIEW {view.name}; CREATE VIEW {view.name} AS {text}")
        except psycopg.Error:
            continue
        problems.append(run_sync(installed, manage.verify(SETTINGS)))
    assert problems
    for (problem,) in problems:
        assert problem.startswith("different ")
        assert problem.endswith(f"view '{view.name}'")


@pytest.mark.parametrize("path", ["public", "other, public", "other"])
@pytest.mark.parametrize("schema", [None, "billing"])
def test_views_compare_whatever_the_search_path_is(
    path: str, schema: str | None, driver: SyncPsycopgDriver
) -> None:
    settings = DBSettings(layout="lease", db_schema=schema)
    driver.execute("CREATE SCHEMA other; SET search_path = other")
    if schema is None:
        driver.execute("SET search_path = public")
    run_sync(driver, manage.install(settings))
    if schema is not None:
        driver.execute(f"SET search_path = {path}")
    assert run_sync(driver, manage.verify(settings)) == []
    assert run_sync(driver, manage.plan_upgrade(settings)) == Plan()


def test_disabled_trigger_is_a_problem_but_somebody_s_decision(
    installed: SyncPsycopgDriver,
) -> None:
    installed.execute("ALTER TABLE pgqueuer_ready DISABLE TRIGGER tg_pgqueuer_changed_work")
    assert run_sync(installed, manage.verify(SETTINGS)) == [
        "disabled trigger 'tg_pgqueuer_changed_work' of table 'pgqueuer_ready'"
    ]
    plan = run_sync(installed, manage.apply_upgrade(SETTINGS))
    assert plan.statements == ()
    (note,) = plan.notes
    installed.execute(note.partition("poll: ")[2])
    assert run_sync(installed, manage.verify(SETTINGS)) == []


def test_administrator_s_own_tuning_is_no_difference(
    installed: SyncPsycopgDriver, dsn: str
) -> None:
    installed.execute("ALTER INDEX pgqueuer_ready_order_idx SET (fillfactor = 70)")
    installed.execute(
        "ALTER TABLE pgqueuer_ready SET (autovacuum_vacuum_threshold = 500, vacuum_truncate = no)"
    )
    installed.execute("ALTER TABLE pgqueuer_held SET (fillfactor = 60)")
    installed.execute("ALTER TABLE pgqueuer_log_entries ADD COLUMN tenant text")
    installed.execute("CREATE INDEX tenants ON pgqueuer_log_entries (tenant)")
    assert run_sync(installed, manage.verify(SETTINGS)) == []
    assert run_sync(installed, manage.plan_upgrade(SETTINGS)) == Plan()


def test_durability_is_noted_but_no_problem(driver: SyncPsycopgDriver) -> None:
    run_sync(driver, manage.install(DBSettings(layout="lease", durability=Durability.volatile)))
    assert run_sync(driver, manage.verify(SETTINGS)) == []
    plan = run_sync(driver, manage.plan_upgrade(SETTINGS))
    assert plan.statements == ()
    # All but the table that is never logged.
    assert len(plan.notes) == len(TARGET.tables) - 1


def test_missing_labels(installed: SyncPsycopgDriver) -> None:
    installed.execute("ALTER TYPE pgqueuer_status RENAME VALUE 'deleted' TO 'other'")
    assert run_sync(installed, manage.verify(SETTINGS)) == [
        "missing label 'deleted' of type 'pgqueuer_status'"
    ]
    run_sync(installed, manage.apply_upgrade(SETTINGS))
    assert run_sync(installed, manage.verify(SETTINGS)) == []


def test_everything_is_missing_or_unexpected(driver: SyncPsycopgDriver) -> None:
    names = [table.name for table in TARGET.tables]
    triggers = ("tg_pgqueuer_changed_work", "tg_pgqueuer_changed_end")
    assert run_sync(driver, manage.verify(SETTINGS)) == [
        "missing type 'pgqueuer_status'",
        "missing sequence 'pgqueuer_ids'",
        *(f"missing table '{name}'" for name in names),
        "missing function 'fn_pgqueuer_changed_lease'",
        *TRIGGERS_MISSING,
        *VIEWS_MISSING,
    ]
    run_sync(driver, manage.install(SETTINGS))
    assert run_sync(driver, manage.verify(SETTINGS, "absent")) == [
        *(f"unexpected table '{name}'" for name in names),
        "unexpected view 'pgqueuer'",
        "unexpected view 'pgqueuer_log'",
        "unexpected sequence 'pgqueuer_ids'",
        "unexpected type 'pgqueuer_status'",
        "unexpected function 'fn_pgqueuer_changed_lease'",
        *(f"unexpected trigger '{name}'" for name in triggers),
    ]


def test_what_a_removal_by_hand_has_left_is_found(installed: SyncPsycopgDriver) -> None:
    for table in OWN_TABLES:
        installed.execute(f"DROP TABLE {table.name} CASCADE")
    assert run_sync(installed, manage.verify(SETTINGS, "absent")) == [
        "unexpected table 'pgqueuer_schedules'",
        "unexpected table 'pgqueuer_statistics'",
        "unexpected sequence 'pgqueuer_ids'",
        "unexpected type 'pgqueuer_status'",
        "unexpected function 'fn_pgqueuer_changed_lease'",
    ]
    run_sync(installed, manage.uninstall(SETTINGS))
    assert run_sync(installed, manage.verify(SETTINGS, "absent")) == []
