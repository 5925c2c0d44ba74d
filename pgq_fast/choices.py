"""What the settings let one choose, without the settings, which take long to import."""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["POLL_INTERVAL", "JobLog", "Layout", "SynchronousCommit"]


class Layout(Enum):
    """The tables that a queue is kept in."""

    compat = "compat"
    """Those of pgqueuer 1.6.0: its producers and workers can share the queue."""

    lease = "lease"
    """Built for volume: a batch is a row while it runs, and nothing is written a job but its insert
    and its delete."""


class JobLog(Enum):
    """What the log of the lease layout keeps of jobs that have ended.

    Of what it does not keep, ``job_status`` and a ``CompletionWatcher`` cannot tell how it ended.
    """

    all = "all"
    """Every job."""

    failures = "failures"
    """What went wrong: exceptions, held jobs, retries, cancellations."""

    none = "none"
    """Nothing. The statistics count every job all the same."""


class SynchronousCommit(Enum):
    """Which commits of the lease layout wait until they are on disk.

    One that does not wait may be lost when the server crashes, and then only makes jobs run again.
    """

    all = "all"
    """Every commit."""

    acks = "acks"
    """Those of enqueues and of acknowledgements, not those of mere claims and heartbeats."""

    enqueues = "enqueues"
    """Those of enqueues."""


POLL_INTERVAL: Final = 1.0
"""Seconds between two looks at the queue where nothing listens for notifications. A look costs a
millisecond of the server's time, and a job waits for half of this on average."""
