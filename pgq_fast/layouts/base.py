"""What a worker asks of the place where its jobs are: everything by the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final, NamedTuple, Protocol, Self

from pgq_fast.models import Job, TracebackRecord
from pgq_fast.types import JOB_STATUS, JobId, QueueEntrypoint, QueueManagerId


class Statement(NamedTuple):
    """SQL and its parameters."""

    query: str
    args: tuple[object, ...]


LARGEST_CLAIM: Final = 5000
"""Jobs that one statement claims at most; the statements have the number in them."""


class Outcome(NamedTuple):
    """How a job ended."""

    job: Job
    status: JOB_STATUS
    record: TracebackRecord | None


class Retry(NamedTuple):
    """A job that is to run again after *delay*."""

    job: Job
    delay: timedelta
    record: TracebackRecord | None


class Rejected(NamedTuple):
    """A claimed row that is no job."""

    id: JobId
    reason: str


class Claim:
    """What one claim brought: jobs in the order in which to start them.

    A layout may leave the jobs to be made when they are first asked for: by then a worker has sent
    its next claim, and the server is at work meanwhile.

    Args:
        jobs: The jobs.
        rejected: Rows that are no jobs.
        more: See below.
        known: See below.

    Attributes:
        found: How many jobs and rejected rows it are, before any are taken out.
        rejected: Rows that are no jobs.
        more: Whether some were left although the number wanted was not reached: for their size, or
            because a claim has a largest number.
        known: Whether jobs among them may be running here already: others took this worker for
            dead, or it did so itself. Only true once the jobs were asked for.
        large: Whether some were left for their size.
        exhausted: Whether it is known that no job was left that a claim could take, but for those
            that others were claiming.
        ahead: Whether the next claim may be asked for before these jobs are started. Not where it
            would find no more than what they leave behind.
        full: Whether another claim is likely to bring jobs right now; set by the worker.
        since: When it was asked for, on this process's monotonic clock; set by the worker.
    """

    __slots__ = (
        "_jobs",
        "_unread",
        "ahead",
        "exhausted",
        "found",
        "full",
        "known",
        "large",
        "more",
        "rejected",
        "since",
    )

    def __init__(
        self,
        jobs: list[Job],
        rejected: Sequence[Rejected] = (),
        more: bool = False,
        known: bool = False,
    ) -> None:
        self._jobs = jobs
        self._unread: Callable[[Claim], list[Job]] | None = None
        self.rejected = list(rejected)
        self.found = len(jobs) + len(rejected)
        self.more = more
        self.known = known
        self.large = False
        self.exhausted = False
        self.ahead = True
        self.full = False
        self.since = 0.0

    @classmethod
    def unread(cls, found: int, more: bool, read: Callable[[Claim], list[Job]]) -> Self:
        """A claim of *found* jobs, which *read* makes; it may set ``known`` too."""
        claim = cls([], more=more)
        claim.found = found
        claim._unread = read
        return claim

    @property
    def jobs(self) -> list[Job]:
        """The jobs.

        Raises:
            MalformedRowError: They cannot be read, see the layout.
        """
        if self._unread is not None:
            self._jobs = self._unread(self)
            # Only now: who asks again after an error must not be told that there are none.
            self._unread = None
        return self._jobs

    @jobs.setter
    def jobs(self, jobs: list[Job]) -> None:
        self._unread = None
        self._jobs = jobs


class Rest(NamedTuple):
    """How long a worker that found nothing to claim may rest."""

    due: timedelta | None
    """Time until the first queued job may run, at most zero for now; None: none is queued."""
    look_again: timedelta | None = None
    """When to claim again whatever is heard or not; None: no need to."""


class WorkerLayout(Protocol):
    """The worker's side of a table layout.

    Every change is fenced: a job that another worker has taken over since stays as it is.
    """

    can_release: bool
    """Whether ``release`` works; if not, a worker has to run what it has claimed."""

    can_end_in_claim: bool
    """Whether it pays to end jobs by ``claim``: statements run one at a time anyway."""

    async def claim(
        self,
        batch_size: int,
        limits: Mapping[QueueEntrypoint, int],
        owner: QueueManagerId,
        stale_after: timedelta | None,
        max_bytes: int,
        ending: Sequence[JobId] = (),
    ) -> Claim:
        """Pick up to *batch_size* jobs for *owner*, and do what ``finish`` does for *ending*.

        Args:
            batch_size: At least 1.
            limits: The entrypoints to pick from, each with its ``concurrency_limit`` or 0.
            owner: The claiming worker.
            stale_after: Also pick what has been without a heartbeat for this long; None: do not
                look for such jobs this time.
            max_bytes: Of payloads and headers together; one job is claimed whatever its size.
            ending: Jobs of *owner* that were successful. Where an error is raised they may have
                been ended or not.
        """
        ...

    async def finish(self, ids: Sequence[JobId], owner: QueueManagerId) -> None:
        """End jobs of *owner* that were successful. Repeating it changes nothing."""
        ...

    async def acknowledge(self, outcomes: Sequence[Outcome], owner: QueueManagerId) -> None:
        """End jobs of *owner* in any way. Repeating it changes nothing."""
        ...

    async def retry(self, retries: Sequence[Retry], owner: QueueManagerId) -> None:
        """Queue jobs of *owner* again."""
        ...

    async def heartbeat(self, ids: Sequence[JobId], owner: QueueManagerId) -> set[JobId]:
        """Say that *owner* is at work on *ids*; those of them that are still its own."""
        ...

    async def release(self, owner: QueueManagerId, keep: Sequence[JobId]) -> None:
        """Queue again what *owner* has picked, except *keep*."""
        ...

    async def rest(
        self,
        entrypoints: Sequence[QueueEntrypoint],
        owner: QueueManagerId,
        seats: bool,
        last: bool = False,
    ) -> Rest:
        """Look when there will be something to claim of *entrypoints*; *owner* waits from now on.

        Args:
            entrypoints: What the worker would claim.
            owner: The worker, which listens for notifications.
            seats: Whether the end of a job may let it claim more.
            last: The worker ends if there is nothing, and its last claim was ``exhausted``: it need
                not be told of anything, and whether there are jobs that may run now is known.
        """
        ...

    async def leave(self, owner: QueueManagerId) -> None:
        """The run of *owner* is over: it waits for nothing any more."""
        ...

    def whole(self, ids: Sequence[JobId]) -> tuple[list[JobId], list[JobId]]:
        """Split successful jobs: those that had better be ended now, and those to be ended with
        others of the same claim, if these do not take long.
        """
        ...
