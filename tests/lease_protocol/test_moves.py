"""How a job moves from place to place, one move at a time or two in each other's way."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from behaviour.helpers import eventually
from lease_protocol.conftest import Join, Session
from lease_protocol.crowd import together
from lease_protocol.members import LOCK_WAITS, Member, blocked
from pgq_fast.errors import DuplicateJobError
from pgq_fast.layouts.base import Outcome, Retry
from pgq_fast.layouts.lease import LeaseLayout
from pgq_fast.settings import DBSettings, JobLog, Layout
from pgq_fast.sql import statement

pytestmark = [pytest.mark.layouts("lease"), pytest.mark.pg_matrix]

NOW = timedelta(0)
DAY = timedelta(days=1)


async def through_or_blocked(member: Member, task: asyncio.Task[Any]) -> None:
    """Wait until *task* is done or waits for somebody's transaction."""

    async def check() -> bool:
        return task.done() or bool(await member.rows(LOCK_WAITS))

    await eventually(check)


async def test_deferred_jobs_are_not_forgotten_over_a_steady_stream_of_others(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that hears of another job during each claim never gets to look when one is due."""
    # Another reason to look.
    monkeypatch.setattr("pgq_fast.layouts.lease.SLOW_CLAIM", float("inf"))
    member = await join()
    assert await member.claim() == []
    (deferred,) = await member.queries.enqueue(["e"], [None], [0], [DAY])
    await member.rows("UPDATE pgqueuer_deferred SET execute_after = now()")
    async with asyncio.timeout(30):
        seen: list[int] = []
        while deferred not in seen:
            await member.queries.enqueue("e", None)
            seen += [job.id for job in await member.claim()]


async def test_a_retry_that_is_told_twice_spares_the_next_run(join: Join) -> None:
    """The answer got lost, and the same worker has claimed the job again before it repeats."""
    member = await join()
    ids = await member.queries.enqueue(["e"] * 3, [None] * 3, [0] * 3)
    first = await member.claim()
    await member.layout.retry([Retry(job, NOW, None) for job in first], member.owner)
    second = await member.claim()
    assert [(job.id, job.attempts) for job in second] == [(job_id, 1) for job_id in ids]
    await member.layout.retry([Retry(job, NOW, None) for job in first], member.owner)
    await member.layout.acknowledge([Outcome(first[0], "exception", None)], member.owner)
    assert await member.claim() == []
    await member.finish(ids[:1])
    await member.layout.acknowledge(
        [Outcome(second[1], "canceled", None), Outcome(second[2], "failed", None)], member.owner
    )
    assert await member.rows(
        "SELECT job_id, status::text FROM pgqueuer_log"
        " WHERE status NOT IN ('queued', 'picked') ORDER BY job_id"
    ) == [(ids[0], "successful"), (ids[1], "canceled"), (ids[2], "failed")]
    assert await member.rows("SELECT id, attempts FROM pgqueuer") == [(ids[2], 1)]


@pytest.mark.parametrize("move", ["retry", "retry later", "release", "rescue"])
async def test_a_priority_is_raised_while_the_job_comes_back(join: Join, move: str) -> None:
    member, mover, producer = await join(), await join(), await join()
    (job_id,) = await producer.queries.enqueue("e", None, 1, dedupe_key="k")
    (job,) = await mover.claim()
    await mover.driver.execute("BEGIN")
    match move:
        case "retry" | "retry later":
            delay = NOW if move == "retry" else DAY
            await mover.layout.retry([Retry(job, delay, None)], mover.owner)
        case "release":
            await mover.layout.release(mover.owner, [])
        case _:
            await mover.rows(statement("lease/rescue", mover.settings, "unselective"), -DAY, ["e"])
    raising = asyncio.create_task(
        producer.queries.enqueue(
            ["e"], [None], [7], dedupe_key=["k"], on_conflict="update_priority"
        )
    )
    await through_or_blocked(member, raising)
    await mover.driver.execute("COMMIT")
    assert await raising == [job_id]
    assert await member.rows("SELECT id, priority FROM pgqueuer") == [(job_id, 7)]
    assert await member.rows("SELECT job_id, priority FROM pgqueuer_dedupe") == [(job_id, 7)]


async def test_an_end_and_a_clearing_do_not_wait_for_each_other(
    join: Join, session: Session
) -> None:
    worker, operator, stopper = await join(), await join(), await session()
    for key in ("a", "b"):
        await worker.queries.enqueue("e", None, dedupe_key=key)
    jobs = await worker.claim()
    # Stops the clearing when it has all leases, or some keys.
    transaction = stopper.transaction()
    await transaction.start()
    await stopper.execute("SELECT FROM pgqueuer_dedupe WHERE key = 'b' FOR UPDATE")
    clearing = asyncio.create_task(operator.queries.clear_queue("e"))
    await blocked(stopper)
    ending = asyncio.create_task(worker.finish([job.id for job in jobs]))
    await blocked(stopper, 2)
    await transaction.commit()
    await together(clearing, ending)
    assert await worker.rows("SELECT FROM pgqueuer UNION ALL SELECT FROM pgqueuer_dedupe") == []


async def test_a_claim_and_a_cancellation_do_not_wait_for_each_other(
    join: Join, session: Session
) -> None:
    """The claim ends a job and takes another one, the cancellation wants both."""
    worker, operator, stopper = await join(), await join(), await session()
    (running,) = await worker.queries.enqueue("e", None)
    assert [job.id for job in await worker.claim()] == [running]
    (queued,) = await worker.queries.enqueue("e", None, dedupe_key="k")
    # Stops the cancellation when it has the one but not yet the other.
    transaction = stopper.transaction()
    await transaction.start()
    await stopper.execute("SELECT FROM pgqueuer_dedupe FOR UPDATE")
    canceling = asyncio.create_task(operator.queries.mark_job_as_cancelled([running, queued]))
    await blocked(stopper)
    claiming = asyncio.create_task(worker.claim(ending=[running]))
    await blocked(stopper, 2)
    await transaction.commit()
    await canceling
    assert await claiming == []
    assert await worker.rows(
        "SELECT job_id, status::text FROM pgqueuer_log"
        " WHERE status NOT IN ('queued', 'picked') ORDER BY job_id"
    ) == [(running, "canceled"), (queued, "canceled")]
    assert await worker.rows("SELECT FROM pgqueuer UNION ALL SELECT FROM pgqueuer_dedupe") == []


@pytest.mark.parametrize("end", ["whole", "some", "outcome"])
async def test_ends_and_keys_that_come_again_do_not_wait_for_each_other(
    join: Join, session: Session, end: str
) -> None:
    """Whoever locks several keys does it in their order."""
    worker, producer, stopper = await join(), await join(), await session()
    # In the order of claims, and of places in the table, against that of keys.
    keys = ["c", "b", "a", "d"]
    for key in keys:
        await producer.queries.enqueue("e", None, dedupe_key=key)
    jobs = await worker.claim()
    transaction = stopper.transaction()
    await transaction.start()
    await stopper.execute("SELECT FROM pgqueuer_dedupe WHERE key = 'b' FOR UPDATE")
    match end:
        case "whole":
            ending = worker.finish([job.id for job in jobs])
        case "some":
            ending = worker.finish([job.id for job in jobs[:3]])
        case _:
            outcomes = [Outcome(job, "exception", None) for job in jobs[:3]]
            ending = worker.layout.acknowledge(outcomes, worker.owner)
    ended = asyncio.create_task(ending)
    await blocked(stopper)
    raised = asyncio.create_task(
        producer.queries.enqueue(
            ["e"] * 3,
            [None] * 3,
            [9] * 3,
            dedupe_key=["a", "b", "c"],
            on_conflict="update_priority",
        )
    )
    await blocked(stopper, 2)
    await transaction.commit()
    await ended
    again = await raised
    assert not {job.id for job in jobs} & set(again)
    assert len(await worker.claim()) == 3


async def test_the_log_has_no_entries_of_jobs_that_are_only_counted(join: Join) -> None:
    member = await join()
    member.layout = LeaseLayout(
        member.driver, DBSettings(layout=Layout.lease, job_log=JobLog.failures)
    )
    ids = await member.queries.enqueue(["e"] * 3, [None] * 3, [0] * 3)
    await member.claim()
    await member.finish(ids)
    assert await member.queries.unaggregated_log_count() == 9
    assert await member.queries.queue_log() == []


async def test_requeued_keys_and_new_ones_do_not_wait_for_each_other(
    join: Join, session: Session
) -> None:
    operator, producer, stopper = await join(), await join(), await session()
    for key in ("b", "a"):
        await producer.queries.enqueue("e", None, dedupe_key=key)
    held = await operator.claim()
    await operator.layout.acknowledge(
        [Outcome(job, "failed", None) for job in held], operator.owner
    )
    transaction = stopper.transaction()
    await transaction.start()
    await stopper.execute(
        "INSERT INTO pgqueuer_dedupe (key, job_id, entrypoint, priority) VALUES ('b', 0, 'e', 0)"
    )
    requeued = asyncio.create_task(operator.queries.requeue_jobs([job.id for job in held]))
    await blocked(stopper)
    enqueued = asyncio.create_task(
        producer.queries.enqueue(["e"] * 2, [None] * 2, [0] * 2, dedupe_key=["a", "b"])
    )
    await blocked(stopper, 2)
    await transaction.rollback()
    await requeued
    with pytest.raises(DuplicateJobError):
        await enqueued


@pytest.mark.parametrize("how", ["end", "hold", "retry"])
async def test_a_job_that_is_told_of_twice_at_once_moves_once(join: Join, how: str) -> None:
    """As by a worker that got its own late job back, and ran it again."""
    member = await join()
    (job_id,) = await member.queries.enqueue("e", None)
    (job,) = await member.claim()
    if how == "retry":
        await member.layout.retry([Retry(job, NOW, None), Retry(job, DAY, None)], member.owner)
        places = [("queued", 1)]
    else:
        status: Any = "exception" if how == "end" else "failed"
        outcomes = [Outcome(job, status, None), Outcome(job, "canceled", None)]
        await member.layout.acknowledge(outcomes, member.owner)
        places = [] if how == "end" else [("failed", 0)]
    assert await member.rows("SELECT status::text, attempts FROM pgqueuer") == places
    ends = await member.rows("SELECT count(*) FROM pgqueuer_log WHERE status = 'canceled'")
    assert ends == [(0,)]
    assert (await member.queries.job_status([job_id]))[0][1] == (
        "exception" if how == "end" else places[0][0]
    )


@pytest.mark.parametrize(
    "act", ["finish", "some", "claim", "settle", "heartbeat", "release", "vouch"]
)
async def test_leases_are_locked_in_one_order(join: Join, session: Session, act: str) -> None:
    """Whatever the order in which their rows lie in the table."""
    worker, operator, stopper = await join(), await join(), await session()
    ids = await worker.queries.enqueue(["e"] * 4, [None] * 4, [0] * 4)
    first, second = await worker.claim(2), await worker.claim(2)
    # Moves the row behind the other one.
    await stopper.execute("UPDATE pgqueuer_lease SET heartbeat = now() WHERE $1 = ANY(ids)", ids[0])
    # So that the planner knows how small it is.
    await stopper.execute("ANALYZE pgqueuer_lease")
    transaction = stopper.transaction()
    await transaction.start()
    await stopper.execute("SELECT FROM pgqueuer_lease WHERE $1 = ANY(ids) FOR UPDATE", ids[0])
    canceling = asyncio.create_task(operator.queries.mark_job_as_cancelled([ids[0], ids[2]]))
    await blocked(stopper)
    some = [first[1], second[1]]
    match act:
        case "finish":
            call: Any = worker.finish(ids)
        case "some":
            call = worker.finish([job.id for job in some])
        case "claim":
            call = worker.claim(ending=ids)
        case "settle":
            outcomes = [Outcome(job, "exception", None) for job in some]
            call = worker.layout.acknowledge(outcomes, worker.owner)
        case "heartbeat":
            call = worker.layout.heartbeat(ids, worker.owner)
        case "release":
            call = worker.layout.release(worker.owner, [])
        case _:
            call = worker.queries.update_heartbeat(ids)
    calling = asyncio.create_task(call)
    await blocked(stopper, 2)
    await transaction.commit()
    await together(canceling, calling)
    assert dict(await worker.queries.job_status([ids[0], ids[2]])) == {
        ids[0]: "canceled",
        ids[2]: "canceled",
    }
