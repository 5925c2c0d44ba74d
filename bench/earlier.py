"""A run beside an earlier one of the same script: ratios, and what else has changed.

Runs of ``compare.py`` and those that write charts are both understood.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from servers import BenchError

# What of the machine and the server may differ without changing figures.
PASSING: Final = {"load_average"}
# Figures that are compared where there are several; ratios of the others tell little.
FIGURES: Final = ("rate", "cpu", "all_cpu", "wal", "log", "p50", "p99")


@dataclass(frozen=True)
class Ratio:
    """A figure that both runs have."""

    where: str
    """Scenario or chart."""
    what: str
    """Whose figure it is, and with which settings."""
    figure: str
    before: float
    now: float
    lowest: float
    """The lowest ratio that the repeats of both allow: if it is above 1, no repeat was lower."""
    highest: float

    @property
    def value(self) -> float:
        """Of the medians."""
        return self.now / self.before

    def __str__(self) -> str:
        return (
            f"{self.where:24} {self.what:58} {self.figure:8} {self.before:12,.2f} {self.now:12,.2f}"
            f"  {self.value:.2f} ({self.lowest:.2f} to {self.highest:.2f})"
        )


HEAD: Final = f"{'':24} {'':58} {'':8} {'earlier':>12} {'now':>12}  ratio (from to, of any repeats)"


def read(path: Path) -> dict[str, Any]:
    """An earlier run.

    Raises:
        BenchError: The file cannot be read, or is something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(f"--compare: cannot read {path}: {error}") from error
    if not isinstance(found, dict) or not {"scenarios", "charts"} & found.keys():
        raise BenchError(f"--compare: {path} is not what --json writes")
    return found


def ratios(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[Ratio]:
    """Of all figures that both have and that are not 0."""
    old = dict(_figures(before))
    found = []
    for key, runs in _figures(now):
        earlier = old.get(key, ())
        # What is 0 has no ratio.
        if earlier and min(earlier) > 0 and min(runs) > 0:
            found.append(
                Ratio(
                    *key,
                    statistics.median(earlier),
                    statistics.median(runs),
                    min(runs) / max(earlier),
                    max(runs) / min(earlier),
                )
            )
    return found


def _figures(run: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, str], Sequence[float]]]:
    for scenario in run.get("scenarios", ()):
        for side, entries in scenario["sides"].items():
            for entry in entries:
                what = f"{side}: {entry['settings']}"
                for figure in FIGURES:
                    if figure in entry["runs"][0]:
                        runs = [each[figure] for each in entry["runs"]]
                        yield (scenario["name"], what, figure), runs
    for chart in run.get("charts", ()):
        for series in chart["series"]:
            for point in series["points"]:
                what = f"{series['label']}: {point['x']}"
                if point["runs"]:
                    yield (chart["name"], what, chart["y"]), point["runs"]


def differences(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """What has changed besides the figures."""
    found = []
    for part in ("versions", "machine", "server"):
        for name, value in now[part].items():
            other = before.get(part, {}).get(name)
            if name not in PASSING and value != other:
                found.append(f"{name} is {value}, was {other}")
    # Where rates depend on the number of jobs, the two do not compare.
    if now["scale"] != before.get("scale"):
        found.append(f"the scale is {now['scale']}, was {before.get('scale')}")
    return found


def print_beside(now: Mapping[str, Any], before: Mapping[str, Any], name: str) -> None:
    """All of it, for a reader."""
    print(f"\nbeside {name}, of {before.get('date', 'an unknown date')}")
    for difference in differences(now, before):
        print(f"WARNING: {difference}")
    found = ratios(now, before)
    if not found:
        print("nothing was measured in both")
        return
    print(HEAD)
    for ratio in found:
        print(ratio)
