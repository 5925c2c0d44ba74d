"""Vouching for a worker as a whole, or for a scheduler, from outside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pgq_fast.drivers.base import Int8Array
from pgq_fast.layouts.base import Statement
from pgq_fast.sql import layout_statement
from pgq_fast.types import QueueManagerId, ScheduleId

if TYPE_CHECKING:
    from pgq_fast.settings import DBSettings


def renewal(settings: DBSettings, owner: QueueManagerId) -> Statement:
    """The heartbeat of all that *owner* holds, jobs that wait here to be started included.

    It needs to know nothing of them, so it can be sent by who must not ask the worker.
    """
    return Statement(layout_statement("renew", settings), (owner,))


def schedule_renewal(settings: DBSettings, ids: Iterable[ScheduleId]) -> Statement:
    """The heartbeat of the schedules *ids*, which somebody runs."""
    query = layout_statement("update_schedule_heartbeat", settings)
    return Statement(query, (Int8Array(ids),))
