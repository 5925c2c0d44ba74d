"""Where a tracing library plugs in. Without one, nothing here runs on the hot path."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from pgq_fast.models import Job


class TracingProtocol(Protocol):
    """What a tracer does for producers and workers."""

    def trace_publish(self, entrypoints: list[str]) -> Generator[dict[str, object], None, None]:
        """Yield for each of *entrypoints*, in order, the headers that its job carries along."""
        ...

    def trace_process(self, job: Job) -> AbstractAsyncContextManager[None]:
        """A block around the run of *job*."""
        ...


@dataclass
class TracingConfig:
    """Holds the tracer of this process; None while there is none."""

    tracer: TracingProtocol | None = None


TRACER: Final[TracingConfig] = TracingConfig()


def set_tracing_class(tracer: TracingProtocol) -> None:
    """Trace with *tracer* from now on, wherever no other one is passed."""
    TRACER.tracer = tracer
