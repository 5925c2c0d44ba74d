"""Enqueueing: single jobs, lists, and many producers at once. OPS are jobs a second."""

from __future__ import annotations

import pytest
from measure import Trial
from whole_path import CLOCK, DRIVER, IMPLEMENTATION, LIBRARY, PAYLOAD, Path, points

SINGLE = {"compat": 1_500, "lease": 1_500, "pgqueuer": 1_000}
TOGETHER = {"compat": 20_000, "lease": 30_000, "pgqueuer": 3_000}
LISTS = {"compat": 50_000, "lease": 200_000, "pgqueuer": 40_000}


@pytest.mark.benchmark(group="enqueue, one job at a time", timer=CLOCK)
@points("producers", SINGLE, LIBRARY, DRIVER)
def test_single(path: Path, trial: Trial) -> None:
    path.measure(trial, "rate")


@pytest.mark.benchmark(group="enqueue, 32 producers of single jobs on one driver", timer=CLOCK)
@points("producers", TOGETHER, LIBRARY, DRIVER, IMPLEMENTATION, producers=32)
def test_concurrent(path: Path, trial: Trial) -> None:
    path.measure(trial, "rate")


@pytest.mark.benchmark(group="enqueue, lists of 1,000", timer=CLOCK)
@points("lists", LISTS, LIBRARY, DRIVER, IMPLEMENTATION, PAYLOAD)
def test_lists(path: Path, trial: Trial) -> None:
    path.measure(trial, "rate")
