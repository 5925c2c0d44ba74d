"""What a queue is doing just now, for who watches it: depth, rates, workers, wake-ups.

Nothing here costs more on a longer queue. Counts stop at a bound and are estimates beyond it. Rates
are differences: how many ids were given out between two samples, and what the log says of the time
between them; of very many entries the latest are counted, and taken for all.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

from pgq_fast.choices import Layout
from pgq_fast.drivers.base import Driver, RowDriver
from pgq_fast.models import AnyEvent
from pgq_fast.settings import DBSettings
from pgq_fast.sql import layout_statement

__all__ = ["Activity", "Depth", "Entrypoint", "Monitor", "Number", "Worker"]

COUNTED: Final = 10_000
"""Jobs of a kind that are counted one by one."""

HEADS: Final = 500
"""Pairs of entrypoint and priority that are looked at."""

LOGGED: Final = 20_000
"""Entries of the log that are read for one sample."""

LAG: Final = timedelta(seconds=1)
"""Entries of the log are stamped with the beginning of their transaction: what is older than this
will have been committed."""

SETUP: Final = """
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;
-- A plan that suits an empty table must not read all of a full one.
SET LOCAL enable_seqscan = off;
SET LOCAL enable_sort = off;
SET LOCAL statement_timeout = '5s'
"""
"""How the transaction of a sample begins."""

_ENDS: Final = frozenset({"successful", "exception", "canceled", "deleted", "failed"})


@dataclasses.dataclass(frozen=True, slots=True)
class Number:
    """A count.

    Attributes:
        count: As far as it was counted.
        exact: Whether that is all; else there are more.
    """

    count: int
    exact: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Depth:
    """Jobs in the queue.

    Attributes:
        waiting: Queued and due.
        deferred: Queued to run later.
        running: Held by workers.
        estimated: All of them by PostgreSQL's statistics, where not all could be counted.
    """

    waiting: Number
    deferred: Number
    running: Number
    estimated: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Entrypoint:
    """One entrypoint.

    Attributes:
        name: The entrypoint.
        oldest_seconds: Age of the oldest waiting job of those with the lowest id of each priority;
            None: nothing waits.
        ended: Jobs a second that reached an end, by status.
    """

    name: str
    oldest_seconds: float | None
    ended: Mapping[str, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Worker:
    """A worker that holds jobs.

    Attributes:
        id: Its ``queue_manager_id``.
        jobs: How many it holds.
        leases: In how many leases; None on the compat layout.
        silent_seconds: Age of its oldest heartbeat.
    """

    id: UUID
    jobs: int
    leases: int | None
    silent_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Activity:
    """The time between two samples.

    Attributes:
        at: The server's clock.
        seconds: Length of that time.
        layout: The queue's.
        depth: At its end.
        enqueued: Ids given out a second: jobs, and a few that were rolled back or left out; None
            where the role may not read the sequence.
        ended: Jobs a second that reached an end, by status. Of a time that ended a second before.
        estimated: Whether there was too much in the log to read all of it.
        entrypoints: Those that have something waiting or ended, by name.
        workers: Those that hold jobs, the one with most first.
        sleeping_workers: Workers that wait to be told of jobs; None on the compat layout.
        notifications: Notifications a second, by kind; None where nobody listens.
    """

    at: datetime
    seconds: float
    layout: Layout
    depth: Depth
    enqueued: float | None
    ended: Mapping[str, float]
    estimated: bool
    entrypoints: tuple[Entrypoint, ...]
    workers: tuple[Worker, ...]
    sleeping_workers: int | None
    notifications: Mapping[str, float] | None

    @property
    def oldest_seconds(self) -> float | None:
        """Age of the oldest waiting job."""
        ages = [each.oldest_seconds for each in self.entrypoints if each.oldest_seconds is not None]
        return max(ages, default=None)


class _Fetches(Protocol):
    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]: ...


@dataclasses.dataclass(frozen=True, slots=True)
class _Before:
    at: datetime
    last_id: int | None
    heard: Counter[str]


class Monitor:
    """Takes samples of a queue over one connection.

    Args:
        driver: Where to ask. Each sample is a transaction.
        settings: Those of the queue.
    """

    def __init__(self, driver: Driver, settings: DBSettings) -> None:
        self._driver = driver
        self._settings = settings
        self._heard: Counter[str] | None = None
        self._before: _Before | None = None

    async def listen(self, driver: Driver) -> None:
        """Count the notifications that *driver* hears from now on."""
        heard: Counter[str] = Counter()
        self._heard = heard

        def hear(payload: str | bytes | bytearray) -> None:
            heard[_kind(payload)] += 1

        await driver.add_listener(self._settings.channel, hear)

    async def begin(self) -> None:
        """Take the first sample, which :meth:`sample` compares with."""
        async with self._reading() as reading:
            (row,) = await self._ask(reading, "activity_depth", 0)
            self._remember(row)

    async def sample(self) -> Activity:
        """What has happened since the sample before; at least a few hundredths of a second ago.

        Raises:
            LayoutMismatchError: The queue has another layout than the settings ask for.
        """
        before = self._before
        assert before is not None, "begin() comes first"
        async with self._reading() as reading:
            (row,) = await self._ask(reading, "activity_depth", COUNTED)
            at: Any = row["at"]
            logged = await self._ask(reading, "activity_ended", before.at - LAG, at - LAG, LOGGED)
            heads = await self._ask(reading, "activity_oldest", HEADS)
            workers = await self._ask(reading, "activity_workers", COUNTED)
        seconds = max((at - before.at).total_seconds(), 0.001)
        totals, estimated = _ended(logged, before.at - LAG, at - LAG)
        last_id, heard = row["last_id"], self._heard
        self._remember(row)
        return Activity(
            at=at,
            seconds=seconds,
            layout=self._settings.layout,
            depth=_depth(row),
            enqueued=_rate(last_id, before.last_id, seconds),
            ended=_by_status(totals, seconds),
            estimated=estimated,
            entrypoints=tuple(_entrypoints(totals, heads, seconds)),
            workers=tuple(_worker(worker) for worker in workers),
            sleeping_workers=_number_or_none(row["sleeping_workers"]),
            notifications=None
            if heard is None
            else {kind: count / seconds for kind, count in (heard - before.heard).items()},
        )

    def _remember(self, row: Mapping[str, Any]) -> None:
        self._before = _Before(
            row["at"], _number_or_none(row["last_id"]), Counter(self._heard or {})
        )

    async def _ask(self, reading: _Fetches, name: str, *args: object) -> list[dict[str, Any]]:
        return await reading.fetch(layout_statement(name, self._settings), *args)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[_Fetches]:
        """Statements of one transaction that only reads, prefers indexes and does not last."""
        if not isinstance(self._driver, RowDriver):
            yield self._driver
            return
        async with self._driver.transaction() as transaction:
            await transaction.execute(SETUP)
            yield transaction


def _kind(payload: str | bytes | bytearray) -> str:
    try:
        event = AnyEvent.model_validate_json(payload).root
    except ValueError:
        return "other"
    return event.operation if event.type == "table_changed_event" else event.type


def _depth(row: Mapping[str, Any]) -> Depth:
    waiting, deferred, running = (
        Number(int(row[name]), not row[f"{name}_is_capped"])
        for name in ("waiting", "deferred", "running")
    )
    all_counted = waiting.exact and deferred.exact
    return Depth(
        waiting, deferred, running, None if all_counted else int(row["estimated_rows"] or 0)
    )


def _rate(now: object, before: int | None, seconds: float) -> float | None:
    if not isinstance(now, int) or before is None:
        return None
    # Somebody may have set the sequence back.
    return max(0, now - before) / seconds


def _number_or_none(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _ended(
    rows: Iterable[Mapping[str, Any]], start: datetime, end: datetime
) -> tuple[dict[tuple[str, str], float], bool]:
    """Jobs that ended by entrypoint and status, and whether that is an estimate."""
    sources: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        sources[row["source"]].append(row)
    totals: defaultdict[tuple[str, str], float] = defaultdict(float)
    estimated = False
    for found in sources.values():
        factor = 1.0
        if sum(row["entries"] for row in found) >= LOGGED:
            estimated = True
            # They are the latest: what was before them is taken to be of the same kind.
            covered = (end - min(row["since"] for row in found)).total_seconds()
            whole = (end - start).total_seconds()
            factor = max(1.0, whole / covered) if covered > 0 else 1.0
        for row in found:
            if row["status"] in _ENDS:
                totals[row["entrypoint"], row["status"]] += row["jobs"] * factor
    return totals, estimated


def _by_status(totals: Mapping[tuple[str, str], float], seconds: float) -> dict[str, float]:
    rates: defaultdict[str, float] = defaultdict(float)
    for (_, status), jobs in totals.items():
        rates[status] += jobs / seconds
    return dict(sorted(rates.items()))


def _entrypoints(
    totals: Mapping[tuple[str, str], float], heads: Iterable[Mapping[str, Any]], seconds: float
) -> list[Entrypoint]:
    oldest = {row["entrypoint"]: float(row["age"]) for row in heads if row["is_due"]}
    return [
        Entrypoint(
            name,
            oldest.get(name),
            {
                status: jobs / seconds
                for (entrypoint, status), jobs in sorted(totals.items())
                if entrypoint == name
            },
        )
        for name in sorted(oldest.keys() | {entrypoint for entrypoint, _ in totals})
    ]


def _worker(row: Mapping[str, Any]) -> Worker:
    return Worker(row["worker"], int(row["jobs"]), row["leases"], float(row["silent"]))
