"""What a worker knows of its leases: which jobs are in which, and which of them have ended.

The server decides what becomes of a lease; this only finds the statement that says it best. So
nothing is lost by a lease that is gone on the server, or whose jobs were ended by others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from pgq_fast.types import JobId

_ONE_ELEMENT: Final = 28
"""Bytes of an array that the server sends with one integer in it."""

MOST_NEW: Final = 50
"""Leases that a new one is compared with one by one."""


class Lease:
    """A claimed batch.

    Attributes:
        id: Its row.
        entrypoint: Of all its jobs.
        ids: Its jobs, in the order of the row's arrays.
        attempts: Of each of them or once for all, as the server sent the array.
        ended: A byte a job: 1 where the server has been told that it ended.
        left: How many have not.
        lowest: The lowest of the ids.
        highest: The highest of them.
    """

    __slots__ = ("attempts", "ended", "entrypoint", "highest", "id", "ids", "left", "lowest")

    def __init__(self, number: int, entrypoint: str, ids: list[JobId], attempts: bytes) -> None:
        self.id = number
        self.entrypoint = entrypoint
        self.ids = ids
        self.attempts = attempts
        self.ended = bytearray(len(ids))
        self.left = len(ids)
        self.lowest = min(ids)
        self.highest = max(ids)

    def attempts_at(self, position: int) -> int:
        """Attempts of the job at *position* before this one."""
        # From the end: each element is its length, which is 4, and its value.
        end = len(self.attempts)
        if end > _ONE_ELEMENT:
            end -= 8 * (len(self.ids) - position - 1)
        return int.from_bytes(self.attempts[end - 4 : end], signed=True)


class Place(NamedTuple):
    """Where a job is: its lease, and the position in its arrays, from 0."""

    lease: Lease
    position: int


class Split(NamedTuple):
    """Successful jobs by what they mean for their leases."""

    whole: list[Lease]
    """Leases of which every job was successful and none has been told of before."""
    some: dict[Lease, list[int]]
    """Of other leases, the places of the jobs."""


class Leases:
    """The leases that a worker holds.

    A job is in one lease, the latest that brought it: after a rescue a worker may get its own job
    again, and whatever becomes of it belongs to the new lease.

    Attributes:
        returns: Claims that brought back jobs which this worker still had.
    """

    def __init__(self) -> None:
        self.returns = 0
        self._open: dict[int, Lease] = {}
        # By the first job: where a batch ends in the order in which it was claimed, as batches of
        # short jobs do, nothing needs to be looked up a job.
        self._by_first: dict[JobId, Lease] = {}
        # By every job of the leases that are not among the new ones.
        self._places: dict[JobId, Place] = {}
        self._new: dict[int, Lease] = {}

    def __len__(self) -> int:
        """Number of leases."""
        return len(self._open)

    def add(self, lease: Lease) -> bool:
        """Take note of a claim.

        Returns:
            Whether it brings back jobs that this worker still had: somebody took it for dead.
        """
        if len(self._new) >= MOST_NEW or any(
            other.entrypoint == lease.entrypoint
            and other.lowest <= lease.highest
            and lease.lowest <= other.highest
            for other in self._new.values()
        ):
            self._look_into_new()
        known = self._places.keys()
        comes_back = bool(known) and not known.isdisjoint(lease.ids)
        if comes_back:
            comes_back = any(
                not place.lease.ended[place.position]
                for place in map(self._places.get, lease.ids)
                if place is not None
            )
        self._open[lease.id] = lease
        self._by_first[lease.ids[0]] = lease
        self._new[lease.id] = lease
        if comes_back:
            self.returns += 1
            self._look_into_new()
        return comes_back

    def place(self, job_id: JobId) -> Place | None:
        """Where *job_id* is; None where this worker does not hold it."""
        if self._new:
            self._look_into_new()
        return self._places.get(job_id)

    def _look_into_new(self) -> None:
        new, self._new = self._new, {}
        for lease in new.values():
            for index, number in enumerate(lease.ids):
                before = self._places.get(number)
                self._places[number] = Place(lease, index)
                if before is not None:
                    # Whatever becomes of the job is the new lease's.
                    self.end(before.lease, [before.position])

    def split(self, ids: Sequence[JobId]) -> Split:
        """Sort successful jobs. Those in no lease, or told of before, are left out."""
        whole: list[Lease] = []
        position = 0
        while position < len(ids):
            lease = self._by_first.get(ids[position])
            if lease is None or lease.left != len(lease.ids):
                break
            end = position + len(lease.ids)
            if ids[position:end] != lease.ids:
                break
            whole.append(lease)
            position = end
        # The leases of a claim over several entrypoints end together, their jobs in turn.
        left = set(ids[position:])
        for job_id in ids[position:]:
            lease = self._by_first.get(job_id)
            if lease is not None and lease.left == len(lease.ids) and left.issuperset(lease.ids):
                whole.append(lease)
                left.difference_update(lease.ids)
        found: dict[Lease, set[int]] = {}
        for job_id in left:
            place = self.place(job_id)
            if place is not None and not place.lease.ended[place.position]:
                found.setdefault(place.lease, set()).add(place.position)
        some = {}
        for lease, places in found.items():
            if lease.left == len(lease.ids) == len(places):
                whole.append(lease)
            else:
                some[lease] = sorted(places)
        return Split(whole, some)

    def end(self, lease: Lease, places: Iterable[int] | None = None) -> None:
        """The server knows that the jobs at *places* have ended, or all of them."""
        if places is not None:
            for index in places:
                if not lease.ended[index]:
                    lease.ended[index] = 1
                    lease.left -= 1
            if lease.left:
                return
        self._forget(lease)

    def keep_only(self, ids: Iterable[JobId]) -> None:
        """All jobs but *ids* have been given back."""
        kept = set(ids)
        for lease in list(self._open.values()):
            self.end(
                lease,
                [index for index, job_id in enumerate(lease.ids) if job_id not in kept],
            )

    def _forget(self, lease: Lease) -> None:
        if self._open.pop(lease.id, None) is None:
            return
        first = lease.ids[0]
        if self._by_first.get(first) is lease:
            del self._by_first[first]
        if self._new.pop(lease.id, None) is not None:
            return
        for job_id in lease.ids:
            place = self._places.get(job_id)
            if place is not None and place.lease is lease:
                del self._places[job_id]
