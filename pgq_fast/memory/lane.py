"""The jobs of one entrypoint, ordered for claiming.

A job on the queue is in one of four places:

- *ready*: queued and due, in a heap by priority and id;
- *deferred*: queued and not due yet, in a heap by due time;
- *picked*: held by a worker, in order of heartbeat;
- *held*: failed and parked; it is in no lane.

Heaps cannot delete from the middle. So each stay in a heap has a ticket, a job remembers the
ticket of its present stay, and an entry whose ticket is no longer its job's is skipped. A heap
with more of these than valid entries is rebuilt, which keeps its size proportional to the jobs.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime

from pgq_fast.types import JOB_STATUS, QueueEntrypoint, QueueManagerId

# Heaps up to this size are never rebuilt: skipping is cheaper.
_SMALL_HEAP = 64


@dataclasses.dataclass(slots=True, eq=False)
class JobRow:
    """What the queue table would hold of a job.

    ``headers`` is JSON text. ``ticket`` belongs to the job's lane: 0 while it is in no heap.
    """

    id: int
    priority: int
    created: datetime
    updated: datetime
    heartbeat: datetime
    execute_after: datetime
    status: JOB_STATUS
    entrypoint: QueueEntrypoint
    payload: bytes | None
    headers: bytes | None
    dedupe_key: str | None
    attempts: int = 0
    queue_manager_id: QueueManagerId | None = None
    slot: int | None = None
    ticket: int = 0
    deferred: bool = False

    @property
    def rank(self) -> tuple[int, int]:
        """Sorts in the order of claiming: highest priority first, then oldest."""
        return (-self.priority, self.id)


class Lane:
    """The queued and picked jobs of one entrypoint."""

    def __init__(self) -> None:
        self._ready: list[tuple[int, int, int, JobRow]] = []
        self._ready_count = 0
        self._deferred: list[tuple[datetime, int, JobRow]] = []
        self._deferred_count = 0
        self._tickets = itertools.count(1)
        # Every claim and every heartbeat moves a job to the end, so the most silent one is first.
        self._picked: OrderedDict[int, JobRow] = OrderedDict()
        # Invariant: each slot below _slots_used is either held by a picked job or in _free_slots.
        self._free_slots: list[int] = []
        self._slots_used = 0

    @property
    def picked_count(self) -> int:
        """Number of jobs that workers hold."""
        return len(self._picked)

    @property
    def queued_count(self) -> int:
        """Number of queued jobs, due or not."""
        return self._ready_count + self._deferred_count

    def ready_count(self, now: datetime) -> int:
        """Number of queued jobs that are due."""
        self._promote(now)
        return self._ready_count

    def put(self, row: JobRow, now: datetime) -> None:
        """Line up a queued job that is in no heap."""
        row.ticket = next(self._tickets)
        row.deferred = row.execute_after > now
        if row.deferred:
            heapq.heappush(self._deferred, (row.execute_after, row.ticket, row))
            self._deferred_count += 1
        else:
            # Tickets are unique, so no comparison ever reaches the row.
            heapq.heappush(self._ready, (*row.rank, row.ticket, row))
            self._ready_count += 1

    def drop(self, row: JobRow) -> None:
        """Take a queued job out of its heap."""
        row.ticket = 0
        if row.deferred:
            self._deferred_count -= 1
            if len(self._deferred) > max(_SMALL_HEAP, 2 * self._deferred_count):
                self._deferred = [
                    entry for entry in self._deferred if entry[-1].ticket == entry[-2]
                ]
                heapq.heapify(self._deferred)
        else:
            self._ready_count -= 1
            if len(self._ready) > max(_SMALL_HEAP, 2 * self._ready_count):
                self._ready = [entry for entry in self._ready if entry[-1].ticket == entry[-2]]
                heapq.heapify(self._ready)

    def head(self, now: datetime) -> JobRow | None:
        """The due job that is to be claimed next."""
        self._promote(now)
        while self._ready:
            *_, ticket, row = self._ready[0]
            if row.ticket == ticket:
                return row
            heapq.heappop(self._ready)
        return None

    def next_due(self, now: datetime) -> datetime | None:
        """When the next deferred job is due."""
        self._promote(now)
        while self._deferred:
            due, ticket, row = self._deferred[0]
            if row.ticket == ticket:
                return due
            heapq.heappop(self._deferred)
        return None

    def _promote(self, now: datetime) -> None:
        """Move deferred jobs that are due by *now* to the ready ones."""
        while self._deferred and self._deferred[0][0] <= now:
            _, ticket, row = heapq.heappop(self._deferred)
            if row.ticket == ticket:
                self._deferred_count -= 1
                self.put(row, now)

    def pick(self, row: JobRow) -> None:
        """Count a job that has just been claimed as held, or as heard of again."""
        self._picked[row.id] = row
        self._picked.move_to_end(row.id)

    def heard_of(self, row: JobRow) -> None:
        """Note a new heartbeat of a job."""
        if row.id in self._picked:
            self._picked.move_to_end(row.id)

    def release(self, row: JobRow) -> None:
        """Let go of a held job, and of its slot."""
        del self._picked[row.id]
        if row.slot is not None:
            heapq.heappush(self._free_slots, row.slot)
            row.slot = None

    def take_slot(self) -> int:
        """The lowest free slot, which is taken from now on."""
        if self._free_slots:
            return heapq.heappop(self._free_slots)
        self._slots_used += 1
        return self._slots_used - 1

    def silent_since(self, cutoff: datetime) -> Iterator[JobRow]:
        """Held jobs without a heartbeat after *cutoff*."""
        for row in self._picked.values():
            if row.heartbeat > cutoff:
                return
            yield row
