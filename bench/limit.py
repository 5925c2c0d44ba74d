"""How much of the time is ours: workers and producers beside their own statements without them.

    python bench/limit.py --quick --json FILE

Each trial runs in a process and a database of its own, and does the same three times over: with its
statements noted; timed as it is; and timed while a bare loop sends the noted statements, with their
values, on one asyncpg connection. What the loop takes is PostgreSQL's share and the driver's, which
no code of ours can go below without other statements; the rest is ours. For single jobs pgbench
sends the same statement too, prepared, without any Python. See ``bare.py``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from facts import gather, print_facts
from measure import Figures, Trial
from options import add_common, settle
from recording import Recording, print_chart
from servers import BenchError, postgres
from trials import TrialFailed, run_trial

REPEAT: Final = 3
QUICK_REPEAT: Final = 1
QUICK_SCALE: Final = 0.2
# Jobs of a trial at least, whatever the scale.
FEWEST: Final = 20
# What is measured, by its name on the page; so many jobs that a pass takes a second or two.
TRIALS: Final[Mapping[str, Trial]] = {
    "drain, lease": Trial("drain", "pgq_fast", 400_000, layout="lease"),
    "drain, compat": Trial("drain", "pgq_fast", 80_000),
    "lists of 1,000, lease": Trial("lists", "pgq_fast", 400_000, layout="lease"),
    "lists of 1,000, compat": Trial("lists", "pgq_fast", 100_000),
    "single jobs, lease": Trial("singles", "pgq_fast", 4_000, layout="lease"),
    "single jobs, compat": Trial("singles", "pgq_fast", 4_000),
}
# How what is measured is called, and the beginning of the names of its figures.
SIDES: Final = {
    "pgq_fast": "",
    "its statements in a bare loop": "bare_",
    "its statements by pgbench": "pgbench_",
}


def share(figures: Figures) -> float:
    """The part of the time that is ours, in percent; less than nothing is noise, and nothing."""
    return 100 * max(0.0, 1 - figures["rate"] / figures["bare_rate"])


def by_side(runs: Sequence[Figures], figure: str, settings: str) -> list[dict[str, Any]]:
    """The points of a group of bars: a figure of each side that has it."""
    return [
        {"x": side, "settings": settings, "runs": [run[f"{prefix}{figure}"] for run in runs]}
        for side, prefix in SIDES.items()
        if all(f"{prefix}{figure}" in run for run in runs)
    ]


def charts(
    trials: Mapping[str, Trial],
    runs: Mapping[str, Sequence[Figures]],
    errors: Mapping[str, str],
) -> list[dict[str, Any]]:
    """What was found, as data."""
    words = {name: f"{trial.jobs:,} jobs" for name, trial in trials.items()}
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "title": title,
            "x": "",
            "y": y,
            "log_x": False,
            "log_y": log_y,
            "categories": True,
            "series": [],
            "missing": [{"label": label, "reason": why} for label, why in errors.items()],
        }
        for name, title, y, log_y in (
            ("rates", "Jobs a second, and what their statements alone allow", "jobs/s", True),
            ("share", "Part of the time that is ours", "%", False),
            ("cpu", "Client CPU a job", "us/job", False),
        )
    ]
    rates, shares, cpu = found
    for name, each in runs.items():
        rates["series"].append({"label": name, "points": by_side(each, "rate", words[name])})
        cpu["series"].append({"label": name, "points": by_side(each, "cpu", words[name])})
        ours = {"x": "pgq_fast", "settings": words[name], "runs": [share(run) for run in each]}
        shares["series"].append({"label": name, "points": [ours]})
    return found


def measure(trials: Mapping[str, Trial], repeat: int, dsn: str) -> list[dict[str, Any]]:
    """All trials in turn, and that *repeat* times; what fails is not tried again."""
    runs: dict[str, list[Figures]] = {}
    errors: dict[str, str] = {}
    for number in range(repeat):
        for name, trial in trials.items():
            if name in errors:
                continue
            began = time.monotonic()
            try:
                figures = run_trial(trial, dsn, program="bare.py")
            except TrialFailed as error:
                errors[name] = str(error)
                runs.pop(name, None)
            else:
                runs.setdefault(name, []).append(figures)
            print(
                f"  {number + 1}/{repeat} {name}: "
                f"{errors.get(name) or f'{time.monotonic() - began:.1f} s'}",
                file=sys.stderr,
                flush=True,
            )
    return charts(trials, runs, errors)


def main() -> int:
    """Run; 1 for an error that is explained or something missing, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common(parser, REPEAT)
    parser.add_argument("--only", metavar="PART", action="append", default=[])
    parser.add_argument("--list", action="store_true", help="list the trials and do no more")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"--repeat {QUICK_REPEAT} --scale {QUICK_SCALE}, where they are not given",
    )
    options = settle(parser.parse_args(), REPEAT, QUICK_REPEAT, QUICK_SCALE)
    trials = {
        name: replace(trial, jobs=max(FEWEST, round(trial.jobs * options.scale)))
        for name, trial in TRIALS.items()
        if not options.only or any(part in name for part in options.only)
    }
    if options.list or not trials:
        print("\n".join(TRIALS))
        return 0 if options.list else 2
    try:
        recording = Recording("limit", options)
        with postgres(options.dsn) as dsn:
            facts = gather(dsn)
            print_facts(facts)
            found = measure(trials, options.repeat, dsn)
    except BenchError as error:
        print(f"limit.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    for chart in found:
        print_chart(chart)
    recording.keep(recording.document(facts, charts=found))
    return 1 if any(chart["missing"] for chart in found) else 0


if __name__ == "__main__":
    sys.exit(main())
