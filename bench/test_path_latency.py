"""From the call of enqueue to the handler's start, in another process: the median of a round.

A load is jobs of a lower priority: none, half of what the worker can do, or more than it can do.
"""

from __future__ import annotations

import pytest
from measure import Trial
from whole_path import CLOCK, DRIVER, LIBRARY, Path, points

WAITS = {"compat": 100, "lease": 100, "pgqueuer": 100}


@pytest.mark.benchmark(group="latency, idle worker", timer=CLOCK)
@points("latency", WAITS, LIBRARY, DRIVER)
def test_idle(path: Path, trial: Trial) -> None:
    path.measure(trial, "p50")


@pytest.mark.benchmark(group="latency, worker at half load", timer=CLOCK)
@points("latency", WAITS, LIBRARY, load="half")
def test_half_load(path: Path, trial: Trial) -> None:
    path.measure(trial, "p50")


@pytest.mark.benchmark(group="latency, worker at full load", timer=CLOCK)
@points("latency", WAITS, LIBRARY, load="full")
def test_full_load(path: Path, trial: Trial) -> None:
    path.measure(trial, "p50")
