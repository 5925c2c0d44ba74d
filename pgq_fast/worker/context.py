"""The context of a running job."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING

import anyio

from pgq_fast.models import Context


class JobContext(Context):
    """A :class:`~pgq_fast.models.Context` whose cancel scope is made when somebody looks at it.

    Most handlers never do, and the scope would be the larger part of a job's start.
    """

    def __init__(self, resources: MutableMapping[str, object], last_beat: float) -> None:
        self.resources = resources
        self.last_beat = last_beat
        """When the server last heard of the job, on this process's monotonic clock."""
        self.canceled = False
        """Whether somebody asked to cancel the job, or a handler cancelled its own scope."""

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name != "cancellation":
                raise AttributeError(name)
            scope = anyio.CancelScope()
            if self.canceled:
                scope.cancel()
            self.cancellation = scope
            return scope

    def cancel(self) -> None:
        """Cancel the job; one that has not looked at its scope yet will find it cancelled."""
        self.canceled = True
        scope = self.__dict__.get("cancellation")
        if scope is not None:
            scope.cancel()

    @property
    def cancel_called(self) -> bool:
        """Whether the job counts as canceled however its handler ends."""
        scope = self.__dict__.get("cancellation")
        return self.canceled if scope is None else scope.cancel_called
