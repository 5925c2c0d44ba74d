"""What people ask of the lease layout: jobs on the move, what is logged, and how they are found."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio

from behaviour.helpers import Tables, eventually
from pgq_fast.layouts.lease_log import log_modes
from pgq_fast.models import Job
from pgq_fast.queries import Queries
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.settings import DBSettings, JobLog, Layout
from pgq_fast.sql import layout_statement
from pgq_fast.types import JobId, QueueEntrypoint, QueueManagerId
from support.drivers import MakeDriver
from support.layouts import queries_of

pytestmark = [pytest.mark.pg_matrix, pytest.mark.layouts("lease")]

ME = QueueManagerId(UUID(int=1))
NOW, DAY = timedelta(0), timedelta(days=1)
LONG = 20_000


async def claim(queries: Queries, count: int, name: str = "a") -> list[Job]:
    limits = {QueueEntrypoint(name): EntrypointExecutionParameter(0)}
    return await queries.dequeue(count, limits, ME, None, DAY)


async def statuses(queries: Queries, job_id: JobId) -> list[str]:
    return [entry.status for entry in await queries.job_log_history(job_id)]


# -- What is logged ---------------------------------------------------------------------------


def logging(default: str, **of: str) -> DBSettings:
    return DBSettings(
        layout=Layout.lease,
        job_log=JobLog(default),
        job_log_of={name: JobLog(mode) for name, mode in of.items()},
    )


def test_the_parameters_say_the_default_and_what_differs() -> None:
    modes = log_modes(logging("failures", a="all", b="none"))
    assert modes.default == "failures"
    assert json.loads(modes.exceptions) == {"a": "all", "b": "none"}


async def every_end(queries: Queries, name: str) -> dict[str, JobId]:
    """A job of each fate."""
    fates = ("successful", "exception", "failed", "requeued", "retried", "cancelled", "deleted")
    ids = await queries.enqueue([name] * len(fates), [None] * len(fates), [0, 1, 0, 1, 0, 1, 0])
    found = dict(zip(fates, ids, strict=True))
    jobs = {job.id: job for job in await claim(queries, 9, name)}
    held = {found["failed"], found["requeued"]}
    await queries.log_jobs(
        [
            (jobs[found["successful"]], "successful", None),
            (jobs[found["exception"]], "exception", None),
            *((jobs[job_id], "failed", None) for job_id in sorted(held)),
        ]
    )
    await queries.requeue_jobs([found["requeued"]])
    await queries.retry_job(jobs[found["retried"]], NOW, None)
    await queries.mark_job_as_cancelled([found["cancelled"]])
    return found


@pytest.mark.parametrize("mode", ["failures", "none"])
async def test_what_is_not_logged_is_counted_all_the_same(
    driver: Any, queries: Queries, mode: str
) -> None:
    quiet = queries_of(driver, logging("all", quiet=mode))
    fates = {name: await every_end(quiet, name) for name in ("loud", "quiet")}
    await quiet.clear_queue(["loud", "quiet"])
    # Once with what is counted while it is read, once with what has been.
    for _ in range(2):
        totals: dict[str, Counter[tuple[str, int]]] = {"loud": Counter(), "quiet": Counter()}
        for entry in await quiet.log_statistics(None):
            totals[entry.entrypoint][entry.status, entry.priority] += entry.count
        assert totals["quiet"] == totals["loud"]
        assert sum(totals["loud"].values()) > 20
    logged = {
        name: {fate: await statuses(quiet, job_id) for fate, job_id in ids.items()}
        for name, ids in fates.items()
    }
    assert logged["loud"]["successful"] == ["queued", "picked", "successful"]
    if mode == "failures":
        assert logged["quiet"] == {**logged["loud"], "successful": []}
    else:
        assert set(map(tuple, logged["quiet"].values())) == {()}
    assert {entry.entrypoint for entry in await quiet.queue_log()} == (
        {"loud", "quiet"} if mode == "failures" else {"loud"}
    )


async def test_nothing_is_left_of_what_was_written_to_be_counted(
    driver: Any, queries: Queries, tables: Tables
) -> None:
    quiet = queries_of(driver, logging("none"))
    await every_end(quiet, "a")
    assert await quiet.unaggregated_log_count() > 0
    assert await tables.value("SELECT count(*) FROM pgqueuer_log_batches") > 0
    await quiet.aggregate_logs()
    assert await quiet.unaggregated_log_count() == 0
    assert await tables.value("SELECT count(*) FROM pgqueuer_log_batches") == 0
    assert await tables.value("SELECT count(*) FROM pgqueuer_log_entries") == 0


async def test_jobs_that_end_together_are_one_row(queries: Queries, tables: Tables) -> None:
    ids = await queries.enqueue(["a"] * 100, [None] * 100, [0, 1] * 50)
    jobs = await claim(queries, 100)
    await queries.log_jobs([(job, "successful", None) for job in jobs])
    assert await tables.value("SELECT count(*) FROM pgqueuer_log_batches") == 1
    assert await tables.value("SELECT count(*) FROM pgqueuer_log_entries") == 0
    assert await tables.value("SELECT count(*) FROM pgqueuer_lease") == 0
    assert dict(await queries.job_status(ids)) == dict.fromkeys(ids, "successful")
    for entry in await queries.job_log_history(ids[1]):
        assert (entry.job_id, entry.priority) == (ids[1], 1)


async def test_to_vouch_for_a_job_is_to_vouch_for_its_lease(
    queries: Queries, tables: Tables
) -> None:
    await queries.enqueue(["a"] * 4, [None] * 4, [0] * 4)
    jobs = [*await claim(queries, 2), *await claim(queries, 2)]
    await tables.rows("UPDATE pgqueuer_lease SET heartbeat = now() - interval '1 hour'")
    await queries.update_heartbeat([jobs[0].id, JobId(10**12)])
    stale = await queries.stale_jobs(timedelta(minutes=1))
    assert [job.id for job in stale] == [jobs[2].id, jobs[3].id]


# -- Jobs on the move -------------------------------------------------------------------------


@pytest_asyncio.fixture
async def mover(queue_dsn: str) -> AsyncIterator[Tables]:
    """A session that moves jobs in a transaction of its own."""
    async with await psycopg.AsyncConnection.connect(queue_dsn, autocommit=True) as connection:
        yield Tables(connection)


CLAIMING = """
WITH job AS (DELETE FROM pgqueuer_ready RETURNING *)
INSERT INTO pgqueuer_lease (worker, entrypoint, done, ids, priorities, attempts, created,
    execute_after, dedupe_keys, payloads)
SELECT $1::uuid, entrypoint, repeat('0', count(*)::int)::varbit, array_agg(id ORDER BY id),
    array_agg(priority ORDER BY id), array_agg(attempts ORDER BY id),
    array_agg(created ORDER BY id), array_agg(execute_after ORDER BY id),
    array_agg(dedupe_key ORDER BY id), array_agg(payload ORDER BY id)
FROM job
GROUP BY entrypoint
"""
RESCUING = """
WITH lease AS (DELETE FROM pgqueuer_lease RETURNING *)
INSERT INTO pgqueuer_ready (id, priority, created, entrypoint)
SELECT job.id, job.priority, job.created, lease.entrypoint
FROM lease CROSS JOIN LATERAL unnest(ids, priorities, created) AS job (id, priority, created)
"""
PROMOTING = """
WITH job AS (DELETE FROM pgqueuer_deferred RETURNING *)
INSERT INTO pgqueuer_ready SELECT * FROM job
"""
MOVES = {"claimed": CLAIMING, "rescued": RESCUING, "promoted": PROMOTING}


@pytest.mark.parametrize("how", ["cancel", "clear"])
@pytest.mark.parametrize("move", MOVES)
async def test_jobs_are_found_that_move_meanwhile(
    queries: Queries, tables: Tables, mover: Tables, move: str, how: str
) -> None:
    ids = await queries.enqueue(
        ["a"] * 3, [None] * 3, [0] * 3, [DAY if move == "promoted" else NOW] * 3
    )
    if move == "rescued":
        await claim(queries, 9)
    await mover.rows("BEGIN")
    await mover.rows(MOVES[move], *([ME] if move == "claimed" else []))
    call = queries.mark_job_as_cancelled(list(ids)) if how == "cancel" else queries.clear_queue("a")
    task = asyncio.ensure_future(call)
    try:

        async def waits() -> bool:
            return bool(
                await tables.value(
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                )
            )

        await eventually(waits)
        await mover.rows("COMMIT")
        await asyncio.wait_for(task, 30)
    finally:
        task.cancel()
    assert await queries.queue_size() == []
    end = "canceled" if how == "cancel" else "deleted"
    assert dict(await queries.job_status(list(ids))) == dict.fromkeys(ids, end)


async def test_clearing_ends_while_producers_go_on(queries: Queries, driver: Any) -> None:
    stop = asyncio.Event()

    async def produce() -> None:
        while not stop.is_set():
            await queries.enqueue(["a"] * 5, [None] * 5, [0] * 5)

    first = await queries.enqueue(["a"] * 50, [None] * 50, [0] * 50)
    producer = asyncio.create_task(produce())
    try:
        await asyncio.wait_for(queries.clear_queue("a"), 30)
    finally:
        stop.set()
        await producer
    assert dict(await queries.job_status(first)) == dict.fromkeys(first, "deleted")


async def test_ends_of_one_lease_at_the_same_time_are_all_kept(
    kind: str, queries: Queries, make_driver: MakeDriver, queue_dsn: str, tables: Tables
) -> None:
    count = 60
    await queries.enqueue(["a"] * count, [None] * count, [0] * count)
    jobs = await claim(queries, count)
    others = [queries, *[Queries(await make_driver(kind, queue_dsn)) for _ in range(3)]]
    await asyncio.gather(
        *[
            others[place % 4].log_jobs([(job, "successful", None)])
            if place % 3
            else others[place % 4].mark_job_as_cancelled([job.id])
            for place, job in enumerate(jobs)
        ]
    )
    assert await tables.value("SELECT count(*) FROM pgqueuer_lease") == 0
    assert len(await tables.ended("successful")) == 40
    assert len(await tables.ended("canceled")) == 20


async def test_cancelling_and_raising_priorities_do_not_lock_each_other_out(
    kind: str, queries: Queries, make_driver: MakeDriver, queue_dsn: str
) -> None:
    other = Queries(await make_driver(kind, queue_dsn))
    for number in range(30):
        delay = DAY if number % 2 else NOW
        keys: list[str | None] = [f"{number}-{place}" for place in range(20)]
        ids = await queries.enqueue(["a"] * 20, [None] * 20, [0] * 20, [delay] * 20, keys)
        # In the other order, which is what could make the two wait for each other.
        await asyncio.gather(
            queries.mark_job_as_cancelled(list(ids)),
            other.enqueue(
                ["a"] * 20,
                [None] * 20,
                [5] * 20,
                [delay] * 20,
                keys[::-1],
                on_conflict="update_priority",
            ),
        )
        await queries.clear_queue("a")
        assert await queries.queue_size() == []


# -- How jobs are found -----------------------------------------------------------------------


@pytest.mark.parametrize("pairs", [3, 1500])
async def test_jobs_are_found_among_few_and_many_priorities(queries: Queries, pairs: int) -> None:
    count = 3000
    names = ["a", "b", "c"] * 1000
    ids = await queries.enqueue(
        names, [b"%d" % number for number in range(count)], [n % pairs - 1 for n in range(count)]
    )
    for place in (0, 1, 1499, 2999):
        job = await queries.queue_job_by_id(ids[place])
        assert job is not None
        assert (job.id, job.payload) == (ids[place], b"%d" % place)
    chosen = ids[::7]
    assert dict(await queries.job_status(chosen)) == dict.fromkeys(chosen, "queued")
    await queries.mark_job_as_cancelled(chosen)
    assert dict(await queries.job_status(chosen)) == dict.fromkeys(chosen, "canceled")
    assert sum(size.count for size in await queries.queue_size()) == count - len(chosen)
    assert await queries.queue_job_by_id(JobId(ids[-1] + 1000)) is None


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


ENDING = ["'{5,6}'", "'{successful,successful}'", "'{NULL,NULL}'"]
BY_ID: dict[tuple[str, ...], list[str]] = {
    ("job_status",): ["'{5,10000001,20000002}'"],
    ("job_log_history",): ["5", "100"],
    ("queue_job_by_id",): ["5"],
    ("log_jobs", "fenced", "keeping"): [*ENDING, f"'{{{ME},{ME}}}'", "'all'", "'{}'"],
    ("log_jobs", "anyone", "dropping"): [*ENDING, "'{NULL,NULL}'", "'all'", "'{}'"],
    ("retry_job", "fenced", "attempts", "keeping"): [
        "'{5}'",
        "'{1s}'",
        "'{NULL}'",
        f"'{{{ME}}}'",
        "'{0}'",
        "'all'",
        "'{}'",
    ],
    ("queued_work",): ["'{a,quiet}'"],
    ("queued_work", "eligible"): ["'{a,quiet}'"],
    ("next_deferred_eta",): ["'{a,quiet}'"],
    ("exception_logs",): ["10"],
    ("list_failed_jobs", "descending"): ["10"],
    ("unaggregated_log_count",): [],
    ("prune_entries",): ["now() - interval '1 day'", "100", "NULL"],
    ("prune_batches",): ["now() - interval '1 day'", "100", "NULL"],
}


@pytest.mark.impl_agnostic
async def test_no_large_table_is_read_for_a_few_rows(tables: Tables) -> None:
    for insert in (
        "ready (id, priority, entrypoint) SELECT n, n % 3, 'e' || n % 5",
        "deferred (id, priority, entrypoint, execute_after)"
        " SELECT 1000000 + n, 0, 'd', now() + interval '1 day'",
        "log_entries (job_id, status, priority, entrypoint, created, aggregated)"
        " SELECT 10000000 + n, 'exception', 0, 'e', now() - n * interval '1 s', true",
        "log_batches (status, entrypoint, priority, picked_at, jobs, first_id, last_id, ids,"
        " created, aggregated) SELECT 'successful', 'e', 0, now(), 2, 20000000 + 2 * n,"
        " 20000001 + 2 * n, ARRAY[20000000 + 2 * n, 20000001 + 2 * n], now() - n * interval '1 s',"
        " true",
    ):
        await tables.rows(f"INSERT INTO pgqueuer_{insert} FROM generate_series(1, {LONG}) AS n")
    await tables.rows("ANALYZE")
    await tables.rows("SET plan_cache_mode = force_generic_plan")
    for statement, arguments in BY_ID.items():
        # Some of them change what they find.
        await tables.rows("BEGIN")
        assert await large_reads(tables, statement, arguments) == set(), statement
        await tables.rows("ROLLBACK")


async def large_reads(
    tables: Tables, statement: tuple[str, ...], arguments: list[str]
) -> set[tuple[str, str | None]]:
    """The parts of a statement's generic plan that go through a good part of a long table."""
    name, *flags = statement
    text = layout_statement(name, DBSettings(layout=Layout.lease), *flags)
    await tables.rows(f"PREPARE query AS {text}")
    values = f"({', '.join(arguments)})" if arguments else ""
    plan = await tables.value(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE query{values}")
    await tables.rows("DEALLOCATE query")
    found = plan if isinstance(plan, list) else json.loads(plan)
    return {
        (node["Node Type"], node.get("Relation Name"))
        for node in nodes(found[0]["Plan"])
        if node["Actual Loops"]
        and (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        > LONG / 10
    }
