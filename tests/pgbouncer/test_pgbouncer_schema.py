"""Installation and upgrade through PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from pgbouncer.helpers import Ways
from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.queries import Queries, SyncQueries
from pgq_fast.schema import manage
from pgq_fast.schema.statements import run_sync
from pgq_fast.settings import DBSettings, Layout
from support.command_line import CommandLine, Done
from support.layouts import queries_of

pytestmark = pytest.mark.impl_agnostic

Open = Callable[..., Awaitable[Any]]

FIXTURES = Path(__file__).parents[1] / "schema" / "fixtures"
LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
POOLING = {"PGQUEUER_TRANSACTION_POOLING": "true"}


@pytest.fixture
def old(empty: Ways) -> Ways:
    """A database as the oldest release of pgqueuer installs it."""
    install_release(empty, "0.18.10")
    return empty


def install_release(ways: Ways, release: str) -> None:
    with psycopg.connect(ways.direct, autocommit=True) as connection:
        connection.execute((FIXTURES / f"pgqueuer-{release}.sql").read_bytes())


def value(dsn: str, query: str) -> Any:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


@pytest.mark.parametrize("layout", list(Layout))
async def test_life_of_an_installation(
    layout: Layout, kind: str, empty: Ways, open_through: Open
) -> None:
    queries = queries_of(await open_through(kind, empty.pooled), layout)
    for _ in range(2):
        assert not await queries.schema_is_installed()
        await queries.install()
        assert await queries.verify() == []
        await queries.alter_durability()
        await queries.optimize_autovacuum()
        await queries.optimize_autovacuum_rollback()
        await queries.driver.execute("DROP TABLE pgqueuer_statistics")
        await queries.upgrade()
        assert await queries.verify() == []
        assert await queries.installed_layout() is layout
        await queries.uninstall()
        assert await queries.verify("absent") == []
    assert value(empty.direct, LOCKS) == 0


def test_life_of_an_installation_over_a_blocking_driver(empty: Ways) -> None:
    with psycopg.connect(empty.pooled, autocommit=True) as connection:
        queries = SyncQueries(SyncPsycopgDriver(connection, transaction_pooling=True))
        for _ in range(2):
            queries.install()
            queries.upgrade()
            assert queries.verify() == []
            queries.uninstall()
            assert queries.verify("absent") == []
    assert value(empty.direct, LOCKS) == 0


@pytest.mark.parametrize("release", ["0.18.10", "1.0.2", "1.1.1", "1.3.2"])
async def test_upgrade(release: str, kind: str, empty: Ways, open_through: Open) -> None:
    install_release(empty, release)
    queries = Queries(await open_through(kind, empty.pooled))
    plan = await queries.plan_upgrade()
    assert await queries.apply_upgrade() == plan
    assert await queries.verify() == []
    assert (await queries.apply_upgrade()).statements == ()
    assert value(empty.direct, LOCKS) == 0


def test_upgrade_over_a_blocking_driver(old: Ways) -> None:
    with psycopg.connect(old.pooled, autocommit=True) as connection:
        queries = SyncQueries(SyncPsycopgDriver(connection, transaction_pooling=True))
        queries.upgrade()
        assert queries.verify() == []
    assert value(old.direct, LOCKS) == 0


async def test_upgrades_at_once(old: Ways, open_through: Open) -> None:
    """One of them does it all, and none fails on what another one does."""
    kinds = ("asyncpg", "asyncpg-pool", "psycopg", "owned-asyncpg")
    all_queries = [Queries(await open_through(kind, old.pooled)) for kind in kinds]
    plan = await all_queries[0].plan_upgrade()
    done = await asyncio.gather(*(queries.apply_upgrade() for queries in all_queries))
    applied = [each for part in done for each in part.statements]
    assert sorted(applied) == sorted(plan.statements)
    assert await all_queries[0].verify() == []
    assert value(old.direct, LOCKS) == 0


async def test_an_upgrade_waits_for_one_that_is_under_way(old: Ways, open_through: Open) -> None:
    """Also for pgqueuer's, or one past the pooler: they hold the same lock all the time."""
    queries = Queries(await open_through("asyncpg", old.pooled))
    with psycopg.connect(old.direct, autocommit=True) as connection:
        lock = manage.lock(DBSettings())
        run = SyncPsycopgDriver(connection)
        run.execute(lock.sql, *lock.args)
        task = asyncio.create_task(queries.apply_upgrade())
        await asyncio.sleep(0.5)
        assert not task.done()
        assert run_sync(run, manage.plan_upgrade(DBSettings())).statements
        unlock = manage.unlock(DBSettings())
        run.execute(unlock.sql, *unlock.args)
        async with asyncio.timeout(30):
            assert (await task).statements


async def test_an_upgrade_that_fails_says_why(old: Ways, open_through: Open) -> None:
    queries = Queries(await open_through("asyncpg", old.pooled))
    with psycopg.connect(old.direct, autocommit=True) as connection:
        # The type of a column that a view shows cannot be changed.
        connection.execute("CREATE VIEW mine AS SELECT id, payload FROM pgqueuer")
        with pytest.raises(asyncpg.FeatureNotSupportedError):
            await queries.apply_upgrade()
        connection.execute("DROP VIEW mine")
    await queries.apply_upgrade()
    assert await queries.verify() == []


def succeeded(done: Done) -> Done:
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("without", ["", "asyncpg"])
def test_command_line(without: str, empty: Ways, tmp_path: Path) -> None:
    """With either library."""
    if without:
        (tmp_path / "hide").mkdir()
        (tmp_path / "hide" / f"{without}.py").write_text(
            f"raise ModuleNotFoundError('hidden', name={without!r})\n"
        )
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'hide')!r})\n"
        "from pgq_fast.__main__ import main; main()"
    )
    line = CommandLine(tmp_path)

    def pgq(*arguments: str) -> Done:
        return line(*arguments, dsn=empty.pooled, program=program, environment=POOLING)

    succeeded(pgq("install"))
    assert pgq("install").returncode == 1
    succeeded(pgq("verify", "--expect", "present"))
    assert "Up to date" in succeeded(pgq("upgrade")).stderr
    succeeded(pgq("autovac"))
    succeeded(pgq("durability", "balanced"))
    succeeded(pgq("uninstall"))
    succeeded(pgq("verify", "--expect", "absent"))
    install_release(empty, "0.18.10")
    assert "Applied" in succeeded(pgq("upgrade")).stderr
    assert value(empty.direct, LOCKS) == 0


def test_a_setting_that_makes_no_sense_is_one_line(empty: Ways, tmp_path: Path) -> None:
    done = CommandLine(tmp_path)(
        "install", dsn=empty.pooled, environment={"PGQUEUER_TRANSACTION_POOLING": "perhaps"}
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "transaction_pooling" in line
