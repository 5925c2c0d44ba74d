"""What strangers write into the tables and send on the channel, while workers are at work."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import pytest

from behaviour.helpers import Recorder, Tables, drain, eventually, working
from pgq_fast.completion import CompletionWatcher
from pgq_fast.errors import MalformedRowError, RetryRequested
from pgq_fast.messages import LONGEST_MESSAGE
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.types import JobId, QueueEntrypoint

pytestmark = pytest.mark.impl_agnostic

SECRET: Final = "what-the-stranger-said"
FLOOD: Final = 40
"""How often each of the notifications is sent."""
WHEN: Final = "2030-01-01T00:00:00"


def event(**fields: Any) -> str:
    return json.dumps({"channel": "c", "sent_at": f"{WHEN}+00:00", **fields})


NONSENSE: Final = [
    "",
    SECRET,
    "null",
    "[]",
    "{}",
    '{"type": ',
    "\ufeff{}",
    "[" * 3000,
    '{"a":' * 1500,
    "9" * 7000,
    SECRET * (LONGEST_MESSAGE // len(SECRET)),
    event(type=SECRET),
    event(type=["table_changed_event"]),
    event(type="table_changed_event", operation=SECRET, table="t"),
    event(type="table_changed_event", operation="insert", table=5),
    event(type="cancellation_event", ids=SECRET),
    event(type="cancellation_event", ids=[1.5, "1", None]),
    event(type="cancellation_event", ids=[True]),
    event(type="health_check_event", id=SECRET),
    # Without a time zone.
    json.dumps(
        {
            "channel": "c",
            "sent_at": WHEN,
            "type": "health_check_event",
            "id": "00000000-0000-0000-0000-000000000000",
        }
    ),
]
HARMLESS: Final = [
    event(type="cancellation_event", ids=[*range(10**9, 10**9 + 600)]),
    event(type="cancellation_event", ids=[-1, 2**63, 10**30]),
    event(type="health_check_event", id="00000000-0000-0000-0000-000000000000"),
    event(type="table_changed_event", operation="insert", table=SECRET),
    event(type="table_changed_event", operation="truncate", table="t"),
]


async def send(tables: Tables, channel: str, payloads: list[str], times: int) -> None:
    """Notify in transactions of a few hundred, as fast as the server takes them.

    It drops what is the same as another one of the transaction, so each gets spaces of its own.
    """
    await tables.rows(
        "DO $$ BEGIN CREATE TEMP TABLE IF NOT EXISTS said (text text); TRUNCATE said; END $$"
    )
    for text in payloads:
        await tables.rows("INSERT INTO said VALUES ($1)", text)
    for number in range(times):
        await tables.rows(
            "SELECT pg_notify($1, left(text || repeat(' ', $2), 7999)) FROM said", channel, number
        )


@pytest.mark.usefixtures("place")
async def test_a_flood_of_notifications(
    manager: QueueManager, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    """Jobs run all the while, each once, and the worker hears what it should."""
    handler = Recorder()
    manager.entrypoint("e")(handler)
    ids: list[int] = []
    caplog.set_level(logging.DEBUG)
    async with (
        CompletionWatcher(manager.queries.driver, queries=manager.queries) as watcher,
        working(manager),
    ):

        async def one_more() -> None:
            ids.extend(await manager.queries.enqueue("e", SECRET.encode()))
            await eventually(lambda: len(handler.ids) == len(ids))

        await one_more()
        flood = asyncio.create_task(
            send(tables, manager.channel, [*NONSENSE, *HARMLESS], times=FLOOD)
        )
        while not flood.done():
            await one_more()
        await flood
        await one_more()
        assert await asyncio.wait_for(watcher.wait_for(JobId(ids[0])), 20) == "successful"
        await manager.listener_healthy()
    assert sorted(handler.ids) == sorted(ids)
    lines = [entry for entry in caplog.records if "that make no sense" in entry.message]
    # Said, and not in a line each.
    assert sum(entry.args[0] for entry in lines) >= FLOOD
    assert len(lines) <= FLOOD / 10
    assert SECRET not in caplog.text


# What somebody did to the row of a job.
EDITS: Final = [
    "attempts = 2147483647",
    "attempts = -3",
    "priority = 2147483647",
    "priority = -2147483648",
    "entrypoint = ''",
    "entrypoint = 'x; DROP TABLE pgqueuer; --'",
    "entrypoint = repeat('x', 100000)",
    "payload = convert_to(repeat('x', 3000000), 'UTF8')",
    "created = 'infinity'",
    "created = '-infinity'",
    "execute_after = '-infinity'",
    "headers = '[[]]'",
    "headers = 'null'",
    "dedupe_key = repeat('k', 20000)",
]
COMPAT_EDITS: Final = [
    "status = 'successful'",
    "status = 'exception'",
    "status = 'deleted', queue_manager_id = gen_random_uuid()",
    "status = 'picked'",
    "status = 'picked', heartbeat = '-infinity'",
    "status = 'picked', heartbeat = 'infinity'",
    "slot = 9223372036854775807",
    "status = 'picked', slot = -5, heartbeat = '2000-01-01'",
    "queue_manager_id = gen_random_uuid()",
    "heartbeat = 'infinity', updated = '-infinity'",
]


@pytest.mark.parametrize("limit", [0, 2])
async def test_rows_that_somebody_edited(
    manager: QueueManager, tables: Tables, place: str, limit: int
) -> None:
    """The other jobs of the batch run, and the rest of the API goes on working."""
    ran: list[int] = []

    @manager.entrypoint("e", concurrency_limit=limit)
    async def handler(job: Job) -> None:
        if job.id not in ran:
            ran.append(job.id)
            raise RetryRequested(timedelta(0))

    @manager.entrypoint("")
    async def nameless(job: Job) -> None:
        ran.append(job.id)

    edits = EDITS + (COMPAT_EDITS if place.startswith("compat") else [])
    count = 2 * len(edits)
    ids = await manager.queries.enqueue(["e"] * count, [b"x"] * count, [0] * count)
    edited, others = ids[::2], ids[1::2]
    for job_id, edit in zip(edited, edits, strict=True):
        await tables.edit(job_id, edit)
    await drain(manager)
    ended = await tables.ended()
    assert set(others) <= set(ran)
    assert set(others) <= set(ended)
    # Those too whose values are no more than odd.
    assert {*edited[:5], *edited[7:14]} <= set(ended)

    await tables.rows("DELETE FROM pgqueuer_statistics WHERE NOT isfinite(created)")
    queries: Any = manager.queries
    looks: list[Callable[[], Awaitable[Any]]] = [
        lambda: queries.browse_queue(),
        lambda: queries.queue_log(),
        lambda: queries.queue_age(),
        lambda: queries.active_workers(),
        lambda: queries.stale_jobs(timedelta(0)),
        lambda: queries.job_duration_percentiles(timedelta(days=1)),
        lambda: queries.log_statistics(None),
        lambda: queries.throughput_timeseries(timedelta(days=1)),
        lambda: queries.next_deferred_eta(["e"]),
        lambda: queries.queue_size(),
    ]
    for look in looks:
        # Either is a way to treat times that Python does not have.
        with contextlib.suppress(MalformedRowError):
            await look()
    await queries.clear_queue(["e", "x; DROP TABLE pgqueuer; --", "x" * 100_000])
    assert await tables.count() == 0


async def test_a_job_that_is_never_due(manager: QueueManager, tables: Tables) -> None:
    """A worker that looks when the next job is due sees one that is due at no time at all."""
    handler = Recorder()
    manager.entrypoint("e")(handler)
    queries = manager.queries
    (never,) = await queries.enqueue("e", None, execute_after=timedelta(days=1))
    await tables.edit(never, "execute_after = 'infinity'")
    eta = await queries.next_deferred_eta([QueueEntrypoint("e")])
    assert eta is not None
    assert eta > timedelta(days=365 * 7000)

    def was_run(job_id: int) -> bool:
        return job_id in handler.ids

    async with working(manager):
        for _ in range(3):
            (due,) = await queries.enqueue("e", None)
            await eventually(functools.partial(was_run, due))
            # Until it rests again.
            await asyncio.sleep(0.1)
    assert await tables.count() == 1


@pytest.mark.usefixtures("any_library")
async def test_ten_thousand_entrypoints(queries: Any) -> None:
    """A worker that has them all, and a job of each."""
    manager = QueueManager(queries)
    handler = Recorder()
    names = [f"entrypoint {number}" for number in range(10_000)]
    for name in names:
        manager.entrypoint(name)(handler)
    await queries.enqueue(names, [None] * len(names), [0] * len(names))
    await drain(manager)
    assert sorted(job.entrypoint for job in handler.jobs) == sorted(names)
    assert await queries.queued_work(names) == 0
