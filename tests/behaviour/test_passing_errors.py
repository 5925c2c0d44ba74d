"""Errors of the server that pass: a worker on connections of its own waits until they are over."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final, Literal

import psycopg
import pytest

from behaviour.helpers import QUIET, Recorder, Tables, eventually, layout_of
from pgq_fast.applications import PgQueuer
from pgq_fast.db import AsyncpgDriver
from pgq_fast.drivers.failures import sqlstate_of
from pgq_fast.queries import Queries
from pgq_fast.settings import ConnectionSettings, Layout
from pgq_fast.types import QueueExecutionMode
from support.drivers import MakeDriver

# What the server says is the same whoever reads it.
pytestmark = [pytest.mark.layouts(), pytest.mark.impl_agnostic]

PASSING: Final = {
    "53100": "disk full",
    "53200": "out of memory",
    "40P01": "deadlock detected",
    "40001": "could not serialize",
    "55P03": "lock not available",
    "57014": "canceled by statement timeout",
    "25006": "read-only transaction",
    "58030": "input/output error",
}
LASTING: Final = {"42501": "permission denied", "42P01": "relation does not exist"}

_MADE_OF: Final = {
    Layout.compat: {"claim": "UPDATE ON pgqueuer", "end": "DELETE ON pgqueuer"},
    Layout.lease: {"claim": "INSERT ON pgqueuer_lease", "end": "DELETE ON pgqueuer_lease"},
}


@pytest.fixture
def pgq(queue_dsn: str, library: Literal["asyncpg", "psycopg"]) -> PgQueuer:
    return PgQueuer.from_dsn(queue_dsn, library, settings=ConnectionSettings(application_name="w"))


class Trouble:
    """A server that fails the worker ``w`` with what is in the table ``trouble``."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def install(self, on: str) -> None:
        """Have the statements fail that do what *on* says."""
        await self._tables.rows("CREATE TABLE IF NOT EXISTS trouble (code text, message text)")
        await self._tables.rows(
            "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$"
            " DECLARE it record; BEGIN"
            " SELECT * INTO it FROM trouble"
            " WHERE current_setting('application_name') = 'w' LIMIT 1;"
            " IF FOUND THEN RAISE EXCEPTION '%', it.message USING ERRCODE = it.code; END IF;"
            " RETURN NULL; END $$"
        )
        await self._tables.rows(
            f"CREATE TRIGGER fail BEFORE {on} FOR EACH STATEMENT EXECUTE FUNCTION fail()"
        )

    async def begin(self, code: str, message: str) -> None:
        await self._tables.rows("INSERT INTO trouble VALUES ($1, $2)", code, message)

    async def end(self) -> None:
        await self._tables.rows("DELETE FROM trouble")


@contextlib.asynccontextmanager
async def running(pgq: PgQueuer, **arguments: Any) -> AsyncIterator[asyncio.Task[None]]:
    """*pgq* at work beside the block, after which it stops in good order."""
    task = asyncio.create_task(pgq.run(**{**QUIET, **arguments}))
    try:
        yield task
        assert not task.done(), task.exception()
        pgq.shutdown.set()
        await asyncio.wait_for(task, 30)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        await pgq.close()


@pytest.mark.parametrize("what", ["claim", "end"])
async def test_a_worker_waits_until_they_are_over(
    pgq: PgQueuer,
    make_driver: MakeDriver,
    queue_dsn: str,
    tables: Tables,
    layout: Layout,
    what: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = Recorder()
    pgq.entrypoint("e")(handler)
    producer = Queries(await make_driver("asyncpg", queue_dsn))
    trouble = Trouble(tables)
    await trouble.install(_MADE_OF[layout][what])
    ids: list[Any] = []
    messages = dict(PASSING)
    if layout is Layout.compat and what == "claim":
        # Two claims for seats may deadlock: so there, that is one that found nothing.
        del messages["40P01"]
    async with running(pgq, heartbeat_timeout=timedelta(hours=1), batch_size=10) as task:
        for code, message in messages.items():
            await trouble.begin(code, message)
            ids += await producer.enqueue(["e"] * 30, [None] * 30, [0] * 30)
            # The driver's own error for a session that takes no changes is worded alike.
            await eventually(lambda message=message: task.done() or message in caplog.text)  # type: ignore[misc]
            # However many more are announced.
            for _ in range(20):
                ids += await producer.enqueue("e", None)
            await trouble.end()
            await all_ended(tables, ids, task)
    assert sorted(handler.ids) == ids
    assert await tables.ended() == ids
    failures = re.findall(r"next attempt in (\d\.\d) s: (.*)", caplog.text)
    assert len(failures) <= 4 * len(messages), failures
    for message in messages.values():
        assert any(message in text for _, text in failures)


async def all_ended(tables: Tables, ids: list[Any], task: asyncio.Task[None]) -> None:
    async def check() -> bool:
        assert not task.done(), task.exception()
        return len(await tables.ended()) == len(ids)

    await eventually(check)


async def test_attempts_are_ever_further_apart(
    pgq: PgQueuer,
    make_driver: MakeDriver,
    queue_dsn: str,
    tables: Tables,
    layout: Layout,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And a worker that waits for the next one can be stopped."""
    monkeypatch.setattr("pgq_fast.worker.loop.FIRST_PAUSE", 0.02)
    monkeypatch.setattr("pgq_fast.worker.loop.LONGEST_PAUSE", 0.08)
    pgq.entrypoint("e")(Recorder())
    producer = Queries(await make_driver("asyncpg", queue_dsn))
    trouble = Trouble(tables)
    await trouble.install(_MADE_OF[layout]["claim"])
    await trouble.begin("53100", "disk full")
    await producer.enqueue("e", None)
    async with running(pgq):

        def pauses() -> list[str]:
            return re.findall(r"Could not claim jobs, next attempt in (\S+) s", caplog.text)

        await eventually(lambda: len(pauses()) >= 6)
        assert pauses()[:6] == ["0.0", "0.0", "0.1", "0.1", "0.1", "0.1"]
        monkeypatch.setattr("pgq_fast.worker.loop.FIRST_PAUSE", 600.0)
        monkeypatch.setattr("pgq_fast.worker.loop.LONGEST_PAUSE", 1200.0)
        await eventually(lambda: "next attempt in 1200.0 s" in caplog.text or len(pauses()) > 7)
        monkeypatch.undo()
    assert await tables.count("queued") == 1


@pytest.mark.parametrize("code", LASTING)
async def test_what_does_not_pass_ends_the_run(
    pgq: PgQueuer, tables: Tables, layout: Layout, code: str
) -> None:
    pgq.entrypoint("e")(Recorder())
    trouble = Trouble(tables)
    await trouble.install(_MADE_OF[layout]["claim"])
    await trouble.begin(code, LASTING[code])
    assert pgq.queries is not None
    await pgq.queries.enqueue("e", None)
    with pytest.raises(Exception, match=LASTING[code]) as caught:
        await asyncio.wait_for(pgq.run(**QUIET), 30)
    assert sqlstate_of(caught.value) == code
    await pgq.close()


async def test_on_a_connection_of_the_users_nothing_is_waited_for(
    make_driver: MakeDriver, queue_dsn: str, tables: Tables, layout: Layout
) -> None:
    driver: AsyncpgDriver = await make_driver("asyncpg", queue_dsn)
    await driver.execute("SET application_name = 'w'")
    pgq = PgQueuer(driver)
    pgq.entrypoint("e")(Recorder())
    trouble = Trouble(tables)
    await trouble.install(_MADE_OF[layout]["claim"])
    await trouble.begin("55P03", "lock not available")
    assert pgq.queries is not None
    await pgq.queries.enqueue("e", None)
    with pytest.raises(Exception, match="lock not available"):
        await asyncio.wait_for(pgq.run(**QUIET), 30)


async def test_timeouts_of_the_role(
    pgq: PgQueuer,
    make_driver: MakeDriver,
    queue_dsn: str,
    tables: Tables,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every statement is cut short while somebody holds the tables, heartbeats too."""
    handler = Recorder(pause=1.5)
    pgq.entrypoint("e")(handler)
    producer = Queries(await make_driver("asyncpg", queue_dsn))
    (database,) = await tables.rows("SELECT current_database()")
    await tables.rows(f"ALTER DATABASE {database} SET statement_timeout = '150ms'")
    await tables.rows(f"ALTER DATABASE {database} SET lock_timeout = '100ms'")
    ids = await producer.enqueue(["e"] * 5, [None] * 5, [0] * 5)
    held = " ,".join(
        await tables.rows(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r'"
            " AND relname LIKE 'pgqueuer%'"
        )
    )
    async with running(
        pgq, heartbeat_timeout=timedelta(seconds=2), dequeue_timeout=timedelta(milliseconds=100)
    ) as task:
        await eventually(lambda: handler.running == 5)
        async with await psycopg.AsyncConnection.connect(queue_dsn) as holder:
            await holder.execute(f"LOCK TABLE {held}")
            for what in ("claim jobs", "heartbeat", "acknowledge"):
                await eventually(
                    lambda what=what: task.done() or re.search(f"Could not .*{what}", caplog.text)  # type: ignore[misc]
                )
            assert not task.done(), task.exception()
        await all_ended(tables, ids, task)
    assert sorted(handler.ids) == ids


async def test_a_session_that_takes_no_changes_is_replaced(
    pgq: PgQueuer, tables: Tables, queue_dsn: str, make_driver: MakeDriver
) -> None:
    """What a session was told at its start stays, whatever the setting says afterwards."""
    handler = Recorder()
    pgq.entrypoint("e")(handler)
    producer = Queries(await make_driver("asyncpg", queue_dsn))
    ids = await producer.enqueue("e", None)
    (database,) = await tables.rows("SELECT current_database()")
    await tables.rows(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    async with running(pgq) as task:
        await asyncio.sleep(0.5)
        assert handler.ids == []
        await tables.rows(f"ALTER DATABASE {database} RESET default_transaction_read_only")
        await all_ended(tables, ids, task)


async def test_a_look_at_the_queue_that_fails(
    pgq: PgQueuer,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = Recorder()
    pgq.entrypoint("e")(handler)
    layout_type = layout_of(pgq.qm)
    rest = layout_type.rest
    failures = 2

    async def failing(self: Any, *args: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise psycopg.errors.QueryCanceled("canceling statement due to statement timeout")
        return await rest(self, *args)

    monkeypatch.setattr(layout_type, "rest", failing)
    assert pgq.queries is not None
    ids = await pgq.queries.enqueue("e", None)
    await asyncio.wait_for(pgq.run(mode=QueueExecutionMode.drain, **QUIET), 30)
    assert await tables.ended() == ids
    assert re.findall(r"Could not look at the queue, next attempt in (\S+) s", caplog.text) == [
        "0.2",
        "0.4",
    ]
