"""``pgq run --metrics-port``: a worker's figures for Prometheus, whatever its factory does."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncIterator, Callable

from pgq_fast.applications import PgQueuer
from pgq_fast.cli.errors import CliError
from pgq_fast.errors import MissingExtraError
from pgq_fast.logconfig import logger
from pgq_fast.qm import QueueManager

__all__ = ["HIGHEST_PORT", "require_library", "worker_metrics"]

HIGHEST_PORT = 65535


def require_library() -> None:
    """Look for the library, without importing it.

    Raises:
        MissingExtraError: It is not installed.
    """
    if importlib.util.find_spec("prometheus_client") is None:
        raise MissingExtraError("--metrics-port", "prometheus")


@contextlib.asynccontextmanager
async def worker_metrics(port: int, address: str) -> AsyncIterator[Callable[[object], None]]:
    """Answer scrapes over HTTP while the block runs.

    Shown is what is registered with prometheus-client by default, which is what it tells of the
    process, and what the factory registers there.

    Args:
        port: Where to listen; 0 for any that is free, which the log tells.
        address: On which interface.

    Yields:
        What has a worker observed, to be called with each one before it runs. One that has an
        observer already keeps that.

    Raises:
        MissingExtraError: prometheus-client is not installed.
        CliError: The port is taken, or the address is none of this machine.
    """
    require_library()
    from prometheus_client.registry import REGISTRY

    from pgq_fast.metrics.server import serve_metrics
    from pgq_fast.metrics.worker import WorkerMetrics

    metrics: WorkerMetrics | None = None

    def observe(manager: object) -> None:
        nonlocal metrics
        worker = manager.qm if isinstance(manager, PgQueuer) else manager
        if not isinstance(worker, QueueManager):
            return
        if worker.observer is not None:
            logger.info("The worker has an observer of its own, which is left in its place")
            return
        if metrics is None:
            # Not before: a factory that registers metrics itself must find their names free.
            metrics = WorkerMetrics(REGISTRY)
        worker.observer = metrics

    async with contextlib.AsyncExitStack() as stack:
        try:
            taken = await stack.enter_async_context(serve_metrics(port, address))
        except OSError as error:
            raise CliError(
                f"the metrics cannot be served on port {port} of {address}: "
                f"{error.strerror or error}. Choose another --metrics-port or --metrics-host"
            ) from error
        logger.info("Metrics are served on port %d of %s", taken, address)
        try:
            yield observe
        finally:
            if metrics is not None:
                REGISTRY.unregister(metrics)
