"""What the pages show, computed from bounded reads."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from markupsafe import Markup

from pgq_fast.cached import Cached
from pgq_fast.web.charts import Bar, Line, bars, lines, sparkline
from pgq_fast.web.reads import PLACES, Count, Ended, Overview, Place, Reads

__all__ = ["WINDOWS", "Views", "percentile"]

WINDOWS: Final = {
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "24h": timedelta(hours=24),
}

SLOTS: Final = 60
"""Bars of a chart."""

SAMPLED_SLOTS: Final = 30
"""Points of a line of percentiles."""

FRESH: Final = timedelta(seconds=1)
"""How long all viewers share what one of them had read; longer if that took long."""

KEPT: Final = 1_440
"""Numbers of jobs that are kept for the chart: four hours at one in ten seconds."""

SAMPLE_INTERVAL: Final = 5.0
"""Seconds between two of these at least."""

_OUTCOMES: Final = {
    "successful": "successful",
    "exception": "failed",
    "failed": "failed",
    "canceled": "canceled",
    "deleted": "canceled",
}
_KINDS: Final = ("successful", "failed", "canceled")


class Sample(NamedTuple):
    """How many jobs there were at a moment."""

    at: datetime
    jobs: dict[Place, int]


def percentile(runs: Sequence[tuple[float, int]], fraction: float) -> float | None:
    """The time within which *fraction* of the jobs ran; each of *runs* is seconds and jobs."""
    total = sum(jobs for _, jobs in runs)
    wanted, reached = fraction * total, 0
    for seconds, jobs in sorted(runs):
        reached += jobs
        if reached >= wanted:
            return seconds
    return None


class Views:
    """Contexts of the pages. One for each dashboard: it remembers numbers for its charts."""

    def __init__(self) -> None:
        self._shared: dict[tuple[object, ...], Cached[Any]] = {}
        self._history: deque[Sample] = deque(maxlen=KEPT)

    async def _fresh(
        self, key: tuple[object, ...], reads: Reads, make: Callable[[], Awaitable[Any]]
    ) -> Any:
        """What *make* returns, or returned a moment ago for somebody else."""
        # The queue stays the one with this id as long as the entry, which refers to it.
        key = (id(reads.queries), *key)
        if key not in self._shared:
            self._shared[key] = Cached(make, FRESH)
        return await self._shared[key].get()

    async def numbers(self, reads: Reads) -> Overview:
        """The queue in numbers, which the chart of jobs remembers."""
        overview: Overview = await self._fresh(("numbers",), reads, reads.overview)
        now = datetime.now(UTC)
        last = self._history[-1].at if self._history else None
        if last is None or (now - last).total_seconds() >= SAMPLE_INTERVAL:
            jobs = {place: overview.counts[place].value for place in PLACES}
            if overview.about_queued is not None:
                jobs["queued"] = overview.about_queued
            self._history.append(Sample(now, jobs))
        return overview

    async def overview(self, reads: Reads, window: str) -> dict[str, object]:
        """The first page."""
        numbers = await self.numbers(reads)
        span = WINDOWS[window]
        ended: Ended = await self._fresh(
            ("ended", window), reads, lambda: reads.ended(span, _slot(span))
        )
        runs: list[dict[str, Any]] = await self._fresh(
            ("durations", window), reads, lambda: reads.durations(span, SAMPLED_SLOTS)
        )
        now = datetime.now(UTC)
        totals: Counter[str] = Counter()
        for row in ended.rows:
            totals[_OUTCOMES[row["status"]]] += row["count"]
        whole = [(row["seconds"], row["jobs"]) for row in runs]
        return {
            "numbers": numbers,
            "window": window,
            "windows": list(WINDOWS),
            "throughput": _throughput(ended, span, now),
            "totals": {kind: totals[kind] for kind in _KINDS},
            "rate": sum(totals.values()) / span.total_seconds(),
            "ended": ended,
            "latency": _latency(runs, span, now),
            "percentiles": {name: percentile(whole, part) for name, part in _PERCENTILES},
            "sampled": sum(jobs for _, jobs in whole),
            "depth": self._depth(span, now),
            "since": self._history[0].at if self._history else None,
        }

    def _depth(self, span: timedelta, now: datetime) -> Markup:
        samples = [sample for sample in self._history if sample.at >= now - span]
        begin = samples[0].at if samples else now - span
        return lines(
            [
                Line(name, kind, [(sample.at, float(sample.jobs[place])) for sample in samples])
                for name, kind, place in _DEPTH
            ],
            begin,
            max(now, begin + timedelta(seconds=1)),
            "Jobs in the queue over time",
        )

    async def entrypoints(self, reads: Reads, window: str) -> dict[str, object]:
        """Entrypoints at a glance."""
        span = WINDOWS[window]
        slot = max(int(span.total_seconds()) // SAMPLED_SLOTS, 1)
        queued, running = await self._fresh(("entrypoints",), reads, reads.entrypoints)
        ended: Ended = await self._fresh(
            ("ended by entrypoint", window),
            reads,
            lambda: reads.ended(span, slot, by_entrypoint=True),
        )
        runs: list[dict[str, Any]] = await self._fresh(
            ("durations", window), reads, lambda: reads.durations(span, SAMPLED_SLOTS)
        )
        lined = {row["entrypoint"]: row for row in queued}
        outcomes: dict[str, Counter[str]] = {}
        parts: dict[str, list[int]] = {}
        first = int(time.time()) // slot - SAMPLED_SLOTS + 1
        for row in ended.rows:
            name = row["entrypoint"]
            outcomes.setdefault(name, Counter())[_OUTCOMES[row["status"]]] += row["count"]
            if 0 <= row["slot"] - first < SAMPLED_SLOTS:
                parts.setdefault(name, [0] * SAMPLED_SLOTS)[row["slot"] - first] += row["count"]
        timed: dict[str, list[tuple[float, int]]] = {}
        for row in runs:
            timed.setdefault(row["entrypoint"], []).append((row["seconds"], row["jobs"]))
        rows = []
        for name in sorted({*lined, *running, *outcomes}):
            line = lined.get(name)
            ends = outcomes.get(name, Counter())
            total = sum(ends.values())
            rows.append(
                {
                    "entrypoint": name,
                    "queued": Count.upto(1000, 0 if line is None else line["queued"]),
                    "deferred": Count.upto(1000, 0 if line is None else line["deferred"]),
                    "picked": running.get(name, 0),
                    "waited": None if line is None else line["waited"],
                    "ended": total,
                    "failure_rate": ends["failed"] / total if total else None,
                    "spark": sparkline(
                        parts.get(name, [0] * SAMPLED_SLOTS), f"{total:,} jobs of {name} ended"
                    ),
                    **{key: percentile(timed.get(name, []), part) for key, part in _PERCENTILES},
                }
            )
        return {
            "rows": rows,
            "window": window,
            "windows": list(WINDOWS),
            "ended": ended,
            "names_cut": len(queued) >= 200,
        }


_PERCENTILES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
_DEPTH: Final[tuple[tuple[str, str, Place], ...]] = (
    ("queued", "queued", "queued"),
    ("deferred", "deferred", "deferred"),
    ("running", "picked", "picked"),
    ("held", "failed", "failed"),
)


def _slot(span: timedelta) -> int:
    return max(int(span.total_seconds()) // SLOTS, 1)


def _throughput(ended: Ended, span: timedelta, now: datetime) -> Markup:
    slot = _slot(span)
    last = int(now.timestamp()) // slot
    counted: dict[int, Counter[str]] = {}
    for row in ended.rows:
        counted.setdefault(row["slot"], Counter())[_OUTCOMES[row["status"]]] += row["count"]
    stacks = [
        Bar(
            datetime.fromtimestamp(number * slot, UTC),
            [(kind, counted.get(number, Counter())[kind]) for kind in _KINDS],
        )
        for number in range(last - SLOTS + 1, last + 1)
    ]
    return bars(stacks, datetime.fromtimestamp((last + 1) * slot, UTC), "Jobs that ended over time")


def _latency(runs: Sequence[dict[str, Any]], span: timedelta, now: datetime) -> Markup:
    slots: dict[int, list[tuple[float, int]]] = {}
    for row in runs:
        slots.setdefault(row["n"], []).append((row["seconds"], row["jobs"]))
    begin = now - span
    return lines(
        [
            Line(
                name,
                name,
                [
                    (
                        begin + span * ((number + 0.5) / SAMPLED_SLOTS),
                        percentile(slots.get(number, []), part),
                    )
                    for number in range(SAMPLED_SLOTS)
                ],
            )
            for name, part in _PERCENTILES
        ],
        begin,
        now,
        "Run times of jobs over time: percentiles",
        seconds=True,
    )


@dataclasses.dataclass
class Sampler:
    """Has the numbers looked at now and then, so that the chart has them before anybody comes.

    Attributes:
        views: Remembers them.
        reads: Where they come from.
        interval: Seconds between two looks.
    """

    views: Views
    reads: Reads
    interval: float = 10.0

    async def run(self, failed: Callable[[Exception], None]) -> None:
        """Until it is cancelled; what goes wrong is *failed* and tried again."""
        while True:
            try:
                await self.views.numbers(self.reads)
            except Exception as error:
                failed(error)
            await asyncio.sleep(self.interval)
