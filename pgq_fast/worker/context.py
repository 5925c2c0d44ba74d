"""The contexts of running jobs."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import TYPE_CHECKING

import anyio

from pgq_fast.models import Context, Job
from pgq_fast.types import JobId, QueueEntrypoint


class JobContext(Context):
    """A :class:`~pgq_fast.models.Context` whose cancel scope is made when somebody looks at it.

    Most handlers never do, and the scope would be the larger part of a job's start.
    """

    # Of the class until they change, which costs a start nothing.
    canceled = False
    """Whether somebody asked to cancel the job."""
    task: asyncio.Task[None] | None = None
    """Where the job waits, once its handler does."""
    entrypoint = QueueEntrypoint("")
    """Of the job, once its handler waits."""
    size = 0
    """Bytes of its payload, likewise."""
    _scope: anyio.CancelScope | None = None

    def __init__(self, resources: MutableMapping[str, object], last_beat: float) -> None:
        self.resources = resources
        self.last_beat = last_beat
        """When the server last heard of the job, on this process's monotonic clock."""

    if not TYPE_CHECKING:
        # To a type checker it is the field of the base class.
        @property
        def cancellation(self):
            """The job's cancel scope."""
            if self._scope is None:
                self._scope = anyio.CancelScope()
                if self.canceled:
                    self._scope.cancel()
            return self._scope

        @cancellation.setter
        def cancellation(self, scope):
            self._scope = scope

    def cancel(self) -> None:
        """Cancel the job; one that has not looked at its scope yet will find it cancelled."""
        self.canceled = True
        if self._scope is not None:
            self._scope.cancel()

    @property
    def cancel_called(self) -> bool:
        """Whether the job counts as canceled however its handler ends."""
        return self.canceled if self._scope is None else self._scope.cancel_called


class JobContexts(dict[JobId, JobContext]):
    """The contexts of the jobs that run here, by job.

    Most jobs are through before anybody could ask for their context, so it is made for those that
    wait, and for the one that is being started when somebody asks.

    Attributes:
        starting: The job whose handler has not waited yet; None between jobs.
        resources: For contexts made on demand, as is *since*.
        since: When the server last heard of the starting job.
    """

    starting: Job | None = None
    resources: MutableMapping[str, object] = {}  # noqa: RUF012 - replaced, never changed
    since: float = 0.0

    def __missing__(self, job_id: JobId) -> JobContext:
        """The context of the starting job.

        Raises:
            KeyError: *job_id* does not run here.
        """
        if self.starting is None or self.starting.id != job_id:
            raise KeyError(job_id)
        context = self[job_id] = JobContext(self.resources, self.since)
        return context
