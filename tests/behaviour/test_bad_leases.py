"""Leases that somebody edited by hand: whatever is in there, the other jobs run and are logged."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from behaviour.helpers import Gate, LayoutSpy, Recorder, Tables, drain, eventually, working
from pgq_fast.errors import RetryRequested
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries

pytestmark = pytest.mark.layouts("lease")

SECRET = "payload-that-nobody-may-see"

# Changes to a lease of three jobs, and those that are lost by it.
CHANGES: dict[str, tuple[str, set[int]]] = {
    "fewer ids": ("ids = ids[1:2]", {0, 1}),
    "fewer payloads": ("payloads = payloads[2:3]", {0, 1, 2}),
    "fewer priorities": ("priorities = '{}'", {0, 1, 2}),
    "fewer times": ("created = created[1:1]", {0, 1, 2}),
    "fewer headers": ("headers = '{null}'", {0, 1, 2}),
    "more keys": ("dedupe_keys = array_append(dedupe_keys, 'd')", {0, 1, 2}),
    "fewer bits": ("done = B'0'", {0, 1, 2}),
    "no bits": ("done = B''", {0, 1, 2}),
    "more bits": ("done = done || B'00'", {0, 1, 2}),
    "no id": ("ids[2] = NULL", set()),
    "no priority": ("priorities[2] = NULL", {1}),
    "no attempts": ("attempts[2] = NULL", {1}),
    "no time": ("created[2] = NULL", {1}),
    "never due": ("execute_after[2] = NULL", {1}),
    "no payload": ("payloads[2] = NULL", set()),
    "other bounds": ("ids = array_prepend(ids[1], ids[2:3])", set()),
    "two dimensions": ("priorities = ARRAY[priorities]", set()),
    "headers of any kind": ("headers = ARRAY['[1]', '\"x\"', '{\"a\": \"b\"}']::jsonb[]", set()),
    "infinite times": ("created[1] = 'infinity', execute_after[2] = '-infinity'", set()),
}
# Those that nobody knows any more.
NAMELESS = {"fewer ids": {2}, "no id": {1}}


@pytest.fixture
def kind() -> str:
    """What is in a lease is the server's: one kind of driver will do."""
    return "asyncpg"


async def put(queries: Queries, count: int) -> list[int]:
    ids = await queries.enqueue(["e"] * count, [SECRET.encode()] * count, [0] * count)
    return [int(job_id) for job_id in ids if job_id is not None]


async def look_at_everything(queries: Queries, ids: list[Any]) -> None:
    """What people ask about a queue has an answer."""
    assert sum(entry.count for entry in await queries.queue_size()) > 0
    assert len(await queries.browse_queue()) > 0
    assert len(await queries.job_status(ids)) > 0
    assert len(await queries.queue_log()) > 0
    assert sum(entry.count for entry in await queries.log_statistics(None)) > 0
    await queries.stale_jobs(timedelta(0))
    for job_id in ids:
        await queries.queue_job_by_id(job_id)
        await queries.job_log_history(job_id)


async def aggregate(queries: Queries) -> None:
    await queries.aggregate_logs()
    assert await queries.unaggregated_log_count() == 0
    assert len(await queries.queue_log()) > 0


@pytest.mark.parametrize("change", CHANGES)
async def test_a_rescue_brings_back_what_can_be_read(
    manager: QueueManager, tables: Tables, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    handler = Recorder()
    manager.entrypoint("e")(handler)
    queries = manager.queries
    assert isinstance(queries, Queries)
    (first,) = await queries.enqueue("e", None, dedupe_key="first of the lease")
    edited = [int(first or 0), *await put(queries, 2)]
    sound, queued = await put(queries, 3), await put(queries, 2)
    await tables.pick(*edited, silent=timedelta(hours=1))
    await tables.pick(*sound, silent=timedelta(hours=1))
    assignment, lost = CHANGES[change]
    await tables.rows(f"UPDATE pgqueuer_lease SET {assignment} WHERE $1 = ANY(ids)", edited[0])
    everything = [*edited, *sound, *queued]
    await look_at_everything(queries, everything)
    await drain(manager)
    gone = [edited[place] for place in sorted(lost)]
    nameless = {edited[place] for place in NAMELESS.get(change, ())}
    assert sorted(handler.ids) == sorted(set(everything) - set(gone) - nameless)
    assert await tables.ended("exception") == gone
    for job_id in gone:
        assert await tables.statuses(job_id) == ["queued", "picked", "exception"]
        entry = (await queries.job_log_history(job_id))[-1]  # type: ignore[arg-type]
        assert entry.traceback is not None
        assert entry.traceback.exception_type == "MalformedRowError"
        assert f"job {job_id}" in caplog.text
    assert await tables.count() == 0
    # Whatever became of it, its key is free again.
    await queries.enqueue("e", None, dedupe_key="first of the lease")
    await aggregate(queries)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("change", CHANGES)
async def test_a_worker_whose_lease_is_changed_ends_its_other_jobs(
    manager: QueueManager,
    tables: Tables,
    spy: LayoutSpy,
    caplog: pytest.LogCaptureFixture,
    change: str,
) -> None:
    """Jobs of both leases end in all ways, together; a worker that comes later tidies up."""
    gate, ran = Gate(), Recorder()

    @manager.entrypoint("e", on_failure="hold")
    async def handler(job: Job) -> None:
        ran.jobs.append(job)
        if job.attempts == 0:
            await gate(job)
        place = job.id % 3
        if place == 0 and job.attempts == 0:
            raise RetryRequested(timedelta(0))
        if place == 1:
            raise ValueError("broken")

    queries = manager.queries
    assert isinstance(queries, Queries)
    edited = await put(queries, 3)
    assignment, _ = CHANGES[change]
    async with working(manager, heartbeat_timeout=timedelta(seconds=1)):
        await eventually(lambda: len(gate.started) == 3)
        sound = await put(queries, 3)
        await eventually(lambda: len(gate.started) == 6)
        await tables.rows(f"UPDATE pgqueuer_lease SET {assignment} WHERE $1 = ANY(ids)", edited[0])
        spy.beats.clear()
        await eventually(lambda: spy.beats)
        gate.open.set()

        async def ended() -> bool:
            log = dict(await queries.job_status(sound))  # type: ignore[arg-type]
            return sorted(log.values()) == ["failed", "successful", "successful"]

        await eventually(ended)
    await look_at_everything(queries, [*edited, *sound])
    manager.shutdown.clear()
    await tables.make_stale()
    await drain(manager)
    assert await tables.count("queued") == await tables.count("picked") == 0
    # Each of those that are still known has ended in one of the ways.
    known = dict(await queries.job_status(edited))  # type: ignore[arg-type]
    assert set(known.values()) <= {"successful", "failed", "exception"}
    await aggregate(queries)
    assert SECRET not in caplog.text
