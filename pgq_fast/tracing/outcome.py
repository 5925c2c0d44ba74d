"""How a traced run ended, in the words that all tracers use."""

from __future__ import annotations

import asyncio
from typing import Final, Literal, TypeAlias

from pgq_fast.errors import retry_request

ENDINGS: Final = (Exception, asyncio.CancelledError)
"""What a tracer's block may end with."""

Outcome: TypeAlias = Literal["successful", "retried", "canceled", "exception"]

OUTCOME: Final = "pgqueuer.job.outcome"
ATTEMPTS: Final = "pgqueuer.job.attempts"
"""Names of attributes of a span."""


def outcome_of(error: BaseException | None) -> Outcome:
    """What *error*, with which a run ended, makes of it.

    Only ``exception`` is an error: a retry is what the handler asked for.
    """
    if error is None:
        return "successful"
    if isinstance(error, asyncio.CancelledError):
        return "canceled"
    return "exception" if retry_request(error) is None else "retried"
