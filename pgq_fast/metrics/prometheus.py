"""The state of a queue in Prometheus' text format."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Generator, Iterable
from datetime import timedelta
from typing import Final, Protocol, TypeAlias

from pgq_fast.models import LogStatistics, QueueStatistics
from pgq_fast.repository import QueueRepositoryPort
from pgq_fast.types import JOB_STATUS

__all__ = [
    "DEFAULT_WINDOW",
    "MetricNames",
    "aggregated_log_statistics",
    "aggregated_queue_statistics",
    "aggregated_statistics",
    "collect_metrics",
    "prometheus_format",
]

DEFAULT_WINDOW: Final = timedelta(minutes=5)
"""How far back ended jobs are counted."""

_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


@dataclasses.dataclass
class MetricNames:
    """Names of the metrics.

    Attributes:
        queue_count: Jobs on the queue.
        log_count: Status changes in the time looked at.
    """

    queue_count: str = "pgqueuer_queue_count"
    log_count: str = "pgqueuer_logs_count"


class Counted(Protocol):
    """A row of either statistics."""

    count: int
    entrypoint: str
    status: JOB_STATUS


Totals: TypeAlias = list[tuple[str, str, int]]
"""Entrypoint, status and number, in this order."""


def totals(statistics: Iterable[QueueStatistics | LogStatistics]) -> Totals:
    """*statistics*, whose rows also differ in priority and time, by entrypoint and status."""
    numbers: Counter[tuple[str, str]] = Counter()
    for row in statistics:
        numbers[row.entrypoint, row.status] += row.count
    return [
        (entrypoint, status, number) for (entrypoint, status), number in sorted(numbers.items())
    ]


def labels_of(entrypoint: str, status: str) -> dict[str, str]:
    """The labels of a number, in the order in which they are written."""
    return {"aggregation": "sum", "entrypoint": entrypoint, "status": status}


def prometheus_format(metric_name: str, labels: dict[str, str], value: float | int) -> str:
    """One line of the text format, without its end.

    Label values may be any text: what has a meaning in the format is escaped.
    """
    written = ",".join(f'{name}="{text.translate(_ESCAPES)}"' for name, text in labels.items())
    return f"{metric_name}{{{written}}} {value}"


def _lines(name: str, numbers: Totals) -> Generator[str, None, None]:
    for entrypoint, status, number in numbers:
        yield prometheus_format(name, labels_of(entrypoint, status), number)


def aggregated_queue_statistics(
    queue_statistics: list[QueueStatistics], metric_names: MetricNames
) -> Generator[str, None, None]:
    """A line for each entrypoint and status on the queue."""
    yield from _lines(metric_names.queue_count, totals(queue_statistics))


def aggregated_log_statistics(
    log_statistics: list[LogStatistics], metric_names: MetricNames
) -> Generator[str, None, None]:
    """A line for each entrypoint and status in the log's statistics."""
    yield from _lines(metric_names.log_count, totals(log_statistics))


def aggregated_statistics(
    queue_statistics: list[QueueStatistics],
    log_statistics: list[LogStatistics],
    metric_names: MetricNames,
) -> Generator[str, None, None]:
    """The lines of both."""
    yield from aggregated_queue_statistics(queue_statistics, metric_names)
    yield from aggregated_log_statistics(log_statistics, metric_names)


async def collect_metrics(
    repository: QueueRepositoryPort,
    *,
    metric_names: MetricNames | None = None,
    last: timedelta = DEFAULT_WINDOW,
) -> str:
    """The lines of a queue right now.

    All jobs on the queue are counted, which takes the server the longer the more they are. What
    answers scrapes keeps the answer for a while, see :class:`~pgq_fast.cached.Cached`.

    Args:
        repository: ``Queries``, ``InMemoryQueries`` or the like.
        metric_names: Other names than pgqueuer's.
        last: How far back status changes are counted.
    """
    names = metric_names or MetricNames()
    queue = await repository.queue_size()
    log = await repository.log_statistics(limit=None, last=last)
    return "\n".join(aggregated_statistics(queue, log, names))
