"""Draining a full queue, and a queue that is filled meanwhile. OPS are jobs a second."""

from __future__ import annotations

import pytest
from measure import Trial
from whole_path import (
    CLOCK,
    DRIVER,
    HANDLER,
    IMPLEMENTATION,
    LIBRARY,
    PAYLOAD,
    WORKERS,
    Path,
    points,
)

JOBS = {"compat": 50_000, "lease": 200_000, "pgqueuer": 6_000}


@pytest.mark.benchmark(group="drain", timer=CLOCK)
@points("drain", JOBS, LIBRARY, DRIVER, IMPLEMENTATION, PAYLOAD, HANDLER, WORKERS)
def test_drain(path: Path, trial: Trial) -> None:
    path.measure(trial, "rate")


@pytest.mark.benchmark(group="sustained: lists are enqueued while workers run", timer=CLOCK)
@points("sustained", JOBS, LIBRARY, DRIVER, WORKERS)
def test_sustained(path: Path, trial: Trial) -> None:
    path.measure(trial, "rate")
