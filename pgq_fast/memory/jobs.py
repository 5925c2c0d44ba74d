"""The queue table's counterpart: all jobs, and the moves between their states.

Nothing here awaits, so each method is one atomic step, as a SQL statement is one. A method checks
everything before it changes anything.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from pgq_fast.enqueue import EnqueueBatch
from pgq_fast.errors import DuplicateJobError
from pgq_fast.memory.lane import JobRow, Lane
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.types import OnConflict, QueueEntrypoint, QueueManagerId


class _Line:
    """What one claim may take of a lane, in order.

    Args:
        lane: The jobs of an entrypoint.
        limit: How many of them may be held at a time; 0 for any number.
        cutoff: Held jobs that have been silent since then may be taken as well.
    """

    def __init__(self, lane: Lane, limit: int, cutoff: datetime) -> None:
        self.lane = lane
        self._seats = limit - lane.picked_count if limit > 0 else None
        self._abandoned = sorted(lane.silent_since(cutoff), key=lambda row: row.rank, reverse=True)
        # Jobs taken, by priority.
        self._turns: Counter[int] = Counter()

    def front(self, now: datetime) -> tuple[int, int, int, JobRow, _Line] | None:
        """The next job, behind what its turn is compared by: priority, turn, id."""
        rows = self._abandoned[-1:]
        if self._seats is None or self._seats > 0:
            head = self.lane.head(now)
            if head is not None:
                rows.append(head)
        if not rows:
            return None
        row = min(rows, key=lambda row: row.rank)
        return -row.priority, self._turns[row.priority], row.id, row, self

    def take(self, row: JobRow) -> None:
        """Take *row*, which is the front, out of the line."""
        self._turns[row.priority] += 1
        if row.status == "picked":
            self._abandoned.pop()
            return
        self.lane.drop(row)
        if self._seats is not None:
            row.slot = self.lane.take_slot()
            self._seats -= 1


class JobStore:
    """Every job that has not ended.

    Invariants: ``rows`` has them all; a queued or picked job is in the lane of its entrypoint and
    its dedupe key is in ``_key_owner``; a failed job is in ``rows`` only.
    """

    def __init__(self) -> None:
        self.rows: dict[int, JobRow] = {}
        self._lanes: dict[str, Lane] = {}
        self._key_owner: dict[str, JobRow] = {}
        # Jobs held, by worker and entrypoint.
        self._load: Counter[tuple[QueueManagerId, str]] = Counter()
        self._last_id = 0

    def truncate(self) -> None:
        """Forget all jobs; ids go on from where they are."""
        self.rows.clear()
        self._lanes.clear()
        self._key_owner.clear()
        self._load.clear()

    def _lane(self, entrypoint: str) -> Lane:
        lane = self._lanes.get(entrypoint)
        if lane is None:
            lane = self._lanes[entrypoint] = Lane()
        return lane

    def add(
        self,
        batch: EnqueueBatch,
        headers: list[bytes | None],
        on_conflict: OnConflict,
        now: datetime,
    ) -> tuple[list[int | None], list[JobRow]]:
        """Queue a batch.

        Returns:
            The id of each job, None where it was skipped; and the rows that are new.

        Raises:
            DuplicateJobError: A key is taken or repeated, and *on_conflict* is ``"raise"``.
        """
        if on_conflict == "raise" and batch.keyed:
            keys = [key for key in batch.dedupe_key if key is not None]
            if len(set(keys)) < len(keys) or not self._key_owner.keys().isdisjoint(keys):
                raise DuplicateJobError(batch.dedupe_key)
        ids: list[int | None] = []
        added: list[JobRow] = []
        for position, key in enumerate(batch.dedupe_key):
            owner = None if key is None else self._key_owner.get(key)
            if owner is not None:
                if on_conflict == "update_priority":
                    self._raise_priority(owner, batch.priority[position], now)
                    ids.append(owner.id)
                else:
                    ids.append(None)
                continue
            self._last_id += 1
            row = JobRow(
                id=self._last_id,
                priority=batch.priority[position],
                created=now,
                updated=now,
                heartbeat=now,
                execute_after=now + batch.execute_after[position],
                status="queued",
                entrypoint=QueueEntrypoint(batch.entrypoint[position]),
                payload=batch.payload[position],
                headers=headers[position],
                dedupe_key=key,
            )
            self.rows[row.id] = row
            if key is not None:
                self._key_owner[key] = row
            self._lane(row.entrypoint).put(row, now)
            ids.append(row.id)
            added.append(row)
        return ids, added

    def _raise_priority(self, row: JobRow, priority: int, now: datetime) -> None:
        if priority <= row.priority:
            return
        if row.status == "queued":
            lane = self._lane(row.entrypoint)
            lane.drop(row)
            row.priority = priority
            lane.put(row, now)
        else:
            row.priority = priority

    def claim(
        self,
        batch_size: int,
        entrypoints: Mapping[QueueEntrypoint, EntrypointExecutionParameter],
        worker: QueueManagerId,
        worker_limit: int | None,
        heartbeat_timeout: timedelta,
        now: datetime,
    ) -> list[JobRow]:
        """Give up to *batch_size* jobs to *worker*, highest priority first, then oldest.

        Within a priority each entrypoint has its turn, so that a flood of one does not hold up the
        others. Abandoned jobs compete with queued ones by priority. They are exempt from their
        entrypoint's limit, which they already count towards: else leaked jobs could fill the
        limit and nobody could recover them.
        """
        room = batch_size
        if worker_limit is not None:
            held = sum(self._load[worker, entrypoint] for entrypoint in entrypoints)
            room = min(room, worker_limit - held)
        if room <= 0:
            return []

        try:
            cutoff = now - heartbeat_timeout
        except OverflowError:
            # A timeout longer than history: nothing counts as abandoned.
            cutoff = datetime.min.replace(tzinfo=now.tzinfo)
        lines = [
            _Line(lane, parameter.concurrency_limit, cutoff)
            for entrypoint, parameter in entrypoints.items()
            if (lane := self._lanes.get(entrypoint)) is not None
        ]
        # Ids are unique, so comparing two of these never gets past them.
        fronts = [front for line in lines if (front := line.front(now)) is not None]
        heapq.heapify(fronts)
        claimed: list[JobRow] = []
        while fronts and len(claimed) < room:
            *_, row, line = heapq.heappop(fronts)
            if row.status == "picked" and row.queue_manager_id is not None:
                self._lighten(row.queue_manager_id, row.entrypoint)
            line.take(row)
            row.status = "picked"
            row.queue_manager_id = worker
            row.updated = row.heartbeat = now
            line.lane.pick(row)
            self._load[worker, row.entrypoint] += 1
            claimed.append(row)
            front = line.front(now)
            if front is not None:
                heapq.heappush(fronts, front)
        claimed.sort(key=lambda row: row.rank)
        return claimed

    def owned(self, job_id: int, owner: QueueManagerId | None) -> JobRow | None:
        """The job, if it is there and belongs to *owner*; None stands for nobody.

        A worker that lost a job to another one, after a long silence, gets nothing.
        """
        row = self.rows.get(job_id)
        return row if row is not None and row.queue_manager_id == owner else None

    def remove(self, row: JobRow) -> None:
        """Take a job off the queue."""
        self._detach(row)
        self._free_key(row)
        del self.rows[row.id]

    def hold(self, row: JobRow, now: datetime) -> None:
        """Park a job as failed. Its dedupe key is free meanwhile."""
        self._detach(row)
        self._free_key(row)
        row.status = "failed"
        row.updated = now

    def requeue(
        self, rows: Iterable[JobRow], delay: timedelta, now: datetime, *, retry: bool
    ) -> None:
        """Make jobs queued again, due after *delay*.

        Args:
            rows: The jobs, in any state.
            delay: Time from *now*.
            now: The current time.
            retry: Count up ``attempts``; else they start over at 0.

        Raises:
            DuplicateJobError: A parked job's dedupe key has another owner by now.
        """
        rows = list(rows)
        parked = [row for row in rows if row.status == "failed" and row.dedupe_key is not None]
        keys = [row.dedupe_key for row in parked]
        if len(set(keys)) < len(keys) or not self._key_owner.keys().isdisjoint(keys):
            raise DuplicateJobError(keys)
        execute_after = now + delay
        for row in parked:
            if row.dedupe_key is not None:
                self._key_owner[row.dedupe_key] = row
        for row in rows:
            self._detach(row)
            row.status = "queued"
            row.execute_after = execute_after
            row.attempts = row.attempts + 1 if retry else 0
            row.updated = now
            self._lane(row.entrypoint).put(row, now)

    def beat(self, job_ids: Iterable[int], now: datetime) -> None:
        """Note that the jobs are being worked on."""
        for job_id in job_ids:
            row = self.rows.get(job_id)
            if row is not None:
                row.heartbeat = now
                self._lane(row.entrypoint).heard_of(row)

    def _detach(self, row: JobRow) -> None:
        """Take a job out of its lane, and away from its worker."""
        lane = self._lane(row.entrypoint)
        if row.status == "queued":
            lane.drop(row)
        elif row.status == "picked":
            lane.release(row)
            if row.queue_manager_id is not None:
                self._lighten(row.queue_manager_id, row.entrypoint)
        row.queue_manager_id = None

    def _lighten(self, worker: QueueManagerId, entrypoint: str) -> None:
        self._load[worker, entrypoint] -= 1
        if not self._load[worker, entrypoint]:
            del self._load[worker, entrypoint]

    def _free_key(self, row: JobRow) -> None:
        if row.dedupe_key is not None and self._key_owner.get(row.dedupe_key) is row:
            del self._key_owner[row.dedupe_key]

    def queued_count(self, entrypoints: Iterable[str]) -> int:
        """Number of queued jobs, due or not."""
        return sum(
            self._lanes[entrypoint].queued_count
            for entrypoint in set(entrypoints)
            if entrypoint in self._lanes
        )

    def ready_count(self, entrypoints: Iterable[str], now: datetime) -> int:
        """Number of queued jobs that are due."""
        return sum(
            self._lanes[entrypoint].ready_count(now)
            for entrypoint in set(entrypoints)
            if entrypoint in self._lanes
        )

    def next_due(self, entrypoints: Iterable[str], now: datetime) -> datetime | None:
        """When the next deferred job is due."""
        times = (
            self._lanes[entrypoint].next_due(now)
            for entrypoint in entrypoints
            if entrypoint in self._lanes
        )
        return min((time for time in times if time is not None), default=None)
