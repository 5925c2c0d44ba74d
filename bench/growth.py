"""How cost grows: one thing grows, all else stays as it is by default.

    python bench/growth.py                        all, in twelve minutes or so
    python bench/growth.py --quick                fewer points and jobs, in about three
    python bench/growth.py --full                 the largest points, too: a queue of 10 million
    python bench/growth.py --only backlog --repeat 5 --json figures.json

Each measurement runs as those of ``compare.py`` do: in a process and a database of its own, the
libraries in turn, every job checked to have run exactly once. What fails is listed as missing with
its reason, and makes the command end with 1. ``bench/plots.py`` draws what ``--json`` keeps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import earlier
from command import today, typed
from facts import gather, print_facts
from measure import Figures, Trial
from options import positive_float, positive_int
from servers import BenchError, postgres
from sweeps import FAMILIES, Extent, Point, Sweep
from trials import TrialFailed, named, run_trial

REPEAT: Final = 2
QUICK_REPEAT: Final = 1
QUICK_SCALE: Final = 0.3
# Seconds of a trial. With --full, ten million jobs are enqueued first.
TIMEOUT: Final = 300
FULL_TIMEOUT: Final = 3600


class Runs:
    """What has been measured, and what could not be."""

    def __init__(self, dsn: str, timeout: float) -> None:
        self._dsn = dsn
        self._timeout = timeout
        self.figures: dict[Trial, list[Figures]] = {}
        self.reasons: dict[Trial, str] = {}

    def run(self, trials: Iterable[Trial], repeat: int) -> None:
        """All of the trials in turn, and that *repeat* times; what fails is not tried again."""
        trials = list(dict.fromkeys(trials))
        for number in range(repeat):
            for trial in trials:
                if trial in self.reasons:
                    continue
                began = time.monotonic()
                try:
                    figures = run_trial(trial, self._dsn, self._timeout)
                except TrialFailed as error:
                    self.reasons[trial] = str(error)
                    print(f"WARNING: {error}", file=sys.stderr, flush=True)
                    continue
                self.figures.setdefault(trial, []).append(figures)
                print(
                    f"  {number + 1}/{repeat} {named(trial)}, {trial.jobs:,} jobs: "
                    f"{time.monotonic() - began:.1f} s",
                    file=sys.stderr,
                    flush=True,
                )

    def values(self, point: Point) -> list[float]:
        """A figure over the repeats; empty if it could not be measured."""
        if point.trial in self.reasons:
            return []
        return [figures[point.figure] for figures in self.figures[point.trial]]


def chart(sweep: Sweep, runs: Runs) -> dict[str, Any]:
    """A chart for the file."""
    missing = [
        {"label": f"{label}, {point.x:,.12g} {sweep.x}", "reason": runs.reasons[point.trial]}
        for label, points in sweep.lines.items()
        for point in points
        if point.trial in runs.reasons
    ]
    return {
        "name": sweep.name,
        "title": sweep.title,
        "x": sweep.x,
        "y": sweep.y,
        "log_x": sweep.log_x,
        "log_y": sweep.log_y,
        "categories": False,
        "series": [
            {
                "label": label,
                "points": [
                    {
                        "x": point.x,
                        "settings": f"{point.trial.settings()}, {point.trial.jobs:,} jobs",
                        "runs": values,
                    }
                    for point in points
                    if (values := runs.values(point))
                ],
            }
            for label, points in sweep.lines.items()
        ],
        "missing": missing,
    }


def print_chart(found: Mapping[str, Any]) -> None:
    """The same for a reader."""
    print(f"\n{found['name']}: {found['title']}")
    for series in found["series"]:
        for point in series["points"]:
            runs = point["runs"]
            spread = f"({min(runs):,.0f} to {max(runs):,.0f})" if len(runs) > 1 else ""
            print(
                f"   {series['label']:32} {point['x']:>12,.12g} {found['x']:28} "
                f"{statistics.median(runs):14,.0f} {found['y']} {spread}".rstrip()
            )
    for missing in found["missing"]:
        print(f"   MISSING: {missing['label']}: {missing['reason']}")
    sys.stdout.flush()


def grow(options: argparse.Namespace, families: Sequence[str], dsn: str) -> dict[str, Any]:
    """Measure and print everything; the same as data."""
    date, facts = today(), gather(dsn)
    print_facts(facts)
    extent = Extent(options.scale, options.quick, options.full)
    began = time.monotonic()
    charts = []
    for family in families:
        sweeps = list(FAMILIES[family](extent))
        runs = Runs(dsn, FULL_TIMEOUT if options.full else TIMEOUT)
        runs.run(trials_of(sweeps), options.repeat)
        for sweep in sweeps:
            charts.append(chart(sweep, runs))
            print_chart(charts[-1])
    seconds = time.monotonic() - began
    print(f"\n{seconds:.0f} s; every job that was measured ran once and was logged")
    return {
        "kind": "growth",
        "command": typed(),
        "date": date,
        **facts,
        "repeat": options.repeat,
        "scale": options.scale,
        "seconds": round(seconds, 1),
        "charts": charts,
    }


def trials_of(sweeps: Iterable[Sweep]) -> list[Trial]:
    """Those of all lines, in turn: what is compared lies close together in time."""
    lines = [points for sweep in sweeps for points in sweep.lines.values()]
    longest = max(map(len, lines))
    return [
        points[number].trial
        for number in range(longest)
        for points in lines
        if number < len(points)
    ]


# ------------------------------------------------------------------------------ the command


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dsn", help="a server of yours instead of an embedded one")
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=FAMILIES, help="may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="list what can grow and do no more")
    parser.add_argument("--repeat", type=positive_int, help=f"default: {REPEAT}")
    parser.add_argument("--scale", type=positive_float, help="multiplies the numbers of jobs")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument(
        "--quick",
        action="store_true",
        help="fewer points; "
        f"--repeat {QUICK_REPEAT} --scale {QUICK_SCALE}, where they are not given",
    )
    extent.add_argument("--full", action="store_true", help="the largest points, too")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything here as well")
    parser.add_argument(
        "--compare",
        metavar="EARLIER.json",
        type=Path,
        help="print the ratio of each figure to that of an earlier run, which --json kept",
    )
    options = parser.parse_args(arguments)
    if options.repeat is None:
        options.repeat = QUICK_REPEAT if options.quick else REPEAT
    if options.scale is None:
        options.scale = QUICK_SCALE if options.quick else 1.0
    return options


def main() -> int:
    """Run; 1 for an error that is explained or something missing, 130 for Ctrl-C."""
    options = parse()
    if options.list:
        for name, family in FAMILIES.items():
            print(f"{name:16} {family.__doc__}")
        return 0
    try:
        # Before the time is spent that it cannot be set beside.
        before = earlier.read(options.compare) if options.compare else None
        with postgres(options.dsn) as dsn:
            found = grow(options, options.only or list(FAMILIES), dsn)
    except BenchError as error:
        print(f"growth.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if before is not None:
        earlier.print_beside(found, before, options.compare.name)
    return 1 if any(each["missing"] for each in found["charts"]) else 0


if __name__ == "__main__":
    sys.exit(main())
