"""Vouching for a worker as a whole, from outside it."""

from __future__ import annotations

from pgq_fast.layouts.base import Statement
from pgq_fast.settings import DBSettings
from pgq_fast.sql import layout_statement
from pgq_fast.types import QueueManagerId


def renewal(settings: DBSettings, owner: QueueManagerId) -> Statement:
    """The heartbeat of all that *owner* holds, jobs that wait here to be started included.

    It needs to know nothing of them, so it can be sent by who must not ask the worker.
    """
    return Statement(layout_statement("renew", settings), (owner,))
