"""Where the lease layout keeps new jobs and their keys, and whom an enqueue tells."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import psycopg
import pytest
import pytest_asyncio

from behaviour.helpers import DEADLINE, Tables, eventually
from behaviour.test_plans import nodes, plans, subplan
from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.errors import DuplicateJobError, InvalidJobError
from pgq_fast.layouts import lease_enqueue
from pgq_fast.queries import Queries, SyncQueries
from pgq_fast.settings import DBSettings, Layout
from pgq_fast.sql import statement
from support.drivers import KINDS, MakeDriver, open_driver

pytestmark = [pytest.mark.pg_matrix, pytest.mark.layouts("lease")]

Enqueue = Callable[..., Awaitable[list[Any]]]
HOUR = timedelta(hours=1)


def awaitable(queries: SyncQueries) -> Enqueue:
    async def call(*args: Any, **kwargs: Any) -> list[Any]:
        result: list[Any] = queries.enqueue(*args, **kwargs)
        return result

    return call


@pytest_asyncio.fixture(params=[*KINDS, "sync-psycopg"])
async def enqueue(request: pytest.FixtureRequest, queue_dsn: str) -> AsyncIterator[Enqueue]:
    """``Queries.enqueue`` over each driver, and ``SyncQueries.enqueue``."""
    async with AsyncExitStack() as stack:
        if request.param == "sync-psycopg":
            connection = stack.enter_context(psycopg.connect(queue_dsn, autocommit=True))
            yield awaitable(SyncQueries(SyncPsycopgDriver(connection)))
        else:
            yield Queries(await open_driver(request.param, queue_dsn, stack)).enqueue


@pytest.fixture
def kind() -> str:
    """Tests of what the server does run on one kind of driver."""
    return "asyncpg"


@asynccontextmanager
async def another_session(dsn: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A transaction that is open until the test ends it."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        yield connection
        await connection.rollback()


async def places(tables: Tables) -> dict[str, list[int]]:
    """The jobs in each table, by id."""
    return {
        "ready": await tables.rows("SELECT id FROM pgqueuer_ready ORDER BY id"),
        "deferred": await tables.rows("SELECT id FROM pgqueuer_deferred ORDER BY id"),
    }


async def keys(tables: Tables) -> list[Any]:
    return await tables.rows(
        "SELECT key, job_id, entrypoint, priority FROM pgqueuer_dedupe ORDER BY key"
    )


async def waits_for_a_lock(tables: Tables) -> bool:
    number: int = await tables.value(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return number > 0


# -- Places -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 299, 300, 2500])
@pytest.mark.parametrize("keyed", [False, True], ids=["", "keyed"])
async def test_jobs_of_one_call_go_where_they_belong(
    enqueue: Enqueue, tables: Tables, count: int, keyed: bool
) -> None:
    delays = [[None, HOUR, -HOUR, timedelta(microseconds=1)][n % 4] for n in range(count)]
    ids = await enqueue(
        ["e"] * count,
        [b"%d" % n for n in range(count)],
        list(range(count)),
        execute_after=delays,
        dedupe_key=[f"k{n}" for n in range(count)] if keyed else None,
    )
    assert ids == sorted(set(ids))
    later = [
        job_id for job_id, delay in zip(ids, delays, strict=True) if (delay or -HOUR) > HOUR * 0
    ]
    assert await places(tables) == {
        "ready": [job_id for job_id in ids if job_id not in set(later)],
        "deferred": later,
    }
    assert await tables.rows(
        "SELECT id, payload, priority, execute_after - created, dedupe_key FROM pgqueuer"
        " ORDER BY id"
    ) == [
        (job_id, b"%d" % n, n, delays[n] or timedelta(0), f"k{n}" if keyed else None)
        for n, job_id in enumerate(ids)
    ]
    assert await tables.value("SELECT count(DISTINCT created) FROM pgqueuer") == 1


@pytest.mark.parametrize("delay", [None, HOUR, -HOUR])
@pytest.mark.parametrize("key", [None, "k"])
async def test_a_single_job_goes_where_it_belongs(
    enqueue: Enqueue, tables: Tables, delay: timedelta | None, key: str | None
) -> None:
    ids = await enqueue("e", b"x", 1, delay, key, {"a": "b"})
    empty: dict[str, list[int]] = {"ready": [], "deferred": []}
    assert await places(tables) == empty | {"deferred" if delay == HOUR else "ready": ids}
    assert await tables.rows(
        "SELECT id, entrypoint, payload, priority, execute_after - created, dedupe_key, headers"
        " FROM pgqueuer"
    ) == [(ids[0], "e", b"x", 1, delay or timedelta(0), key, {"a": "b"})]
    assert await keys(tables) == ([] if key is None else [("k", ids[0], "e", 1)])


async def test_nothing_else_is_written(enqueue: Enqueue, tables: Tables) -> None:
    for count in (1, 2, 3000):
        await enqueue(["e"] * count, [None] * count, [0] * count)
        await enqueue(["e"] * count, [None] * count, [0] * count, [HOUR] * count)
    for table in ("log_entries", "log_batches", "statistics", "dedupe", "lease", "held"):
        assert await tables.value(f"SELECT count(*) FROM pgqueuer_{table}") == 0


async def test_a_refused_list_stores_nothing_anywhere(enqueue: Enqueue, tables: Tables) -> None:
    await enqueue("e", None, dedupe_key="taken")
    with pytest.raises(DuplicateJobError):
        await enqueue(["e"] * 3, [None] * 3, [0] * 3, [None, HOUR, HOUR], ["a", "taken", None])
    assert await tables.count() == 1
    assert len(await keys(tables)) == 1


async def test_many_entrypoints_in_one_call(enqueue: Enqueue, tables: Tables) -> None:
    names = [f"entrypoint {n % 700}" for n in range(1400)]
    ids = await enqueue(names, [None] * 1400, [0] * 1400)
    assert await tables.rows("SELECT id, entrypoint FROM pgqueuer ORDER BY id") == [
        *zip(ids, names, strict=True)
    ]


async def test_large_payloads_go_by_copy(
    enqueue: Enqueue, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_enqueue, "COPY_FROM_BYTES", 1000)
    packed = []
    pack = lease_enqueue.codec.pack_jobs

    def noted(*args: Any) -> Any:
        packed.append(len(args[0]))
        return pack(*args)

    monkeypatch.setattr(lease_enqueue.codec, "pack_jobs", noted)
    for size in (500, 501):
        payloads = [b"x" * size, None, b"y" * 500]
        ids = await enqueue(["e"] * 3, payloads, [0] * 3)
        assert (
            await tables.rows("SELECT payload FROM pgqueuer WHERE id = ANY($1) ORDER BY id", ids)
            == payloads
        )
    assert packed == [3]


# -- Keys -------------------------------------------------------------------------------------


async def test_skipped_jobs_leave_no_trace(enqueue: Enqueue, tables: Tables) -> None:
    (taken,) = await enqueue("e", None, dedupe_key="taken")
    ids = await enqueue(
        ["e"] * 4,
        [None] * 4,
        [1] * 4,
        [None, HOUR, HOUR, None],
        ["taken", "b", "b", "a"],
        on_conflict="skip",
    )
    assert ids[0] is None
    assert ids[2] is None
    assert await places(tables) == {"ready": [taken, ids[3]], "deferred": [ids[1]]}
    assert await keys(tables) == [
        ("a", ids[3], "e", 1),
        ("b", ids[1], "e", 1),
        ("taken", taken, "e", 0),
    ]


async def raise_to(enqueue: Enqueue, priority: int, key: str = "k") -> Any:
    (job_id,) = await enqueue(
        "other", b"other", priority, dedupe_key=key, on_conflict="update_priority"
    )
    return job_id


async def test_a_priority_is_raised_where_the_job_is(enqueue: Enqueue, tables: Tables) -> None:
    (ready,) = await enqueue("e", None, 1, None, "ready")
    (deferred,) = await enqueue("e", None, 1, HOUR, "deferred")
    (picked,) = await enqueue("e", None, 1, None, "picked")
    await tables.pick(picked)
    # Neighbours of other priorities, which must stay as they are.
    await enqueue(["e", "e", "f", "e"], [None] * 4, [0, 1, 1, 7], [None, None, None, HOUR])
    assert await raise_to(enqueue, 5, "ready") == ready
    assert await raise_to(enqueue, 6, "deferred") == deferred
    assert await raise_to(enqueue, 7, "picked") == picked
    for key in ("ready", "deferred", "picked"):
        await raise_to(enqueue, 2, key)
    assert await keys(tables) == [
        ("deferred", deferred, "e", 6),
        ("picked", picked, "e", 7),
        ("ready", ready, "e", 5),
    ]
    assert await tables.rows(
        "SELECT id, priority FROM pgqueuer WHERE dedupe_key IS NOT NULL ORDER BY id"
    ) == [(ready, 5), (deferred, 6), (picked, 1)]
    assert sorted(await tables.rows("SELECT priority FROM pgqueuer WHERE dedupe_key IS NULL")) == [
        0,
        1,
        1,
        7,
    ]


async def test_new_and_known_keys_in_one_list(enqueue: Enqueue, tables: Tables) -> None:
    known = await enqueue(["e"] * 6, [None] * 6, [0] * 6, dedupe_key=[f"k{n}" for n in range(6)])
    ids = await enqueue(
        ["f"] * 8,
        [None] * 8,
        [3] * 8,
        [HOUR if n % 2 else None for n in range(8)],
        [f"k{n}" for n in range(7, 0, -1)] + [None],
        on_conflict="update_priority",
    )
    assert ids[2:7] == known[:0:-1]
    assert await tables.rows(
        "SELECT id, priority FROM pgqueuer WHERE entrypoint = 'e' ORDER BY id"
    ) == [(job_id, 3 if n else 0) for n, job_id in enumerate(known)]
    assert await places(tables) == {
        "ready": [*known, ids[0]],
        "deferred": sorted([ids[1], ids[7]]),
    }


async def test_a_held_job_keeps_its_priority_and_not_its_key(
    enqueue: Enqueue, tables: Tables
) -> None:
    (held,) = await enqueue("e", None, 1, dedupe_key="k")
    await tables.hold(held)
    other = await raise_to(enqueue, 9)
    assert other != held
    assert await tables.rows("SELECT id, priority FROM pgqueuer ORDER BY id") == [
        (held, 1),
        (other, 9),
    ]


# -- Keys that others are about ---------------------------------------------------------------


@pytest.mark.parametrize("commit", [True, False], ids=["commit", "rollback"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("mode", ["raise", "skip", "update_priority"])
async def test_a_key_that_is_just_being_enqueued(
    queries: Queries, tables: Tables, queue_dsn: str, mode: Any, count: int, commit: bool
) -> None:
    connection = await asyncpg.connect(queue_dsn)
    try:
        transaction = connection.transaction()
        await transaction.start()
        (first,) = await Queries.from_asyncpg_connection(connection).enqueue(
            "e", None, 1, dedupe_key="k"
        )
        call = asyncio.ensure_future(
            queries.enqueue(
                ["f"] * count,
                [None] * count,
                [5] * count,
                dedupe_key=["k", *[None] * (count - 1)],
                on_conflict=mode,
            )
        )
        await eventually(lambda: waits_for_a_lock(tables))
        await (transaction.commit() if commit else transaction.rollback())
        async with asyncio.timeout(DEADLINE):
            (outcome,) = await asyncio.gather(call, return_exceptions=True)
    finally:
        await connection.close()
    if not commit:
        assert await keys(tables) == [("k", outcome[0], "f", 5)]
        assert await tables.count() == count
    elif mode == "raise":
        assert isinstance(outcome, DuplicateJobError)
        assert await tables.count() == 1
    else:
        assert outcome[0] == (None if mode == "skip" else first)
        assert await tables.count() == count
        priority = 1 if mode == "skip" else 5
        assert await keys(tables) == [("k", first, "e", priority)]
        # Though its row was not to be seen when the statement began.
        assert await tables.value("SELECT priority FROM pgqueuer WHERE id = $1", first) == priority


@pytest.mark.parametrize("commit", [True, False], ids=["commit", "rollback"])
@pytest.mark.parametrize("mode", ["raise", "skip", "update_priority"])
async def test_a_key_whose_job_is_just_ending(
    queries: Queries, tables: Tables, queue_dsn: str, mode: Any, commit: bool
) -> None:
    (first,) = await queries.enqueue("e", None, 1, dedupe_key="k")
    await tables.pick(first)
    async with another_session(queue_dsn) as session:
        await Tables(session, layout=Layout.lease).end(first)
        call = asyncio.ensure_future(
            queries.enqueue("f", None, 5, dedupe_key="k", on_conflict=mode)
        )
        await eventually(lambda: waits_for_a_lock(tables))
        await (session.commit() if commit else session.rollback())
        async with asyncio.timeout(DEADLINE):
            (outcome,) = await asyncio.gather(call, return_exceptions=True)
    if commit:
        assert await keys(tables) == [("k", outcome[0], "f", 5)]
    elif mode == "raise":
        assert isinstance(outcome, DuplicateJobError)
    else:
        assert outcome == [None if mode == "skip" else first]
        assert await keys(tables) == [("k", first, "e", 1 if mode == "skip" else 5)]


@pytest.mark.parametrize("commit", [True, False], ids=["commit", "rollback"])
async def test_a_raise_does_not_wait_for_a_claim(
    queries: Queries, tables: Tables, queue_dsn: str, commit: bool
) -> None:
    (job_id,) = await queries.enqueue("e", None, 1, dedupe_key="k")
    async with another_session(queue_dsn) as session:
        await Tables(session, layout=Layout.lease).pick(job_id)
        async with asyncio.timeout(DEADLINE):
            assert await raise_to(queries.enqueue, 5) == job_id
        await (session.commit() if commit else session.rollback())
    assert await keys(tables) == [("k", job_id, "e", 5)]
    # Where the claim did not come about, the next raise is the one that it gets.
    assert await raise_to(queries.enqueue, 6) == job_id
    assert await tables.value("SELECT priority FROM pgqueuer") == (1 if commit else 6)


async def test_a_raise_follows_a_job_that_has_just_become_due(
    queries: Queries, tables: Tables, queue_dsn: str
) -> None:
    (job_id,) = await queries.enqueue("e", None, 1, HOUR, "k")
    await tables.rows("UPDATE pgqueuer_deferred SET execute_after = now()")
    async with another_session(queue_dsn) as session:
        promote = statement("lease/promote", DBSettings())
        await Tables(session).rows(promote, ["e"], 10)
        call = asyncio.ensure_future(raise_to(queries.enqueue, 5))
        await eventually(lambda: waits_for_a_lock(tables))
        await session.commit()
        async with asyncio.timeout(DEADLINE):
            assert await call == job_id
    assert await tables.rows("SELECT id, priority FROM pgqueuer_ready") == [(job_id, 5)]


async def test_raises_at_the_same_time_leave_the_greatest(
    make_driver: MakeDriver, tables: Tables, queue_dsn: str
) -> None:
    producers = [Queries(await make_driver("asyncpg", queue_dsn)) for _ in range(4)]
    for round_number in range(20):
        key = f"k{round_number}"
        async with asyncio.timeout(DEADLINE):
            answers = await asyncio.gather(
                *(raise_to(queries.enqueue, n, key) for n, queries in enumerate(producers))
            )
        assert len(set(answers)) == 1
    assert await tables.rows("SELECT DISTINCT priority FROM pgqueuer") == [3]


@pytest.mark.parametrize("mode", ["raise", "skip", "update_priority"])
async def test_lists_with_keys_in_common_do_not_deadlock(
    make_driver: MakeDriver, tables: Tables, queue_dsn: str, mode: Any
) -> None:
    chance = random.Random(7)
    names = [f"key {n}" for n in range(40)]

    async def producer(queries: Queries) -> None:
        for _ in range(25):
            chosen = chance.sample(names, 30)
            count = len(chosen)
            # A refusal is no failure here; a deadlock would be.
            try:
                await queries.enqueue(
                    ["e"] * count,
                    [None] * count,
                    [chance.randrange(100) for _ in chosen],
                    [chance.choice([None, HOUR]) for _ in chosen],
                    chosen,
                    on_conflict=mode,
                )
            except DuplicateJobError:
                await tables.rows("DELETE FROM pgqueuer_ready")
                await tables.rows("DELETE FROM pgqueuer_deferred")
                await tables.rows("DELETE FROM pgqueuer_dedupe")

    producers = [Queries(await make_driver("asyncpg", queue_dsn)) for _ in range(4)]
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*map(producer, producers))
    if mode == "raise":
        return
    assert await tables.value("SELECT count(*) FROM pgqueuer") == len(await keys(tables)) == 40
    assert (
        await tables.value(
            "SELECT count(*) FROM pgqueuer JOIN pgqueuer_dedupe AS taken"
            " ON taken.key = dedupe_key AND taken.job_id = pgqueuer.id"
            " AND taken.priority = pgqueuer.priority"
        )
        == 40
    )


async def test_a_key_twice_is_refused_where_both_would_be_raised(enqueue: Enqueue) -> None:
    with pytest.raises(InvalidJobError, match=r"dedupe_key\[1\]"):
        await enqueue(
            ["e"] * 2, [None] * 2, [0] * 2, None, ["k"] * 2, on_conflict="update_priority"
        )


# -- Plans ------------------------------------------------------------------------------------


async def nothing(queries: Queries, tables: Tables) -> None:
    pass


async def analysed_empty(queries: Queries, tables: Tables) -> None:
    for name in ("ready", "deferred", "dedupe"):
        await tables.rows(f"VACUUM ANALYZE pgqueuer_{name}")


async def filled(queries: Queries, tables: Tables) -> None:
    await queries.enqueue(
        ["e"] * 20_000,
        [None] * 20_000,
        [n % 5 for n in range(20_000)],
        dedupe_key=[f"k{n}" for n in range(20_000)],
    )
    await analysed_empty(queries, tables)


@pytest.mark.impl_agnostic
@pytest.mark.parametrize("history", [nothing, analysed_empty, filled], ids=lambda it: it.__name__)
async def test_jobs_of_keys_are_reached_by_their_indexes(
    queries: Queries, tables: Tables, history: Callable[[Queries, Tables], Awaitable[None]]
) -> None:
    await history(queries, tables)
    arrays = ["'{1,2}'", "'{e,e}'", "'{a,b}'", "'{0,0}'", "'{k1,k2}'", "'{NULL,NULL}'"]
    flags = ("keyed", "conflicts", "deferred", "update_priority")
    for query, literals, parts in (
        (statement("lease/enqueue_many", DBSettings(), *flags), arrays, ["before", "raising"]),
        (
            statement("lease/raise_priority", DBSettings()),
            ["'{k1,k2}'"],
            ["wanted", "pair", "here"],
        ),
    ):
        for plan in await plans(tables, query, *literals):
            scanned = {
                node.get("Index Name", node["Node Type"])
                for part in parts
                for node in nodes(subplan(plan, part))
                if "Relation Name" in node
            }
            assert scanned == {"pgqueuer_ready_order_idx", "pgqueuer_dedupe_pkey"}
            # Where it is compiled, which takes longer than to run it, by default.
            assert plan["Total Cost"] < 100_000


# -- Whom it tells ----------------------------------------------------------------------------


class Channel:
    """What comes in on the queue's channel."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], tables: Tables) -> None:
        self._connection = connection
        self._tables = tables

    async def heard(self) -> list[dict[str, Any]]:
        """What was sent since the last call."""
        # Messages come in the order of their commits, so that all that are there come before it.
        await self._tables.rows("SELECT pg_notify('ch_pgqueuer', 'the last one')")
        events = []
        async with asyncio.timeout(DEADLINE):
            async for message in self._connection.notifies():
                if message.payload == "the last one":
                    break
                events.append(json.loads(message.payload))
        return events


@pytest_asyncio.fixture
async def channel(queue_dsn: str, tables: Tables) -> AsyncIterator[Channel]:
    async with await psycopg.AsyncConnection.connect(queue_dsn, autocommit=True) as connection:
        await connection.execute("LISTEN ch_pgqueuer")
        yield Channel(connection, tables)


async def somebody_waits(tables: Tables, for_work: bool = True, until: str = "1 hour") -> None:
    await tables.rows(
        "INSERT INTO pgqueuer_waiting VALUES"
        " (gen_random_uuid(), $1, NOT $1, clock_timestamp() + $2::text::interval)",
        for_work,
        until,
    )


async def enqueue_in_each_way(enqueue: Enqueue) -> int:
    """Enqueue jobs in all the ways there are; how many calls it was."""
    await enqueue("e", None)
    await enqueue("e", None, 0, HOUR)
    await enqueue("e", None, headers={"a": "b"})
    await enqueue("e", None, dedupe_key="a")
    await enqueue("e", None, dedupe_key="b", on_conflict="skip")
    await enqueue("e", None, dedupe_key="c", on_conflict="update_priority")
    await enqueue(["e"] * 3, [None] * 3, [0] * 3)
    await enqueue(["e"] * 3, [None] * 3, [0] * 3, headers=[{}] * 3)
    await enqueue(["e"] * 2500, [None] * 2500, [0] * 2500)
    return 9


async def test_nobody_is_told_where_nobody_waits(
    enqueue: Enqueue, tables: Tables, channel: Channel
) -> None:
    await enqueue_in_each_way(enqueue)
    assert await channel.heard() == []


@pytest.mark.parametrize(
    "waiting", [{"for_work": False}, {"until": "-1 ms"}], ids=["for ends", "no longer"]
)
async def test_those_who_do_not_wait_for_work_are_not_told(
    enqueue: Enqueue, tables: Tables, channel: Channel, waiting: dict[str, Any]
) -> None:
    await somebody_waits(tables, **waiting)
    await enqueue_in_each_way(enqueue)
    assert await channel.heard() == []


async def test_who_waits_for_work_is_told_once_a_call(
    enqueue: Enqueue, tables: Tables, channel: Channel
) -> None:
    await somebody_waits(tables)
    calls = await enqueue_in_each_way(enqueue)
    events = await channel.heard()
    assert len(events) == calls
    for event in events:
        assert event["type"] == "table_changed_event"
        assert event["operation"] == "insert"
        assert event["channel"] == "ch_pgqueuer"
    await enqueue(["e"] * 2, [None] * 2, [0] * 2, [None, HOUR])
    assert {event["table"] for event in await channel.heard()} == {
        "pgqueuer_ready",
        "pgqueuer_deferred",
    }


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_a_transaction_that_cannot_see_who_waits_tells(
    queue_dsn: str, tables: Tables, channel: Channel, level: str
) -> None:
    connection = await asyncpg.connect(queue_dsn)
    try:
        await connection.execute(f"BEGIN ISOLATION LEVEL {level}")
        # Takes its snapshot.
        await connection.execute("SELECT")
        await somebody_waits(tables)
        await Queries.from_asyncpg_connection(connection).enqueue("e", None)
        assert await channel.heard() == []
        await connection.execute("COMMIT")
        assert len(await channel.heard()) == 1
    finally:
        await connection.close()


async def test_a_transaction_of_the_users_sees_who_begins_to_wait_meanwhile(
    queue_dsn: str, tables: Tables, channel: Channel
) -> None:
    connection = await asyncpg.connect(queue_dsn)
    try:
        queries = Queries.from_asyncpg_connection(connection)
        await connection.execute("BEGIN")
        await queries.enqueue("e", None)
        await somebody_waits(tables)
        await queries.enqueue("e", None)
        assert await channel.heard() == []
        await connection.execute("COMMIT")
        assert len(await channel.heard()) == 1
    finally:
        await connection.close()
