"""Damage of every kind: verification names it, an upgrade repairs it."""

from __future__ import annotations

import pytest

from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.schema import Plan, manage
from pgq_fast.schema.offline import upgrade_script
from pgq_fast.schema.statements import run_sync
from pgq_fast.schema.target import target
from pgq_fast.settings import DBSettings, Durability
from support.pg_programs import objects, psql, schema_dump

pytestmark = [pytest.mark.impl_agnostic, pytest.mark.pg_matrix]

SETTINGS = DBSettings()
TARGET = target(SETTINGS)

MISSING = {
    # Everything of a kind at once: each is found by itself.
    "indexes": (
        "; ".join(f"DROP INDEX {index.name}" for index in TARGET.indexes),
        [f"missing index '{index.name}'" for index in TARGET.indexes],
    ),
    **{
        f"columns of {table.name}": (
            "; ".join(f"ALTER TABLE {table.name} DROP COLUMN {name}" for name in names),
            [f"missing column '{table.name}.{name}'" for name in names],
        )
        for table in TARGET.tables
        for names in [[column.name for column in table.columns if column.numbering is None]]
    },
    **{
        f"table {table.name}": (f"DROP TABLE {table.name}", [f"missing table '{table.name}'"])
        for table in TARGET.tables
    },
    "trigger": (
        "DROP TRIGGER tg_pgqueuer_changed ON pgqueuer",
        ["missing trigger 'tg_pgqueuer_changed'"],
    ),
    "function": (
        "DROP FUNCTION fn_pgqueuer_changed CASCADE",
        ["missing function 'fn_pgqueuer_changed'", "missing trigger 'tg_pgqueuer_changed'"],
    ),
    "constraints": (
        "ALTER TABLE pgqueuer_log DROP CONSTRAINT pgqueuer_log_pkey; "
        "ALTER TABLE pgqueuer_schedules "
        "DROP CONSTRAINT pgqueuer_schedules_expression_entrypoint_key",
        [
            "missing primary key of table 'pgqueuer_log'",
            "missing unique constraint of table 'pgqueuer_schedules': (expression, entrypoint)",
        ],
    ),
}

DIFFERENT = [
    (
        "ALTER TABLE pgqueuer ALTER COLUMN entrypoint DROP NOT NULL",
        "different column 'pgqueuer.entrypoint': nullable",
    ),
    (
        "ALTER TABLE pgqueuer ALTER COLUMN payload SET NOT NULL",
        "different column 'pgqueuer.payload': not null",
    ),
    (
        "ALTER TABLE pgqueuer ALTER COLUMN created DROP DEFAULT",
        "different default of column 'pgqueuer.created': None, expected now()",
    ),
    (
        "ALTER TABLE pgqueuer ALTER COLUMN attempts SET DEFAULT 1",
        "different default of column 'pgqueuer.attempts': 1, expected 0",
    ),
    (
        "ALTER TABLE pgqueuer ALTER COLUMN slot SET DEFAULT 1",
        "different default of column 'pgqueuer.slot': 1, expected None",
    ),
    (
        "ALTER TABLE pgqueuer ALTER COLUMN id TYPE integer",
        "different type of column 'pgqueuer.id': integer, expected bigint",
    ),
    (
        "ALTER SEQUENCE pgqueuer_id_seq AS integer",
        "different type of the ids of table 'pgqueuer': integer, expected bigint",
    ),
    (
        "ALTER TABLE pgqueuer_schedules ALTER COLUMN status DROP DEFAULT, "
        "ALTER COLUMN status TYPE text, ALTER COLUMN status SET DEFAULT 'queued'",
        "different type of column 'pgqueuer_schedules.status': text, expected pgqueuer_status",
    ),
    (
        "DROP INDEX pgqueuer_ep_ea_idx; CREATE INDEX pgqueuer_ep_ea_idx ON pgqueuer (entrypoint)",
        "different index 'pgqueuer_ep_ea_idx': on pgqueuer USING btree (entrypoint), expected on "
        "pgqueuer USING btree (entrypoint, execute_after) WHERE "
        "(status = 'queued'::pgqueuer_status)",
    ),
    (
        "DROP INDEX pgqueuer_log_created; CREATE INDEX pgqueuer_log_created ON pgqueuer (created)",
        "different index 'pgqueuer_log_created': on pgqueuer USING btree (created), expected on "
        "pgqueuer_log USING btree (created)",
    ),
    (
        "DROP INDEX pgqueuer_log_status; CREATE UNIQUE INDEX pgqueuer_log_status "
        "ON pgqueuer_log (status)",
        "different index 'pgqueuer_log_status': unique on pgqueuer_log USING btree (status), "
        "expected on pgqueuer_log USING btree (status)",
    ),
    (
        "UPDATE pg_index SET indisvalid = false "
        "WHERE indexrelid = 'pgqueuer_picked_slot_idx'::regclass",
        "invalid index 'pgqueuer_picked_slot_idx': its build broke off",
    ),
    (
        "CREATE OR REPLACE FUNCTION fn_pgqueuer_changed() RETURNS trigger LANGUAGE plpgsql "
        "AS $$BEGIN RETURN NULL; END$$",
        "different function 'fn_pgqueuer_changed'",
    ),
    (
        "CREATE OR REPLACE TRIGGER tg_pgqueuer_changed AFTER INSERT ON pgqueuer "
        "EXECUTE FUNCTION fn_pgqueuer_changed()",
        "different trigger 'tg_pgqueuer_changed'",
    ),
    (
        "CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$; "
        "CREATE OR REPLACE TRIGGER tg_pgqueuer_changed AFTER INSERT OR UPDATE OR DELETE OR "
        "TRUNCATE ON pgqueuer EXECUTE FUNCTION other()",
        "different trigger 'tg_pgqueuer_changed'",
    ),
]


def installed(driver: SyncPsycopgDriver) -> None:
    run_sync(driver, manage.install(SETTINGS))


@pytest.mark.parametrize(
    ("damage", "problems"),
    [*MISSING.values(), *((damage, [problem]) for damage, problem in DIFFERENT)],
    ids=[*MISSING.keys(), *(problem for _, problem in DIFFERENT)],
)
def test_damage_is_named_and_repaired(
    damage: str, problems: list[str], driver: SyncPsycopgDriver, dsn: str, fresh_dump: str
) -> None:
    installed(driver)
    driver.execute(damage)
    assert set(problems) <= set(run_sync(driver, manage.verify(SETTINGS)))

    assert run_sync(driver, manage.apply_upgrade(SETTINGS)).statements
    assert run_sync(driver, manage.verify(SETTINGS)) == []
    assert run_sync(driver, manage.plan_upgrade(SETTINGS)) == Plan()
    driver.execute("DROP FUNCTION IF EXISTS other")
    assert objects(schema_dump(dsn)) == objects(fresh_dump)


@pytest.mark.parametrize("kind", MISSING.keys())
def test_offline_script_brings_back_what_is_missing(
    kind: str, driver: SyncPsycopgDriver, dsn: str, fresh_dump: str
) -> None:
    installed(driver)
    driver.execute(MISSING[kind][0])
    psql(dsn, upgrade_script(SETTINGS))
    assert run_sync(driver, manage.verify(SETTINGS)) == []
    assert objects(schema_dump(dsn)) == objects(fresh_dump)


def test_missing_labels(driver: SyncPsycopgDriver) -> None:
    installed(driver)
    driver.execute("ALTER TYPE pgqueuer_status RENAME VALUE 'canceled' TO 'other'")
    assert run_sync(driver, manage.verify(SETTINGS)) == [
        "missing label 'canceled' of type 'pgqueuer_status'"
    ]
    run_sync(driver, manage.apply_upgrade(SETTINGS))
    assert run_sync(driver, manage.verify(SETTINGS)) == []
    # At its place, and what somebody else added stays.
    labels = driver.fetch(
        "SELECT array_agg(label::text) AS labels "
        "FROM unnest(enum_range(NULL::pgqueuer_status)) AS label"
    )
    assert labels == [
        {
            "labels": [
                "queued",
                "picked",
                "successful",
                "exception",
                "canceled",
                "other",
                "deleted",
                "failed",
            ]
        }
    ]


def test_disabled_trigger_is_a_problem_but_somebody_s_decision(driver: SyncPsycopgDriver) -> None:
    installed(driver)
    driver.execute("ALTER TABLE pgqueuer DISABLE TRIGGER tg_pgqueuer_changed")
    assert run_sync(driver, manage.verify(SETTINGS)) == ["disabled trigger 'tg_pgqueuer_changed'"]
    plan = run_sync(driver, manage.apply_upgrade(SETTINGS))
    assert plan.statements == ()
    (note,) = plan.notes
    driver.execute(note.partition("poll: ")[2])
    assert run_sync(driver, manage.verify(SETTINGS)) == []


def test_what_an_upgrade_leaves_to_the_operator(driver: SyncPsycopgDriver) -> None:
    installed(driver)
    driver.execute(
        "ALTER TABLE pgqueuer ALTER COLUMN id DROP DEFAULT, DROP CONSTRAINT pgqueuer_pkey, "
        "ADD PRIMARY KEY (id, priority)"
    )
    assert run_sync(driver, manage.verify(SETTINGS)) == [
        "different column 'pgqueuer.id': plain, expected serial",
        "different primary key of table 'pgqueuer': (id, priority), expected (id)",
    ]
    plan = run_sync(driver, manage.plan_upgrade(SETTINGS))
    assert plan.statements == ()
    assert len(plan.notes) == 2


def test_administrator_s_own_tuning_is_no_difference(driver: SyncPsycopgDriver, dsn: str) -> None:
    installed(driver)
    driver.execute("ALTER INDEX pgqueuer_ep_ea_idx SET (fillfactor = 70)")
    driver.execute("ALTER TABLE pgqueuer SET (fillfactor = 60)")
    driver.execute("ALTER TABLE pgqueuer ADD COLUMN tenant text")
    driver.execute("CREATE INDEX tenants ON pgqueuer (tenant)")
    driver.execute("ALTER TABLE pgqueuer ADD UNIQUE (id, tenant)")
    assert run_sync(driver, manage.verify(SETTINGS)) == []
    assert run_sync(driver, manage.plan_upgrade(SETTINGS)) == Plan()
    before = schema_dump(dsn)
    psql(dsn, upgrade_script(SETTINGS))
    assert schema_dump(dsn) == before


def test_durability_is_noted_but_no_problem(driver: SyncPsycopgDriver) -> None:
    run_sync(driver, manage.install(DBSettings(durability=Durability.volatile)))
    assert run_sync(driver, manage.verify(SETTINGS)) == []
    plan = run_sync(driver, manage.plan_upgrade(SETTINGS))
    assert plan.statements == ()
    assert len(plan.notes) == 4
    assert "pgqueuer is unlogged" in plan.notes[0]


def test_everything_is_missing_or_unexpected(driver: SyncPsycopgDriver) -> None:
    assert run_sync(driver, manage.verify(SETTINGS)) == [
        "missing type 'pgqueuer_status'",
        "missing table 'pgqueuer'",
        "missing table 'pgqueuer_log'",
        "missing table 'pgqueuer_schedules'",
        "missing table 'pgqueuer_statistics'",
        "missing function 'fn_pgqueuer_changed'",
        "missing trigger 'tg_pgqueuer_changed'",
    ]
    installed(driver)
    driver.execute("CREATE TYPE pgqueuer_statistics_status AS ENUM ()")
    assert run_sync(driver, manage.verify(SETTINGS, "absent")) == [
        "unexpected table 'pgqueuer'",
        "unexpected table 'pgqueuer_log'",
        "unexpected table 'pgqueuer_schedules'",
        "unexpected table 'pgqueuer_statistics'",
        "unexpected type 'pgqueuer_status'",
        "unexpected type 'pgqueuer_statistics_status'",
        "unexpected function 'fn_pgqueuer_changed'",
        "unexpected trigger 'tg_pgqueuer_changed'",
    ]


def test_schema_that_does_not_exist(driver: SyncPsycopgDriver) -> None:
    settings = DBSettings(db_schema="nowhere")
    assert len(run_sync(driver, manage.verify(settings))) == 7
    assert run_sync(driver, manage.verify(settings, "absent")) == []
    run_sync(driver, manage.uninstall(settings))
