"""``Queries.dequeue`` and what ends a claimed job, without a worker in between."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

from behaviour.helpers import Tables
from pgq_fast.errors import OpenTransactionError
from pgq_fast.models import Job, TracebackRecord
from pgq_fast.queries import Queries
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.types import JobId, QueueEntrypoint, QueueManagerId

pytestmark = [pytest.mark.pg_matrix, pytest.mark.layouts()]

ME, OTHER, THIRD = (QueueManagerId(uuid.UUID(int=number)) for number in (1, 2, 3))
DAY = timedelta(days=1)


async def claim(
    queries: Queries,
    batch_size: int = 100,
    owner: QueueManagerId = ME,
    total: int | None = None,
    stale: timedelta = DAY,
    **entrypoints: int,
) -> list[Job]:
    limits = {
        QueueEntrypoint(name): EntrypointExecutionParameter(limit)
        for name, limit in (entrypoints or {"e": 0}).items()
    }
    return await queries.dequeue(batch_size, limits, owner, total, stale)


async def state(tables: Tables, job_id: int) -> list[Any]:
    return await tables.rows(
        "SELECT status::text, queue_manager_id, attempts, slot FROM pgqueuer WHERE id = $1", job_id
    )


async def test_highest_priority_first_then_the_oldest(queries: Queries) -> None:
    priorities = [0, 5, -3, 5, 0, 9]
    ids = await queries.enqueue(["e"] * 6, [None] * 6, priorities)
    expected = [ids[place] for place in (5, 1, 3, 0, 4, 2)]
    first = await claim(queries, 4)
    second = await claim(queries, 4)
    assert [job.id for job in (*first, *second)] == expected


async def test_over_several_entrypoints(queries: Queries) -> None:
    ids = await queries.enqueue(["a", "b", "c", "a", "b"], [None] * 5, [1, 3, 9, 2, 0])
    jobs = await claim(queries, 3, a=0, b=0)
    assert [job.id for job in jobs] == [ids[1], ids[3], ids[0]]
    assert [job.id for job in await claim(queries, 3, a=0, b=0)] == [ids[4]]
    assert await claim(queries, 3, nothing=0) == []


async def test_a_claimed_job_is_what_the_table_says(queries: Queries, tables: Tables) -> None:
    (job_id,) = await queries.enqueue("e", b"\0x", 7, headers={"a": "b"})
    (job,) = await claim(queries, e=3)
    (row,) = await tables.rows(
        "SELECT id, priority, created, updated, heartbeat, execute_after, status::text, entrypoint,"
        " payload, attempts, queue_manager_id, slot, headers FROM pgqueuer"
    )
    columns = list(Job.model_fields)
    assert job.model_dump() == dict(zip(columns, row, strict=True))
    assert (job.id, job.status, job.queue_manager_id, job.slot) == (job_id, "picked", ME, 0)
    assert job == await queries.queue_job_by_id(job_id)
    assert await tables.statuses(job_id) == ["queued", "picked"]


async def test_deferred_jobs_wait(queries: Queries, tables: Tables) -> None:
    deferred, due = await queries.enqueue(
        ["e"] * 2, [None] * 2, [0] * 2, execute_after=[DAY, timedelta(seconds=-5)]
    )
    assert deferred is not None
    assert [job.id for job in await claim(queries)] == [due]
    assert await queries.queued_work([QueueEntrypoint("e")]) == 1
    assert await queries.eligible_queued_work([QueueEntrypoint("e")]) == 0
    eta = await queries.next_deferred_eta([QueueEntrypoint("e")])
    assert eta is not None
    assert timedelta(hours=23) < eta <= DAY
    await tables.edit(deferred, "execute_after = now()")
    assert [job.id for job in await claim(queries)] == [deferred]
    assert await queries.next_deferred_eta([QueueEntrypoint("e")]) is None
    assert await queries.queued_work([QueueEntrypoint("e")]) == 0


async def test_limit_of_an_entrypoint(queries: Queries) -> None:
    await queries.enqueue(["e"] * 10 + ["f"] * 2, [None] * 12, [0] * 12)
    jobs = await claim(queries, 100, ME, e=3, f=0)
    assert sorted((job.entrypoint, job.slot) for job in jobs if job.entrypoint == "e") == [
        ("e", 0),
        ("e", 1),
        ("e", 2),
    ]
    assert [job.slot for job in jobs if job.entrypoint == "f"] == [None, None]
    assert await claim(queries, 100, OTHER, e=3, f=0) == []
    middle = next(job for job in jobs if job.slot == 1)
    await queries.log_jobs([(middle, "successful", None)])
    (job,) = await claim(queries, 100, OTHER, e=3, f=0)
    assert job.slot == 1


async def test_budget_of_a_worker(queries: Queries) -> None:
    await queries.enqueue(["e"] * 10 + ["f"] * 10, [None] * 20, [0] * 20)
    assert len(await claim(queries, 3, ME, 5, e=0, f=0)) == 3
    jobs = await claim(queries, 3, ME, 5, e=0, f=0)
    assert len(jobs) == 2
    assert await claim(queries, 3, ME, 5, e=0, f=0) == []
    # The budget is a worker's, not the queue's.
    assert len(await claim(queries, 3, OTHER, 5, e=0, f=0)) == 3
    await queries.log_jobs([(job, "successful", None) for job in jobs])
    assert len(await claim(queries, 3, ME, 5, e=4, f=4)) == 2


async def test_batch_size_below_one(queries: Queries) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        await claim(queries, 0)


async def test_stale_jobs_are_claimed_again(queries: Queries, tables: Tables) -> None:
    (job_id,) = await queries.enqueue("e", b"x")
    (mine,) = await claim(queries, e=2)
    assert await claim(queries, owner=OTHER, stale=timedelta(minutes=30), e=2) == []
    await tables.make_stale()
    (theirs,) = await claim(queries, owner=OTHER, stale=timedelta(minutes=30), e=2)
    assert theirs.id == mine.id == job_id
    assert (theirs.payload, theirs.attempts, theirs.slot) == (b"x", 0, mine.slot)
    assert theirs.queue_manager_id == OTHER
    assert await claim(queries, owner=THIRD, stale=timedelta(minutes=30), e=2) == []


@pytest.mark.parametrize("status", ["successful", "exception", "canceled", "deleted", "failed"])
async def test_a_late_acknowledgement_changes_nothing(
    queries: Queries, tables: Tables, status: Any
) -> None:
    (job_id,) = await queries.enqueue("e", None)
    (mine,) = await claim(queries)
    await tables.make_stale()
    (theirs,) = await claim(queries, owner=OTHER, stale=timedelta(minutes=1))
    before = await state(tables, job_id)
    await queries.log_jobs([(mine, status, None)])
    await queries.retry_job(mine, timedelta(0), None)
    assert await state(tables, job_id) == before == [("picked", OTHER, 0, None)]
    assert await tables.statuses(job_id) == ["queued", "picked", "picked"]
    await queries.log_jobs([(theirs, "successful", None)])
    assert await tables.count() == 0
    assert await tables.statuses(job_id) == ["queued", "picked", "picked", "successful"]


async def test_a_late_acknowledgement_of_a_job_that_waits_again(
    queries: Queries, tables: Tables
) -> None:
    (job_id,) = await queries.enqueue("e", None)
    (mine,) = await claim(queries)
    await queries.retry_job(mine, timedelta(0), None)
    await queries.log_jobs([(mine, "successful", None)])
    await queries.retry_job(mine, timedelta(0), None)
    assert await state(tables, job_id) == [("queued", None, 1, None)]
    # The same worker again: the second run is not the first one.
    (again,) = await claim(queries)
    await queries.retry_job(mine, timedelta(0), None)
    assert await state(tables, job_id) == [("picked", ME, 1, None)]
    await queries.log_jobs([(again, "successful", None)])
    assert await tables.count() == 0


async def test_many_outcomes_in_one_call(queries: Queries, tables: Tables) -> None:
    ids = await queries.enqueue(["e"] * 5, [None] * 5, [0] * 5)
    jobs = await claim(queries)
    record = TracebackRecord.from_exception(ValueError("bad ü"), ids[1], {"a": 1})
    await queries.log_jobs(
        [
            (jobs[0], "successful", None),
            (jobs[1], "exception", record),
            (jobs[2], "failed", record),
            (jobs[3], "canceled", None),
            (jobs[4], "deleted", None),
        ]
    )
    assert [(await tables.statuses(job_id))[-1] for job_id in ids] == [
        "successful",
        "exception",
        "failed",
        "canceled",
        "deleted",
    ]
    assert await tables.rows("SELECT id, status::text FROM pgqueuer") == [(ids[2], "failed")]
    logged = {
        entry.job_id: entry.traceback for entry in await queries.queue_log() if entry.traceback
    }
    assert logged == {ids[1]: record, ids[2]: record}
    await queries.log_jobs([])


async def test_held_jobs(queries: Queries, tables: Tables) -> None:
    ids = await queries.enqueue(["e"] * 3, [b"a", b"b", b"c"], [0] * 3)
    jobs = await claim(queries, e=5)
    await queries.log_jobs([(job, "failed", None) for job in jobs])
    for job_id in ids:
        await tables.edit(job_id, "created = created + (id || ' seconds')::interval")
    assert [job.id for job in await queries.list_failed_jobs()] == ids[::-1]
    assert [job.id for job in await queries.list_failed_jobs(2, "ASC")] == ids[:2]
    with pytest.raises(ValueError, match="order"):
        await queries.list_failed_jobs(order="up")  # type: ignore[arg-type]
    assert await state(tables, ids[0]) == [("failed", None, 0, None)]
    assert await claim(queries) == []
    for job_id in ids:
        await tables.edit(job_id, "attempts = 4")
    await queries.requeue_jobs([ids[0], ids[2], JobId(10**9)])
    assert [job.id for job in await claim(queries)] == [ids[0], ids[2]]
    assert await state(tables, ids[0]) == [("picked", ME, 0, None)]
    # Only held jobs: this one runs.
    await queries.requeue_jobs([ids[0]])
    assert (await state(tables, ids[0]))[0][0] == "picked"
    assert await tables.statuses(ids[2]) == ["queued", "picked", "failed", "queued", "picked"]


async def test_cancelling_jobs_in_the_table(queries: Queries, tables: Tables) -> None:
    ids = await queries.enqueue(["e"] * 3, [None] * 3, [0] * 3)
    (job,) = await claim(queries, 1)
    await queries.mark_job_as_cancelled([ids[0], ids[1], JobId(10**9)])
    assert await tables.rows("SELECT id FROM pgqueuer") == [ids[2]]
    assert dict(await queries.job_status(ids)) == {
        ids[0]: "canceled",
        ids[1]: "canceled",
        ids[2]: "queued",
    }
    # Its worker's word comes too late.
    await queries.log_jobs([(job, "successful", None)])
    assert (await tables.statuses(ids[0]))[-1] == "canceled"


async def test_clearing(queries: Queries, tables: Tables) -> None:
    await queries.enqueue(["a", "a", "b", "c"], [None] * 4, [0] * 4)
    await queries.clear_queue("a")
    await queries.clear_queue(["b", "nothing"])
    assert await tables.rows("SELECT entrypoint FROM pgqueuer") == ["c"]
    assert len(await tables.ended("deleted")) == 3
    await queries.log_statistics(None)
    await queries.clear_statistics_log("a")
    assert {entry.entrypoint for entry in await queries.log_statistics(None)} == {"b", "c"}
    await queries.clear_queue_log("a")
    assert {entry.entrypoint for entry in await queries.queue_log()} == {"b", "c"}
    await queries.clear_queue()
    await queries.clear_statistics_log()
    await queries.clear_queue_log()
    assert await tables.count() == 0
    assert await queries.queue_log() == []
    assert await queries.log_statistics(None) == []


async def test_claims_need_a_transaction_of_their_own(queries: Queries, kind: str) -> None:
    if kind == "asyncpg-pool":
        # Its connections are nobody's.
        assert await claim(queries) == []
        return
    await queries.driver.execute("BEGIN")
    with pytest.raises(OpenTransactionError, match="without an open transaction"):
        await claim(queries)
    await queries.driver.execute("ROLLBACK")
    assert await claim(queries) == []
