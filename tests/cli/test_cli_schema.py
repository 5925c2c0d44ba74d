"""The commands that manage the schema: effects, output, exit codes."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import psycopg
import pytest

from support.command_line import CommandLine, Done, failed_with_one_line, succeeded
from support.pg_programs import psql, schema_dump

if TYPE_CHECKING:
    from cli.conftest import InProcess

pytestmark = pytest.mark.impl_agnostic

PRESENT = "All required PgQueuer database objects are present.\n"
ABSENT = "No PgQueuer database objects found\n"


def execute(dsn: str, sql: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.encode())


def test_life_of_an_installation(pgq_quick: InProcess, dsn: str) -> None:
    empty = schema_dump(dsn)
    assert succeeded(pgq_quick("verify", "--expect", "absent", dsn=dsn)).stdout == ABSENT
    assert succeeded(pgq_quick("install", dsn=dsn)).stdout == ""
    assert succeeded(pgq_quick("verify", "--expect", "present", dsn=dsn)).stdout == PRESENT
    installed = schema_dump(dsn)

    assert "pgq upgrade" in failed_with_one_line(pgq_quick("install", dsn=dsn))
    done = succeeded(pgq_quick("upgrade", dsn=dsn))
    assert (done.stdout, done.stderr) == ("", "Up to date.\n")
    assert schema_dump(dsn) == installed

    assert succeeded(pgq_quick("autovac", dsn=dsn)).stdout == ""
    assert "fillfactor" in schema_dump(dsn)
    succeeded(pgq_quick("autovac", "--rollback", dsn=dsn))
    assert schema_dump(dsn) == installed
    succeeded(pgq_quick("durability", "balanced", dsn=dsn))
    assert schema_dump(dsn).count("UNLOGGED TABLE") == 2
    succeeded(pgq_quick("durability", "durable", dsn=dsn))
    assert schema_dump(dsn) == installed

    assert succeeded(pgq_quick("uninstall", dsn=dsn)).stdout == ""
    assert schema_dump(dsn) == empty


@pytest.mark.parametrize("source", ["options", "environment"])
def test_prefix_and_schema(source: str, pgq_quick: InProcess, dsn: str) -> None:
    names = {"PGQUEUER_PREFIX": "acme_", "PGQUEUER_SCHEMA": "billing", "PGDSN": dsn}

    def run(*arguments: str) -> Done:
        if source == "environment":
            return pgq_quick(*arguments, environment=names)
        return pgq_quick("--prefix", "acme_", "--schema", "billing", *arguments, dsn=dsn)

    succeeded(run("install"))
    assert "CREATE TABLE billing.acme_pgqueuer (" in schema_dump(dsn)
    assert succeeded(run("verify", "--expect", "present")).stdout == PRESENT
    # The other installation is not touched.
    assert pgq_quick("verify", "--expect", "absent", dsn=dsn).stdout == ABSENT
    succeeded(run("uninstall"))
    assert schema_dump(dsn) == "CREATE SCHEMA billing;"


@pytest.mark.parametrize("source", ["option", "environment"])
def test_life_of_an_installation_of_the_other_layout(
    source: str, pgq_quick: InProcess, dsn: str
) -> None:
    def run(*arguments: str) -> Done:
        if source == "environment":
            return pgq_quick(*arguments, dsn=dsn, environment={"PGQUEUER_LAYOUT": "lease"})
        return pgq_quick("--layout", "lease", *arguments, dsn=dsn)

    empty = schema_dump(dsn)
    succeeded(run("install"))
    installed = schema_dump(dsn)
    assert "CREATE TABLE public.pgqueuer_ready (" in installed
    assert "CREATE VIEW public.pgqueuer AS" in installed
    assert succeeded(run("verify", "--expect", "present")).stdout == PRESENT
    assert "pgq upgrade" in failed_with_one_line(run("install"))

    execute(dsn, "DROP VIEW pgqueuer_log")
    done = run("verify", "--expect", "present")
    assert (done.returncode, done.stdout) == (1, "missing view 'pgqueuer_log'\n")
    assert "CREATE VIEW pgqueuer_log" in succeeded(run("upgrade", "--plan")).stdout
    assert succeeded(run("upgrade")).stderr == "Applied 1 statement.\n"
    assert schema_dump(dsn) == installed

    succeeded(run("autovac"))
    assert schema_dump(dsn) != installed
    succeeded(run("autovac", "--rollback"))
    succeeded(run("durability", "balanced"))
    assert schema_dump(dsn).count("UNLOGGED TABLE") == 4
    succeeded(run("durability", "durable"))
    assert schema_dump(dsn) == installed

    # Without the option it is the wrong layout, for every command.
    for command in (
        ("install",),
        ("uninstall",),
        ("upgrade",),
        ("upgrade", "--plan"),
        ("durability", "volatile"),
        ("autovac",),
    ):
        line = failed_with_one_line(pgq_quick(*command, dsn=dsn))
        assert "has the layout lease" in line
        assert "PGQUEUER_LAYOUT" in line
    done = pgq_quick("verify", "--expect", "present", dsn=dsn)
    assert done.returncode == 1
    assert "has the layout lease" in done.stdout
    assert schema_dump(dsn) == installed

    succeeded(run("uninstall"))
    assert schema_dump(dsn) == empty


def test_typed_layout_outweighs_the_variable(pgq_quick: InProcess) -> None:
    variables = {"PGQUEUER_LAYOUT": "lease"}
    assert "layout lease" in pgq_quick("sql", "install", environment=variables).stdout
    typed = pgq_quick("--layout", "compat", "sql", "install", environment=variables).stdout
    assert "layout compat" in typed
    assert typed == pgq_quick("sql", "install").stdout


def test_typed_schema_outweighs_every_variable(pgq_quick: InProcess) -> None:
    variables = {"DB_SCHEMA": "one", "PGQUEUER_SCHEMA": "two"}
    assert "one.pgqueuer " in pgq_quick("sql", "install", environment=variables).stdout
    typed = pgq_quick("--schema", "three", "sql", "install", environment=variables).stdout
    assert "three.pgqueuer " in typed
    assert "one." not in typed


def test_schema_that_must_exist(pgq_quick: InProcess, dsn: str) -> None:
    arguments = ("--schema", "billing", "install", "--no-create-schema")
    assert "--no-create-schema" in failed_with_one_line(pgq_quick(*arguments, dsn=dsn))
    execute(dsn, "CREATE SCHEMA billing")
    succeeded(pgq_quick(*arguments, dsn=dsn))


def test_verify_reports_all_that_pgqueuer_reports(pgq: CommandLine, dsn: str) -> None:
    for expect, rows in (("present", 7), ("absent", 7)):
        ours = pgq("verify", "--expect", expect, dsn=dsn)
        theirs = pgq("verify", "--expect", expect, dsn=dsn, package="pgqueuer")
        assert (ours.returncode, theirs.returncode) == (1, 1)
        assert len(ours.stdout.splitlines()) == rows
        assert set(theirs.stdout.splitlines()) < set(ours.stdout.splitlines())
        pgq("install", dsn=dsn)


def test_verify_sees_what_pgqueuer_does_not_look_for(pgq: CommandLine, dsn: str) -> None:
    succeeded(pgq("install", dsn=dsn))
    execute(dsn, "DROP INDEX pgqueuer_picked_slot_idx")
    done = pgq("verify", "--expect", "present", dsn=dsn)
    assert (done.returncode, done.stdout) == (1, "missing index 'pgqueuer_picked_slot_idx'\n")


def test_upgrade_plans_and_applies(pgq_quick: InProcess, dsn: str) -> None:
    succeeded(pgq_quick("install", "--durability", "volatile", dsn=dsn))
    complete = schema_dump(dsn)
    execute(dsn, "ALTER TABLE pgqueuer DROP COLUMN slot")
    damaged = schema_dump(dsn)
    environment = {"PGQUEUER_DURABILITY": "volatile"}

    planned = succeeded(pgq_quick("upgrade", "--plan", dsn=dsn, environment=environment))
    assert schema_dump(dsn) == damaged
    assert "ALTER TABLE pgqueuer ADD COLUMN slot bigint;" in planned.stdout
    assert planned.stderr.splitlines()[-1] == "Would apply 2 statements."
    assert planned.stderr.startswith("note: The upgrade builds pgqueuer_picked_slot_idx")

    applied = succeeded(pgq_quick("upgrade", dsn=dsn, environment=environment))
    assert applied.stdout == ""
    assert applied.stderr.splitlines()[-1] == "Applied 2 statements."
    assert schema_dump(dsn) == complete

    execute(dsn, "ALTER TABLE pgqueuer DROP COLUMN slot")
    psql(dsn, planned.stdout)
    assert schema_dump(dsn) == complete
    again = succeeded(pgq_quick("upgrade", "--plan", dsn=dsn, environment=environment))
    assert again.stdout == ""


def test_rewriting_shows_on_a_terminal_that_it_goes_on(pgq: CommandLine, dsn: str) -> None:
    succeeded(pgq("install", dsn=dsn))
    for command, shown in {
        ("durability", "volatile"): "Rewriting the tables that change",
        ("upgrade",): "Upgrading; a table may be rewritten",
    }.items():
        with pgq.start(*command, dsn=dsn, terminal=True) as running:
            assert running.end() == 0
        assert shown in running.output


def test_upgrade_without_widening(pgq_quick: InProcess, dsn: str) -> None:
    succeeded(pgq_quick("install", dsn=dsn))
    execute(dsn, "ALTER TABLE pgqueuer ALTER COLUMN id TYPE integer")
    done = succeeded(pgq_quick("upgrade", "--no-widen-id", dsn=dsn))
    assert done.stderr.startswith("note: pgqueuer.id stays a 32-bit integer")
    assert "id integer" in schema_dump(dsn)
    succeeded(pgq_quick("upgrade", dsn=dsn))
    assert "id integer" not in schema_dump(dsn)


def test_upgrade_that_meets_drift(pgq: CommandLine, dsn: str) -> None:
    succeeded(pgq("install", dsn=dsn))
    execute(dsn, "ALTER TABLE pgqueuer ALTER COLUMN payload TYPE text")
    line = failed_with_one_line(pgq("upgrade", dsn=dsn))
    assert "pgqueuer.payload" in line
    assert "change it by hand" in line


@pytest.mark.parametrize(
    ("layout", "unlogged", "always", "damage"),
    [
        ("compat", 4, 0, "ALTER TABLE q_pgqueuer DROP COLUMN slot"),
        ("lease", 10, 1, "DROP TABLE q_pgqueuer_dedupe"),
    ],
)
def test_sql_does_what_the_commands_do(
    layout: str, unlogged: int, always: int, damage: str, pgq_quick: InProcess, dsn: str
) -> None:
    nowhere = {"PGHOST": "/nowhere", "PGQUEUER_LAYOUT": layout}

    def sql(*arguments: str) -> str:
        done = succeeded(pgq_quick("--prefix", "q_", "sql", *arguments, environment=nowhere))
        assert done.stderr == ""
        return done.stdout

    psql(dsn, sql("install", "-d", "volatile"))
    assert schema_dump(dsn).count("CREATE UNLOGGED TABLE") == unlogged
    psql(dsn, sql("durability", "durable"))
    installed = schema_dump(dsn)
    assert installed.count("UNLOGGED") == always
    psql(dsn, sql("autovac"))
    assert "fillfactor" in schema_dump(dsn)
    psql(dsn, sql("autovac", "--rollback"))
    assert schema_dump(dsn) == installed
    execute(dsn, damage)
    psql(dsn, sql("upgrade"))
    assert schema_dump(dsn) == installed
    psql(dsn, sql("uninstall"))
    assert schema_dump(dsn) == ""
    psql(dsn, sql("upgrade"))
    assert schema_dump(dsn) == installed

    assert "TYPE bigint" in sql("upgrade")
    assert "TYPE bigint" not in sql("upgrade", "--no-widen-id")
    billing = ("--schema", "billing", "sql", "install")
    assert "CREATE SCHEMA" in pgq_quick(*billing, environment=nowhere).stdout
    assert (
        "CREATE SCHEMA" not in pgq_quick(*billing, "--no-create-schema", environment=nowhere).stdout
    )


@pytest.mark.parametrize(
    "command",
    [
        ("install", "-d", "balanced"),
        ("uninstall",),
        ("upgrade",),
        ("durability", "balanced"),
        ("autovac",),
        ("autovac", "--rollback"),
    ],
    ids=" ".join,
)
def test_dry_run_prints_what_sql_prints(command: tuple[str, ...], pgq_quick: InProcess) -> None:
    dry = succeeded(pgq_quick(*command, "--dry-run", environment={"PGHOST": "/nowhere"}))
    assert dry.stdout == succeeded(pgq_quick("sql", *command)).stdout
    assert f"use 'pgq sql {command[0]}'" in dry.stderr


def test_deprecated_durability_of_upgrade(pgq_quick: InProcess, dsn: str) -> None:
    succeeded(pgq_quick("install", dsn=dsn))
    installed = schema_dump(dsn)
    done = succeeded(pgq_quick("upgrade", "--durability", "volatile", dsn=dsn))
    assert "use 'pgq durability'" in done.stderr
    assert schema_dump(dsn) == installed


FACTORY = """
    import contextlib, os
    import psycopg
    from pgq_fast.builders import QueryBuilderEnvironment
    from pgq_fast.db import PsycopgDriver
    from pgq_fast.queries import Queries
    from pgq_fast.settings import DBSettings

    @contextlib.asynccontextmanager
    async def make():
        connect = psycopg.AsyncConnection.connect
        settings = DBSettings(prefix="mine_")
        async with await connect(os.environ["TEST_DSN"], autocommit=True) as connection:
            yield Queries(PsycopgDriver(connection), qbe=QueryBuilderEnvironment(settings))

    @contextlib.asynccontextmanager
    async def something_else():
        yield 5

    async def coroutine():
        return 5

    @contextlib.asynccontextmanager
    async def broken():
        open("no_such_file")
        yield
"""


def test_factory(pgq: CommandLine, dsn: str) -> None:
    (pgq.folder / "my_factories.py").write_text(textwrap.dedent(FACTORY))

    def run(*commands: tuple[str, ...]) -> list[Done]:
        each = [("--factory", *command) for command in commands]
        return pgq.each(each, environment={"TEST_DSN": dsn})

    installed, verified = run(
        ("my_factories:make", "install"), ("my_factories:make", "verify", "--expect", "present")
    )
    succeeded(installed)
    assert "CREATE TABLE public.mine_pgqueuer (" in schema_dump(dsn)
    assert succeeded(verified).stdout == PRESENT

    expected = {
        "my_factories:something_else": "yields a int",
        "my_factories:coroutine": "returned a coroutine",
        "my_factories:missing": "cannot be loaded",
        "my_factories": "module:function",
        "no_such_module:make": "no_such_module",
        # What the factory itself gets wrong is for its author, who is told where.
        "my_factories:broken": "FileNotFoundError",
    }
    lines = [failed_with_one_line(done) for done in run(*((name, "install") for name in expected))]
    for part, line in zip(expected.values(), lines, strict=True):
        assert part in line
    own = lines[-1]
    assert "(my_factories.py, line 25, in broken)" in own
    for asking in (["--traceback"], []):
        options = [*asking, "--factory", "my_factories:broken", "install"]
        traced = pgq(*options, environment={} if asking else {"PGQUEUER_TRACEBACK": "1"})
        assert (traced.returncode, traced.stdout) == (1, "")
        assert traced.stderr.startswith("Traceback")
        assert traced.stderr.splitlines()[-1] == own


WITHOUT = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
from pgq_fast.__main__ import main
main()
"""


def test_falls_back_to_psycopg(pgq: CommandLine, dsn: str) -> None:
    program = WITHOUT.format(missing=["asyncpg"])
    succeeded(pgq("install", dsn=dsn, program=program))
    assert "CREATE TABLE" in schema_dump(dsn)


def test_without_any_driver(pgq: CommandLine, dsn: str) -> None:
    program = WITHOUT.format(missing=["asyncpg", "psycopg"])
    line = failed_with_one_line(pgq("install", dsn=dsn, program=program))
    assert "pip install 'pgq-fast[asyncpg]'" in line
    # What needs no connection needs no driver.
    assert "CREATE TABLE" in succeeded(pgq("sql", "install", program=program)).stdout


@pytest.mark.parametrize("missing", [[], ["asyncpg"]], ids=["asyncpg", "psycopg"])
@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:s3cret@127.0.0.1:1/none",
        "postgres//me:s3cret@127.0.0.1/none",
        "postgresql://me:s3cret@127.0.0.1:port/none",
        "host=127.0.0.1 password=s3cret port=1 nonsense=5",
    ],
)
def test_cannot_connect(dsn: str, missing: list[str], pgq: CommandLine) -> None:
    program = WITHOUT.format(missing=missing)
    done = pgq("verify", "--expect", "present", dsn=dsn, program=program)
    line = failed_with_one_line(done)
    assert "cannot connect to PostgreSQL" in line
    assert "--pg-dsn" in line
    assert "s3cret" not in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("autovac",), "pgq install"),
        (("durability", "volatile"), "pgq install"),
        (("--prefix", "no-prefix", "install"), "prefix: String should match"),
        (("--schema", "no schema", "uninstall"), "db_schema: String should match"),
    ],
)
def test_failures_say_what_to_do(
    arguments: tuple[str, ...], expected: str, pgq_quick: InProcess, dsn: str
) -> None:
    line = failed_with_one_line(pgq_quick(*arguments, dsn=dsn))
    assert expected in line


def test_install_over_an_object_of_somebody_else(pgq: CommandLine, dsn: str) -> None:
    execute(dsn, "CREATE FUNCTION fn_pgqueuer_changed() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    line = failed_with_one_line(pgq("install", dsn=dsn))
    assert "SQLSTATE 42723" in line
    assert "pgq verify" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify",),
        ("verify", "--expect", "maybe"),
        ("install", "-d", "sometimes"),
        ("durability",),
        ("unknown",),
        ("install", "--unknown"),
        ("--layout", "other", "install"),
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: tuple[str, ...], pgq_quick: InProcess) -> None:
    done = pgq_quick(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: pgqueuer" in done.stderr


def test_help(pgq_quick: InProcess) -> None:
    text = succeeded(pgq_quick("--help")).stdout
    for word in ("Usage: pgqueuer", "--prefix", "install", "sql"):
        assert word in text
    assert "--dry-run" not in pgq_quick("install", "--help").stdout


def test_interrupt_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    from pgq_fast import __main__
    from pgq_fast.cli import app as program

    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "app", interrupted)
    assert __main__.main() is None  # type: ignore[func-returns-value]
