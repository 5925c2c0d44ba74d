"""What ``growth.py`` lets grow: families of charts, each with lines of trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from measure import Trial

# Bytes that a trial enqueues and drains at most, payloads only: more would measure the disk.
MOST_BYTES: Final = 200_000_000
# Jobs of a trial at least, whatever the scale: a rate needs some.
FEWEST: Final = 50
# An hour's worth of churn: jobs of an hour at 1,000 a second.
HOUR: Final = 3_600_000
# Jobs of a round where it is not an hour's worth.
ROUND: Final = 25_000
TENTHS: Final = 10


@dataclass(frozen=True)
class Package:
    """A library on one of its layouts, and how many jobs it does in a second or so."""

    label: str
    package: str
    layout: str
    jobs: int

    def trial(self, task: str, jobs: float, **settings: object) -> Trial:
        """A trial of at least so many jobs that there is something to measure."""
        number = max(FEWEST, round(jobs))
        return Trial(task, self.package, number, layout=self.layout, **settings)  # type: ignore[arg-type]


LEASE: Final = Package("pgq_fast, lease", "pgq_fast", "lease", 200_000)
COMPAT: Final = Package("pgq_fast, compat", "pgq_fast", "compat", 50_000)
PGQUEUER: Final = Package("pgqueuer", "pgqueuer", "compat", 8_000)
PACKAGES: Final = (LEASE, COMPAT, PGQUEUER)


@dataclass(frozen=True)
class Point:
    """A figure of a trial, and where it is in the chart."""

    x: float
    trial: Trial
    figure: str


@dataclass(frozen=True)
class Sweep:
    """A chart to be."""

    name: str
    title: str
    x: str
    y: str
    lines: dict[str, Sequence[Point]]
    log_x: bool = True
    log_y: bool = True


@dataclass(frozen=True)
class Extent:
    """How much of everything."""

    scale: float = 1.0
    """Times the numbers of jobs; what grows is not scaled."""
    quick: bool = False
    """Fewer points, none of the largest."""
    full: bool = False
    """The largest points, too."""

    def choose(
        self, quick: Sequence[int], usual: Sequence[int], full: Sequence[int] = ()
    ) -> list[int]:
        """Which points."""
        return [*quick] if self.quick else [*usual, *(full if self.full else ())]


Family = Callable[[Extent], Iterable[Sweep]]


def _lines(
    extent: Extent,
    values: Sequence[int],
    trial: Callable[[Package, int], Trial],
    figure: str = "rate",
) -> dict[str, Sequence[Point]]:
    """A line each package, a trial each value."""
    return {
        package.label: [Point(value, trial(package, value), figure) for value in values]
        for package in PACKAGES
    }


def backlog(extent: Extent) -> Iterable[Sweep]:
    """The same number of jobs is taken from ever longer queues."""
    values = extent.choose([10_000, 100_000], [10_000, 100_000, 1_000_000], [10_000_000])
    yield Sweep(
        "backlog",
        "Jobs taken while so many others stay in the queue",
        "jobs that stay in the queue",
        "jobs/s",
        _lines(
            extent,
            values,
            lambda package, left: package.trial("part", package.jobs * extent.scale, left=left),
        ),
    )


def workers(extent: Extent) -> Iterable[Sweep]:
    """Workers of one process, each on a connection of its own."""
    values = extent.choose([1, 8, 64], [1, 2, 4, 8, 16, 32, 64])
    yield Sweep(
        "workers",
        "Drain with several workers in one process",
        "workers",
        "jobs/s",
        _lines(
            extent,
            values,
            lambda package, consumers: package.trial(
                "drain", 2 * package.jobs * extent.scale, consumers=consumers
            ),
        ),
    )


def payload(extent: Extent) -> Iterable[Sweep]:
    """Payloads of all sizes: the same trials fill the queue and drain it."""
    values = extent.choose([0, 1_000, 100_000], [0, 100, 1_000, 10_000, 100_000, 1_000_000])

    def trial(package: Package, size: int) -> Trial:
        most = min(package.jobs, MOST_BYTES / max(size, 1))
        return package.trial("drain", most * extent.scale, payload=size)

    yield Sweep(
        "payload-enqueue",
        "Lists enqueued, by size of the payload",
        "bytes of payload",
        "jobs/s",
        _lines(extent, values, trial, "enqueue"),
    )
    yield Sweep(
        "payload-drain",
        "Drain, by size of the payload",
        "bytes of payload",
        "jobs/s",
        _lines(extent, values, trial),
    )


def entrypoints(extent: Extent) -> Iterable[Sweep]:
    """A worker with ever more entrypoints, over which the jobs are spread."""
    values = extent.choose([1, 100], [1, 10, 100, 1_000])
    yield Sweep(
        "entrypoints",
        "Drain by a worker with so many entrypoints, the jobs spread evenly over them",
        "entrypoints",
        "jobs/s",
        _lines(
            extent,
            values,
            lambda package, number: package.trial(
                "drain", package.jobs * extent.scale, entrypoints=number
            ),
        ),
    )


def old_transaction(extent: Extent) -> Iterable[Sweep]:
    """What is deleted cannot be removed while another transaction may still see it."""
    lines: dict[str, Sequence[Point]] = {}
    for package in PACKAGES:
        for held in (False, True):
            trial = package.trial("drain", 3 * package.jobs * extent.scale, old_transaction=held)
            lines[f"{package.label}{', held' if held else ''}"] = [
                Point(100 * tenth / TENTHS, trial, f"rate_{tenth}")
                for tenth in range(1, TENTHS + 1)
            ]
    yield Sweep(
        "old-transaction",
        "Rate in each tenth of a drain, free and while another transaction holds a snapshot",
        "percent of the jobs drained",
        "jobs/s",
        lines,
        log_x=False,
    )


def churn(extent: Extent) -> Iterable[Sweep]:
    """The same tables filled and drained again and again, faster than autovacuum is meant for."""
    rounds = 6 if extent.quick else 12
    trials = {
        package.label: package.trial(
            "churn",
            (HOUR if extent.full else rounds * ROUND) * extent.scale,
            rounds=rounds,
            # At its default of 10 jobs a claim, pgqueuer takes ten minutes for an hour's worth.
            batch_size=1000 if package is PGQUEUER else None,
        )
        for package in PACKAGES
    }
    for name, title, y, figure in (
        (
            "churn-rate",
            "Drain in each round of filling and draining the same tables",
            "jobs/s",
            "rate",
        ),
        ("churn-size", "Tables and indexes of the queue after each round", "bytes", "bytes"),
    ):
        yield Sweep(
            name,
            title,
            "round",
            y,
            {
                label: [
                    Point(number, trial, f"{figure}_{number}") for number in range(1, rounds + 1)
                ]
                for label, trial in trials.items()
            },
            log_x=False,
            log_y=figure == "rate",
        )


FAMILIES: Final[dict[str, Family]] = {
    "backlog": backlog,
    "workers": workers,
    "payload": payload,
    "entrypoints": entrypoints,
    "old-transaction": old_transaction,
    "churn": churn,
}
