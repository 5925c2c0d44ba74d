"""What plots are made of: the reports that the scripts here write.

Most have charts. A comparison has scenarios with sides; here it becomes charts as well, and keeps
its targets, which the page shows as a table.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# In the order in which the page shows them.
KINDS: Final = ("compare", "peers", "limit", "growth", "imports")


class ReportError(ValueError):
    """A file is not a report that can be shown: make it with the ``--json`` of bench/'s scripts."""


@dataclass(frozen=True)
class Point:
    """One measurement, repeated."""

    x: str | float
    settings: str
    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    @property
    def lowest(self) -> float:
        return min(self.runs)

    @property
    def highest(self) -> float:
        return max(self.runs)


@dataclass(frozen=True)
class Series:
    """What has one line, or one group of bars."""

    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Missing:
    """What a reader expects and does not get."""

    label: str
    reason: str


@dataclass(frozen=True)
class Chart:
    """One plot: over numbers as lines, or over categories as bars."""

    name: str
    title: str
    x: str
    y: str
    categories: bool
    log_x: bool
    log_y: bool
    series: tuple[Series, ...]
    missing: tuple[Missing, ...] = ()


@dataclass(frozen=True)
class Target:
    """What a comparison was to reach, and whether it did."""

    scenario: str
    title: str
    limit: str
    median: float
    lowest: float
    highest: float
    met: bool | None


@dataclass(frozen=True)
class Report:
    """A run of one of the scripts."""

    stem: str
    """Of the file's name; that of its plots begins with it."""
    kind: str
    command: str
    date: str
    machine: Mapping[str, Any]
    server: Mapping[str, Any]
    versions: Mapping[str, Any]
    warnings: tuple[str, ...]
    repeat: int
    scale: float
    seconds: float
    charts: tuple[Chart, ...]
    targets: tuple[Target, ...] = ()


def read(path: Path) -> Report:
    """The report in a file.

    Raises:
        ReportError: It is none, or parts are missing.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return _report(path.stem, found)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ReportError(f"{path}: cannot be read: {error}") from error
    except KeyError as error:
        raise ReportError(f"{path}: not a report of bench/: it has no {error}") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise ReportError(f"{path}: not a report of bench/: {error}") from error


def _report(stem: str, found: Mapping[str, Any]) -> Report:
    kind = found["kind"]
    if kind not in KINDS:
        raise ReportError(f"kind is {kind!r}, not one of {', '.join(KINDS)}")
    compared = kind == "compare"
    charts = _compared(found["scenarios"]) if compared else tuple(map(_chart, found["charts"]))
    return Report(
        stem,
        kind,
        found["command"],
        found["date"],
        found["machine"],
        found["server"],
        found["versions"],
        tuple(found["warnings"]),
        found["repeat"],
        found["scale"],
        found["seconds"],
        # One that has no figures at all is still shown, for what it says is missing.
        tuple(chart for chart in charts if chart.series or chart.missing),
        _targets(found["scenarios"]) if compared else (),
    )


def _chart(found: Mapping[str, Any]) -> Chart:
    categories = bool(found["categories"])
    return Chart(
        found["name"],
        found["title"],
        found["x"],
        found["y"],
        categories,
        bool(found.get("log_x")),
        bool(found.get("log_y")),
        tuple(
            Series(
                entry["label"], tuple(_point(point, categories) for point in _ran(entry["points"]))
            )
            for entry in found["series"]
            if any(_ran(entry["points"]))
        ),
        tuple(Missing(entry["label"], entry["reason"]) for entry in found.get("missing", ())),
    )


def _ran(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those with figures."""
    return [point for point in points if point["runs"]]


def _point(found: Mapping[str, Any], categories: bool) -> Point:
    x = found["x"]
    runs = tuple(float(value) for value in found["runs"])
    return Point(str(x) if categories else float(x), found.get("settings", ""), runs)


# ------------------------------------------------------------------------------ comparisons


def _compared(scenarios: Sequence[Mapping[str, Any]]) -> tuple[Chart, ...]:
    """Rates and waits of the scenarios that set something against pgqueuer."""
    against = [scenario for scenario in scenarios if "pgqueuer" in scenario["sides"]]
    return (
        Chart(
            "rates",
            "pgqueuer and pgq_fast through the same script: jobs a second",
            "",
            "jobs/s, logarithmic",
            True,
            False,
            True,
            tuple(_by_side(scenario, "rate") for scenario in against if _has(scenario, "rate")),
        ),
        Chart(
            "waits",
            "From enqueue to the handler's start on an idle worker: milliseconds",
            "",
            "ms",
            True,
            False,
            False,
            tuple(
                _by_side(scenario, figure, f", {name}")
                for scenario in against
                for figure, name in (("p50", "median"), ("p99", "99th percentile"))
                if _has(scenario, figure)
            ),
        ),
    )


def _has(scenario: Mapping[str, Any], figure: str) -> bool:
    """Whether the scenario is about that figure, and has it."""
    about = figure in ("p50", "p99") or any(
        target["figure"] == figure for target in scenario["targets"]
    )
    return about and all(figure in _best(side)["runs"][0] for side in scenario["sides"].values())


def _best(side: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next(entry for entry in side if entry["best"])


def _by_side(scenario: Mapping[str, Any], figure: str, more: str = "") -> Series:
    return Series(
        scenario["title"] + more,
        tuple(
            Point(
                _side_name(side),
                _best(entries)["settings"],
                tuple(run[figure] for run in _best(entries)["runs"]),
            )
            for side, entries in scenario["sides"].items()
        ),
    )


def _side_name(side: str) -> str:
    """Sides are named for tables that are narrow."""
    return {"lease": "pgq_fast, lease layout", "pure Python": "pgq_fast, pure Python"}.get(
        side, side
    )


def _targets(scenarios: Sequence[Mapping[str, Any]]) -> tuple[Target, ...]:
    return tuple(
        Target(
            scenario["name"],
            target["title"],
            target["limit"],
            target["median"],
            target["lowest"],
            target["highest"],
            target["met"],
        )
        for scenario in scenarios
        for target in scenario["targets"]
    )


def shown(value: float) -> str:
    """A figure with as many digits as it deserves."""
    size = abs(value)
    if size >= 1000:
        # Four that count; repeats differ in the third at the latest.
        digits = len(str(int(size))) - 4
        return f"{round(value, -digits):,.0f}"
    for limit, form in ((100, ".0f"), (10, ".1f"), (1, ".2f")):
        if size >= limit:
            return format(value, form)
    return format(value, ".3g")
