"""Heartbeats while a handler blocks the event loop, or the connection that they would take.

tests/fleet has the same between processes.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest

from behaviour.helpers import DEADLINE, QUIET, Recorder, Tables, drain, eventually, working
from pgq_fast import sql
from pgq_fast.applications import PgQueuer
from pgq_fast.layouts.base import Claim
from pgq_fast.layouts.renewal import renewal
from pgq_fast.layouts.waiting import REGISTERED_FOR, Waiting
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries
from pgq_fast.settings import ConnectionSettings
from pgq_fast.types import QueueEntrypoint, QueueManagerId
from support.drivers import MakeDriver

# Nothing of this is in a kernel.
pytestmark = [pytest.mark.layouts(), pytest.mark.impl_agnostic]

APPLICATION = "the one that blocks"
SECOND = timedelta(seconds=1)


@pytest.fixture(params=["asyncpg", "psycopg"])
def pgq(queue_dsn: str, request: pytest.FixtureRequest) -> PgQueuer:
    library: Literal["asyncpg", "psycopg"] = request.param
    return PgQueuer.from_dsn(
        queue_dsn, library, settings=ConnectionSettings(application_name=APPLICATION)
    )


def watchdogs() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pgq_fast watchdog"]


def blocked_until(dsn: str, query: str, found: Callable[[Any], bool]) -> None:
    """Block, as long as it takes, until what *query* returns is *found*."""
    end = time.monotonic() + DEADLINE
    with psycopg.connect(dsn, autocommit=True) as connection:
        while not found(connection.execute(query).fetchall()):
            if time.monotonic() > end:
                raise TimeoutError(query)
            time.sleep(0.02)


async def blocked_within(statement: Coroutine[Any, Any, object], dsn: str) -> datetime:
    """Block between the text of a statement and its values; a time of the server's in there."""
    running = asyncio.create_task(statement)
    await asyncio.sleep(0)
    # On the loop's thread: this is what blocks.
    with psycopg.connect(dsn, autocommit=True) as connection:
        ((now,),) = connection.execute("SELECT clock_timestamp()").fetchall()
    await running
    assert isinstance(now, datetime)
    return now


AGES = "SELECT min(heartbeat), max(heartbeat) FROM pgqueuer WHERE status = 'picked'"


async def test_all_that_the_worker_holds_is_kept_alive(
    pgq: PgQueuer, queue_dsn: str, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    """Jobs that run, and those that wait to be started; in time, and again and again."""
    ran: list[int] = []
    sessions: list[int] = []
    seen: set[Any] = set()

    @pgq.entrypoint("waits")
    async def waits(job: Job) -> None:
        await asyncio.sleep(0.1)
        ran.append(job.id)

    @pgq.entrypoint("blocks")
    async def blocks(job: Job) -> None:
        def several(rows: list[Any]) -> bool:
            ((oldest, newest),) = rows
            # Of one statement.
            if oldest == newest:
                seen.add(newest)
            return len(seen) >= 4

        blocked_until(queue_dsn, AGES, several)
        ran.append(job.id)

    assert pgq.queries is not None
    names = ["waits", "waits", "blocks", "waits", "waits"]
    ids = await pgq.queries.enqueue(names, [b"secret"] * 5, [5, 4, 3, 2, 1])
    async with working(pgq.qm, heartbeat_timeout=SECOND):
        await eventually(lambda: len(ran) == 5)
        # The thread's connection is closed when it has not been needed for a while.
        sessions.append(await tables.sessions(APPLICATION))

        async def closed() -> bool:
            return await tables.sessions(APPLICATION) == sessions[0] - 1

        await eventually(closed)
        assert len(watchdogs()) == 1
    assert watchdogs() == []
    assert await tables.ended() == sorted(ids)
    assert await tables.ended("picked") == sorted(ids)
    named = [entry for entry in caplog.records if f"by job {ids[2]} of blocks" in entry.message]
    for text in ("heartbeats are sent from outside", "The event loop was blocked for"):
        entry = next(entry for entry in named if text in entry.message)
        assert entry.levelno == logging.WARNING
        assert f"by job {ids[2]} of blocks in " in entry.message
        assert vars(entry)["job_id"] == ids[2]
        assert vars(entry)["entrypoint"] == "blocks"
    assert "secret" not in caplog.text


async def test_a_job_that_blocks_after_it_has_waited(
    pgq: PgQueuer, queue_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named, and not the one that was started last."""
    bystander = Recorder(pause=0.2)

    @pgq.entrypoint("later")
    async def later(job: Job) -> None:
        await asyncio.sleep(0.1)
        since = time.monotonic()
        blocked_until(queue_dsn, "SELECT 1", lambda _: time.monotonic() > since + 0.8)

    pgq.entrypoint("bystander")(bystander)
    assert pgq.queries is not None
    ids = await pgq.queries.enqueue(["later", "bystander"], [None] * 2, [1, 0])
    await drain(pgq.qm, heartbeat_timeout=SECOND)
    assert f"by job {ids[0]} of later in " in caplog.text
    assert f"by job {ids[1]}" not in caplog.text


async def test_what_blocks_may_be_no_job(
    pgq: PgQueuer, queue_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Event()
    started = asyncio.Event()

    @pgq.entrypoint("waits")
    async def waits(job: Job) -> None:
        started.set()
        await gate.wait()

    assert pgq.queries is not None
    await pgq.queries.enqueue("waits", None)
    async with working(pgq.qm, heartbeat_timeout=SECOND):
        await asyncio.wait_for(started.wait(), DEADLINE)
        # By this very test, which shares the loop with the worker.
        times: set[Any] = set()

        def twice(rows: list[Any]) -> bool:
            times.update(rows)
            return len(times) >= 3

        blocked_until(queue_dsn, AGES, twice)
        await eventually(lambda: "loop was blocked for" in caplog.text)
        gate.set()
    assert "by something that is no job in " in caplog.text


async def test_a_loop_that_moves_costs_no_connection(
    pgq: PgQueuer, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Recorder(pause=0.5)
    pgq.entrypoint("e")(handler)
    assert pgq.queries is not None
    await pgq.queries.enqueue(["e"] * 3, [None] * 3, [0] * 3)
    task = asyncio.create_task(pgq.qm.run(**QUIET))
    await eventually(lambda: handler.running == 3)
    while handler.running:
        # One for statements and one that listens.
        assert await tables.sessions(APPLICATION) <= 2
        await asyncio.sleep(0.01)
    pgq.qm.shutdown.set()
    await asyncio.wait_for(task, DEADLINE)
    await pgq.close()
    assert "blocked" not in caplog.text


@pytest.mark.layouts("lease")
async def test_a_handler_that_occupies_the_workers_connection(
    pgq: PgQueuer, queue_dsn: str, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own heartbeats, and the end of another job, wait behind its statement."""
    ran: list[str] = []
    others: list[int] = []

    @pgq.entrypoint("occupies")
    async def occupies(job: Job) -> None:
        assert pgq.queries is not None
        await pgq.queries.driver.fetch("SELECT pg_sleep(5)")
        ran.append(job.entrypoint)

    @pgq.entrypoint("ends")
    async def ends(job: Job) -> None:
        await asyncio.sleep(0.5)
        ran.append(job.entrypoint)

    assert pgq.queries is not None
    ids = await pgq.queries.enqueue(["occupies", "ends"], [None] * 2, [0, 0])
    other = PgQueuer.from_dsn(queue_dsn)

    @other.entrypoint("occupies")
    @other.entrypoint("ends")
    async def taken_over(job: Job) -> None:
        others.append(job.id)

    async with working(pgq.qm, heartbeat_timeout=2 * SECOND):
        await eventually(lambda: ran == ["ends"])
        async with working(other.qm, heartbeat_timeout=2 * SECOND):
            await eventually(lambda: len(ran) == 2)
    assert others == []
    assert await tables.ended() == sorted(ids)
    assert "The server has not answered a heartbeat, or the end of a job, for" in caplog.text


async def test_a_server_that_cannot_be_reached_meanwhile(
    pgq: PgQueuer,
    queue_dsn: str,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither the block nor the end of the run take any longer for that."""
    driver: Any = pgq.connection
    elsewhere = PgQueuer.from_dsn("postgresql://me@127.0.0.1:1/nowhere", driver._kind).connection
    monkeypatch.setattr(driver, "sibling", lambda: elsewhere)

    @pgq.entrypoint("e")
    async def blocks(job: Job) -> None:
        end = time.monotonic() + DEADLINE
        while "Could not send heartbeats" not in caplog.text and time.monotonic() < end:
            time.sleep(0.02)  # noqa: ASYNC251

    assert pgq.queries is not None
    ids = await pgq.queries.enqueue("e", None)
    await drain(pgq.qm, heartbeat_timeout=SECOND)
    assert "Could not send heartbeats from outside the event loop, next attempt in" in caplog.text
    assert await tables.ended() == ids
    await eventually(lambda: watchdogs() == [])


async def test_a_connection_of_the_users_is_not_watched(manager: QueueManager) -> None:
    """Where it leads, and whether another one may be opened, is not known."""
    seen: list[list[threading.Thread]] = []

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        seen.append(watchdogs())

    await manager.queries.enqueue("e", None)
    await drain(manager)
    assert seen == [[]]


async def test_without_heartbeats_there_is_nothing_to_keep(pgq: PgQueuer) -> None:
    seen: list[list[threading.Thread]] = []

    @pgq.entrypoint("e")
    async def handler(job: Job) -> None:
        seen.append(watchdogs())

    assert pgq.queries is not None
    await pgq.queries.enqueue("e", None)
    await drain(pgq.qm, heartbeat_timeout=timedelta(0))
    assert seen == [[]]


@pytest.mark.parametrize(
    "statement", ["claim", "limited claim", "heartbeat", "renewal", "update_heartbeat"]
)
async def test_a_heartbeat_is_not_dated_back(
    statement: str, make_driver: MakeDriver, queue_dsn: str, tables: Tables
) -> None:
    """Where the loop blocks while a statement is new to the session.

    asyncpg sends its values once the server has answered to its text, and with the text the
    transaction has begun: its time may be long ago when the statement is carried out.
    """
    queries = Queries(await make_driver("asyncpg", queue_dsn))
    layout = queries.worker_layout()
    assert layout is not None
    owner = QueueManagerId(uuid.uuid4())

    def claim(**limits: int) -> Coroutine[Any, Any, Claim]:
        entrypoints = {QueueEntrypoint(name): limit for name, limit in limits.items()}
        return layout.claim(10, entrypoints, owner, None, 2**20)

    async def renew() -> None:
        query, args = renewal(queries.qbq.settings, owner)
        await queries.driver.execute(query, *args)

    # What a session asks once, it has asked. By another text, so that the one below is new.
    await claim(first=0, second=0 if "limited" in statement else 1)
    ids = await queries.enqueue(["one"] * 2, [None] * 2, [0] * 2)
    if "claim" not in statement:
        # The layout knows its leases once the jobs were asked for.
        assert len((await claim(one=0)).jobs) == len(ids)
    sent: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "claim": lambda: claim(one=0),
        "limited claim": lambda: claim(one=2),
        "heartbeat": lambda: layout.heartbeat(ids, owner),
        "renewal": renew,
        "update_heartbeat": lambda: queries.update_heartbeat(ids),
    }
    blocked = await blocked_within(sent[statement](), queue_dsn)
    picked = await tables.rows(
        "SELECT count(*), min(heartbeat) FROM pgqueuer WHERE status = 'picked'"
    )
    assert picked[0][0] == len(ids)
    assert picked[0][1] > blocked


@pytest.mark.layouts("lease")
async def test_a_registration_is_not_dated_back(
    make_driver: MakeDriver, queue_dsn: str, tables: Tables
) -> None:
    """Likewise: it would be over before others have had the time to tell."""
    queries = Queries(await make_driver("asyncpg", queue_dsn))
    waiting = Waiting(queries.driver, queries.qbq.settings)
    registering = waiting.begin(QueueManagerId(uuid.uuid4()), False)
    blocked = await blocked_within(registering, queue_dsn)
    (until,) = await tables.rows("SELECT until FROM pgqueuer_waiting")
    assert until > blocked + REGISTERED_FOR


@pytest.mark.layouts("compat")
def test_no_statement_dates_a_heartbeat_by_its_transaction() -> None:
    texts = [path.read_text() for path in Path(sql.__file__).parent.rglob("*.sql")]
    clocks = {clock for text in texts for clock in re.findall(r"heartbeat = (\w+\(.*?\))", text)}
    assert clocks == {"statement_timestamp()"}
