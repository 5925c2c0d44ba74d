"""``python -m faults.soak``: mixed load and churn for a while; what should stay flat does.

Two workers stay. Beside them others come and go, by SIGTERM or SIGKILL, and so does a producer.
There are samples of everything that could pile up, and those of the last third must not lie above
those of the first, the beginning left out. The account of the jobs is that of the faults.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import secrets
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from faults.crew import Member
from faults.runner import Grounds, facts, play
from faults.stage import DRIVERS, OWNED, Kind, Result, Stage
from pgq_fast.settings import Layout
from pgq_fast.signals import sigterm_as_exit

SAMPLES: Final = 120
"""Of each figure, in the whole time; at least two a second where that is short."""

WARM_UP: Final = 0.25
"""Part of the time that is left out: caches fill, memory is taken that is kept."""


@dataclasses.dataclass(frozen=True)
class Bound:
    """How much higher the last third may be than the first."""

    times: float
    plus: float

    def allows(self, before: float, after: float) -> bool:
        return after <= before * self.times + self.plus


BOUNDS: Final = {
    # The allocator keeps some of what it once got.
    "memory": Bound(1.05, 4 * 2**20),
    "objects": Bound(1.01, 500),
    "blocks": Bound(1.01, 2000),
    # Those that come and go are there or not when it is counted.
    "connections": Bound(1.0, 6),
    # Autovacuum comes by at intervals; between, as many die as jobs are done.
    "dead_rows": Bound(2.0, 2000),
    "latency": Bound(2.0, 0.05),
}
"""Bytes, numbers, and seconds from the answer to a producer to the start of its job."""

Series = list[tuple[float, float]]


def thirds(series: Series, begin: float, end: float) -> tuple[float, float]:
    """Medians of the first and of the last third, after the warm-up.

    Raises:
        ValueError: One of them has no samples.
    """
    begin += WARM_UP * (end - begin)
    third = (end - begin) / 3
    first = [value for at, value in series if begin <= at < begin + third]
    last = [value for at, value in series if end - third <= at <= end]
    if not first or not last:
        raise ValueError("there are no samples to compare")
    return statistics.median(first), statistics.median(last)


def check(
    series: Mapping[str, Series], begin: float, end: float, bounds: Mapping[str, Bound]
) -> tuple[dict[str, Any], list[str]]:
    """The figures of the two thirds, and what is not flat of what *bounds* names."""
    found, problems = {}, []
    for name, values in series.items():
        before, after = thirds(values, begin, end)
        found[name] = [round(before, 4), round(after, 4)]
        bound = bounds.get(name.partition(" ")[0])
        if bound is not None and not bound.allows(before, after):
            problems.append(f"{name} went from {before:g} to {after:g}")
    return found, problems


class Soak:
    """The load, the churn and the samples.

    Attributes:
        found: The figures, in the end.
    """

    def __init__(self, seconds: float, bounds: Mapping[str, Bound] = BOUNDS) -> None:
        self._seconds = seconds
        self._bounds = bounds
        self.interval = min(0.5, seconds / SAMPLES) if seconds < SAMPLES else seconds / SAMPLES
        self._series: dict[str, Series] = {"connections": [], "dead_rows": []}
        self.found: dict[str, Any] = {}

    def kind(self) -> Kind:
        """As what a round does."""
        return Kind(
            "soak",
            "Mixed load and churn.",
            self.run,
            blows=1,
            ends="nobody",
            worker={"count": self.interval},
        )

    async def run(self, stage: Stage) -> None:
        """The whole time."""
        kept = stage.crew.working
        begin = time.monotonic()
        churning = asyncio.create_task(self._churn(stage))
        try:
            while time.monotonic() < begin + self._seconds:
                await asyncio.sleep(self.interval)
                await asyncio.to_thread(self._sample, stage)
                if churning.done():
                    churning.result()
        finally:
            churning.cancel()
        end = time.monotonic()
        for member in kept:
            self._series |= holdings(member)
        self._series["latency"] = latencies(stage.crew.members)
        self.found, problems = check(self._series, begin, end, self._bounds)
        stage.problems += problems

    async def _churn(self, stage: Stage) -> None:
        pause = max(2.0, min(20.0, self._seconds / 10))
        while True:
            guest = stage.start_worker(driver=stage.random.choice(DRIVERS), count=None)
            producer = stage.crew.start("produce", seed=stage.random.random())
            await stage.moment(0.5 * pause, 1.5 * pause)
            if stage.random.random() < 0.5:
                guest.kill()
            else:
                guest.ask_to_end()
            # Before, it knows of no signals.
            await stage.until("a producer", producer.journal.exists)
            producer.ask_to_end()
            await stage.until(
                "the end of both",
                lambda: not (guest.alive or producer.alive),  # noqa: B023
            )

    def _sample(self, stage: Stage) -> None:
        with stage.connect() as connection:
            now = time.monotonic()
            row = connection.execute(
                "SELECT (SELECT count(*) FROM pg_stat_activity"
                "        WHERE datname = current_database() AND pid <> pg_backend_pid()),"
                " (SELECT sum(n_dead_tup) FROM pg_stat_user_tables)"
            ).fetchone()
        assert row is not None
        for name, value in zip(("connections", "dead_rows"), row, strict=True):
            self._series[name].append((now, float(value)))


def holdings(member: Member) -> dict[str, Series]:
    """What the worker noted that it holds."""
    names = [f"{kind} of worker {member.number}" for kind in ("memory", "objects", "blocks")]
    series: dict[str, Series] = {name: [] for name in names}
    for what, at, *facts_ in member.events():
        if what == "holds":
            for name, value in zip(names, facts_, strict=True):
                series[name].append((at, float(value)))
    return series


def latencies(members: Sequence[Member]) -> Series:
    """Seconds from the answer to a producer to the start of its job, by the time of the start."""
    got: dict[int, float] = {}
    begun: dict[int, float] = {}
    for member in members:
        for what, at, *facts_ in member.events():
            if what == "got":
                got.update(dict.fromkeys(facts_[1], at))
            elif what == "start" and facts_[0] not in begun:
                begun[facts_[0]] = at
    # A job may start before its producer has the answer.
    return [(at, max(0.0, at - got[job])) for job, at in begun.items() if job in got]


async def soak(
    grounds: Grounds,
    seconds: float,
    layout: Layout,
    driver: str,
    seed: str,
    bounds: Mapping[str, Bound] = BOUNDS,
) -> tuple[Result, dict[str, Any], Path]:
    """A soak; what became of the jobs, the figures, and the folder, as of a round."""
    soaking = Soak(seconds, bounds)
    result, folder = await play(grounds, soaking.kind(), layout, driver, seed, brief=True)
    return result, soaking.found, folder


def main() -> int:
    """Soak, print, write; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--layouts", nargs="+", default=[layout.value for layout in Layout])
    parser.add_argument("--driver", choices=OWNED, default=OWNED[0], help="of those that stay")
    parser.add_argument("--seed")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    options = parser.parse_args()
    seed = options.seed or secrets.token_hex(4)
    print(f"seed {seed}", flush=True)

    async def all_layouts() -> list[dict[str, Any]]:
        found = []
        with Grounds() as grounds:
            for layout in options.layouts:
                seconds = 60 * options.minutes / len(options.layouts)
                result, figures, folder = await soak(
                    grounds, seconds, Layout(layout), options.driver, seed
                )
                found.append({**result.as_json(), "seed": seed, "figures": figures})
                print(f"{layout}: {result.account.enqueued} jobs", flush=True)
                for name, (before, after) in figures.items():
                    print(f"    {name}: {before:g} to {after:g}")
                for problem in result.problems:
                    print(f"    PROBLEM: {problem}")
                if result.problems:
                    print(f"    journals and logs: {folder}", flush=True)
        return found

    with sigterm_as_exit():
        soaks = asyncio.run(all_layouts())
    if options.json is not None:
        report = {**facts(), "minutes": options.minutes, "soaks": soaks}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if any(one["problems"] for one in soaks) else 0


if __name__ == "__main__":
    sys.exit(main())
