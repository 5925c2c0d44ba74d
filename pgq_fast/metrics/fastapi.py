"""A route for scrapes in a FastAPI application."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Final

from pgq_fast.errors import MissingExtraError

try:
    from fastapi import APIRouter
    from fastapi.responses import Response
except ImportError as error:
    raise MissingExtraError("The metrics route", "fastapi") from error

from pgq_fast.cached import Cached
from pgq_fast.metrics.prometheus import DEFAULT_WINDOW, MetricNames, collect_metrics
from pgq_fast.repository import QueueRepositoryPort

__all__ = ["create_metrics_router"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def create_metrics_router(
    repository: QueueRepositoryPort,
    *,
    metric_names: MetricNames | None = None,
    last: timedelta = DEFAULT_WINDOW,
    path: str = "/metrics",
) -> APIRouter:
    """A router whose route *path* answers scrapes with the state of the queue.

    Scrapes that meet share one count of the queue, and the answer is kept for ten times as long as
    the count took.

    Args:
        repository: The queue. Give it a connection of its own or a pool: while a long queue is
            counted, its connection can do nothing else.
        metric_names: Other names than pgqueuer's.
        last: How far back status changes are counted.
        path: Of the route.
    """
    router = APIRouter()
    answer = Cached(
        functools.partial(collect_metrics, repository, metric_names=metric_names, last=last)
    )

    @router.get(path)
    async def metrics() -> Response:
        lines = await answer.get()
        # The format wants the end of a line after the last one too.
        return Response(lines + "\n" if lines else lines, headers={"content-type": CONTENT_TYPE})

    return router
