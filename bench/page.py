"""The page of results, and the block of the README, from reports.

No figure, date or name of a machine is written here: all are the reports' own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from charts import Chart, Point, Report, ReportError, shown

HEADINGS: Final = {
    "compare": "Beside pgqueuer",
    "peers": "Side by side with the peers",
    "limit": "Against the limit",
    "growth": "How cost grows",
    "imports": "What an import takes",
}
INTRODUCTIONS: Final = {
    "compare": (
        "pgqueuer and pgq_fast go through one script and the same public API in turn, each "
        "measurement in a process and a database of its own. Every job is checked to have run once."
    ),
    "peers": (
        "Job queues on PostgreSQL, each in an environment of its own, on the same server, through "
        "its own public API: at its defaults, and at its best documented settings. Every job is "
        "checked to have run once."
    ),
    "limit": (
        "Workers and producers beside the very statements that they have sent, with the same "
        "values, in a bare loop on one asyncpg connection, and single jobs by pgbench: what is "
        "between them is ours. Every job is checked to have ended, or to be queued, after each."
    ),
    "growth": (
        "One thing grows, all else stays as it is by default. Every job that is measured is "
        "checked to have run once."
    ),
    "imports": (
        "Programs that only import, in turn, each in an interpreter of its own: what the package "
        "builds on, the package, what it imports once there is a queue, and pgqueuer, which "
        "imports all at once."
    ),
}
BEGIN: Final = "<!-- results: made by bench/plots.py -->"
END: Final = "<!-- results: end -->"

# The plot that the README shows: the first that there is.
MAIN: Final = (("peers", "drain"), ("compare", "rates"))


def picture(report: Report, chart: Chart) -> str:
    """Name of the file with the plot."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{report.stem}-{chart.name}".lower()).strip("-")
    return f"{name}.svg"


def page(reports: Sequence[Report], folder: str) -> str:
    """The page as Markdown; pictures are in *folder* beside it."""
    lines = [
        "# Results",
        "",
        "This page and its plots are made by `bench/plots.py` from the files that the scripts in "
        "`bench/` write. Figures are medians of the repeats; the lines across them, and the "
        "numbers in brackets, go from the lowest repeat to the highest.",
        "",
        "`make results` makes the page anew from `bench/results/*.json`.",
        "",
    ]
    kinds = [report.kind for report in reports]
    for report in reports:
        heading = HEADINGS[report.kind]
        if kinds.count(report.kind) > 1:
            heading += f" ({report.stem})"
        lines += [f"## {heading}", "", INTRODUCTIONS[report.kind], "", *_circumstances(report)]
        for chart in report.charts:
            lines += _chart(report, chart, folder)
        if report.targets:
            lines += _targets(report)
    return "\n".join(lines).rstrip() + "\n"


def _circumstances(report: Report) -> Iterator[str]:
    """Where, when and how; what to hold against it comes first."""
    for warning in report.warnings:
        yield "!!! warning"
        yield f"    {_plain(warning)}"
        yield ""
    head, *rows = [(name, _plain(value)) for name, value in _facts(report)]
    yield from _table(head, rows)


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    yield "Date", report.date
    yield "Command", f"`{report.command}`"
    yield "Machine", _listed(report.machine)
    server = dict(report.server)
    if "server_version" in server:
        yield "PostgreSQL", str(server.pop("server_version"))
    if server:
        yield "Settings", _listed(server)
    yield "Versions", _listed(report.versions)
    yield "Repeats", str(report.repeat)
    yield "Scale", f"{report.scale:g}"
    yield "Took", f"{report.seconds / 60:.1f} minutes"


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _plain(text: object) -> str:
    """Text that a cell of a table can hold."""
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").split())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], right: int = 0) -> Iterator[str]:
    """A table whose last *right* columns are numbers."""
    left = len(head) - right
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join(['---'] * left + ['---:'] * right)}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _chart(report: Report, chart: Chart, folder: str) -> Iterator[str]:
    # Brackets and quotes end what they are in.
    title = _plain(chart.title)
    yield f"### {title}"
    yield ""
    if chart.series:
        alternative = title.replace("[", "(").replace("]", ")")
        yield f"![{alternative}]({folder}/{picture(report, chart)})"
        yield ""
        yield from _figures(chart)
    if chart.missing:
        yield "Not measured:"
        yield ""
        for missing in chart.missing:
            yield f"- {_plain(missing.label)}: {_plain(missing.reason)}"
        yield ""


def _figures(chart: Chart) -> Iterator[str]:
    rows = [
        (
            _plain(series.label),
            _plain(point.x if isinstance(point.x, str) else f"{point.x:,.12g}"),
            _plain(point.settings),
            spread(point),
        )
        for series in chart.series
        for point in series.points
    ]
    head = ("", chart.x, "settings", chart.y.removesuffix(", logarithmic"))
    yield from _table(head, rows, right=1)


def spread(point: Point) -> str:
    """Median, and lowest and highest where they differ."""
    return _spread(point.median, point.lowest, point.highest)


def _spread(median: float, lowest: float, highest: float) -> str:
    if lowest == highest:
        return shown(median)
    return f"{shown(median)} ({shown(lowest)} to {shown(highest)})"


def _targets(report: Report) -> Iterator[str]:
    yield "### What was aimed for"
    yield ""
    verdicts = {True: "met", False: "**missed**", None: ""}
    yield from _table(
        ("scenario", "", "found", "target", ""),
        [
            (
                target.scenario,
                _plain(target.title),
                _spread(target.median, target.lowest, target.highest),
                _plain(target.limit),
                verdicts[target.met],
            )
            for target in report.targets
        ],
    )


# ------------------------------------------------------------------------------ the README


def main_plot(reports: Sequence[Report]) -> tuple[Report, Chart]:
    """What the README shows.

    Raises:
        ReportError: No report has it.
    """
    for kind, name in MAIN:
        for report in reports:
            for chart in report.charts:
                if (report.kind, chart.name) == (kind, name) and chart.series:
                    return report, chart
    names = " or ".join(f"{kind}'s {name}" for kind, name in MAIN)
    raise ReportError(f"there is no main plot: give a report with {names}")


def readme(text: str, reports: Sequence[Report], pictures: str, page_path: str) -> str:
    """The README with its block made anew; paths are as seen from it.

    Raises:
        ReportError: There is no block, or nothing to show in it.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ReportError(f"the README has no {BEGIN} ... {END}")
    report, chart = main_plot(reports)
    machine = report.machine
    settings = ", ".join(
        f"{name} {report.server[name]}"
        for name in ("fsync", "synchronous_commit", "full_page_writes")
        if name in report.server
    )
    lines = [
        BEGIN,
        f"![{_plain(chart.title)}]({pictures}/{picture(report, chart)})",
        "",
        f"Measured on {report.date} by `{report.command}`: {machine.get('cpu')}, "
        f"{machine.get('cpu_count')} CPUs, which PostgreSQL {report.server.get('server_version')} "
        f"shares, {settings}. [All results]({page_path}).",
        *(f"\n**Note:** {_plain(warning)}." for warning in report.warnings),
        END,
    ]
    return before + "\n".join(lines) + after
