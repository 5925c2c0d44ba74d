"""What a worker tells whoever measures it. Without an observer nothing is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

from pgq_fast.models import Job
from pgq_fast.types import QueueEntrypoint

__all__ = ["RunOutcome", "WorkerObserver"]

RunOutcome: TypeAlias = Literal["successful", "exception", "retried", "canceled", "released"]
"""How a run of a job ended. ``released``: the worker had to stop and gave the job back."""


class WorkerObserver(Protocol):
    """Set as ``QueueManager.observer`` before ``run``, it is told what the worker does.

    It is called from the worker's event loop, once for a batch and never for a single job, so that
    a call must be quick and must not wait. All times are seconds. An observer that raises is
    reported to the log, and not called again in that run.
    """

    def claimed(self, jobs: Sequence[Job], seconds: float) -> None:
        """A claim brought *jobs*, perhaps none, *seconds* after it was sent.

        ``job.updated`` is when it was claimed and ``job.execute_after`` when it became due, both by
        the server's clock.
        """
        ...

    def ran(
        self, entrypoint: QueueEntrypoint, outcome: RunOutcome, seconds: Sequence[float]
    ) -> None:
        """Runs of jobs of *entrypoint* ended with *outcome*, and took *seconds* each.

        The time is that of the handler, with what its executor puts around it.
        """
        ...

    def acknowledged(self, jobs: int, seconds: float) -> None:
        """The server has taken the outcomes of *jobs* jobs, by a statement that took *seconds*.

        Where that is the next claim's own statement, its time is reported as both.
        """
        ...
