"""pgqueuer and pgq_fast side by side: one script, one server, the same public API and settings.

    python bench/compare.py                       everything, in twenty minutes or so
    python bench/compare.py --quick               a first impression in about one
    python bench/compare.py --only drain --repeat 5 --json figures.json
    python bench/compare.py --only drain --compare figures.json    beside that earlier run

Each measurement runs in a process of its own, on uvloop, in a new database with a freshly
installed schema. The queue tables are ANALYZEd once they are filled, for both libraries, and a
CHECKPOINT precedes each measurement. The libraries take turns, and the whole turn is repeated.
Every job is checked to have run exactly once and to be in the log as successful; enqueued ones
that are not run, to be in the queue.

Without --dsn an embedded PostgreSQL is used, at its own defaults: fsync and synchronous_commit
are on. The role of --dsn must be able to create databases and to CHECKPOINT; what is there already
is not touched.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from facts import gather, print_facts
from figures import Runs, Spread, Verdict, best, judge, spread
from measure import PAYLOAD_BYTES, Figures, Trial
from options import add_common, settle
from recording import Recording
from scenarios import GROUPS, Scenario, Side
from servers import BenchError, postgres
from trials import run_trial

REPEAT: Final = 3
QUICK_REPEAT: Final = 1
QUICK_SCALE: Final = 0.2
# Jobs of a trial at least, whatever the scale: a median of waits needs some.
FEWEST: Final = 10

# How each figure is headed and printed.
FIGURES: Final = {
    "rate": ("jobs/s", ",.0f"),
    "cpu": ("client CPU us/job", ".2f"),
    "all_cpu": ("CPU with server us/job", ".2f"),
    "wal": ("WAL bytes/job", ",.0f"),
    "log": ("log bytes/job", ",.0f"),
    "last": ("last/first tenth", ".2f"),
    "deadlocks": ("deadlocks", ",.0f"),
    "multixacts": ("MultiXacts/job", ".4f"),
    "p50": ("p50 ms", ".2f"),
    "p99": ("p99 ms", ".2f"),
}


# ------------------------------------------------------------------------------ measuring


def run_group(scenarios: Sequence[Scenario], repeat: int, dsn: str) -> Runs:
    """All trials of a group in turn, and that *repeat* times; a trial that is shared runs once."""
    trials = list(dict.fromkeys(trial for scenario in scenarios for trial in scenario.trials()))
    runs: dict[Trial, list[Figures]] = {trial: [] for trial in trials}
    for number in range(repeat):
        for trial in trials:
            began = time.monotonic()
            runs[trial].append(run_trial(trial, dsn))
            print(
                f"  {number + 1}/{repeat} {trial.package}, {trial.task}, {trial.handler}, "
                f"{trial.settings()}: {time.monotonic() - began:.1f} s",
                file=sys.stderr,
                flush=True,
            )
    return runs


def select(patterns: Sequence[str]) -> list[list[Scenario]]:
    """The groups, reduced to the scenarios that a pattern names."""

    def chosen(scenario: Scenario) -> bool:
        return not patterns or any(
            pattern in scenario.name or fnmatch.fnmatchcase(scenario.name, pattern)
            for pattern in patterns
        )

    groups = [[scenario for scenario in group if chosen(scenario)] for group in GROUPS]
    return [group for group in groups if group]


def scaled(scenario: Scenario, scale: float) -> Scenario:
    """The scenario with other numbers of jobs."""

    def resize(side: Side) -> Side:
        return [replace(trial, jobs=max(FEWEST, round(trial.jobs * scale))) for trial in side]

    return replace(scenario, sides={name: resize(side) for name, side in scenario.sides.items()})


# ------------------------------------------------------------------------------ reporting


def show(value: Spread, form: str) -> str:
    """Median, and lowest and highest where they differ."""
    median = format(value.median, form)
    if value.lowest == value.highest:
        return median
    return f"{median} ({format(value.lowest, form)} to {format(value.highest, form)})"


def target_name(verdict: Verdict) -> str:
    """What the target is about."""
    target = verdict.target
    unit = FIGURES[target.figure][0]
    return f"{target.of} / {target.over}, {unit}" if target.over else f"{target.of}, {unit}"


def target_line(verdict: Verdict) -> str:
    """The target, what was found, and whether that is enough."""
    # A ratio has two digits after the point; most are below 10.
    shown = show(verdict.value, ".2f")
    verdicts = {True: "met", False: "MISSED", None: ""}
    return (
        f"{target_name(verdict):42} {shown:26} {verdict.target.limit():8} {verdicts[verdict.met]}"
    ).rstrip()


def print_scenario(scenario: Scenario, runs: Runs, verdicts: Sequence[Verdict]) -> None:
    """The figures of each trial, and the targets."""
    print(f"\n{scenario.name}: {scenario.title}")
    first = next(iter(scenario.trials()))
    wanted = {"rate", "cpu", "wal", *(target.figure for target in scenario.targets)}
    figures = [figure for figure in FIGURES if figure in wanted and figure in runs[first][0]]
    print(line("", "", "", [FIGURES[figure][0] for figure in figures]))
    for name, side in scenario.sides.items():
        chosen = best(side, runs)
        for trial in side:
            mark = "*" if len(side) > 1 and trial == chosen else ""
            cells = [show(spread(runs[trial], figure), FIGURES[figure][1]) for figure in figures]
            print(line(mark, name, f"{trial.settings()}, {trial.jobs:,} jobs", cells))
    for verdict in verdicts:
        print(f"   {target_line(verdict)}")
    sys.stdout.flush()


def line(mark: str, side: str, settings: str, cells: Sequence[str]) -> str:
    """A row of a scenario's table."""
    return f" {mark:1} {side:11} {settings:50} {'  '.join(f'{cell:25}' for cell in cells)}".rstrip()


def as_json(scenario: Scenario, runs: Runs, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """A scenario for the file: every figure that was measured, and what was made of them."""
    return {
        "name": scenario.name,
        "title": scenario.title,
        "sides": {
            name: [
                {
                    "trial": asdict(trial),
                    "settings": trial.settings(),
                    "best": trial == best(side, runs),
                    "runs": runs[trial],
                }
                for trial in side
            ]
            for name, side in scenario.sides.items()
        },
        "targets": [
            {
                "title": target_name(verdict),
                "limit": verdict.target.limit(),
                "met": verdict.met,
                **asdict(verdict.target),
                **asdict(verdict.value),
            }
            for verdict in verdicts
        ],
    }


def compare(
    options: argparse.Namespace, groups: list[list[Scenario]], dsn: str, recording: Recording
) -> dict[str, Any]:
    """Measure and print everything; the same as data."""
    facts = gather(dsn)
    print_facts(facts)
    print(
        f"{PAYLOAD_BYTES} bytes of payload; {options.repeat} repeats in turn; medians (lowest to "
        "highest); ratios of medians (lowest to highest ratio of a repeat)\n"
        "new database for each measurement; tables ANALYZEd once filled, for both libraries; "
        "CHECKPOINT before; * is the best of a side, which counts"
    )
    results, summary = [], []
    for group in groups:
        group = [scaled(scenario, options.scale) for scenario in group]
        runs = run_group(group, options.repeat, dsn)
        for scenario in group:
            verdicts = judge(scenario, runs)
            print_scenario(scenario, runs, verdicts)
            results.append(as_json(scenario, runs, verdicts))
            summary += [(scenario.name, verdict) for verdict in verdicts]
    print(f"\n{'scenario':15} {'':42} {'found':26} {'target':8}")
    for name, verdict in summary:
        print(f"{name:15} {target_line(verdict)}")
    print(
        f"\n{recording.seconds:.0f} s; every job was found where it should be: run once and "
        "logged, or queued"
    )
    return recording.document(facts, scenarios=results)


# ------------------------------------------------------------------------------ the command


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common(parser, REPEAT)
    parser.add_argument(
        "--only",
        metavar="PATTERN",
        action="append",
        default=[],
        help="scenarios whose name has this part or matches it; may be repeated",
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios and do no more")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"--repeat {QUICK_REPEAT} --scale {QUICK_SCALE}, where they are not given",
    )
    return settle(parser.parse_args(arguments), REPEAT, QUICK_REPEAT, QUICK_SCALE)


def main() -> int:
    """Run; 1 for an error that is explained, 130 for Ctrl-C. A missed target is no error."""
    options = parse()
    groups = select(options.only)
    if options.list or not groups:
        for scenario in (scenario for group in GROUPS for scenario in group):
            print(f"{scenario.name:15} {scenario.title}")
        return 0 if options.list else 2
    try:
        recording = Recording("compare", options)
        with postgres(options.dsn) as dsn:
            found = compare(options, groups, dsn, recording)
    except BenchError as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    recording.keep(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
