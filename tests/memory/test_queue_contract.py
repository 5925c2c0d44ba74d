"""What a queue promises, wherever it is kept: in memory and on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from pgq_fast.errors import DuplicateJobError
from pgq_fast.memory import InMemoryQueries
from pgq_fast.models import Job, Log, TracebackRecord
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.types import HealthCheckId, JobId, QueueEntrypoint, QueueManagerId

ME = QueueManagerId(uuid.UUID(int=1))
OTHER = QueueManagerId(uuid.UUID(int=2))
NEVER = timedelta(days=1)
AT_ONCE = timedelta(0)

# The lease layout keeps a claim as a whole, which shows in what tells its jobs apart: their
# heartbeats, and which of them are abandoned.
A_ROW_A_JOB = pytest.mark.parametrize("place", ["memory", "compat"], indirect=True)
# There, the present place of a job is part of the log without being written anywhere: it is never
# aggregated, and stays when the log is cleared.
EVERY_CHANGE_WRITTEN = A_ROW_A_JOB
# And it notifies only those who have registered.
ALWAYS_NOTIFIES = A_ROW_A_JOB


def limits(**entrypoints: int) -> dict[QueueEntrypoint, EntrypointExecutionParameter]:
    return {
        QueueEntrypoint(name): EntrypointExecutionParameter(concurrency_limit=limit)
        for name, limit in entrypoints.items()
    }


async def claim(
    queries: InMemoryQueries,
    batch_size: int = 100,
    *,
    worker: QueueManagerId = ME,
    total: int | None = None,
    timeout: timedelta = NEVER,
    **entrypoints: int,
) -> list[Job]:
    return await queries.dequeue(
        batch_size, limits(**(entrypoints or {"ep": 0})), worker, total, timeout
    )


async def enqueue_many(queries: InMemoryQueries, count: int, name: str = "ep") -> list[JobId]:
    return await queries.enqueue([name] * count, [None] * count, [0] * count)


async def sizes(queries: InMemoryQueries) -> dict[tuple[str, int, str], int]:
    return {
        (group.entrypoint, group.priority, group.status): group.count
        for group in await queries.queue_size()
    }


async def history(queries: InMemoryQueries, job_id: JobId) -> list[str]:
    return [entry.status for entry in await queries.job_log_history(job_id)]


async def eventually(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    async with asyncio.timeout(10):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


class Heard:
    """Notifications on the queue's channel, as operations or types of event."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, payload: str | bytes | bytearray) -> None:
        self.events.append(json.loads(payload))

    @property
    def kinds(self) -> list[str]:
        return [event.get("operation", event["type"]) for event in self.events]

    async def until(self, queries: InMemoryQueries) -> list[str]:
        """What was heard up to now; a health check marks the end."""
        token = HealthCheckId(uuid.uuid4())
        await queries.notify_health_check(token)

        async def marked() -> bool:
            return bool(self.events) and self.events[-1].get("id") == str(token)

        await eventually(marked)
        self.events.pop()
        kinds = self.kinds
        self.events.clear()
        return kinds


# --- enqueue


async def test_ids_come_in_the_order_of_the_jobs(queries: InMemoryQueries) -> None:
    ids = await queries.enqueue(["a", "b", "a"], [b"0", b"1", b"2"], [0, 5, 9])
    assert ids == sorted(ids)
    assert len(set(ids)) == 3
    jobs = {job.id: job for job in await queries.browse_queue()}
    assert [(jobs[i].entrypoint, jobs[i].payload, jobs[i].priority) for i in ids] == [
        ("a", b"0", 0),
        ("b", b"1", 5),
        ("a", b"2", 9),
    ]


async def test_a_queued_job_shows_what_was_given(queries: InMemoryQueries) -> None:
    (job_id,) = await queries.enqueue("ep", None, 3, timedelta(minutes=1), "k", {"a": "b"})
    job = await queries.queue_job_by_id(job_id)
    assert job is not None
    assert job.execute_after - job.created == timedelta(minutes=1)
    assert (job.status, job.payload, job.priority, job.headers) == ("queued", None, 3, {"a": "b"})
    assert (job.attempts, job.queue_manager_id, job.slot) == (0, None, None)


async def test_a_job_without_headers_has_none(queries: InMemoryQueries) -> None:
    await queries.enqueue("ep", b"")
    (job,) = await claim(queries)
    assert job.headers is None
    assert job.payload == b""


@pytest.mark.parametrize("state", ["queued", "picked"])
async def test_a_key_of_a_queued_or_picked_job_is_taken(
    queries: InMemoryQueries, state: str
) -> None:
    await queries.enqueue("ep", b"", dedupe_key="k")
    if state == "picked":
        await claim(queries)
    with pytest.raises(DuplicateJobError) as caught:
        await queries.enqueue(["ep", "ep"], [b"", b""], [0, 0], None, [None, "k"])
    assert caught.value.dedupe_key == [None, "k"]
    assert sum((await sizes(queries)).values()) == 1


async def test_a_key_repeated_in_a_call_is_refused_as_a_whole(queries: InMemoryQueries) -> None:
    with pytest.raises(DuplicateJobError):
        await queries.enqueue(["ep", "ep"], [b"", b""], [0, 0], None, ["k", "k"])
    assert await sizes(queries) == {}


@pytest.mark.parametrize("status", ["successful", "exception", "canceled", "deleted", "failed"])
async def test_a_key_is_free_when_its_job_has_ended(queries: InMemoryQueries, status: Any) -> None:
    await queries.enqueue("ep", b"", dedupe_key="k")
    (job,) = await claim(queries)
    await queries.log_jobs([(job, status, None)])
    (second,) = await queries.enqueue("ep", b"", dedupe_key="k")
    assert second != job.id


async def test_skip_leaves_taken_keys_out(queries: InMemoryQueries) -> None:
    await queries.enqueue("ep", b"", dedupe_key="k1")
    ids = await queries.enqueue(
        ["ep"] * 4, [b""] * 4, [0] * 4, None, ["k1", "k2", "k2", None], on_conflict="skip"
    )
    assert [job_id is None for job_id in ids] == [True, False, True, False]
    assert sum((await sizes(queries)).values()) == 3


async def test_update_priority_raises_and_never_lowers_it(queries: InMemoryQueries) -> None:
    (job_id,) = await queries.enqueue("ep", b"old", 5, dedupe_key="k")
    assert await queries.enqueue(
        "ep", b"new", 3, dedupe_key="k", on_conflict="update_priority"
    ) == [job_id]
    assert await sizes(queries) == {("ep", 5, "queued"): 1}
    other, same = await queries.enqueue(
        ["ep", "ep"], [b"", b"new"], [8, 9], None, ["o", "k"], on_conflict="update_priority"
    )
    assert same == job_id
    assert await sizes(queries) == {("ep", 8, "queued"): 1, ("ep", 9, "queued"): 1}
    jobs = await claim(queries)
    assert [(job.id, job.payload) for job in jobs] == [(job_id, b"old"), (other, b"")]
    assert await history(queries, job_id) == ["queued", "picked"]


async def test_update_priority_takes_a_key_once_a_call(queries: InMemoryQueries) -> None:
    with pytest.raises(ValueError, match="update_priority"):
        await queries.enqueue(
            ["ep"] * 2, [b""] * 2, [0] * 2, None, ["k", "k"], on_conflict="update_priority"
        )


async def test_an_invalid_job_spoils_the_whole_call(queries: InMemoryQueries) -> None:
    with pytest.raises(ValueError, match=r"priority\[1\]"):
        await queries.enqueue(["ep"] * 2, [b""] * 2, [0, 2**40])
    with pytest.raises(ValueError, match=r"headers\[0\]"):
        await queries.enqueue("ep", b"", headers={"a": float("nan")})  # type: ignore[dict-item]
    assert await sizes(queries) == {}


# --- dequeue


async def test_the_highest_priority_comes_first_then_the_oldest(queries: InMemoryQueries) -> None:
    ids = await queries.enqueue(["a", "b", "a", "b"], [b""] * 4, [1, 2, 2, 0])
    jobs = await claim(queries, a=0, b=0)
    assert [job.id for job in jobs] == [ids[1], ids[2], ids[0], ids[3]]
    assert {job.status for job in jobs} == {"picked"}
    assert {job.queue_manager_id for job in jobs} == {ME}


async def test_a_claim_takes_no_more_than_asked_for_and_nothing_twice(
    queries: InMemoryQueries,
) -> None:
    ids = await enqueue_many(queries, 5)
    batches = [[job.id for job in await claim(queries, 2)] for _ in range(4)]
    assert batches == [ids[:2], ids[2:4], ids[4:], []]


async def test_a_claim_of_less_than_one_job_is_refused(queries: InMemoryQueries) -> None:
    with pytest.raises(ValueError, match="1"):
        await claim(queries, 0)


async def test_other_entrypoints_are_left_alone(queries: InMemoryQueries) -> None:
    await queries.enqueue("other", b"")
    assert await claim(queries) == []
    assert await queries.dequeue(1, {}, ME, None, NEVER) == []


async def test_a_deferred_job_waits_until_it_is_due(queries: InMemoryQueries) -> None:
    ids = await queries.enqueue(
        ["ep"] * 3, [b""] * 3, [9, 9, 0], [timedelta(milliseconds=150), NEVER, None]
    )
    assert [job.id for job in await claim(queries)] == [ids[2]]
    assert await queries.queued_work([QueueEntrypoint("ep")]) > 0
    eta = await queries.next_deferred_eta([QueueEntrypoint("ep")])
    assert eta is None or eta < timedelta(seconds=1)
    got: list[JobId] = []

    async def claimed() -> bool:
        got.extend(job.id for job in await claim(queries))
        return bool(got)

    await eventually(claimed)
    assert got == [ids[0]]
    eta = await queries.next_deferred_eta([QueueEntrypoint("ep"), QueueEntrypoint("none")])
    assert eta is not None
    assert timedelta(hours=23) < eta <= NEVER
    assert await queries.next_deferred_eta([QueueEntrypoint("none")]) is None


async def test_work_that_is_due_is_told_from_work_that_is_not(queries: InMemoryQueries) -> None:
    ep = [QueueEntrypoint("ep")]
    assert await queries.queued_work(ep) == await queries.eligible_queued_work(ep) == 0
    await queries.enqueue("ep", b"", execute_after=NEVER)
    assert await queries.queued_work(ep) == 1
    assert await queries.eligible_queued_work(ep) == 0
    await queries.enqueue("ep", b"")
    assert await queries.eligible_queued_work(ep) == 1
    assert await queries.eligible_queued_work([QueueEntrypoint("other")]) == 0


async def test_an_entrypoints_limit_counts_the_jobs_of_all_workers(
    queries: InMemoryQueries,
) -> None:
    await enqueue_many(queries, 5)
    first = await claim(queries, ep=3)
    assert sorted(job.slot for job in first if job.slot is not None) == [0, 1, 2]
    assert await claim(queries, worker=OTHER, ep=3) == []
    await queries.log_jobs([(first[1], "successful", None)])
    (next_job,) = await claim(queries, worker=OTHER, ep=3)
    assert next_job.slot == first[1].slot


async def test_a_limit_binds_its_own_entrypoint_only(queries: InMemoryQueries) -> None:
    await queries.enqueue(["a"] * 3 + ["b"] * 3, [b""] * 6, [0] * 6)
    jobs = await claim(queries, a=1, b=0)
    assert Counter(job.entrypoint for job in jobs) == {"a": 1, "b": 3}
    assert {job.slot for job in jobs if job.entrypoint == "b"} == {None}


async def test_a_workers_limit_counts_only_its_own_jobs(queries: InMemoryQueries) -> None:
    await enqueue_many(queries, 6)
    assert len(await claim(queries, total=2)) == 2
    assert await claim(queries, total=2) == []
    assert len(await claim(queries, worker=OTHER, total=3)) == 3
    assert len(await claim(queries, total=3)) == 1


async def test_a_silent_job_goes_to_whoever_asks_next(queries: InMemoryQueries) -> None:
    ids = await queries.enqueue(["ep", "ep"], [b""] * 2, [0, 5])
    taken = await claim(queries, 1, ep=1)
    again = await claim(queries, worker=OTHER, timeout=AT_ONCE, ep=1)
    assert [job.id for job in again] == [job.id for job in taken] == [ids[1]]
    assert again[0].queue_manager_id == OTHER
    assert again[0].slot == taken[0].slot == 0
    assert again[0].attempts == 0
    assert await claim(queries, worker=ME, timeout=NEVER, ep=1) == []
    assert await history(queries, ids[1]) == ["queued", "picked", "picked"]


@A_ROW_A_JOB
async def test_a_job_that_was_taken_over_counts_for_its_new_worker(
    queries: InMemoryQueries,
) -> None:
    await enqueue_many(queries, 5)
    assert len(await claim(queries, total=2)) == 2
    assert len(await claim(queries, 2, worker=OTHER, timeout=AT_ONCE, total=3)) == 2
    assert len(await claim(queries, worker=OTHER, total=3)) == 1
    assert len(await claim(queries, total=2)) == 2


@A_ROW_A_JOB
async def test_silent_jobs_compete_with_queued_ones_by_priority(queries: InMemoryQueries) -> None:
    silent = await queries.enqueue(["ep", "ep"], [b""] * 2, [1, 3])
    await claim(queries)
    fresh = await queries.enqueue(["ep", "ep"], [b""] * 2, [2, 4])
    jobs = await claim(queries, 3, worker=OTHER, timeout=AT_ONCE)
    assert [job.id for job in jobs] == [fresh[1], silent[1], fresh[0]]


@A_ROW_A_JOB
async def test_a_heartbeat_keeps_a_job(queries: InMemoryQueries) -> None:
    ids = await enqueue_many(queries, 2)
    await claim(queries)
    before = await queries.queue_job_by_id(ids[0])
    await queries.update_heartbeat([ids[0], ids[0], JobId(10**9)])
    after = await queries.queue_job_by_id(ids[0])
    assert before is not None
    assert after is not None
    assert after.heartbeat > before.heartbeat
    silent = await queries.stale_jobs(AT_ONCE)
    assert [job.id for job in silent] == [ids[1], ids[0]]
    assert await queries.stale_jobs(NEVER) == []
    assert [job.id for job in await queries.stale_jobs(AT_ONCE, limit=1)] == [ids[1]]


# --- ends of a job


@pytest.mark.parametrize("status", ["successful", "exception", "canceled", "deleted"])
async def test_an_ended_job_leaves_the_queue_for_the_log(
    queries: InMemoryQueries, status: Any
) -> None:
    await enqueue_many(queries, 1)
    (job,) = await claim(queries)
    await queries.log_jobs([(job, status, None)])
    assert await sizes(queries) == {}
    assert await history(queries, job.id) == ["queued", "picked", status]
    assert await queries.job_status([job.id, JobId(10**9)]) == [(job.id, status)]
    assert await queries.queue_job_by_id(job.id) is None


async def test_the_log_keeps_the_traceback(queries: InMemoryQueries) -> None:
    await enqueue_many(queries, 2)
    jobs = await claim(queries)
    records = [
        TracebackRecord.from_exception(ValueError(f"no {job.id}"), job.id, {"worker": "w"})
        for job in jobs
    ]
    await queries.log_jobs(
        [(job, "exception", record) for job, record in zip(jobs, records, strict=True)]
    )
    logged: list[Log] = await queries.exception_logs()
    assert {entry.job_id: entry.traceback for entry in logged} == {
        record.job_id: record for record in records
    }
    assert len(await queries.exception_logs(limit=1)) == 1


async def test_a_stale_worker_cannot_end_or_retry_a_job(queries: InMemoryQueries) -> None:
    await enqueue_many(queries, 1)
    (mine,) = await claim(queries)
    (theirs,) = await claim(queries, worker=OTHER, timeout=AT_ONCE)
    await queries.log_jobs([(mine, "successful", None)])
    await queries.log_jobs([(mine, "failed", None)])
    await queries.retry_job(mine, AT_ONCE, None)
    assert await sizes(queries) == {("ep", 0, "picked"): 1}
    assert await history(queries, mine.id) == ["queued", "picked", "picked"]
    await queries.log_jobs([(theirs, "successful", None)])
    assert await sizes(queries) == {}
    await queries.log_jobs([(theirs, "exception", None)])
    assert (await history(queries, mine.id))[-1] == "successful"


async def test_a_worker_cannot_end_a_job_that_was_given_back(queries: InMemoryQueries) -> None:
    await enqueue_many(queries, 1)
    (job,) = await claim(queries)
    await queries.retry_job(job, AT_ONCE, None)
    await queries.log_jobs([(job, "successful", None)])
    await queries.retry_job(job, NEVER, None)
    (again,) = await claim(queries)
    assert again.attempts == 1


async def test_a_retry_that_comes_twice_counts_once(queries: InMemoryQueries) -> None:
    await enqueue_many(queries, 1)
    (job,) = await claim(queries)
    await queries.retry_job(job, AT_ONCE, None)
    (again,) = await claim(queries)
    await queries.retry_job(job, AT_ONCE, None)
    assert await sizes(queries) == {("ep", 0, "picked"): 1}
    current = await queries.queue_job_by_id(again.id)
    assert current is not None
    assert current.attempts == 1


async def test_one_call_may_end_jobs_in_different_ways(queries: InMemoryQueries) -> None:
    await enqueue_many(queries, 3)
    jobs = await claim(queries)
    await queries.log_jobs(
        [(jobs[0], "successful", None), (jobs[1], "failed", None), (jobs[2], "exception", None)]
    )
    assert dict(await queries.job_status([job.id for job in jobs])) == {
        jobs[0].id: "successful",
        jobs[1].id: "failed",
        jobs[2].id: "exception",
    }
    assert await sizes(queries) == {("ep", 0, "failed"): 1}


async def test_a_retried_job_comes_back_after_its_delay(
    queries: InMemoryQueries, place: str
) -> None:
    ids = await enqueue_many(queries, 2)
    now, later = await claim(queries, ep=2)
    await queries.retry_job(now, AT_ONCE, None)
    record = TracebackRecord.from_exception(OSError("x"), later.id)
    await queries.retry_job(later, NEVER, record)
    waiting = await queries.queue_job_by_id(ids[1])
    assert waiting is not None
    assert (waiting.status, waiting.attempts, waiting.queue_manager_id) == ("queued", 1, None)
    # On the lease layout nobody knows when a queued job changed last.
    if place != "lease":
        assert waiting.execute_after - waiting.updated == NEVER
    (again,) = await claim(queries, ep=2)
    assert (again.id, again.attempts, again.slot) == (ids[0], 1, 0)
    assert (await queries.job_log_history(ids[1]))[-1].traceback == record
    assert await history(queries, ids[0]) == ["queued", "picked", "queued", "picked"]


async def test_a_held_job_waits_for_a_requeue(queries: InMemoryQueries) -> None:
    ids = await enqueue_many(queries, 3)
    jobs = await claim(queries, ep=2)
    await queries.retry_job(jobs[0], AT_ONCE, None)
    (job,) = [job for job in await claim(queries, ep=2) if job.id == jobs[0].id]
    await queries.log_jobs([(job, "failed", None)])
    (held,) = await queries.list_failed_jobs()
    assert (held.id, held.attempts, held.queue_manager_id) == (job.id, 1, None)
    assert job.id not in [other.id for other in await claim(queries, timeout=AT_ONCE)]
    await queries.requeue_jobs([*ids, JobId(10**9)])
    assert await queries.list_failed_jobs() == []
    again = {job.id: job for job in await claim(queries)}
    assert list(again) == [job.id]
    assert again[job.id].attempts == 0


async def test_held_jobs_are_listed_by_age(queries: InMemoryQueries) -> None:
    ids = [(await enqueue_many(queries, 1))[0] for _ in range(3)]
    await queries.log_jobs([(job, "failed", None) for job in await claim(queries)])
    assert [job.id for job in await queries.list_failed_jobs()] == ids[::-1]
    assert [job.id for job in await queries.list_failed_jobs(2, "ASC")] == ids[:2]
    with pytest.raises(ValueError, match="order"):
        await queries.list_failed_jobs(order="asc")  # type: ignore[arg-type]


async def test_a_cancelled_job_is_gone(queries: InMemoryQueries) -> None:
    ids = await enqueue_many(queries, 3)
    (picked,) = await claim(queries, 1)
    await queries.mark_job_as_cancelled([ids[0], ids[2], JobId(10**9)])
    assert await sizes(queries) == {("ep", 0, "queued"): 1}
    assert dict(await queries.job_status(ids)) == {
        ids[0]: "canceled",
        ids[1]: "queued",
        ids[2]: "canceled",
    }
    await queries.log_jobs([(picked, "successful", None)])
    assert (await history(queries, ids[0]))[-1] == "canceled"
    assert [job.id for job in await claim(queries)] == [ids[1]]


async def test_clearing_an_entrypoint_logs_its_jobs(queries: InMemoryQueries) -> None:
    a = await enqueue_many(queries, 2, "a")
    await enqueue_many(queries, 1, "b")
    await enqueue_many(queries, 1, "c")
    await claim(queries, 1, a=0)
    await queries.clear_queue(["a", "b"])
    assert await sizes(queries) == {("c", 0, "queued"): 1}
    assert dict(await queries.job_status(a)) == dict.fromkeys(a, "deleted")
    await queries.clear_queue("c")
    assert await sizes(queries) == {}


async def test_clearing_everything_logs_nothing_and_frees_everything(
    queries: InMemoryQueries,
) -> None:
    ids = await queries.enqueue(["ep"] * 2, [b""] * 2, [0] * 2, None, ["k", None])
    await claim(queries, 1, ep=1)
    await queries.clear_queue()
    assert await sizes(queries) == {}
    assert "deleted" not in [entry.status for entry in await queries.queue_log()]
    (new,) = await queries.enqueue("ep", b"", dedupe_key="k")
    assert new > max(ids)
    (job,) = await claim(queries, ep=1, total=1)
    assert (job.id, job.slot) == (new, 0)


# --- log and statistics


@EVERY_CHANGE_WRITTEN
async def test_the_log_tells_every_change(queries: InMemoryQueries) -> None:
    (job_id,) = await queries.enqueue("ep", b"", 4)
    await claim(queries)
    assert [
        (entry.job_id, entry.status, entry.priority, entry.entrypoint, entry.aggregated)
        for entry in await queries.queue_log()
    ] == [(job_id, "queued", 4, "ep", False), (job_id, "picked", 4, "ep", False)]
    assert await queries.unaggregated_log_count() == 2
    await queries.aggregate_logs()
    assert await queries.unaggregated_log_count() == 0
    assert {entry.aggregated for entry in await queries.queue_log()} == {True}
    assert len(await queries.job_log_history(job_id, limit=1)) == 1


async def test_statistics_count_each_change_once(queries: InMemoryQueries) -> None:
    await enqueue_many(queries, 3)
    for _ in range(2):
        counts: Counter[str] = Counter()
        for row in await queries.log_statistics(None):
            assert row.created.microsecond == 0
            counts[row.status] += row.count
        assert counts == {"queued": 3}
    await claim(queries, 2)
    summary = await queries.throughput_summary(NEVER)
    assert [(row.status, row.total_count) for row in summary] == [("picked", 2), ("queued", 3)]
    series = await queries.throughput_timeseries(NEVER)
    assert {row.bucket.second for row in series} == {0}
    assert sum(row.count for row in series) == 5
    assert len(await queries.log_statistics(1)) == 1
    assert await queries.log_statistics(None, timedelta(microseconds=1)) == []


@EVERY_CHANGE_WRITTEN
async def test_logs_and_statistics_are_cleared_by_entrypoint_or_whole(
    queries: InMemoryQueries,
) -> None:
    a = await enqueue_many(queries, 1, "a")
    await enqueue_many(queries, 1, "b")
    await queries.aggregate_logs()
    await queries.clear_statistics_log("a")
    assert {row.entrypoint for row in await queries.log_statistics(None)} == {"b"}
    await queries.clear_queue_log(["a"])
    assert {entry.entrypoint for entry in await queries.queue_log()} == {"b"}
    assert await queries.job_status(a) == []
    await queries.clear_queue_log()
    await queries.clear_statistics_log()
    assert await queries.queue_log() == []
    assert await queries.throughput_summary() == []


async def test_pruning_the_log_keeps_the_statistics(queries: InMemoryQueries) -> None:
    ids = await enqueue_many(queries, 5)
    jobs = await claim(queries)
    await queries.log_jobs(
        [(job, "exception" if job.id == ids[0] else "successful", None) for job in jobs]
    )
    assert await queries.prune_log(NEVER, batch_size=2) == 0
    # What is not counted yet is counted first.
    assert await queries.prune_log(AT_ONCE, batch_size=2) == 15
    assert await queries.queue_log() == []
    assert await queries.job_status(ids) == []
    assert {row.status: row.total_count for row in await queries.throughput_summary()} == {
        "queued": 5,
        "picked": 5,
        "successful": 4,
        "exception": 1,
    }
    assert await queries.prune_log(AT_ONCE) == 0


async def test_pruning_the_statistics(queries: InMemoryQueries) -> None:
    names = {f"e{number}": 0 for number in range(5)}
    await queries.enqueue([*names], [None] * 5, [0] * 5)
    await queries.log_jobs([(job, "successful", None) for job in await claim(queries, **names)])
    await queries.aggregate_logs()
    assert await queries.prune_statistics(NEVER, batch_size=2) == 0
    assert await queries.prune_statistics(AT_ONCE, batch_size=2) == 15
    assert await queries.log_statistics(None) == []
    assert len(await queries.queue_log()) == 15


async def test_pruning_refuses_what_nobody_means(queries: InMemoryQueries) -> None:
    for prune in (queries.prune_log, queries.prune_statistics):
        with pytest.raises(ValueError, match="older_than"):
            await prune(-NEVER)
        with pytest.raises(ValueError, match="batch_size"):
            await prune(NEVER, batch_size=0)


async def test_run_times_are_measured_from_pick_to_end(queries: InMemoryQueries) -> None:
    await enqueue_many(queries, 3)
    jobs = await claim(queries)
    await queries.log_jobs(
        [(jobs[0], "successful", None), (jobs[1], "exception", None), (jobs[2], "failed", None)]
    )
    (stats,) = await queries.job_duration_percentiles(NEVER)
    assert (stats.entrypoint, stats.completed) == ("ep", 3)
    assert 0 <= stats.p50_seconds <= stats.p95_seconds <= stats.p99_seconds <= stats.max_seconds
    await enqueue_many(queries, 1)
    (again,) = await queries.job_duration_percentiles(NEVER)
    assert again.completed == 3


# --- views


async def test_the_size_groups_by_entrypoint_priority_and_status(queries: InMemoryQueries) -> None:
    await queries.enqueue(["a", "a", "b", "a"], [b""] * 4, [0, 0, 1, 2])
    await claim(queries, 1, b=0)
    assert await sizes(queries) == {
        ("a", 0, "queued"): 2,
        ("a", 2, "queued"): 1,
        ("b", 1, "picked"): 1,
    }
    assert [group.count for group in await queries.queue_size()] == [1, 1, 2]


async def test_browsing_pages_and_filters(queries: InMemoryQueries) -> None:
    ids = await queries.enqueue(["a", "b", "a", "b"], [b""] * 4, [0, 1, 1, 0])
    await claim(queries, 1, b=0)
    assert [job.id for job in await queries.browse_queue()] == [ids[1], ids[2], ids[0], ids[3]]
    assert [job.id for job in await queries.browse_queue(2, 1)] == [ids[2], ids[0]]
    assert [job.id for job in await queries.browse_queue(statuses=["picked"])] == [ids[1]]
    both = await queries.browse_queue(statuses=["queued"], entrypoints=["b"])
    assert [job.id for job in both] == [ids[3]]
    assert len(await queries.browse_queue(statuses=[], entrypoints=[])) == 4
    assert await queries.browse_queue(entrypoints=["c"]) == []


async def test_age_and_workers(queries: InMemoryQueries) -> None:
    assert await queries.queue_age() == []
    assert await queries.active_workers() == []
    await enqueue_many(queries, 2, "b")
    await enqueue_many(queries, 3, "a")
    await claim(queries, 1, a=0)
    # Within a priority, one of each entrypoint in turn.
    await claim(queries, 2, worker=OTHER, a=0, b=0)
    ages = await queries.queue_age()
    assert [(age.entrypoint, age.queued_count) for age in ages] == [("a", 1), ("b", 1)]
    for age in ages:
        assert 0 <= age.avg_age_seconds <= age.oldest_age_seconds
    workers = {worker.queue_manager_id: worker for worker in await queries.active_workers()}
    assert {key: worker.active_jobs for key, worker in workers.items()} == {ME: 1, OTHER: 2}
    assert workers[ME].entrypoints == ["a"]
    assert workers[OTHER].oldest_heartbeat <= workers[OTHER].newest_heartbeat


# --- notifications


@ALWAYS_NOTIFIES
async def test_what_each_call_says_on_the_channel(queries: InMemoryQueries) -> None:
    heard = Heard()
    await queries.driver.add_listener(queries.qbq.settings.channel, heard)
    ids = await enqueue_many(queries, 4)
    assert await heard.until(queries) == ["insert"]
    jobs = await claim(queries, 3)
    await claim(queries, b=0)
    await queries.update_heartbeat(ids)
    assert await heard.until(queries) == []
    await queries.log_jobs([(jobs[0], "successful", None), (jobs[1], "failed", None)])
    assert await heard.until(queries) == ["delete"]
    await queries.mark_job_as_cancelled([ids[3]])
    assert await heard.until(queries) == ["delete", "cancellation_event"]
    await queries.notify_job_cancellation(ids)
    assert await heard.until(queries) == ["cancellation_event"]
    await queries.clear_queue("ep")
    assert await heard.until(queries) == ["delete"]
    await queries.clear_queue()
    assert await heard.until(queries) == ["truncate"]


@ALWAYS_NOTIFIES
async def test_the_form_of_the_notifications(queries: InMemoryQueries) -> None:
    heard = Heard()
    channel = queries.qbq.settings.channel
    await queries.driver.add_listener(channel, heard)
    await queries.enqueue("ep", b"")
    await queries.notify_job_cancellation([JobId(1), JobId(2)])

    async def both() -> bool:
        return len(heard.events) == 2

    await eventually(both)
    changed, cancelled = heard.events
    assert changed.pop("sent_at")
    assert changed == {
        "channel": channel,
        "operation": "insert",
        "table": queries.qbe.settings.queue_table,
        "type": "table_changed_event",
    }
    assert cancelled.pop("sent_at")
    assert cancelled.pop("received_at")
    assert cancelled == {"channel": channel, "ids": [1, 2], "type": "cancellation_event"}
