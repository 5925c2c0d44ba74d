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
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from facts import gather, print_facts
from measure import Figures, Trial
from options import add_common, settle
from recording import Recording, print_chart
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


def grow(
    options: argparse.Namespace, families: Sequence[str], dsn: str, recording: Recording
) -> dict[str, Any]:
    """Measure and print everything; the same as data."""
    facts = gather(dsn)
    print_facts(facts)
    extent = Extent(options.scale, options.quick, options.full)
    charts = []
    for family in families:
        sweeps = list(FAMILIES[family](extent))
        runs = Runs(dsn, FULL_TIMEOUT if options.full else TIMEOUT)
        runs.run(trials_of(sweeps), options.repeat)
        for sweep in sweeps:
            charts.append(chart(sweep, runs))
            print_chart(charts[-1])
    print(f"\n{recording.seconds:.0f} s; every job that was measured ran once and was logged")
    return recording.document(facts, charts=charts)


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
    add_common(parser, REPEAT)
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=FAMILIES, help="may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="list what can grow and do no more")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument(
        "--quick",
        action="store_true",
        help="fewer points; "
        f"--repeat {QUICK_REPEAT} --scale {QUICK_SCALE}, where they are not given",
    )
    extent.add_argument("--full", action="store_true", help="the largest points, too")
    return settle(parser.parse_args(arguments), REPEAT, QUICK_REPEAT, QUICK_SCALE)


def main() -> int:
    """Run; 1 for an error that is explained or something missing, 130 for Ctrl-C."""
    options = parse()
    if options.list:
        for name, family in FAMILIES.items():
            print(f"{name:16} {family.__doc__}")
        return 0
    try:
        recording = Recording("growth", options)
        with postgres(options.dsn) as dsn:
            found = grow(options, options.only or list(FAMILIES), dsn, recording)
    except BenchError as error:
        print(f"growth.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    recording.keep(found)
    return 1 if any(each["missing"] for each in found["charts"]) else 0


if __name__ == "__main__":
    sys.exit(main())
