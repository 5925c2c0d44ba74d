"""How many jobs a worker claims at a time, and how much it takes on."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from pgq_fast.layouts.base import LARGEST_CLAIM

FIRST_BATCH: Final = 10
"""Jobs of the first claim, when nothing is known of their handlers yet."""

GROWTH: Final = 4
"""How many times as large as the last one the next batch is at most. A small claim costs as much as
a large one, and the first few are planned anew each: the sooner they are over, the better."""

FIT: Final = 2
"""How many times as many jobs as fitted into the last claim are wanted of the next one."""

LOOKED_AT: Final = 100
"""Jobs to look at cost next to nothing beside a claim that brings as much as it may."""

LARGEST_BATCH: Final = LARGEST_CLAIM
"""Jobs of a claim at most: as many as a statement takes, which costs what its rows cost by then."""

CLAIM_BYTES: Final = 2 * 2**20
"""Payloads and headers that a worker claims at a time, unless told otherwise. More would save
nothing, as a round trip is little beside the time that so many bytes take, and costs much: each
step from the table to the job copies them, and up to here they stay in the caches of a CPU."""

JOBS_IN_FLIGHT: Final = 20_000
"""Jobs that one worker runs at a time, unless told otherwise: their tasks take about 100 MB."""

BYTES_IN_FLIGHT: Final = 256 * 2**20
"""Payloads of handlers that wait, from which a worker claims no more, unless told otherwise."""

HELD_WORK: Final = timedelta(milliseconds=100)
"""What a worker holds of jobs that it has claimed but not started, in time that it takes to start
them: enough to bridge the round trip of a claim many times, and the rest is left to others."""

HELD_BATCHES: Final = 2
"""One that is being started, and one that is claimed meanwhile."""


class Pace:
    """The size of the next batch.

    A size that was given stays. Otherwise it grows while starting a batch takes little time and
    jobs end, and is cut to what fits into *held_work* when it takes long. Waiting handlers take no
    time to start and hold no claim back, but before any has ended nothing speaks for larger claims:
    workers that start together share what there is.

    Args:
        batch_size: The given size, or None.
        held_work: Time that the starting of claimed jobs should take.
    """

    def __init__(self, batch_size: int | None, held_work: timedelta = HELD_WORK) -> None:
        self.size = FIRST_BATCH if batch_size is None else batch_size
        self._tunes = batch_size is None
        self._share = held_work.total_seconds() / HELD_BATCHES

    def started(self, jobs: int, seconds: float, ended: int) -> None:
        """Take into account that a batch has been started.

        Args:
            jobs: How many it was.
            seconds: How long that took.
            ended: Jobs of this worker that ended since the last batch was started.
        """
        if not self._tunes or jobs == 0:
            return
        size = self.size
        if jobs >= size and 2 * ended >= jobs:
            size = GROWTH * size
        if seconds * size > self._share * jobs:
            size = int(self._share * jobs / seconds)
        self.size = max(1, min(size, LARGEST_BATCH))

    def cut(self, found: int) -> None:
        """Take into account that only *found* jobs of a claim fit, for the size of their payloads.

        A claim looks at as many jobs as are wanted of it, and locks them. So no more than may fit
        are wanted of the next one; a size that was given stays.
        """
        if self._tunes:
            self.size = min(self.size, max(LOOKED_AT, FIT * found))
