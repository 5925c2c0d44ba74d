"""The schedules table's counterpart."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from pgq_fast.models import CronExpressionEntrypoint, Schedule
from pgq_fast.types import ScheduleId

ABANDONED_AFTER: Final = timedelta(seconds=30)
"""Silence after which another scheduler may take over a picked schedule."""


class ScheduleStore:
    """All schedules. What is handed out are copies."""

    def __init__(self) -> None:
        self._rows: dict[CronExpressionEntrypoint, Schedule] = {}
        self._last_id = 0

    def __len__(self) -> int:
        """Number of schedules."""
        return len(self._rows)

    def insert(
        self, schedules: Mapping[CronExpressionEntrypoint, timedelta], now: datetime
    ) -> None:
        """Register what is not known yet; each value is the time until the first run."""
        for key, delay in schedules.items():
            if key in self._rows:
                continue
            self._last_id += 1
            self._rows[key] = Schedule(
                id=ScheduleId(self._last_id),
                expression=key.expression,
                entrypoint=key.entrypoint,
                heartbeat=now,
                created=now,
                updated=now,
                next_run=_whole_second(now + delay),
                status="queued",
            )

    def claim(
        self, schedules: Mapping[CronExpressionEntrypoint, timedelta], now: datetime
    ) -> list[Schedule]:
        """Pick due and abandoned schedules; each value is the time until the run after this."""
        claimed: list[Schedule] = []
        for key, delay in schedules.items():
            row = self._rows.get(key)
            if row is None:
                continue
            due = row.status == "queued" and row.next_run <= now
            abandoned = row.status == "picked" and now - row.heartbeat > ABANDONED_AFTER
            if due or abandoned:
                row.status = "picked"
                row.heartbeat = row.updated = now
                row.next_run = _whole_second(now + delay)
                claimed.append(row.model_copy())
        return claimed

    def _with_ids(self, ids: Collection[ScheduleId]) -> Iterable[Schedule]:
        return (row for row in self._rows.values() if row.id in ids)

    def finish(self, ids: Collection[ScheduleId], now: datetime) -> None:
        """Make schedules queued again after a run."""
        for row in self._with_ids(ids):
            row.status = "queued"
            row.last_run = row.updated = now

    def beat(self, ids: Collection[ScheduleId], now: datetime) -> None:
        """Note that the runs are still going on."""
        for row in self._with_ids(ids):
            row.heartbeat = row.updated = now

    def listing(self) -> list[Schedule]:
        """All schedules, the longest idle first; those that never ran come last."""
        ran = [row.model_copy() for row in self._rows.values() if row.last_run is not None]
        rest = [row.model_copy() for row in self._rows.values() if row.last_run is None]
        return sorted(ran, key=lambda row: row.last_run or row.created) + rest

    def delete(self, ids: Collection[ScheduleId], entrypoints: Collection[str]) -> None:
        """Forget the schedules with one of *ids* or one of *entrypoints*."""
        for key, row in list(self._rows.items()):
            if row.id in ids or row.entrypoint in entrypoints:
                del self._rows[key]

    def truncate(self) -> None:
        """Forget all schedules."""
        self._rows.clear()


def _whole_second(time: datetime) -> datetime:
    return time.replace(microsecond=0)
