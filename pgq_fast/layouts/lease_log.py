"""What the log of the lease layout keeps, as parameters of the statements that write it.

A statement that ends or moves jobs takes two parameters more: the mode that holds for most
entrypoints, and a JSON object with that of the others. The mode of an entrypoint is in SQL ::

    coalesce((SELECT $m::text::jsonb) ->> entrypoint, (SELECT $n::text))

with *n* and *m* the places of the two. It is one of ``all``, ``failures`` and ``none``:

========================  ===================  ========================  =======================
what                      ``all``              ``failures``              ``none``
========================  ===================  ========================  =======================
a batch of successes,     ``log_batches``      ``log_batches``, number   ``log_batches``, number
a rescue, a release       with ids             only                      only
whatever concerns a       ``log_entries``      ``log_entries``           ``log_batches``, number
single job                                                               only
========================  ===================  ========================  =======================

"Number only" is a row without ``first_id``, ``last_id`` and ``ids``: the statistics count it, and
then it is deleted.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pgq_fast.settings import DBSettings


class LogModes(NamedTuple):
    """The two parameters, in order."""

    default: str
    exceptions: str
    """A JSON object: entrypoint to mode."""


def log_modes(settings: DBSettings) -> LogModes:
    """The parameters for ``job_log`` and ``job_log_of`` of *settings*."""
    return LogModes(
        settings.job_log.value,
        json.dumps({name: mode.value for name, mode in settings.job_log_of.items()}),
    )
