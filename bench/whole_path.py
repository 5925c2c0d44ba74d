"""What the benchmarks of the whole path vary, and how a trial becomes a figure of pytest-benchmark.

There is a base point on each layout and, from there, one axis after the other is varied: not their
product, which would take days. Each trial runs as those of ``compare.py`` do, in a process and a
database of its own, and checks that every job ran once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import pytest
from measure import Figures, Trial
from trials import run_trial

# Trials have at least so many jobs, whatever the scale.
FEWEST: Final = 20
# Payloads of a trial together, in bytes: more would measure the disk.
MOST_BYTES: Final = 50_000_000

LAYOUTS: Final = ("compat", "lease")
DRIVER: Final = {"driver": ("psycopg",)}
IMPLEMENTATION: Final = {"implementation": ("python",)}
PAYLOAD: Final = {"payload": (0, 1_000, 100_000)}
HANDLER: Final = {"handler": ("sleep(0)", "sleep(20 ms)")}
WORKERS: Final = {"consumers": (2, 8)}
LIBRARY: Final = {"package": ("pgqueuer",)}


class Clock:
    """Time as the trials have it: seconds of what is measured, not of what is around it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK: Final = Clock()


@dataclass
class Path:
    """Runs trials for a benchmark."""

    benchmark: Any
    dsn: str
    rounds: int
    scale: float

    def measure(self, trial: Trial, figure: str) -> None:
        """Have the benchmark show the time of a job, so that its OPS are jobs a second.

        Args:
            trial: At a scale of 1.
            figure: ``rate``, in jobs a second, or ``p50``, in milliseconds.
        """
        most = MOST_BYTES // max(trial.payload, 1)
        trial = replace(trial, jobs=max(FEWEST, min(most, round(trial.jobs * self.scale))))
        runs: list[Figures] = []

        def once() -> None:
            runs.append(run_trial(trial, self.dsn))
            value = runs[-1][figure]
            CLOCK.now += 1 / value if figure == "rate" else value / 1e3

        self.benchmark.extra_info["jobs"] = trial.jobs
        self.benchmark.extra_info["settings"] = trial.settings()
        self.benchmark.pedantic(once, rounds=self.rounds)
        self.benchmark.extra_info["runs"] = runs


def points(
    task: str, jobs: Mapping[str, int], *axes: Mapping[str, Iterable[Any]], **settings: Any
) -> Any:
    """Parametrize a benchmark by trials: the base on each layout, then one axis at a time.

    Args:
        task: Of the trials.
        jobs: How many a second or two take, by layout and, for pgqueuer, by its name.
        axes: Fields of a trial, and their values besides that of the base.
        settings: Of all trials.
    """
    base = [Trial(task, "pgq_fast", jobs[layout], layout=layout, **settings) for layout in LAYOUTS]
    found = list(base)
    for axis in axes:
        for name, values in axis.items():
            for value in values:
                if (name, value) == ("package", "pgqueuer"):
                    found.append(replace(base[0], package=value, jobs=jobs[value]))
                else:
                    found += [replace(trial, **{name: value}) for trial in base]
    return pytest.mark.parametrize("trial", found, ids=identity)


def identity(trial: Trial) -> str:
    """The layout, and what differs from the base."""
    if trial.package != "pgq_fast":
        return trial.package
    usual = Trial(trial.task, trial.package, trial.jobs)
    told = {"task", "package", "jobs", "layout", "producers", "list_size", "load"}
    parts = [
        f"{field.name} {getattr(trial, field.name)}"
        for field in fields(trial)
        if field.name not in told and getattr(trial, field.name) != getattr(usual, field.name)
    ]
    return ", ".join([trial.layout, *parts])
