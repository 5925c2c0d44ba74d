"""What ``enqueue`` leaves in the tables, through every driver, the blocking one included."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import asyncpg
import psycopg
import pytest

from behaviour.helpers import Enqueue, Tables
from pgq_fast.db import AsyncpgDriver, PsycopgDriver, SyncPsycopgDriver
from pgq_fast.errors import DuplicateJobError, InvalidJobError
from pgq_fast.queries import Queries, SyncQueries
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.settings import DBSettings, Layout
from pgq_fast.types import QueueEntrypoint, QueueManagerId
from support.drivers import MakeDriver
from support.layouts import queries_of

pytestmark = [pytest.mark.pg_matrix, pytest.mark.layouts()]

# On either side of where lists begin to go by COPY, in each layout.
SIZES = [1, 3, 199, 200, 299, 300, 450]
BARE_SIZES = [3, 200, 1999, 2000]
HOUR = timedelta(hours=1)


async def test_one_job(enqueue: Enqueue, tables: Tables) -> None:
    (job_id,) = await enqueue("fetch", b"\x00data\xff", 3)
    assert await tables.rows(
        "SELECT id, priority, status::text, entrypoint, payload, attempts, dedupe_key, headers,"
        " queue_manager_id, slot, execute_after <= now() AND execute_after = created FROM pgqueuer"
    ) == [(job_id, 3, "queued", "fetch", b"\x00data\xff", 0, None, None, None, None, True)]
    assert await tables.rows(
        "SELECT job_id, status::text, priority, entrypoint, traceback, aggregated FROM pgqueuer_log"
    ) == [(job_id, "queued", 3, "fetch", None, False)]


@pytest.mark.parametrize(
    ("count", "bare"), [*((size, False) for size in SIZES), *((size, True) for size in BARE_SIZES)]
)
async def test_lists(enqueue: Enqueue, tables: Tables, count: int, bare: bool) -> None:
    """Short ones as parameters, long ones by COPY: no difference to be seen."""
    names = [f"e{number % 3}" for number in range(count)]
    data = [None if number % 5 == 0 else str(number).encode() for number in range(count)]
    priorities = [number % 7 - 3 for number in range(count)]
    headers = [
        None if bare or number % 2 else {"n": str(number), "ü": "\U0001f600"}
        for number in range(count)
    ]
    ids = await enqueue(names, data, priorities, headers=headers)
    assert len(ids) == count
    assert ids == sorted(set(ids))
    stored = await tables.rows(
        "SELECT id, entrypoint, payload, priority, headers, status::text, attempts,"
        " execute_after <= now() FROM pgqueuer ORDER BY id"
    )
    assert stored == [
        (*job, "queued", 0, True) for job in zip(ids, names, data, priorities, headers, strict=True)
    ]
    assert await tables.rows(
        "SELECT job_id, entrypoint, priority, status::text FROM pgqueuer_log ORDER BY job_id"
    ) == [(*job, "queued") for job in zip(ids, names, priorities, strict=True)]


async def test_no_jobs(enqueue: Enqueue, tables: Tables) -> None:
    assert await enqueue([], [], []) == []
    assert await tables.count() == 0


async def test_ids_are_those_of_the_tables_sequence(
    enqueue: Enqueue, tables: Tables, layout: Layout
) -> None:
    """Whoever inserts next, by whatever way, gets a free id."""
    first = await enqueue("e", None)
    many = await enqueue(["e"] * 250, [None] * 250, [0] * 250)
    few = await enqueue(["e"] * 5, [None] * 5, [0] * 5)
    columns, values = "priority, entrypoint", "0, 'e'"
    if layout is Layout.compat:
        columns, values = f"{columns}, status", f"{values}, 'queued'"
    await tables.rows(f"INSERT INTO {tables.new_jobs} ({columns}) VALUES ({values})")
    last = await enqueue("e", None)
    ids = [*first, *many, *few, *last]
    assert ids == sorted(set(ids))
    assert await tables.count() == 258


@pytest.mark.parametrize("count", SIZES)
async def test_deferred(enqueue: Enqueue, tables: Tables, count: int) -> None:
    delays = [None if number % 3 == 0 else timedelta(seconds=number) for number in range(count)]
    delays[-1] = timedelta(days=400, microseconds=7)
    ids = await enqueue(["e"] * count, [None] * count, [0] * count, execute_after=delays)
    stored = await tables.rows("SELECT id, execute_after - created FROM pgqueuer ORDER BY id")
    assert stored == [
        (job_id, delay or timedelta(0)) for job_id, delay in zip(ids, delays, strict=True)
    ]


@pytest.mark.impl_agnostic
async def test_a_day_of_a_delay_has_24_hours(
    make_driver: MakeDriver, queue_dsn: str, queue_settings: DBSettings, tables: Tables
) -> None:
    """Whatever the session's time zone makes of days on which clocks change."""
    await tables.rows(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = %L', current_database(),"
        " 'Europe/Berlin'); END $$"
    )
    queries = queries_of(await make_driver("asyncpg", queue_dsn), queue_settings)
    # Over one change of clocks at least, whatever the day of the test.
    delays = [timedelta(days=days) for days in (90, 180, 270)]

    async def waits() -> list[timedelta]:
        return list(await tables.rows("SELECT execute_after - created FROM pgqueuer ORDER BY id"))

    for delay in delays:
        await queries.enqueue("e", None, execute_after=delay)
        await queries.enqueue("e", None, execute_after=delay, dedupe_key=f"{delay}")
    assert await waits() == [delay for delay in delays for _ in range(2)]
    for count in (3, 450):
        await queries.clear_queue()
        names: list[str] = ["e"] * count
        await queries.enqueue(
            names, [None] * count, [0] * count, execute_after=[*delays * (count // 3)]
        )
        assert await waits() == delays * (count // 3)
    await queries.clear_queue()

    await queries.enqueue(["e"] * 3, [None] * 3, [0] * 3)
    limits = {QueueEntrypoint("e"): EntrypointExecutionParameter(0)}
    owner = QueueManagerId(uuid.uuid4())
    jobs = await queries.dequeue(3, limits, owner, None, timedelta(days=1))
    for job, delay in zip(jobs, delays, strict=True):
        await queries.retry_job(job, delay, None)
    left = await tables.rows("SELECT execute_after - now() FROM pgqueuer ORDER BY id")
    for wait, delay in zip(left, delays, strict=True):
        assert delay - timedelta(minutes=5) < wait <= delay


# -- Dedupe keys ------------------------------------------------------------------------------


async def test_a_taken_key_raises_and_nothing_is_stored(enqueue: Enqueue, tables: Tables) -> None:
    await enqueue("e", None, dedupe_key="a")
    with pytest.raises(DuplicateJobError) as caught:
        await enqueue("e", None, dedupe_key="a")
    assert caught.value.dedupe_key == ["a"]
    for count in (3, 250):
        keys = [None] * (count - 1) + ["a"]
        with pytest.raises(DuplicateJobError) as caught:
            await enqueue(["e"] * count, [None] * count, [0] * count, dedupe_key=keys)
        assert caught.value.dedupe_key == keys
    with pytest.raises(DuplicateJobError):
        await enqueue(["e"] * 2, [None] * 2, [0] * 2, dedupe_key=["b", "b"])
    assert await tables.count() == 1
    assert await tables.value("SELECT count(*) FROM pgqueuer_log") == 1


async def test_skip(enqueue: Enqueue, tables: Tables) -> None:
    (first,) = await enqueue("e", b"first", dedupe_key="a")
    assert await enqueue("e", b"second", dedupe_key="a", on_conflict="skip") == [None]
    ids = await enqueue(
        ["e"] * 5,
        [b"1", b"2", b"3", b"4", b"5"],
        [0] * 5,
        dedupe_key=["b", "a", None, "b", "c"],
        on_conflict="skip",
    )
    assert [job_id is None for job_id in ids] == [False, True, False, True, False]
    assert await tables.rows("SELECT id, payload FROM pgqueuer ORDER BY id") == [
        (first, b"first"),
        (ids[0], b"1"),
        (ids[2], b"3"),
        (ids[4], b"5"),
    ]
    assert await tables.rows("SELECT job_id FROM pgqueuer_log ORDER BY job_id") == [
        first,
        ids[0],
        ids[2],
        ids[4],
    ]


async def test_skip_in_a_long_list(enqueue: Enqueue, tables: Tables) -> None:
    await enqueue("e", None, dedupe_key="k7")
    keys = [f"k{number % 200}" for number in range(300)]
    ids = await enqueue(["e"] * 300, [None] * 300, [0] * 300, dedupe_key=keys, on_conflict="skip")
    assert [job_id is None for job_id in ids] == [
        number == 7 or number >= 200 for number in range(300)
    ]
    assert await tables.count() == 200


async def test_update_priority(enqueue: Enqueue, tables: Tables) -> None:
    (job_id,) = await enqueue("e", b"first", 5, dedupe_key="a")
    assert await enqueue("e", b"second", 9, dedupe_key="a", on_conflict="update_priority") == [
        job_id
    ]
    assert await tables.rows("SELECT priority, payload FROM pgqueuer") == [(9, b"first")]
    # Only ever up.
    await enqueue("e", None, 1, dedupe_key="a", on_conflict="update_priority")
    assert await tables.rows("SELECT priority FROM pgqueuer") == [9]
    ids = await enqueue(
        ["e"] * 3,
        [b"x", b"y", b"z"],
        [20, 1, 2],
        dedupe_key=["a", "b", None],
        on_conflict="update_priority",
    )
    assert ids[0] == job_id
    assert len(set(ids)) == 3
    assert await tables.rows("SELECT id, priority, payload FROM pgqueuer ORDER BY id") == [
        (job_id, 20, b"first"),
        (ids[1], 1, b"y"),
        (ids[2], 2, b"z"),
    ]
    # A job that was there already is not logged again.
    assert await tables.value("SELECT count(*) FROM pgqueuer_log") == 3
    with pytest.raises(InvalidJobError, match=r"dedupe_key\[1\]"):
        await enqueue(
            ["e"] * 2, [None] * 2, [0] * 2, dedupe_key=["q", "q"], on_conflict="update_priority"
        )


async def test_a_running_job_holds_its_key_and_an_ended_one_does_not(
    enqueue: Enqueue, tables: Tables
) -> None:
    (job_id,) = await enqueue("e", None, dedupe_key="a")
    await tables.pick(job_id)
    with pytest.raises(DuplicateJobError):
        await enqueue("e", None, dedupe_key="a")
    await tables.end(job_id)
    (second,) = await enqueue("e", None, dedupe_key="a")
    # A held job has ended too, as far as its key is concerned.
    await tables.hold(second)
    await enqueue("e", None, dedupe_key="a")
    assert await tables.count() == 2


# -- Refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"entrypoint": ["a", "b"]}, "payload has 1 value"),
        ({"priority": 2**31}, r"priority\[0\]"),
        ({"entrypoint": "a\0b"}, "NUL"),
        ({"entrypoint": "a\ud800"}, "surrogate"),
        ({"payload": "text"}, r"payload\[0\]"),
        ({"headers": {"a": float("nan")}}, r"headers\[0\]"),
        ({"headers": {"a": "\0"}}, r"headers\[0\]"),
        ({"headers": {"a": object()}}, r"headers\[0\]"),
        ({"dedupe_key": "\0"}, r"dedupe_key\[0\]"),
        ({"execute_after": timedelta.max}, r"execute_after\[0\]"),
    ],
)
async def test_what_cannot_be_stored_is_refused_before_anything_is_sent(
    enqueue: Enqueue, tables: Tables, arguments: dict[str, Any], message: str
) -> None:
    good: dict[str, Any] = {"entrypoint": "e", "payload": None, "priority": 0}
    with pytest.raises(InvalidJobError, match=message):
        await enqueue(**(good | arguments))
    # And the connection is as good as before.
    await enqueue(**good)
    assert await tables.count() == 1


async def test_one_bad_job_in_a_long_list_refuses_all(enqueue: Enqueue, tables: Tables) -> None:
    headers: list[Any] = [None] * 300
    headers[299] = {"a": "\0"}
    with pytest.raises(InvalidJobError, match=r"headers\[299\]"):
        await enqueue(["e"] * 300, [None] * 300, [0] * 300, headers=headers)
    assert await tables.count() == 0
    assert await tables.value("SELECT count(*) FROM pgqueuer_log") == 0


async def test_unknown_conflict_mode(enqueue: Enqueue) -> None:
    with pytest.raises(ValueError, match="on_conflict"):
        await enqueue("e", None, on_conflict="replace")


# -- The caller's transaction -----------------------------------------------------------------


async def asyncpg_transaction(dsn: str, count: int, commit: bool) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        queries = Queries(AsyncpgDriver(connection))
        transaction = connection.transaction()
        await transaction.start()
        await queries.enqueue("e", None)
        await queries.enqueue(["e"] * count, [None] * count, [0] * count)
        await (transaction.commit() if commit else transaction.rollback())
    finally:
        await connection.close()


async def psycopg_transaction(dsn: str, count: int, commit: bool) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        queries = Queries(PsycopgDriver(connection))
        async with connection.transaction() as transaction:
            await queries.enqueue("e", None)
            await queries.enqueue(["e"] * count, [None] * count, [0] * count)
            if not commit:
                raise psycopg.Rollback(transaction)


async def sync_transaction(dsn: str, count: int, commit: bool) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        queries = SyncQueries(SyncPsycopgDriver(connection))
        with connection.transaction() as transaction:
            queries.enqueue("e", None)
            queries.enqueue(["e"] * count, [None] * count, [0] * count)
            if not commit:
                raise psycopg.Rollback(transaction)


@pytest.mark.parametrize("commit", [True, False], ids=["commit", "rollback"])
@pytest.mark.parametrize("count", [2, 300])
@pytest.mark.parametrize("work", [asyncpg_transaction, psycopg_transaction, sync_transaction])
async def test_jobs_are_part_of_the_callers_transaction(
    queue_dsn: str, tables: Tables, work: Any, count: int, commit: bool
) -> None:
    await work(queue_dsn, count, commit)
    assert await tables.count() == (count + 1 if commit else 0)
    assert await tables.value("SELECT count(*) FROM pgqueuer_log") == await tables.count()


async def test_a_duplicate_in_the_callers_transaction_spoils_it_as_any_error_does(
    queue_dsn: str, tables: Tables
) -> None:
    connection = await asyncpg.connect(queue_dsn)
    try:
        queries = Queries(AsyncpgDriver(connection))
        transaction = connection.transaction()
        await transaction.start()
        await queries.enqueue("e", None, dedupe_key="a")
        with pytest.raises(DuplicateJobError):
            await queries.enqueue("e", None, dedupe_key="a")
        with pytest.raises(asyncpg.InFailedSQLTransactionError):
            await queries.enqueue("e", None)
        await transaction.rollback()
        await queries.enqueue("e", None, dedupe_key="a")
    finally:
        await connection.close()
    assert await tables.count() == 1
