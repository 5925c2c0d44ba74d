"""Calls other than ``enqueue`` with what no queue can have: an error by name, and nothing sent."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from pgq_fast.arguments import LONGEST_SPAN
from pgq_fast.errors import InvalidArgumentError
from pgq_fast.messages import LONGEST_MESSAGE, cancellations
from pgq_fast.models import CancellationEvent
from pgq_fast.qm import QueueManager
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.types import Channel, QueueManagerId

pytestmark = pytest.mark.impl_agnostic

Call = Callable[[Any], Awaitable[Any]]

MINUTE: Final = timedelta(minutes=1)
HUGE: Final = 2**70
ENDLESS: Final = 10**5000
"""Python does not print it."""
NAMELESS: Final = ("a\0", "\ud800", 5, None, b"e")
OWNER: Final = QueueManagerId(uuid.uuid4())


def claim(
    queries: Any, names: Any = ("e",), number: Any = 1, timeout: Any = MINUTE
) -> Awaitable[Any]:
    entrypoints = {name: EntrypointExecutionParameter(0) for name in names}
    answer: Awaitable[Any] = queries.dequeue(number, entrypoints, OWNER, None, timeout)
    return answer


BAD_SPANS: Final[dict[str, Callable[[Any, Any], Awaitable[Any]]]] = {
    "prune_log": lambda queries, value: queries.prune_log(value),
    "prune_statistics": lambda queries, value: queries.prune_statistics(value),
    "job_duration_percentiles": lambda queries, value: queries.job_duration_percentiles(value),
    "throughput_summary": lambda queries, value: queries.throughput_summary(value),
    "throughput_timeseries": lambda queries, value: queries.throughput_timeseries(value),
    "log_statistics": lambda queries, value: queries.log_statistics(None, value),
    "stale_jobs": lambda queries, value: queries.stale_jobs(value),
    "dequeue": lambda queries, value: claim(queries, timeout=value),
}
LIMITS: Final[dict[str, Callable[[Any, Any], Awaitable[Any]]]] = {
    "list_failed_jobs": lambda queries, value: queries.list_failed_jobs(value),
    "exception_logs": lambda queries, value: queries.exception_logs(value),
    "job_log_history": lambda queries, value: queries.job_log_history(1, value),
    "log_statistics": lambda queries, value: queries.log_statistics(value),
    "stale_jobs": lambda queries, value: queries.stale_jobs(MINUTE, value),
    "browse_queue": lambda queries, value: queries.browse_queue(value),
    "browse_queue offset": lambda queries, value: queries.browse_queue(1, value),
    "dequeue": lambda queries, value: claim(queries, number=value),
    "prune_log": lambda queries, value: queries.prune_log(MINUTE, batch_size=value),
    "prune_statistics": lambda queries, value: queries.prune_statistics(MINUTE, batch_size=value),
}
IDS: Final[dict[str, Callable[[Any, Any], Awaitable[Any]]]] = {
    "queue_job_by_id": lambda queries, value: queries.queue_job_by_id(value),
    "job_log_history": lambda queries, value: queries.job_log_history(value),
    "job_status": lambda queries, value: queries.job_status([1, value]),
    "mark_job_as_cancelled": lambda queries, value: queries.mark_job_as_cancelled([1, value]),
    "notify_job_cancellation": lambda queries, value: queries.notify_job_cancellation([value]),
    "requeue_jobs": lambda queries, value: queries.requeue_jobs([value]),
    "update_heartbeat": lambda queries, value: queries.update_heartbeat([value]),
    "set_schedule_queued": lambda queries, value: queries.set_schedule_queued({value}),
    "update_schedule_heartbeat": lambda queries, value: queries.update_schedule_heartbeat({value}),
    "delete_schedule": lambda queries, value: queries.delete_schedule({value}, set()),
}
NAMES: Final[dict[str, Callable[[Any, Any], Awaitable[Any]]]] = {
    "queued_work": lambda queries, value: queries.queued_work(["e", value]),
    "eligible_queued_work": lambda queries, value: queries.eligible_queued_work([value]),
    "next_deferred_eta": lambda queries, value: queries.next_deferred_eta([value]),
    "clear_queue": lambda queries, value: queries.clear_queue(["e", value]),
    "clear_queue_log": lambda queries, value: queries.clear_queue_log([value]),
    "clear_statistics_log": lambda queries, value: queries.clear_statistics_log([value]),
    "browse_queue": lambda queries, value: queries.browse_queue(entrypoints=[value]),
    "browse_queue statuses": lambda queries, value: queries.browse_queue(statuses=[value]),
    "delete_schedule": lambda queries, value: queries.delete_schedule(set(), {value}),
    "dequeue": lambda queries, value: claim(queries, ["e", value]),
}
REFUSED: Final[list[tuple[dict[str, Callable[[Any, Any], Awaitable[Any]]], tuple[Any, ...]]]] = [
    (BAD_SPANS, (60, 1.5, "1 minute", datetime(2030, 1, 1))),
    (LIMITS, (-1, -HUGE, -ENDLESS, 1.5, "1")),
    (IDS, (HUGE, -HUGE, ENDLESS, 2**63, 1.5, "1", None)),
    (NAMES, NAMELESS),
]


async def test_what_is_refused(queries: Any) -> None:
    (job_id,) = await queries.enqueue("e", b"kept")
    for calls, values in REFUSED:
        for name, call in calls.items():
            for value in values:
                with pytest.raises(InvalidArgumentError) as caught:
                    await call(queries, value)
                assert len(str(caught.value)) < 200, (name, value)
    # Nothing was sent before the error, and the connection is as good as before.
    assert [job.id for job in await queries.browse_queue()] == [job_id]
    assert await queries.queued_work(["e"]) == 1


async def test_single_values_that_are_no_list(queries: Any) -> None:
    """Each letter would be a name, each byte an id."""
    for call in (
        queries.queued_work("abc"),
        queries.delete_schedule(set(), "abc"),
        queries.job_status(b"abc"),
        queries.mark_job_as_cancelled(5),
        queries.clear_queue(b"abc"),
        queries.clear_queue(5),
    ):
        with pytest.raises(InvalidArgumentError, match="pass a list of"):
            await call


async def test_statuses_and_delays_that_do_not_exist(queries: Any) -> None:
    await queries.enqueue("e", b"")
    (job,) = await claim(queries)
    for call in (
        queries.log_jobs([(job, "nonsense", None)]),
        queries.retry_job(job, timedelta.max, None),
        queries.retry_job(job, timedelta.min, None),
        queries.retry_job(job, 5, None),
        queries.browse_queue(statuses=["nonsense"]),
        queries.prune_log(timedelta(seconds=-1)),
        queries.prune_statistics(timedelta.min),
    ):
        with pytest.raises(InvalidArgumentError):
            await call
    await queries.log_jobs([(job, "successful", None)])
    assert await queries.browse_queue() == []


async def test_the_longest_look_back(queries: Any) -> None:
    """Longer than PostgreSQL has years: everything there is."""
    await queries.enqueue(["e"] * 2, [b""] * 2, [0] * 2)
    jobs = await claim(queries, number=2)
    await queries.log_jobs([(jobs[0], "successful", None)])
    for endless in (timedelta.max, LONGEST_SPAN, LONGEST_SPAN - timedelta(days=1)):
        assert await queries.prune_log(endless) == 0
        assert await queries.prune_statistics(endless) == 0
        assert await queries.stale_jobs(endless) == []
        assert await claim(queries, timeout=endless) == []
        assert len(await queries.job_duration_percentiles(endless)) == 1
        assert len(await queries.throughput_summary(endless)) == 3
        assert len(await queries.throughput_timeseries(endless)) == 3
        assert len(await queries.log_statistics(None, endless)) >= 3
    # The other way there is nothing yet, and every job is silent since then.
    for future in (timedelta.min, -LONGEST_SPAN):
        assert await queries.job_duration_percentiles(future) == []
        assert await queries.throughput_summary(future) == []
        assert await queries.throughput_timeseries(future) == []
        assert await queries.log_statistics(None, future) == []
        assert [job.id for job in await queries.stale_jobs(future)] == [jobs[1].id]


async def test_the_largest_limits(queries: Any) -> None:
    await queries.enqueue(["e"] * 2, [b""] * 2, [0] * 2)
    assert len(await queries.browse_queue(HUGE)) == 2
    assert await queries.browse_queue(HUGE, HUGE) == []
    assert await queries.browse_queue(0) == []
    assert len(await queries.log_statistics(ENDLESS)) >= 1
    assert await queries.prune_log(MINUTE, batch_size=HUGE) == 0
    assert len(await claim(queries, number=ENDLESS)) == 2


async def test_a_hundred_thousand_cancellations(queries: Any) -> None:
    """More than one notification takes."""
    heard: list[CancellationEvent] = []
    done = asyncio.Event()

    def listener(payload: str | bytes | bytearray) -> None:
        assert len(payload) <= LONGEST_MESSAGE
        event = CancellationEvent.model_validate_json(payload)
        heard.append(event)
        if event.ids[-1] == 2**63 - 1:
            done.set()

    wanted = [*range(100_000), -(2**63), 2**63 - 1]
    await queries.driver.add_listener(queries.qbq.settings.channel, listener)
    await queries.notify_job_cancellation(wanted)
    async with asyncio.timeout(30):
        await done.wait()
    assert [job_id for event in heard for job_id in event.ids] == wanted
    assert len(heard) < 100


async def test_cancelling_more_jobs_than_one_message_names(queries: Any) -> None:
    ids = await queries.enqueue(["e"] * 3000, [None] * 3000, [0] * 3000)
    await queries.mark_job_as_cancelled(ids)
    assert await queries.browse_queue() == []
    assert {status for _, status in await queries.job_status(ids)} == {"canceled"}


@pytest.mark.parametrize("channel", ["c", "\u00fc" * 31, '"' * 63, "\U0001f600" * 15])
def test_messages_are_as_long_as_they_may_be(channel: str) -> None:
    """And no longer, whatever letters the channel has, in bytes."""
    for ids in ([], [7], [*range(10**9, 10**9 + 5000)], [-(2**63)] * 1000, [1] * 8000):
        found = [*cancellations(channel, ids)]
        assert [i for text in found for i in CancellationEvent.model_validate_json(text).ids] == ids
        assert all(len(text.encode()) <= LONGEST_MESSAGE for text in found)
        # Another id would not have fitted.
        assert all(len(text.encode()) > LONGEST_MESSAGE - 21 for text in found[:-1])


async def test_handlers_of_names_that_no_job_can_have(queries: Any) -> None:
    manager: Any = QueueManager(queries)
    for name in NAMELESS:
        with pytest.raises(InvalidArgumentError, match="name "):
            manager.entrypoint(name)
    assert not manager.entrypoint_registry


async def test_events_without_a_time_zone_are_no_events() -> None:
    with pytest.raises(ValueError, match="timezone"):
        CancellationEvent(
            channel=Channel("c"), ids=[], sent_at=datetime(2030, 1, 1), type="cancellation_event"
        )
    CancellationEvent(
        channel=Channel("c"),
        ids=[],
        sent_at=datetime(2030, 1, 1, tzinfo=UTC),
        type="cancellation_event",
    )
