"""What is to hold of a queue, in plain Python: where each job is, and what is said of it.

A :class:`Model` is told of everything that is done to the queue, and predicts what the tables say
afterwards. It knows nothing of statements, only of moves::

    enqueue -> ready <-> lease -> ended
                 ^        |
       deferred -+   held-+
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from uuid import UUID

Place = Literal["ready", "deferred", "lease", "held", "ended", "cleared"]

QUEUED = ("ready", "deferred")
ENDS = ("successful", "exception", "canceled", "deleted")


@dataclasses.dataclass
class Job:
    """A job, wherever it is."""

    id: int
    entrypoint: str
    payload: bytes | None
    headers: dict[str, Any] | None
    key: str | None
    priority: int
    place: Place
    attempts: int = 0
    due: bool = False
    """Of a deferred one: whether it may be promoted."""
    lease: int | None = None
    end: str | None = None
    written: Counter[str] = dataclasses.field(default_factory=Counter)
    """What the log tables have of it."""

    @property
    def said_by_place(self) -> list[str]:
        """What the log says of it because of where it is."""
        if self.place == "lease":
            return ["queued", "picked"]
        return ["queued"] if self.place in ("ready", "deferred", "held") else []


@dataclasses.dataclass
class Lease:
    """A claimed batch."""

    id: int
    owner: UUID
    entrypoint: str
    ids: list[int]
    slot: int | None
    done: set[int] = dataclasses.field(default_factory=set)
    stale: bool = False

    @property
    def open(self) -> list[int]:
        return [job_id for job_id in self.ids if job_id not in self.done]


@dataclasses.dataclass
class Model:
    """The queue."""

    modes: Mapping[str, str]
    """What is logged of each entrypoint: all, failures or none."""
    jobs: dict[int, Job] = dataclasses.field(default_factory=dict)
    leases: dict[int, Lease] = dataclasses.field(default_factory=dict)
    keys: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    """The job that has each key, and the priority that it is to have."""
    counted: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    """Events that are over, by entrypoint and status: what the statistics are to say."""

    def at(self, *places: Place) -> list[Job]:
        return [job for job in self.jobs.values() if job.place in places]

    # -- Moves --------------------------------------------------------------------------------

    def enqueue(self, job: Job) -> None:
        assert job.id not in self.jobs
        self.jobs[job.id] = job
        if job.key is not None:
            assert job.key not in self.keys
            self.keys[job.key] = (job.id, job.priority)

    def raise_priority(self, key: str, priority: int) -> int:
        job_id, before = self.keys[key]
        priority = max(before, priority)
        self.keys[key] = (job_id, priority)
        job = self.jobs[job_id]
        if job.place in QUEUED:
            job.priority = priority
        return job_id

    def promote(self, job: Job) -> None:
        assert job.place == "deferred"
        assert job.due
        job.place, job.due = "ready", False

    def claim(self, lease: Lease) -> None:
        self.leases[lease.id] = lease
        for job_id in lease.ids:
            job = self.jobs[job_id]
            assert job.place == "ready", (job, lease)
            job.place, job.lease = "lease", lease.id

    def finish(self, job: Job) -> None:
        """Successful, in a batch."""
        self._tell(job, ["queued", "picked", "successful"], batch=True)
        self._end(job, "successful")

    def settle(self, job: Job, status: str) -> None:
        """Ended by itself by whoever holds it, or held."""
        assert job.place == "lease"
        if status == "failed":
            self._tell(job, ["picked", "failed"])
            self._free_key(job, take_priority=True)
            self._leave(job)
            job.place = "held"
        else:
            self._tell(job, ["queued", "picked", status])
            self._end(job, status)

    def retry(self, job: Job, deferred: bool) -> None:
        assert job.place == "lease"
        self._tell(job, ["picked", "queued"])
        self._leave(job)
        job.attempts += 1
        self._come_back(job, "deferred" if deferred else "ready")

    def requeue(self, job: Job) -> None:
        assert job.place == "held"
        self._tell(job, ["queued"])
        job.attempts = 0
        if job.key is not None:
            assert job.key not in self.keys
            self.keys[job.key] = (job.id, job.priority)
        job.place = "ready"

    def rescue(self, lease: Lease) -> None:
        for job_id in lease.open:
            job = self.jobs[job_id]
            self._tell(job, ["picked"], batch=True)
            self._leave(job)
            self._come_back(job, "ready")
        assert lease.id not in self.leases

    def release(self, job: Job) -> None:
        self._tell(job, ["picked", "queued"], batch=True)
        self._leave(job)
        self._come_back(job, "ready")

    def remove(self, job: Job, status: str) -> None:
        """Ended by somebody else, wherever it is."""
        picked = ["picked"] if job.place == "lease" else []
        self._tell(job, ["queued", *picked, status])
        self._end(job, status)

    def clear(self) -> None:
        """All jobs at once, without a word in the log."""
        for job in self.at("ready", "deferred", "lease", "held"):
            job.place, job.lease = "cleared", None
        self.leases.clear()
        self.keys.clear()

    def forget_log(self, entrypoints: Iterable[str]) -> None:
        chosen = set(entrypoints)
        for job in self.jobs.values():
            if job.entrypoint in chosen:
                job.written.clear()

    def beat(self, lease: Lease) -> None:
        lease.stale = False

    # -- What belongs to each move ------------------------------------------------------------

    def _tell(self, job: Job, events: Sequence[str], batch: bool = False) -> None:
        self.counted.update((job.entrypoint, event) for event in events)
        mode = self.modes[job.entrypoint]
        if mode == "all" or (mode == "failures" and not batch):
            job.written.update(events)

    def _end(self, job: Job, status: str) -> None:
        self._free_key(job)
        self._leave(job)
        job.place, job.end = "ended", status

    def _free_key(self, job: Job, take_priority: bool = False) -> None:
        if job.key is not None and self.keys.get(job.key, (None,))[0] == job.id:
            _, priority = self.keys.pop(job.key)
            if take_priority:
                job.priority = priority

    def _leave(self, job: Job) -> None:
        if job.lease is not None:
            lease = self.leases[job.lease]
            lease.done.add(job.id)
            if not lease.open:
                del self.leases[job.lease]
            job.lease = None

    def _come_back(self, job: Job, place: Place) -> None:
        job.place = place
        if job.key is not None:
            job.priority = self.keys[job.key][1]

    # -- Predictions --------------------------------------------------------------------------

    def next_claim(
        self,
        size: int,
        limits: Mapping[str, int],
        owner: UUID,
        max_bytes: int,
        budget: int | None,
        size_of: Mapping[int, int],
    ) -> list[Job]:
        """What a claim from the front of the line takes, in the order of claims."""
        candidates: list[tuple[int, int, Job]] = []
        for name, limit in limits.items():
            held = sum(
                len(lease.open) for lease in self.leases.values() if lease.entrypoint == name
            )
            room = size if limit <= 0 else max(0, min(size, limit - held))
            line = sorted(
                (job for job in self.at("ready") if job.entrypoint == name),
                key=lambda job: (-job.priority, job.id),
            )
            turns: Counter[int] = Counter()
            for job in line[:room]:
                turns[job.priority] += 1
                candidates.append((-job.priority, turns[job.priority], job))
        candidates.sort(key=lambda item: (item[0], item[1], item[2].id))
        most = size
        if budget is not None:
            mine = sum(
                len(lease.open)
                for lease in self.leases.values()
                if lease.owner == owner and lease.entrypoint in limits
            )
            most = max(0, min(size, budget - mine))
        taken: list[Job] = []
        total = 0
        for _, _, job in candidates[:most]:
            if total >= max_bytes:
                break
            total += size_of[job.id]
            taken.append(job)
        return sorted(taken, key=lambda job: (-job.priority, job.id))

    def log(self) -> dict[int, Counter[str]]:
        """What the log says of each job, as often as it says it."""
        said = {job.id: job.written + Counter(job.said_by_place) for job in self.jobs.values()}
        return {job_id: events for job_id, events in said.items() if events}

    def statistics(self) -> Counter[tuple[str, str]]:
        """All events by entrypoint and status, over or not."""
        live = Counter(
            (job.entrypoint, event) for job in self.jobs.values() for event in job.said_by_place
        )
        return self.counted + live
