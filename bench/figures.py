"""Repeated measurements to medians, spreads, ratios and verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from measure import Figures, Trial
from scenarios import Scenario, Side, Target

Runs = Mapping[Trial, Sequence[Figures]]
"""The figures of each trial, one entry a repeat."""


@dataclass(frozen=True)
class Spread:
    """A median, and between which values it lies."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Verdict:
    """What became of a target."""

    target: Target
    value: Spread
    met: bool | None


def spread(runs: Sequence[Figures], figure: str) -> Spread:
    """A figure over the repeats."""
    values = [run[figure] for run in runs]
    return Spread(statistics.median(values), min(values), max(values))


def ratio(above: Sequence[Figures], below: Sequence[Figures], figure: str) -> Spread:
    """The ratio of the medians; lowest and highest of the ratios within a repeat.

    Within a repeat the two ran shortly after one another. With an even number of repeats, or few
    and uneven ones, the ratio of medians can lie outside of the others' range.
    """
    pairs = [one[figure] / other[figure] for one, other in zip(above, below, strict=True)]
    medians = spread(above, figure).median / spread(below, figure).median
    return Spread(medians, min(pairs), max(pairs))


def best(side: Side, runs: Runs) -> Trial:
    """The trial with the highest median rate; of a single one no more is asked."""
    if len(side) == 1:
        return side[0]
    return max(side, key=lambda trial: spread(runs[trial], "rate").median)


def judge(scenario: Scenario, runs: Runs) -> list[Verdict]:
    """The targets of a scenario, by the best trial of each side."""
    chosen = {name: runs[best(side, runs)] for name, side in scenario.sides.items()}
    verdicts = []
    for target in scenario.targets:
        if target.over is None:
            value = spread(chosen[target.of], target.figure)
        else:
            value = ratio(chosen[target.of], chosen[target.over], target.figure)
        verdicts.append(Verdict(target, value, target.met(value.median)))
    return verdicts
