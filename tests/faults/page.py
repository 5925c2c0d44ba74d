"""``python -m faults.page``: docs/faults.md, from what rounds have found (results/*.json)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from faults.account import BEFORE
from faults.kinds import KINDS
from faults.stage import DRIVERS, HEARTBEAT

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results"
PAGE: Final = HERE.parents[1] / "docs" / "faults.md"

INTRODUCTION: Final = """\
# Faults

What happens to jobs and workers when things go wrong, as tried: real worker processes and a
producer share a queue, a kind of fault is done to it several times at moments left to chance, and
afterwards there is an account of every job. This page is made by `make results` from
`tests/faults/results/*.json`.

## The account

Producers and workers write down what they do in files of their own, at once, so that these are
there however the process ends. After a round, with the queue drained, these files and the tables
of the queue have to agree:

- **None is lost**: enqueued = finished + held + queued, job by job. The queued ones are those that
  are due an hour later.
- **None has ended twice** in the log, or has ended and is still in the queue.
- **None has ended without a run** that came to its end.
- **A job runs again only for a reason**: something had happened to the worker that ran it before,
  while it ran the job or at most {before:.0f} seconds after. That the machine had no time for it is
  such a reason, too. Retries that handlers ask for are not counted.
- **A call that enqueues stores all of its jobs or none**, also where the producer was not told
  which.
- **Workers that own their connections go on**: those of `PgQueuer.from_dsn` (`owned-asyncpg`,
  `owned-psycopg`). Those on a connection or a pool of the user's go on, or end with an error that
  tells why; then a new one is started, as a supervisor would. Whoever goes on has to run a job
  that is for it alone.

## Try it

```text
make faults                  # {minutes} minutes of rounds; the seed is printed
make faults MINUTES=5        # ... less
make faults SEED=1b7793ae    # ... with the choices of an earlier run
make faults ARGS='--kinds kill pause --layouts lease --drivers psycopg'
make soak MINUTES=30         # mixed load and churn: what should stay flat does
```

The heartbeat timeout is {heartbeat:.0f} seconds, so that jobs of dead workers are taken over soon.
Some kinds need a program or a right: PgBouncer, libfaketime, to mount a small disk.

## What was found
"""

ColumnsT = Sequence[tuple[str, str]]


def reports() -> list[dict[str, Any]]:
    """What has been kept: of rounds, and of soaks."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


def of_rounds(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The reports of rounds among *found*."""
    return [report for report in found if "rounds" in report]


def table(heads: ColumnsT, rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Lines of a table; heads are titles with their alignment."""
    yield "| " + " | ".join(title for title, _ in heads) + " |"
    yield "|" + "|".join(alignment for _, alignment in heads) + "|"
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"
    yield ""


TEXT: Final = "---"
NUMBER: Final = "---:"

SUMMARY: Final[ColumnsT] = (
    ("kind", TEXT), ("rounds", NUMBER), ("faults", NUMBER), ("jobs", NUMBER), ("run again", NUMBER),
    ("fenced", NUMBER), ("problems", NUMBER),
)  # fmt: skip
DETAIL: Final[ColumnsT] = (
    ("layout", TEXT), ("driver", TEXT), ("jobs", NUMBER), ("finished", NUMBER), ("held", NUMBER),
    ("queued", NUMBER), ("run again", NUMBER), ("fenced", NUMBER), ("workers went on", NUMBER),
    ("workers ended with", TEXT),
)  # fmt: skip


def total(rounds: Sequence[dict[str, Any]], figure: str) -> int:
    """Sum of a figure of the account."""
    return sum(one["jobs"][figure] for one in rounds)


def ends(rounds: Sequence[dict[str, Any]]) -> str:
    """Errors by which workers ended, with how many."""
    found: Counter[str] = Counter()
    for one in rounds:
        found.update(one["workers"]["ended"])
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items()))


def summary(by_kind: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """A row for each kind."""
    rows = []
    for kind, rounds in by_kind.items():
        wrong = sum(len(one["problems"]) for one in rounds)
        rows.append(
            (
                f"[{kind}](#{kind})", len(rounds), sum(one["blows"] for one in rounds),
                total(rounds, "enqueued"), total(rounds, "reruns"), total(rounds, "fenced"), wrong,
            )
        )  # fmt: skip
    yield from table(SUMMARY, rows)


def detail(kind: str, rounds: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The rounds of a kind, by layout and driver."""
    yield f"### {kind}"
    yield ""
    yield KINDS[kind].what
    yield ""
    places = [(layout, driver) for layout in ("compat", "lease") for driver in DRIVERS]
    rows = []
    for layout, driver in places:
        own = [one for one in rounds if (one["layout"], one["driver"]) == (layout, driver)]
        if own:
            survived = sum(one["workers"]["survived"] for one in own)
            figures = [
                total(own, name)
                for name in ("enqueued", "finished", "held", "queued", "reruns", "fenced")
            ]
            rows.append((layout, f"`{driver}`", *figures, survived, ends(own)))
    yield from table(DETAIL, rows)
    for one in rounds:
        for problem in one["problems"]:
            yield f"- Seed {one['seed']}, {one['layout']}, {one['driver']}: {problem}."
    yield ""


UNITS: Final = {"memory": (2**20, "MiB"), "latency": (0.001, "ms")}
"""What figures of a soak are shown in; the others are numbers."""

FIGURES: Final[ColumnsT] = (
    ("figure", TEXT), ("first third", NUMBER), ("last third", NUMBER),
)  # fmt: skip


def soaks(report: dict[str, Any]) -> Iterator[str]:
    """The figures of a soak, layout by layout."""
    yield "## Soak"
    yield ""
    yield (
        "Mixed load, with workers and producers that come and go: medians of the first and of the"
        " last third of the time, after a quarter of it for warming up. Latency is from the answer"
        " to the producer to the start of the job."
    )
    yield ""
    yield f"- {report['date']}, {report['minutes']:g} minutes ({circumstances(report)})"
    yield ""
    for one in report["soaks"]:
        jobs = one["jobs"]
        yield f"### Soak of {one['layout']}"
        yield ""
        yield (
            f"{jobs['enqueued']} jobs, {one['workers']['started']} workers on all drivers,"
            f" {one['workers']['killed']} of them killed; {jobs['reruns']} jobs ran again;"
            f" {len(one['problems'])} problems."
        )
        yield ""
        rows = []
        for name, thirds in sorted(one["figures"].items()):
            size, unit = UNITS.get(name.partition(" ")[0], (1, ""))
            rows.append((name.replace("_", " "), *(f"{x / size:,.1f} {unit}" for x in thirds)))
        yield from table(FIGURES, rows)
        for problem in one["problems"]:
            yield f"- Seed {one['seed']}: {problem}."
        yield ""


def circumstances(report: dict[str, Any]) -> str:
    """On what it was found."""
    return (
        f"{report['implementation']} implementation, PostgreSQL {report['postgresql']},"
        f" Python {report['python']}, asyncpg {report['asyncpg']}, psycopg {report['psycopg']},"
        f" {report['cpus']} CPUs"
    )


def facts(report: dict[str, Any]) -> Iterator[str]:
    """Which rounds, on what, and which of that run are left out here."""
    length = "short rounds" if report["brief"] else "long rounds"
    yield (
        f"- {report['date']}, seed {report['seed']}: {len(report['rounds'])} {length}"
        f" ({circumstances(report)})"
    )
    for rounds in report.get("left_out", ()):
        yield f"    - Left out: {rounds}."


def page(found: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    of_soaks = [report for report in found if "soaks" in report]
    found = of_rounds(found)
    rounds = [one for report in found for one in report["rounds"]]
    by_kind = {
        kind: own for kind in KINDS if (own := [one for one in rounds if one["kind"] == kind])
    }
    lines = [
        INTRODUCTION.format(before=BEFORE, heartbeat=HEARTBEAT, minutes=30),
        *(line for report in found for line in facts(report)),
        "",
        *summary(by_kind),
        "*Run again* counts runs because of faults, *fenced* those among them where the first"
        " worker ended the job after it had been taken over, which changed nothing.",
        "",
    ]
    for kind, own in by_kind.items():
        lines += detail(kind, own)
    for report in of_soaks:
        lines += soaks(report)
    text = "\n".join(line.rstrip() for line in "\n".join(lines).splitlines())
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip() + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(reports()))


if __name__ == "__main__":
    main()
