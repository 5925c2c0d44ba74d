"""The log table's and the statistics table's counterpart."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from pgq_fast import models
from pgq_fast.memory.lane import JobRow
from pgq_fast.types import JOB_STATUS, JobId, QueueEntrypoint


@dataclasses.dataclass(slots=True, eq=False)
class Entry:
    """One change of a job's status; ``traceback`` is JSON text."""

    created: datetime
    job_id: int
    status: JOB_STATUS
    priority: int
    entrypoint: QueueEntrypoint
    traceback: str | None
    aggregated: bool = False

    def to_model(self) -> models.Log:
        """The entry as the public API shows it."""
        return models.Log.model_validate(
            {field: getattr(self, field) for field in models.Log.model_fields}
        )


class Bucket(NamedTuple):
    """What a statistics row counts: *created* is cut to the second."""

    entrypoint: QueueEntrypoint
    priority: int
    status: JOB_STATUS
    created: datetime


class Journal:
    """What happened to every job, and the counts of it.

    Invariant: ``entries`` has all log rows in the order they were written, ``by_job`` the same
    ones by job, and ``pending`` those that ``statistics`` does not count yet.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.by_job: dict[int, list[Entry]] = {}
        self.pending: list[Entry] = []
        self.statistics: Counter[Bucket] = Counter()
        """In the order in which the buckets came up."""

    def write(
        self,
        row: JobRow,
        status: JOB_STATUS,
        now: datetime,
        traceback: str | None = None,
    ) -> None:
        """Log that *row* reached *status*; *traceback* is the JSON text of a record."""
        entry = Entry(
            created=now,
            job_id=row.id,
            status=status,
            priority=row.priority,
            entrypoint=row.entrypoint,
            traceback=traceback,
        )
        self.entries.append(entry)
        self.by_job.setdefault(row.id, []).append(entry)
        self.pending.append(entry)

    def latest_status(self, ids: Collection[int]) -> list[tuple[JobId, JOB_STATUS]]:
        """The last logged status of each of *ids* that was ever logged."""
        return [
            (JobId(job_id), self.by_job[job_id][-1].status)
            for job_id in dict.fromkeys(ids)
            if job_id in self.by_job
        ]

    def aggregate(self) -> None:
        """Count the pending entries."""
        for entry in self.pending:
            self.statistics[
                Bucket(
                    entry.entrypoint,
                    entry.priority,
                    entry.status,
                    entry.created.replace(microsecond=0),
                )
            ] += 1
            entry.aggregated = True
        self.pending.clear()

    def clear_log(self, entrypoints: Collection[str] | None) -> None:
        """Forget the log of *entrypoints*, or all of it; what was not counted yet never will be."""
        kept = (
            []
            if entrypoints is None
            else [entry for entry in self.entries if entry.entrypoint not in entrypoints]
        )
        self._keep(kept)

    def _keep(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.by_job = {}
        for entry in entries:
            self.by_job.setdefault(entry.job_id, []).append(entry)
        self.pending = [entry for entry in entries if not entry.aggregated]

    def clear_statistics(self, entrypoints: Collection[str] | None) -> None:
        """Forget the counts of *entrypoints*, or all of them."""
        for bucket in list(self.statistics):
            if entrypoints is None or bucket.entrypoint in entrypoints:
                del self.statistics[bucket]

    def prune_log(self, before: datetime) -> int:
        """Forget the log from before *before*, which is counted by then; how many rows."""
        self.aggregate()
        kept = [entry for entry in self.entries if entry.created >= before]
        removed = len(self.entries) - len(kept)
        self._keep(kept)
        return removed

    def prune_statistics(self, before: datetime) -> int:
        """Forget the counts from before *before*; how many."""
        old = [bucket for bucket in self.statistics if bucket.created < before]
        for bucket in old:
            del self.statistics[bucket]
        return len(old)
