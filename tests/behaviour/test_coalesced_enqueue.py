"""Single jobs of concurrent callers: together in a statement, each with its own outcome."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import asyncpg
import psycopg
import pytest
import pytest_asyncio

from behaviour.helpers import DEADLINE, Tables, eventually
from pgq_fast.builders import QueryBuilderEnvironment, QueryQueueBuilder
from pgq_fast.db import AsyncpgDriver, Driver, PsycopgDriver, SyncPsycopgDriver
from pgq_fast.drivers.failures import is_connection_lost, sqlstate_of
from pgq_fast.drivers.owned import OwnedDriver
from pgq_fast.errors import ConnectionLostError, DuplicateJobError, JobsDroppedError
from pgq_fast.layouts import coalescing
from pgq_fast.queries import Queries, SyncQueries
from pgq_fast.settings import DBSettings, Layout
from support.drivers import MakeDriver

pytestmark = pytest.mark.layouts

# An entrypoint that the server refuses once ``refuse`` has told it to; nothing before it does.
REFUSED = "refused"
CHECK_VIOLATION = "23514"


class Statements:
    """Sees the statements of a driver, and holds them back on demand."""

    def __init__(self, driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[object, ...]] = []
        self.failure: Exception | None = None
        self._open = asyncio.Event()
        self._open.set()
        fetch_rows = driver.fetch_rows

        async def watched(query: str, *args: object) -> Sequence[Any]:
            self.sent.append(args)
            await self._open.wait()
            if self.failure is not None:
                raise self.failure
            rows: Sequence[Any] = await fetch_rows(query, *args)
            return rows

        monkeypatch.setattr(driver, "fetch_rows", watched)

    def hold(self) -> None:
        """Keep what comes from now on from being sent."""
        self._open.clear()

    def release(self) -> None:
        self._open.set()


@pytest.fixture
def statements(driver: Any, monkeypatch: pytest.MonkeyPatch) -> Statements:
    return Statements(driver, monkeypatch)


class Callers:
    """Tasks that each await one call."""

    def __init__(self, *calls: Coroutine[Any, Any, Any]) -> None:
        self.tasks = [asyncio.ensure_future(call) for call in calls]

    async def under_way(self) -> None:
        """All have called."""
        await asyncio.sleep(0)

    async def outcomes(self) -> list[Any]:
        """The result or exception of each."""
        async with asyncio.timeout(DEADLINE):
            return await asyncio.gather(*self.tasks, return_exceptions=True)


async def behind_a_held_statement(
    queries: Queries, statements: Statements, *calls: Coroutine[Any, Any, Any]
) -> tuple[Callers, Callers]:
    """A caller whose statement is held, and *calls* behind it."""
    statements.hold()
    first = Callers(queries.enqueue("first", None))
    await eventually(lambda: len(statements.sent) == 1)
    others = Callers(*calls)
    await others.under_way()
    assert len(statements.sent) == 1
    return first, others


async def transactions(tables: Tables, entrypoint: str = "%") -> list[int]:
    """Number of jobs in each transaction that stored some, in order."""
    return await tables.rows(
        f"SELECT count(*) FROM {tables.new_jobs} WHERE entrypoint LIKE $1"
        " GROUP BY xmin::text ORDER BY min(id)",
        entrypoint,
    )


# -- Together ---------------------------------------------------------------------------------


async def test_callers_that_come_during_a_statement_share_the_next_one(
    queries: Queries, statements: Statements, tables: Tables
) -> None:
    first, others = await behind_a_held_statement(
        queries, statements, *(queries.enqueue("e", b"%d" % n, n) for n in range(50))
    )
    statements.release()
    assert all(len(ids) == 1 for ids in await first.outcomes())
    ids = [job_id for (job_id,) in await others.outcomes()]
    assert ids == sorted(set(ids))
    assert await tables.rows(
        "SELECT id, payload, priority FROM pgqueuer WHERE entrypoint = 'e' ORDER BY id"
    ) == [(job_id, b"%d" % n, n) for n, job_id in enumerate(ids)]
    assert await transactions(tables, "e") == [50]
    assert len(statements.sent) == 2
    assert await tables.rows(
        "SELECT job_id, priority, status::text FROM pgqueuer_log WHERE entrypoint = 'e'"
        " ORDER BY job_id"
    ) == [(job_id, n, "queued") for n, job_id in enumerate(ids)]


async def test_an_id_is_handed_out_after_the_commit(queries: Queries, tables: Tables) -> None:
    async def producer(name: str) -> None:
        before = 0
        for _ in range(30):
            (job_id,) = await queries.enqueue(name, None)
            assert job_id > before
            before = job_id
            # A session of its own sees it.
            seen.append(await tables.value("SELECT entrypoint FROM pgqueuer WHERE id = $1", job_id))

    seen: list[str] = []
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(producer(f"e{n}") for n in range(8)))
    assert sorted(seen) == sorted(f"e{n}" for n in range(8) for _ in range(30))
    assert await tables.count() == 240


async def test_everything_that_a_job_may_have(
    queries: Queries, statements: Statements, tables: Tables
) -> None:
    hour = timedelta(hours=1, microseconds=1)
    _, others = await behind_a_held_statement(
        queries,
        statements,
        queries.enqueue("a", None),
        queries.enqueue("ü", b"\x00\xff", -(2**31), headers={"n": "\U0001f600"}),
        queries.enqueue("c", b"", 2**31 - 1, hour),
        queries.enqueue(["d"], [b"list"], [1], headers=[{}]),
        queries.enqueue("e", b"skip", on_conflict="skip"),
    )
    statements.release()
    ids = [job_id for (job_id,) in await others.outcomes()]
    assert await tables.rows(
        "SELECT id, entrypoint, payload, priority, headers, execute_after - created, dedupe_key"
        " FROM pgqueuer WHERE entrypoint <> 'first' ORDER BY id"
    ) == [
        (ids[0], "a", None, 0, None, timedelta(0), None),
        (ids[1], "ü", b"\x00\xff", -(2**31), {"n": "\U0001f600"}, timedelta(0), None),
        (ids[2], "c", b"", 2**31 - 1, None, hour, None),
        (ids[3], "d", b"list", 1, {}, timedelta(0), None),
        (ids[4], "e", b"skip", 0, None, timedelta(0), None),
    ]
    assert len(await transactions(tables)) == 2


async def test_a_statement_has_a_bounded_number_of_rows(
    queries: Queries,
    statements: Statements,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coalescing, "MAX_ROWS", 10)
    _, others = await behind_a_held_statement(
        queries, statements, *(queries.enqueue("e", None) for _ in range(35))
    )
    statements.release()
    assert len(await others.outcomes()) == 35
    assert sorted(await transactions(tables, "e")) == [5, 10, 10, 10]


async def test_a_statement_has_a_bounded_number_of_bytes(
    queries: Queries,
    statements: Statements,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coalescing, "MAX_BYTES", 1000)
    sizes = [400, 600, 1, 5000, 1000, 10]
    _, others = await behind_a_held_statement(
        queries, statements, *(queries.enqueue("e", b"x" * size) for size in sizes)
    )
    statements.release()
    await others.outcomes()
    groups = await tables.rows(
        "SELECT array_agg(length(payload) ORDER BY id)"
        f" FROM {tables.new_jobs} WHERE entrypoint = 'e' GROUP BY xmin::text"
    )
    assert sorted(groups) == [[1], [10], [400, 600], [1000], [5000]]


async def test_queries_on_one_driver_share_a_statement_where_their_tables_are_the_same(
    driver: Any, queries: Queries, statements: Statements, tables: Tables
) -> None:
    settings = DBSettings(prefix="other_")
    elsewhere = Queries(driver, QueryBuilderEnvironment(settings), QueryQueueBuilder(settings))
    await elsewhere.install()
    same = Queries(driver, qbq=QueryQueueBuilder(DBSettings()))
    _, others = await behind_a_held_statement(
        queries,
        statements,
        *(queue.enqueue("e", b"%d" % n) for n in range(5) for queue in (queries, same)),
    )
    also = Callers(*(elsewhere.enqueue("e", b"there") for _ in range(3)))
    statements.release()
    await others.outcomes()
    await also.outcomes()
    assert await transactions(tables, "e") == [10]
    assert await tables.rows("SELECT payload FROM other_pgqueuer") == [b"there"] * 3


async def test_a_callers_context_does_not_leak_into_the_statement_of_others(
    queries: Queries, driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="nobody's")
    seen: list[str] = []
    fetch_rows = driver.fetch_rows

    async def watched(query: str, *args: Any) -> Any:
        seen.append(variable.get())
        return await fetch_rows(query, *args)

    async def caller(n: int) -> None:
        variable.set(f"caller {n}")
        await queries.enqueue("e", None)
        assert variable.get() == f"caller {n}"

    monkeypatch.setattr(driver, "fetch_rows", watched)
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(caller(n) for n in range(10)))
    assert seen[0] == "caller 0"
    assert set(seen[1:]) == {"nobody's"}


# -- Each its own outcome ---------------------------------------------------------------------


async def refuse(tables: Tables) -> None:
    await tables.rows(f"ALTER TABLE {tables.new_jobs} ADD CHECK (entrypoint <> '{REFUSED}')")


async def test_a_job_that_the_server_refuses_fails_nobody_else(
    queries: Queries, statements: Statements, tables: Tables
) -> None:
    await refuse(tables)
    _, others = await behind_a_held_statement(
        queries,
        statements,
        *(queries.enqueue(REFUSED if n in (3, 7) else "e", b"%d" % n) for n in range(10)),
    )
    statements.release()
    outcomes = await others.outcomes()
    for n in (3, 7):
        assert sqlstate_of(outcomes[n]) == CHECK_VIOLATION
    assert outcomes[3] is not outcomes[7]
    good = [(outcomes[n][0], b"%d" % n) for n in range(10) if n not in (3, 7)]
    assert await tables.rows(
        "SELECT id, payload FROM pgqueuer WHERE entrypoint = 'e' ORDER BY id"
    ) == sorted(good)
    # And it goes on as before.
    await queries.enqueue("e", None)


async def test_a_refused_job_that_is_first_fails_nobody_else(
    queries: Queries, tables: Tables
) -> None:
    await refuse(tables)
    callers = Callers(
        queries.enqueue(REFUSED, None), *(queries.enqueue("e", None) for _ in range(5))
    )
    outcomes = await callers.outcomes()
    assert sqlstate_of(outcomes[0]) == CHECK_VIOLATION
    assert len({job_id for (job_id,) in outcomes[1:]}) == 5
    assert await tables.count() == 5


async def test_a_unique_index_of_the_users(queries: Queries, tables: Tables) -> None:
    await tables.rows(f"CREATE UNIQUE INDEX ON {tables.new_jobs} (payload)")
    callers = Callers(*(queries.enqueue("e", b"%d" % (n % 4)) for n in range(12)))
    outcomes = await callers.outcomes()
    duplicates = [outcome for outcome in outcomes if isinstance(outcome, DuplicateJobError)]
    assert len(duplicates) == 8
    assert len(set(map(id, duplicates))) == 8
    assert len(await tables.rows("SELECT id FROM pgqueuer")) == 4


async def test_rows_that_a_trigger_drops_are_no_silent_loss(
    queries: Queries, statements: Statements, tables: Tables
) -> None:
    await tables.rows(
        "CREATE FUNCTION drop_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    await tables.rows(
        f"CREATE TRIGGER drop_some BEFORE INSERT ON {tables.new_jobs} FOR EACH ROW"
        " WHEN (new.payload = 'drop') EXECUTE FUNCTION drop_row()"
    )
    _, others = await behind_a_held_statement(
        queries, statements, *(queries.enqueue("e", data) for data in (b"a", b"drop", b"b"))
    )
    statements.release()
    for outcome in await others.outcomes():
        assert isinstance(outcome, JobsDroppedError)
    with pytest.raises(JobsDroppedError, match="stored 1 of them"):
        await queries.enqueue(["e"] * 2, [b"c", b"drop"], [0] * 2)


@pytest.mark.parametrize("failure", [TimeoutError(), RuntimeError("who knows")])
async def test_a_statement_of_unknown_outcome_is_not_sent_again(
    queries: Queries, statements: Statements, tables: Tables, failure: Exception
) -> None:
    first, others = await behind_a_held_statement(
        queries, statements, *(queries.enqueue("e", None) for _ in range(5))
    )
    statements.failure = failure
    statements.release()
    assert await first.outcomes() == [failure]
    assert await others.outcomes() == [failure] * 5
    assert len(statements.sent) == 2
    statements.failure = None
    await queries.enqueue("e", None)
    assert await tables.count() == 1


# -- Dedupe keys ------------------------------------------------------------------------------


async def test_one_key_by_many_callers(queries: Queries, tables: Tables) -> None:
    callers = Callers(
        *(queries.enqueue("raise", None, dedupe_key="a") for _ in range(4)),
        *(queries.enqueue("plain", None) for _ in range(4)),
        *(queries.enqueue("skip", None, dedupe_key="b", on_conflict="skip") for _ in range(4)),
        *(
            queries.enqueue("up", None, n, dedupe_key="c", on_conflict="update_priority")
            for n in range(4)
        ),
    )
    outcomes = await callers.outcomes()
    refused = [outcome for outcome in outcomes[:4] if isinstance(outcome, DuplicateJobError)]
    assert [error.dedupe_key for error in refused] == [["a"]] * 3
    assert all(isinstance(job_id, int) for (job_id,) in outcomes[4:8])
    assert sum(outcome == [None] for outcome in outcomes[8:12]) == 3
    assert len({job_id for (job_id,) in outcomes[12:]}) == 1
    assert await tables.rows(
        "SELECT entrypoint, count(*), max(priority) FROM pgqueuer GROUP BY 1 ORDER BY 1"
    ) == [("plain", 4, 0), ("raise", 1, 0), ("skip", 1, 0), ("up", 1, 3)]


async def test_a_job_with_a_key_has_its_turn_among_many_without(queries: Queries) -> None:
    stop = asyncio.Event()

    async def producer() -> None:
        while not stop.is_set():
            await queries.enqueue("plain", None)

    producers = Callers(*(producer() for _ in range(16)))
    try:
        async with asyncio.timeout(DEADLINE):
            for n in range(20):
                await queries.enqueue("keyed", None, dedupe_key=str(n))
                await queries.enqueue(["list"] * 300, [None] * 300, [0] * 300)
    finally:
        stop.set()
        assert await producers.outcomes() == [None] * 16


# -- The caller's transaction -----------------------------------------------------------------


@asynccontextmanager
async def asyncpg_transaction(dsn: str) -> AsyncIterator[tuple[Any, Any]]:
    connection = await asyncpg.connect(dsn)
    try:
        transaction = connection.transaction()
        await transaction.start()
        yield AsyncpgDriver(connection), transaction.rollback
    finally:
        await connection.close()


@asynccontextmanager
async def psycopg_transaction(dsn: str) -> AsyncIterator[tuple[Any, Any]]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("BEGIN")
        yield PsycopgDriver(connection), connection.rollback


@pytest.mark.parametrize("opened", [asyncpg_transaction, psycopg_transaction])
async def test_in_the_users_transaction_they_go_one_by_one_and_are_rolled_back_together(
    queue_dsn: str, tables: Tables, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(queue_dsn) as (driver, roll_back):
        statements = Statements(driver, monkeypatch)
        queries = Queries(driver)
        outcomes = await Callers(*(queries.enqueue("e", None) for _ in range(8))).outcomes()
        assert len({job_id for (job_id,) in outcomes}) == 8
        assert len(statements.sent) == 8
        assert await tables.count() == 0
        await roll_back()
        assert await tables.count() == 0
        # And together again, outside of it.
        await Callers(*(queries.enqueue("e", None) for _ in range(8))).outcomes()
    assert await transactions(tables) == [1, 7]


async def test_a_transaction_that_begins_while_they_wait(
    driver: Any,
    queries: Queries,
    statements: Statements,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, others = await behind_a_held_statement(
        queries, statements, *(queries.enqueue("e", b"%d" % n) for n in range(5))
    )
    monkeypatch.setattr(driver, "in_transaction", lambda: True)
    statements.release()
    ids = [job_id for (job_id,) in await others.outcomes()]
    assert len(statements.sent) == 6
    assert await tables.rows(
        "SELECT id, payload FROM pgqueuer WHERE entrypoint = 'e' ORDER BY id"
    ) == [(job_id, b"%d" % n) for n, job_id in enumerate(ids)]


# -- Cancellation -----------------------------------------------------------------------------


async def test_a_caller_that_is_cancelled_while_it_waits_takes_its_job_along(
    queries: Queries, statements: Statements, tables: Tables
) -> None:
    _, others = await behind_a_held_statement(
        queries, statements, *(queries.enqueue("e", b"%d" % n) for n in range(6))
    )
    for n in (0, 2, 5):
        others.tasks[n].cancel()
    outcomes = await asyncio.wait_for(
        asyncio.gather(*(others.tasks[n] for n in (0, 2, 5)), return_exceptions=True), DEADLINE
    )
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    statements.release()
    await others.outcomes()
    assert await tables.rows("SELECT payload FROM pgqueuer WHERE entrypoint = 'e' ORDER BY id") == [
        b"1",
        b"3",
        b"4",
    ]
    assert await transactions(tables, "e") == [3]


async def test_all_that_wait_are_cancelled(
    queries: Queries, statements: Statements, tables: Tables
) -> None:
    first, others = await behind_a_held_statement(
        queries, statements, *(queries.enqueue("e", None) for _ in range(3))
    )
    for task in others.tasks:
        task.cancel()
    statements.release()
    await first.outcomes()
    await others.outcomes()
    await queries.enqueue("last", None)
    assert await transactions(tables) == [1, 1]


async def test_a_caller_that_is_cancelled_during_the_statement_does_not_end_it(
    queries: Queries, statements: Statements, tables: Tables
) -> None:
    first, others = await behind_a_held_statement(
        queries, statements, *(queries.enqueue("e", b"%d" % n) for n in range(4))
    )
    statements.release()
    statements.hold()  # the next one
    await first.outcomes()
    await eventually(lambda: len(statements.sent) == 2)
    for n in (0, 3):
        others.tasks[n].cancel()
    await asyncio.wait({others.tasks[0], others.tasks[3]}, timeout=DEADLINE)
    statements.release()
    outcomes = await others.outcomes()
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert isinstance(outcomes[3], asyncio.CancelledError)
    stored = dict(await tables.rows("SELECT payload, id FROM pgqueuer WHERE entrypoint = 'e'"))
    assert outcomes[1] == [stored[b"1"]]
    assert outcomes[2] == [stored[b"2"]]
    assert await transactions(tables, "e") == [4]


async def test_a_first_caller_that_is_cancelled_ends_its_own_statement_only(
    queries: Queries, tables: Tables, queue_dsn: str
) -> None:
    async with await psycopg.AsyncConnection.connect(queue_dsn) as locker:
        await locker.execute("LOCK TABLE pgqueuer IN SHARE MODE")
        first = Callers(queries.enqueue("first", None))
        await eventually(lambda: blocked(tables, 1))
        others = Callers(*(queries.enqueue("e", None) for _ in range(5)))
        await others.under_way()
        for task in first.tasks:
            task.cancel()
        await asyncio.wait(first.tasks, timeout=DEADLINE)
        await eventually(lambda: blocked(tables, 1))
        await locker.rollback()
    assert len({job_id for (job_id,) in await others.outcomes()}) == 5
    assert all(isinstance(end, asyncio.CancelledError) for end in await first.outcomes())
    assert await transactions(tables) == [5]


async def blocked(tables: Tables, count: int) -> bool:
    """Whether just *count* sessions wait for a lock of another one."""
    return len(await blocked_sessions(tables)) == count


async def blocked_sessions(tables: Tables) -> list[int]:
    return await tables.rows(
        "SELECT pid FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )


# -- Lost connections -------------------------------------------------------------------------


async def lose_a_shared_statement(
    queries: Queries, statements: Statements, tables: Tables, dsn: str
) -> list[Any]:
    """The outcomes of five callers whose statement's session ends while it runs."""
    first, others = await behind_a_held_statement(
        queries, statements, *(queries.enqueue("e", None) for _ in range(5))
    )
    statements.release()
    statements.hold()  # the next one
    await first.outcomes()
    await eventually(lambda: len(statements.sent) == 2)
    async with await psycopg.AsyncConnection.connect(dsn) as locker:
        await locker.execute("LOCK TABLE pgqueuer IN SHARE MODE")
        statements.release()
        (pid,) = await eventually(lambda: blocked_sessions(tables))
        await tables.rows("SELECT pg_terminate_backend($1::int, 5000)", pid)
        return await others.outcomes()


async def test_a_connection_that_is_lost_fails_all_and_nothing_is_sent_again(
    queries: Queries, statements: Statements, tables: Tables, queue_dsn: str
) -> None:
    outcomes = await lose_a_shared_statement(queries, statements, tables, queue_dsn)
    assert len(outcomes) == 5
    assert all(is_connection_lost(outcome) for outcome in outcomes), outcomes
    assert len(statements.sent) == 2
    assert await transactions(tables) == [1]


@pytest.mark.parametrize("library", ["asyncpg", "psycopg"])
async def test_a_driver_that_replaces_its_connection_goes_on(
    queue_dsn: str, tables: Tables, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with OwnedDriver(queue_dsn, library) as driver:
        queries = Queries(driver)
        statements = Statements(driver, monkeypatch)
        outcomes = await lose_a_shared_statement(queries, statements, tables, queue_dsn)
        assert [type(outcome) for outcome in outcomes] == [ConnectionLostError] * 5
        assert len(statements.sent) == 2
        await Callers(*(queries.enqueue("after", None) for _ in range(5))).outcomes()
    assert await transactions(tables) == [1, 1, 4]


# -- Loops and drivers ------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["asyncpg", "psycopg"])
def test_one_loop_after_another(
    queue_dsn: str, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = OwnedDriver(queue_dsn, library)
    queries = Queries(driver)

    async def several() -> list[Any]:
        async with asyncio.timeout(DEADLINE):
            ids = await asyncio.gather(*(queries.enqueue("e", None) for _ in range(10)))
            await driver.close()
            return ids

    async def cut_off() -> None:
        """The loop ends with a statement under way and calls that wait."""
        with monkeypatch.context() as patch:
            statements = Statements(driver, patch)
            statements.hold()
            callers = Callers(*(queries.enqueue("e", None) for _ in range(10)))
            await callers.under_way()
            assert len(statements.sent) == 1

    ids = asyncio.run(several())
    asyncio.run(cut_off())
    ids += asyncio.run(several())
    assert len({job_id for (job_id,) in ids}) == 20


class PlainDriver:
    """No more than the public contract, over a driver of ours."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.calls = 0

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        self.calls += 1
        rows: list[dict[str, object]] = await self._driver.fetch(query, *args)
        return rows

    async def execute(self, query: str, *args: object) -> str:
        tag: str = await self._driver.execute(query, *args)
        return tag


@pytest.mark.parametrize("count", [1, 5, 300])
async def test_a_driver_that_cannot_tell_of_transactions_sends_each_call_by_itself(
    driver: Any, tables: Tables, count: int
) -> None:
    plain: Any = PlainDriver(driver)
    queries = Queries(plain)
    outcomes = await Callers(*(queries.enqueue("e", None) for _ in range(count))).outcomes()
    assert len({job_id for (job_id,) in outcomes}) == count
    assert plain.calls == count
    ids = await queries.enqueue(["e"] * count, [b"%d" % n for n in range(count)], [0] * count)
    assert plain.calls == count + 1
    assert await tables.rows(
        "SELECT id, payload FROM pgqueuer WHERE payload IS NOT NULL ORDER BY id"
    ) == [(job_id, b"%d" % n) for n, job_id in enumerate(ids)]


def plain_factory(loop: Any, coro: Any) -> Any:
    return asyncio.Task(coro, loop=loop)


@pytest.mark.parametrize(
    "factory", [plain_factory, getattr(asyncio, "eager_task_factory", plain_factory)]
)
async def test_a_task_factory_of_the_users(queries: Queries, tables: Tables, factory: Any) -> None:
    async def producer(name: str) -> None:
        for _ in range(5):
            await queries.enqueue(name, None)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    try:
        outcomes = await Callers(*(producer(f"e{n}") for n in range(10))).outcomes()
    finally:
        loop.set_task_factory(None)
    assert outcomes == [None] * 10
    assert await tables.count() == 50


async def test_nothing_keeps_a_driver_that_nobody_uses(queue_dsn: str) -> None:
    connection = await asyncpg.connect(queue_dsn)
    try:
        driver: Driver = AsyncpgDriver(connection)
        queries = Queries(driver)
        await Callers(*(queries.enqueue("e", None) for _ in range(5))).outcomes()
        gone = weakref.ref(driver)
        del driver, queries
        await asyncio.sleep(0)
        gc.collect()
        assert gone() is None
    finally:
        await connection.close()


async def test_another_driver_in_the_same_queries(
    make_driver: MakeDriver, kind: str, queries: Queries, queue_dsn: str, tables: Tables
) -> None:
    await queries.enqueue("e", None)
    used = Statements(other := await make_driver(kind, queue_dsn), pytest.MonkeyPatch())
    queries.driver = other
    await queries.enqueue("e", None)
    assert len(used.sent) == 1
    assert await tables.count() == 2


# -- Blocking ---------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def blocking(queue_dsn: str) -> AsyncIterator[SyncPsycopgDriver]:
    with psycopg.connect(queue_dsn, autocommit=True) as connection:
        yield SyncPsycopgDriver(connection)


@pytest.mark.parametrize("count", [1, 2, 199, 200, 1999, 2000, 25_000])
async def test_blocking_lists_go_by_copy_from_where_it_pays(
    blocking: SyncPsycopgDriver,
    tables: Tables,
    layout: Layout,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = 0
    transaction = blocking.transaction

    def counted() -> Any:
        nonlocal opened
        opened += 1
        return transaction()

    monkeypatch.setattr(blocking, "transaction", counted)
    payloads: list[bytes | None] = [b"%d" % n if n % 3 else None for n in range(count)]
    ids = SyncQueries(blocking).enqueue(["e"] * count, payloads, list(range(count)))
    assert opened == (count >= (200 if layout is Layout.compat else 2000))
    assert await tables.rows("SELECT id, payload, priority FROM pgqueuer ORDER BY id") == [
        (job_id, payloads[n], n) for n, job_id in enumerate(ids)
    ]
    assert await tables.value("SELECT count(*) FROM pgqueuer_log WHERE status = 'queued'") == count
    assert len(await transactions(tables)) == 1
