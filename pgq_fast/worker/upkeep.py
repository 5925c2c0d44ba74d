"""What a worker does at intervals: heartbeats, a look at its listener, statistics."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Final

from pgq_fast.drivers.failures import described
from pgq_fast.errors import FailingListenerError
from pgq_fast.layouts.base import WorkerLayout
from pgq_fast.logconfig import logger
from pgq_fast.models import Context
from pgq_fast.types import JobId, QueueManagerId
from pgq_fast.watchdog import Unanswered
from pgq_fast.worker.context import JobContext

BEATS: Final = 8
"""Looks at the running jobs within a heartbeat timeout."""

BEAT_AFTER: Final = 3
"""Looks after which a job gets a heartbeat: the server hears of each at least every half timeout,
and a statement that fails has further chances before the job counts as stale."""

MANY_LOGGED: Final = 100_000
"""Jobs whose log entries are counted before it is time to."""

COUNT_LOOK: Final = 1.0
"""Seconds between two looks at how many those are."""


async def beat(
    layout: WorkerLayout,
    owner: QueueManagerId,
    jobs: Mapping[JobId, Context],
    timeout: timedelta,
    unanswered: Unanswered,
) -> None:
    """Keep *jobs* alive, a statement a look for all of them, until cancelled.

    A job that turns out to be another worker's by now is reported once and left alone.
    """
    look = timeout.total_seconds() / BEATS
    if look <= 0:
        return
    while True:
        await asyncio.sleep(look)
        now = time.monotonic()
        due = {
            job_id: context
            for job_id, context in jobs.items()
            if isinstance(context, JobContext) and context.last_beat <= now - BEAT_AFTER * look
        }
        if not due:
            continue
        try:
            with unanswered.asking():
                alive = await layout.heartbeat(list(due), owner)
        except Exception as error:
            logger.warning(
                "Could not send the heartbeat of %d job(s), next attempt in %.1f s: %s",
                len(due),
                look,
                described(error),
            )
            continue
        for job_id, context in due.items():
            if job_id in alive:
                context.last_beat = now
            elif jobs.get(job_id) is context:
                context.last_beat = float("inf")
                logger.warning(
                    "Job %s is no longer this worker's, though it still runs here: it was "
                    "cancelled, or taken over for want of a heartbeat; its end changes nothing",
                    job_id,
                    extra={"job_id": job_id},
                )


async def watch_listener(
    check: Callable[[timedelta], Awaitable[object]],
    interval: timedelta,
    fatal: bool,
    passes: Callable[[Exception], bool],
) -> None:
    """See every *interval* that notifications arrive, until cancelled.

    Args:
        check: Sends a notification, and waits for it as long as it is told.
        interval: Between two looks, and how long one may take.
        fatal: Whether it matters.
        passes: Whether an error of *check* says nothing of the listener, and is soon over.

    Raises:
        FailingListenerError: They do not, and *fatal* says that this matters.
    """
    while True:
        try:
            await check(interval)
        except FailingListenerError:
            if fatal:
                raise
            logger.warning(
                "No notification arrived for %.0f s; the worker goes on by polling",
                interval.total_seconds(),
            )
        except Exception as error:
            if fatal and not passes(error):
                raise FailingListenerError(
                    f"the listener cannot be probed: {described(error)}"
                ) from error
            logger.warning(
                "Could not probe the listener, next attempt in %.0f s: %s",
                interval.total_seconds(),
                described(error),
            )
        await asyncio.sleep(interval.total_seconds())


async def aggregate(
    aggregate_logs: Callable[[], Awaitable[None]],
    count_now: Callable[[], int],
    take_count: Callable[[], int],
    put_back: Callable[[int], None],
    interval: timedelta,
) -> None:
    """Have new log entries counted about every *interval*, until cancelled.

    An idle worker does not ask the server, and one that has logged much does so sooner, as its
    claims wait meanwhile. After a failure the next turn catches up.
    """
    while True:
        # Spread, so that workers started together do not ask together.
        pause = interval.total_seconds() * random.uniform(0.8, 1.2)
        count = take_count()
        if count:
            try:
                await aggregate_logs()
            except Exception as error:
                put_back(count)
                logger.warning(
                    "Could not aggregate the log, next attempt in %.1f s: %s",
                    pause,
                    described(error),
                )
                await asyncio.sleep(pause)
                continue
        ends = time.monotonic() + pause
        # An event would have to be set at the end of each job.
        while (left := ends - time.monotonic()) > 0 and count_now() < MANY_LOGGED:  # noqa: ASYNC110
            await asyncio.sleep(min(left, COUNT_LOOK))
