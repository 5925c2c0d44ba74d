"""An endpoint for scrapes without a web framework, beside a worker or by itself."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

from pgq_fast.errors import MissingExtraError

try:
    from prometheus_client.exposition import start_http_server
    from prometheus_client.metrics_core import GaugeMetricFamily, Metric
    from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry
except ImportError as error:
    raise MissingExtraError("The metrics endpoint", "prometheus") from error

from pgq_fast.cached import Cached
from pgq_fast.metrics.prometheus import (
    DEFAULT_WINDOW,
    MetricNames,
    Totals,
    labels_of,
    totals,
)
from pgq_fast.repository import QueueRepositoryPort

__all__ = ["QueueMetrics", "serve_metrics"]

COLLECT_TIMEOUT = 30.0
"""Seconds that a scrape waits for the event loop to count the queue."""


@dataclasses.dataclass(frozen=True)
class _State:
    queue: Totals
    log: Totals


class QueueMetrics(Collector):
    """The state of a queue as a collector of prometheus-client.

    The metrics are those of :func:`~pgq_fast.metrics.prometheus.collect_metrics`. The queue is
    counted by the event loop in which the object was made, when another thread scrapes; in that
    loop's own thread it cannot be collected.

    Args:
        repository: The queue, on a connection of its own or a pool: while a long queue is counted,
            its connection can do nothing else.
        metric_names: Other names than pgqueuer's.
        last: How far back status changes are counted.
        keep_for: How long an answer is kept at least; it is kept for ten times what it took to
            make in any case.
        registry: Where to register; None for nowhere.

    Raises:
        RuntimeError: No event loop is running.
    """

    def __init__(
        self,
        repository: QueueRepositoryPort,
        *,
        metric_names: MetricNames | None = None,
        last: timedelta = DEFAULT_WINDOW,
        keep_for: timedelta = timedelta(0),
        registry: CollectorRegistry | None = REGISTRY,
    ) -> None:
        self._repository = repository
        self._names = metric_names or MetricNames()
        self._last = last
        self._loop = asyncio.get_running_loop()
        self._state = Cached(self._count, keep_for)
        if registry is not None:
            registry.register(self)

    async def _count(self) -> _State:
        queue = await self._repository.queue_size()
        log = await self._repository.log_statistics(limit=None, last=self._last)
        return _State(totals(queue), totals(log))

    def describe(self) -> Iterator[Metric]:
        """The metrics without their values."""
        return iter(self._families())

    def collect(self) -> Iterator[Metric]:
        """The metrics.

        Raises:
            TimeoutError: The event loop did not count the queue in time.
            RuntimeError: It is that event loop which asks.
        """
        if self._is_own_loop():
            raise RuntimeError(
                "QueueMetrics cannot be collected by the event loop that has to count the queue: "
                "serve the registry with serve_metrics, or collect it in asyncio.to_thread"
            )
        future = asyncio.run_coroutine_threadsafe(self._state.get(), self._loop)
        # After a timeout the count goes on, for the next scrape to find its result.
        state = future.result(COLLECT_TIMEOUT)
        families = self._families()
        for family, numbers in zip(families, (state.queue, state.log), strict=True):
            for entrypoint, status, number in numbers:
                family.add_metric(list(labels_of(entrypoint, status).values()), number)
        return iter(families)

    def _is_own_loop(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _families(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        labels = list(labels_of("", ""))
        return (
            GaugeMetricFamily(self._names.queue_count, "Jobs on the queue.", labels=labels),
            GaugeMetricFamily(
                self._names.log_count, "Status changes of the last minutes.", labels=labels
            ),
        )


@contextlib.asynccontextmanager
async def serve_metrics(
    port: int,
    address: str = "127.0.0.1",
    *,
    registry: CollectorRegistry = REGISTRY,
) -> AsyncIterator[int]:
    """Answer scrapes of *registry* over HTTP, in a thread, while the block runs.

    Args:
        port: Where to listen; 0 for any that is free.
        address: On which interface; other machines reach ``0.0.0.0``.
        registry: What to show.

    Yields:
        The port.

    Raises:
        OSError: The port is taken.
    """
    server, thread = start_http_server(port, address, registry)
    try:
        yield int(server.server_port)
    finally:
        # A scrape that is under way may wait for this event loop.
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)
