"""Workers on the lease layout: what they send, and what they leave unsaid."""

from __future__ import annotations

import asyncio
import hashlib
import time
import tracemalloc
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import psycopg
import pytest

from behaviour.helpers import Gate, LayoutSpy, Recorder, Tables, drain, eventually, working
from behaviour.test_own_parts import own_driver
from pgq_fast.db import PsycopgDriver, SyncPsycopgDriver
from pgq_fast.errors import RetryRequested
from pgq_fast.layouts import lease
from pgq_fast.layouts.base import Claim, Rest
from pgq_fast.layouts.lease import LeaseLayout
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries, SyncQueries
from pgq_fast.settings import DBSettings, JobLog, SynchronousCommit
from pgq_fast.types import JobId, QueueEntrypoint, QueueManagerId
from pgq_fast.worker.acks import COMPANY_DELAY
from support.layouts import queries_of

pytestmark = [pytest.mark.layouts("lease"), pytest.mark.pg_matrix]

OWNER = QueueManagerId(uuid.UUID(int=1))

one_driver = pytest.mark.parametrize("kind", ["asyncpg"], indirect=True)


async def counted(driver: Any, table: str, column: str) -> int:
    """A number that the server counts for *table*, with what *driver* has done so far."""
    await driver.execute("SELECT pg_stat_force_next_flush()")
    ((number,),) = await driver.fetch_rows(
        f"SELECT {column} FROM pg_stat_all_tables WHERE relid = {table}"
    )
    return int(number)


# -- The last statements of a worker ------------------------------------------------------------


@one_driver
async def test_a_drained_queue_is_looked_at_once(
    manager: QueueManager, driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at the front passes over all that has been claimed, and every worker ends with it."""
    looks: list[bool] = []
    fronts = 0
    claim_from = LeaseLayout._claim_from

    async def noted(self: LeaseLayout, onward: bool, *args: Any) -> Claim:
        nonlocal fronts
        claim = await claim_from(self, onward, *args)
        fronts += not onward and not claim.found
        return claim

    async def rest(self: LeaseLayout, *args: Any) -> Rest:
        looks.append(args[3])
        return await real_rest(self, *args)

    real_rest = LeaseLayout.rest
    monkeypatch.setattr(LeaseLayout, "_claim_from", noted)
    monkeypatch.setattr(LeaseLayout, "rest", rest)
    # However slow the server is, its last jobs are not found by a look at the front in between.
    monkeypatch.setattr("pgq_fast.layouts.lease.FRONT_SHARE", 1_000_000)
    handler = Recorder()
    manager.entrypoint("e")(handler)
    await manager.queries.enqueue(["e"] * 3_000, [None] * 3_000, [0] * 3_000)
    registered = await counted(driver, "'pgqueuer_waiting'::regclass", "n_tup_ins")
    await drain(manager)
    assert len(handler.ids) == 3_000
    assert (fronts, looks) == (1, [True])
    # Nobody was to be told.
    assert await counted(driver, "'pgqueuer_waiting'::regclass", "n_tup_ins") == registered


@pytest.mark.parametrize("when", ["-1 s", "1 hour"])
async def test_the_last_look_sees_what_is_deferred(
    driver: Any, queue_settings: DBSettings, tables: Tables, when: str
) -> None:
    """Also what is due, and that another worker is about to make ready, or did not finish to."""
    layout = LeaseLayout(driver, queue_settings)
    claim = await layout.claim(10, {QueueEntrypoint("e"): 0}, OWNER, None, 2**24)
    assert claim.exhausted
    assert await layout.rest(["e"], OWNER, False, True) == Rest(None)
    await tables.rows(
        "INSERT INTO pgqueuer_deferred (priority, entrypoint, execute_after)"
        f" VALUES (0, 'e', now() + interval '{when}')"
    )
    due = (await layout.rest(["e"], OWNER, False, True)).due
    assert due is not None
    assert (due > timedelta(minutes=30)) == (when == "1 hour")


async def test_what_a_claim_could_not_take_does_not_count_as_nothing(
    driver: Any, queries: Queries, queue_settings: DBSettings
) -> None:
    layout = LeaseLayout(driver, queue_settings)
    await queries.enqueue(["e"] * 3, [None] * 3, [0] * 3)
    name = QueueEntrypoint("e")
    for limit, found, exhausted in ((1, 1, False), (1, 0, False), (0, 2, False), (0, 0, True)):
        claim = await layout.claim(10, {name: limit}, OWNER, None, 2**24)
        assert (len(claim.jobs), claim.exhausted) == (found, exhausted)


@one_driver
async def test_whoever_comes_to_the_end_of_the_line_needs_no_turn(
    driver: Any, queries: Queries, queue_settings: DBSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others have nothing to take there, and there may be many of them."""
    asked: list[bool] = []
    send = LeaseLayout._send_claim

    async def noted(self: LeaseLayout, args: Any, *more: Any) -> Any:
        asked.append(args[6])
        return await send(self, args, *more)

    monkeypatch.setattr(LeaseLayout, "_send_claim", noted)
    layout = LeaseLayout(driver, queue_settings)
    await queries.enqueue(["e"] * 1_300, [None] * 1_300, [0] * 1_300)
    for found in (500, 500, 300, 0):
        claim = await layout.claim(500, {QueueEntrypoint("e"): 0}, OWNER, None, 2**24)
        assert len(claim.jobs) == found
    assert asked == [True, True, True, False]


# -- The first statements of a connection -----------------------------------------------------


@one_driver
async def test_a_worker_starts_with_few_statements(
    manager: QueueManager, driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fleets are restarted as a whole, and a server is cold for each new connection.

    asyncpg asks it for each type that it does not know, arrays of numbers among them: that costs
    as much as to claim hundreds of jobs.
    """
    asked: list[object] = []
    statements: list[str] = []

    async def introspect(self: Any, types: object, timeout: float) -> Any:
        asked.append(types)
        return await original(self, types, timeout)

    original = asyncpg.Connection._introspect_types
    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", introspect)
    driver._connection.add_query_logger(lambda record: statements.append(record.query))
    manager.entrypoint("e")(Recorder())
    await drain(manager)
    assert asked == []
    assert len(statements) <= 12, statements


# -- Claims with a slow job -------------------------------------------------------------------


@one_driver
async def test_a_slow_job_holds_up_no_news_of_the_others(
    manager: QueueManager, driver: Any, tables: Tables
) -> None:
    """They are logged while it runs, seldom and together, and nothing of the lease is rewritten."""
    count = 300
    gate = Gate()

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        if job.payload == b"slow":
            await gate(job)
        else:
            await asyncio.sleep(job.id % 100 * 0.005)

    toast = "(SELECT reltoastrelid FROM pg_class WHERE oid = 'pgqueuer_lease'::regclass)"
    row = "'pgqueuer_lease'::regclass"
    payloads = [b"slow", *[b"x" * 1000] * (count - 1)]
    ids = await manager.queries.enqueue(["e"] * count, payloads, [0] * count)
    before = {
        column: await counted(driver, row, column)
        for column in ("n_tup_ins", "n_tup_upd", "n_tup_del")
    }
    unpacked_before = await counted(driver, toast, "n_tup_ins")
    async with working(manager, batch_size=count, heartbeat_timeout=timedelta(hours=1)):
        await eventually(lambda: gate.started)
        began = time.monotonic()
        unpacked = await counted(driver, toast, "n_tup_ins")
        assert unpacked - unpacked_before > count / 2

        async def logged() -> bool:
            return await tables.ended() == ids[1:]

        await eventually(logged)
        took = time.monotonic() - began
        assert await counted(driver, toast, "n_tup_ins") == unpacked
        updated = await counted(driver, row, "n_tup_upd") - before["n_tup_upd"]
        assert 1 <= updated <= took / COMPANY_DELAY + 2
        assert await tables.count("picked") == 1
        gate.open.set()
    assert await tables.ended() == ids
    # The lease, and nothing else.
    for column in ("n_tup_ins", "n_tup_del"):
        assert await counted(driver, row, column) == before[column] + 1


# -- Notifications ----------------------------------------------------------------------------


@pytest.fixture
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registration lasts as long as any test: who is woken was told."""
    monkeypatch.setattr("pgq_fast.layouts.waiting.REGISTERED_FOR", timedelta(hours=3))
    monkeypatch.setattr("pgq_fast.layouts.waiting.RENEWED_AFTER", timedelta(hours=1))


PATIENT: dict[str, Any] = {
    "dequeue_timeout": timedelta(hours=1),
    "heartbeat_timeout": timedelta(hours=1),
}


class Ear:
    """Hears of new jobs on the queue's channel."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self.count = 0
        connection.add_notify_handler(self._take)

    def _take(self, notification: psycopg.Notify) -> None:
        self.count += '"insert"' in notification.payload

    async def heard(self) -> int:
        """How many since the last call."""
        # Comes with the answer.
        await self._connection.execute("SELECT 1")
        count, self.count = self.count, 0
        return count


@asynccontextmanager
async def listening(dsn: str) -> AsyncIterator[Ear]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("LISTEN ch_pgqueuer")
        yield Ear(connection)


@one_driver
async def test_producers_tell_nobody_while_the_workers_have_enough_to_do(
    manager: QueueManager, queue_dsn: str, spy: LayoutSpy, no_polls: None
) -> None:
    count = 0
    quiet: list[int] = []

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        nonlocal count
        count += 1
        if count == 1000:
            with psycopg.connect(queue_dsn, autocommit=True) as connection:
                producer = SyncQueries(SyncPsycopgDriver(connection))
                for _ in range(20):
                    producer.enqueue("e", None)
                producer.enqueue(["e"] * 10, [None] * 10, [0] * 10)
            quiet.append(await ear.heard())

    async with listening(queue_dsn) as ear:
        await manager.queries.enqueue(["e"] * 3000, [None] * 3000, [0] * 3000)
        assert await ear.heard() == 0
        async with working(manager, batch_size=100, **PATIENT):
            await eventually(lambda: count == 3030)
            assert quiet == [0]
            # It has something to wait for now, and says so.
            await spy.resting()
            for number in range(1, 4):
                await manager.queries.enqueue("e", None)
                await eventually(lambda number=number: count == 3030 + number)  # type: ignore[misc]
                assert await ear.heard() == 1
                await spy.resting()
        await manager.queries.enqueue("e", None)
        assert await ear.heard() == 0


@one_driver
async def test_a_producer_that_began_before_the_worker_waited_is_found(
    manager: QueueManager, queue_dsn: str, tables: Tables, spy: LayoutSpy, no_polls: None
) -> None:
    """It told nobody, as nobody was there; so the worker looks again until it has ended."""
    handler = Recorder()
    manager.entrypoint("e")(handler)
    async with await psycopg.AsyncConnection.connect(queue_dsn) as connection:
        await connection.set_autocommit(True)
        producer = Queries(PsycopgDriver(connection))
        await connection.execute("BEGIN")
        (job_id,) = await producer.enqueue("e", None)
        async with working(manager, **PATIENT):
            await eventually(lambda: spy.calls.count("rest") >= 5)
            assert handler.jobs == []
            await connection.execute("COMMIT")
            await eventually(lambda: handler.ids == [job_id])
            # Nothing that it has not been told of is left, so it polls no more.
            await eventually(lambda: _quiet_for(spy, 0.6))


async def _quiet_for(spy: LayoutSpy, seconds: float) -> bool:
    """Whether the workers ask for nothing for longer than any pause between polls."""
    calls = len(spy.calls)
    await asyncio.sleep(seconds)
    return len(spy.calls) == calls


# -- The way through the queue ----------------------------------------------------------------


@pytest.fixture
def soon_onward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims go on from where the last one ended after the first hundred jobs."""
    monkeypatch.setattr(lease, "ONWARD_FROM", 100)


@asynccontextmanager
async def old_transaction(dsn: str) -> AsyncIterator[None]:
    """Somebody looks at the database as it is now, and what is deleted from now on has to stay."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await connection.execute("SELECT count(*) FROM pgqueuer_ready")
        yield


async def passed(driver: Any) -> int:
    """Entries of the index of claims that have been looked at so far."""
    await driver.execute("SELECT pg_stat_force_next_flush()")
    ((number,),) = await driver.fetch_rows(
        "SELECT idx_tup_read FROM pg_stat_user_indexes"
        " WHERE indexrelname = 'pgqueuer_ready_order_idx'"
    )
    return int(number)


@one_driver
@pytest.mark.parametrize(("limit", "count"), [(0, 6_000), (50, 1_500)])
async def test_claims_do_not_pass_over_what_has_been_claimed_before(
    manager: QueueManager,
    driver: Any,
    queue_dsn: str,
    soon_onward: None,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    count: int,
) -> None:
    # The share of claims from the front is one of time, which goes as fast as the machine does.
    monkeypatch.setattr(lease, "FRONT_SHARE", 10**9)
    handler = Recorder()
    manager.entrypoint("e", concurrency_limit=limit)(handler)
    await manager.queries.enqueue(["e"] * count, [None] * count, [0] * count)

    before = await passed(driver)
    async with old_transaction(queue_dsn):
        await drain(manager, batch_size=100)
    assert len(handler.jobs) == count
    # Each once, and the whole way again at the end. From the front each time it would be many times
    # as many.
    assert await passed(driver) - before < 5 * count


@one_driver
async def test_claims_do_not_pass_over_what_others_have_claimed(
    manager: QueueManager,
    driver: Any,
    queue_dsn: str,
    queue_settings: DBSettings,
    soon_onward: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, "FRONT_SHARE", 10**9)
    count, size, workers = 8_000, 50, 16
    await manager.queries.enqueue(["e"] * count, [None] * count, [0] * count)
    layouts = [LeaseLayout(driver, queue_settings) for _ in range(workers)]
    owners = [QueueManagerId(uuid.uuid4()) for _ in range(workers)]
    limits = {QueueEntrypoint("e"): 0}
    running: list[list[JobId]] = [[] for _ in range(workers)]
    before, claimed = await passed(driver), 0
    async with old_transaction(queue_dsn):
        for _ in range(count // size // workers):
            for number, (layout, owner) in enumerate(zip(layouts, owners, strict=True)):
                ending = running[number]
                jobs = (await layout.claim(size, limits, owner, None, 2**24, ending)).jobs
                running[number] = [job.id for job in jobs]
                claimed += len(jobs)
    assert claimed == count
    # Two rounds from the front, then on from where the one before has ended. Were each to go on
    # from its own place, it would be workers * count.
    assert await passed(driver) - before < 5 * count


@one_driver
@pytest.mark.parametrize("comes", ["enqueued", "deferred", "retried", "rescued", "late"])
async def test_what_comes_to_the_front_is_found_on_the_way(
    manager: QueueManager,
    queue_dsn: str,
    tables: Tables,
    queue_settings: DBSettings,
    soon_onward: None,
    comes: str,
) -> None:
    """Although the claims are far behind it, and the queue never comes to its end."""
    seen: list[bytes | None] = []
    found = asyncio.Event()
    queries = manager.queries
    assert isinstance(queries, Queries)

    async def bring() -> None:
        match comes:
            case "enqueued":
                await queries.enqueue("e", b"urgent", 5)
            case "deferred":
                await queries.enqueue("e", b"urgent", 5, execute_after=timedelta(seconds=0.05))
            case "rescued":
                await tables.make_stale()
            case "late":
                await late.execute("COMMIT")

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        seen.append(job.payload)
        if len(seen) == 1000:
            await bring()
        if job.payload == b"urgent":
            if comes == "retried" and job.attempts == 0:
                raise RetryRequested(timedelta(0))
            found.set()
        elif not found.is_set() and len(seen) < 50_000:
            await queries.enqueue(["e"] * 2, [None] * 2, [0] * 2)

    async with (
        old_transaction(queue_dsn),
        await psycopg.AsyncConnection.connect(queue_dsn, autocommit=True) as late,
    ):
        if comes in ("retried", "rescued"):
            (first,) = await queries.enqueue("e", b"urgent")
            if comes == "rescued":
                await tables.pick(int(first or 0))
        if comes == "late":
            # Its id and its place are before all others, and nobody sees it yet.
            await late.execute("BEGIN")
            await Queries(PsycopgDriver(late)).enqueue("e", b"urgent")
        await queries.enqueue(["e"] * 500, [None] * 500, [0] * 500)
        run = {"heartbeat_timeout": timedelta(minutes=30), "batch_size": 50}
        if comes == "rescued":
            # Stale jobs are looked for a few times within it.
            run["heartbeat_timeout"] = timedelta(seconds=2)
        async with working(manager, **run):
            await asyncio.wait_for(found.wait(), 60)
    assert len(seen) < 50_000


@one_driver
async def test_stale_jobs_come_up_though_the_worker_never_rests(
    driver: Any, queries: Queries, tables: Tables, queue_settings: DBSettings
) -> None:
    """Each claim brings a job and has room for more, and by then it has been told of another."""
    layout = lease.LeaseLayout(driver, queue_settings)
    (stale,) = await queries.enqueue("e", None)
    # Not stale yet when the first claim looks.
    await tables.pick(int(stale or 0), silent=-timedelta(seconds=0.2))
    limits: Any = {"e": 0}
    owner = QueueManager(queries).queue_manager_id
    seen: list[int] = []
    for _ in range(1000):
        await queries.enqueue("e", None)
        claim = await layout.claim(9, limits, owner, timedelta(seconds=0.2), 2**24)
        assert 0 < len(claim.jobs) < 9
        seen += [job.id for job in claim.jobs]
        await layout.finish([job.id for job in claim.jobs], owner)
        if stale in seen:
            break
    assert stale in seen


# -- Size -------------------------------------------------------------------------------------


async def test_a_job_of_fifty_megabytes(manager: QueueManager, tables: Tables) -> None:
    payload = hashlib.shake_256(b"seed").digest(1_000_000) * 50
    seen: list[bytes] = []

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        assert job.payload is not None
        seen.append(hashlib.sha256(job.payload).digest())
        if job.attempts == 0:
            raise RetryRequested(timedelta(0))

    ids = await manager.queries.enqueue(["e"] * 3, [b"", payload, None], [2, 1, 0])
    await manager.queries.mark_job_as_cancelled([ids[2], ids[0]])
    tracemalloc.start(1)
    try:
        await drain(manager)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What the driver reads, what it makes of that, and the job.
    assert peak < 4 * len(payload)
    assert seen == [hashlib.sha256(payload).digest()] * 2
    assert await tables.ended() == [ids[1]]
    assert await tables.statuses(int(ids[1] or 0)) == [
        "queued", "picked", "queued", "picked", "successful",
    ]  # fmt: skip


# -- Commits ----------------------------------------------------------------------------------

WATCHED = {
    "enqueue": ("INSERT", "ready"),
    "claim": ("INSERT", "lease"),
    "heartbeat": ("UPDATE OF heartbeat", "lease"),
    "success": ("INSERT", "log_batches", "WHEN (new.status = 'successful')"),
    "other end": ("INSERT", "log_entries"),
}


async def watch_commits(tables: Tables) -> None:
    """Have each change of one of the tables noted with its ``synchronous_commit``."""
    await tables.rows("CREATE TABLE seen (what text, setting text)")
    await tables.rows(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO seen VALUES (TG_ARGV[0], current_setting('synchronous_commit'));"
        " RETURN NULL; END $$"
    )
    for number, (what, (event, table, *when)) in enumerate(WATCHED.items()):
        await tables.rows(
            f"CREATE TRIGGER note_{number} AFTER {event} ON pgqueuer_{table}"
            f" FOR EACH ROW {' '.join(when)} EXECUTE FUNCTION note('{what}')"
        )


async def commits(tables: Tables) -> dict[str, set[str]]:
    """The settings with which each kind of statement has been committed."""
    found: dict[str, set[str]] = {}
    for what, setting in await tables.rows("SELECT DISTINCT what, setting FROM seen"):
        found.setdefault(what, set()).add(setting)
    return found


@pytest.mark.parametrize("wait", SynchronousCommit)
async def test_which_commits_wait_for_the_disk(
    driver: Any, tables: Tables, spy: LayoutSpy, wait: SynchronousCommit
) -> None:
    queries = queries_of(driver, DBSettings(layout="lease", synchronous_commit=wait))
    manager = QueueManager(queries)
    gate = Gate()

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        if job.payload == b"slow":
            await gate(job)
        if job.payload == b"bad":
            raise ValueError("broken")

    await watch_commits(tables)
    await queries.enqueue(["e"] * 3, [b"slow", b"bad", b"good"], [9, 9, 9])
    await queries.enqueue(["e"] * 500, [None] * 500, [0] * 500)
    await queries.enqueue("e", None)
    async with working(manager, heartbeat_timeout=timedelta(seconds=1), batch_size=50):
        await eventually(lambda: spy.beats)
        gate.open.set()
        await eventually(lambda: gate.ended)
    ended = {"off"} if wait is SynchronousCommit.enqueues else {"on"}
    alive = {"on"} if wait is SynchronousCommit.all else {"off"}
    found = await commits(tables)
    # Some take along what has ended, and are as good as that.
    assert found.pop("claim") == alive | ended
    assert found == {
        "enqueue": {"on"},
        "heartbeat": alive | ended,
        "success": ended,
        "other end": ended,
    }
    assert await driver.fetch("SHOW synchronous_commit") == [{"synchronous_commit": "on"}]


async def test_over_a_driver_that_does_not_tell_of_transactions_all_commits_wait(
    queue_dsn: str, tables: Tables
) -> None:
    """The user may have one open, and what is in there must not be lost."""
    settings = DBSettings(layout="lease", synchronous_commit=SynchronousCommit.enqueues)
    async with own_driver(queue_dsn) as driver:
        queries = queries_of(driver, settings)
        manager = QueueManager(queries)
        manager.entrypoint("e")(Recorder())
        await queries.enqueue(["e"] * 3, [None] * 3, [0] * 3)
        await watch_commits(tables)
        await drain(manager)
    assert await commits(tables) == {"claim": {"on"}, "success": {"on"}}


@pytest.mark.parametrize("kind", ["asyncpg", "psycopg"], indirect=True)
async def test_a_transaction_of_the_users_stays_as_it_is(driver: Any, tables: Tables) -> None:
    """What they have written in there is not lost for what happens to be sent in between."""
    settings = DBSettings(layout="lease", synchronous_commit=SynchronousCommit.enqueues)
    queries = queries_of(driver, settings)
    manager = QueueManager(queries)
    layout = lease.LeaseLayout(driver, settings)
    owner = manager.queue_manager_id
    await queries.enqueue(["e"] * 4, [None] * 4, [0] * 4)
    claim = await layout.claim(4, {"e": 0}, owner, None, 2**24)  # type: ignore[dict-item]
    ids = [job.id for job in claim.jobs]
    await watch_commits(tables)
    await driver.execute("BEGIN")
    assert await layout.heartbeat(ids, owner) == set(ids)
    await layout.finish(ids[:1], owner)
    await layout.acknowledge([lease.Outcome(claim.jobs[1], "exception", None)], owner)
    await layout.finish(ids[2:], owner)
    assert await driver.fetch("SHOW synchronous_commit") == [{"synchronous_commit": "on"}]
    await driver.execute("COMMIT")
    assert {setting for settings in (await commits(tables)).values() for setting in settings} == {
        "on"
    }
    assert await tables.count() == 0


# -- The log ----------------------------------------------------------------------------------


async def run_every_kind(queries: Queries, names: tuple[str, ...]) -> None:
    """Jobs of each entrypoint that end in all ways, with a worker."""
    manager = QueueManager(queries)

    async def handler(job: Job) -> None:
        if job.payload == b"bad" or (job.payload == b"retry" and job.attempts == 1):
            raise ValueError("broken")
        if job.payload == b"retry":
            raise RetryRequested(timedelta(0))
        if job.payload == b"slow":
            await asyncio.sleep(0.15)

    for name in names:
        manager.entrypoint(name, on_failure="hold" if name == "b" else "delete")(handler)
        payloads = [b"bad", b"retry", b"slow", *[b"good"] * 20]
        await queries.enqueue([name] * 23, payloads, [0, 1, *[2] * 21])
    await drain(manager)
    await queries.requeue_jobs([job.id for job in await queries.list_failed_jobs()])
    manager.shutdown.clear()
    await drain(manager)


async def totals(queries: Queries) -> Counter[tuple[str, str, int]]:
    found: Counter[tuple[str, str, int]] = Counter()
    for entry in await queries.log_statistics(None):
        found[entry.entrypoint, entry.status, entry.priority] += entry.count
    return found


@one_driver
@pytest.mark.parametrize("aggregated", [True, False])
async def test_what_the_log_keeps_of_a_workers_jobs(
    driver: Any, tables: Tables, aggregated: bool
) -> None:
    """The statistics count the same, whatever the log keeps of each entrypoint."""
    settings = DBSettings(
        layout="lease",
        job_log=JobLog.failures,
        job_log_of={"a": JobLog.all, "b": JobLog.failures, "c": JobLog.none},
    )
    queries = queries_of(driver, settings)
    await run_every_kind(queries, ("a", "b", "c", "d"))
    if aggregated:
        await queries.aggregate_logs()
    found = await totals(queries)
    by_name = {
        name: {key[1:]: count for key, count in found.items() if key[0] == name} for name in "acd"
    }
    assert by_name["a"] == by_name["c"] == by_name["d"]
    assert by_name["a"]["successful", 2] == 21
    assert found["b", "failed", 0] == 2
    logged = Counter(await tables.rows("SELECT entrypoint, status::text FROM pgqueuer_log"))
    assert logged["a", "successful"] == 21
    assert logged["a", "queued"] == 24
    for name in "bd":
        assert logged[name, "successful"] == 0
    assert logged["d", "exception"] == logged["a", "exception"] == 2
    assert logged["b", "failed"] == 4
    assert [key for key in logged if key[0] == "c"] == []
