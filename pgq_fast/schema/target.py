"""The tables, indexes and routines that this release wants to find in the database."""

from __future__ import annotations

from pgq_fast.choices import Layout
from pgq_fast.schema.compat_tables import compat_target
from pgq_fast.schema.lease_tables import lease_target
from pgq_fast.schema.objects import Retired, Target, bare
from pgq_fast.settings import DBSettings

__all__ = ["retired", "target"]


def target(settings: DBSettings) -> Target:
    """The objects of the layout that *settings* ask for, by the names that they give."""
    return lease_target(settings) if settings.layout is Layout.lease else compat_target(settings)


def retired(settings: DBSettings) -> Retired:
    """What earlier releases of pgqueuer may have left behind."""
    index = f"{bare(settings.queue_table)}_heartbeat_id_id1_idx"
    return Retired(
        index=index if settings.layout is Layout.compat else None,
        type=settings.legacy_statistics_status_type,
        table=settings.statistics_table,
        column="time_in_queue",
    )
