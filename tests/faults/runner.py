"""What rounds are played on: servers, and the facts of a run."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import platform
from importlib.metadata import version
from typing import Any, Final, Self

from faults.server import Server, running_server
from faults.stage import Kind
from support.server import embedded_version

LIBRARIES: Final = ("pgq_fast", "asyncpg", "psycopg")


class Grounds(contextlib.AsyncExitStack):
    """Servers, each started when it is needed first and stopped at the end."""

    def __init__(self) -> None:
        super().__init__()
        self._servers: dict[bool, Server] = {}

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        return self

    async def server(self, kind: Kind) -> Server:
        """One that is fit for *kind*."""
        if kind.faked_clock not in self._servers:
            environment: dict[str, str] = {}
            context = running_server(environment)
            self._servers[kind.faked_clock] = await asyncio.to_thread(context.__enter__)
            self.callback(context.__exit__, None, None, None)
        return self._servers[kind.faked_clock]


def facts() -> dict[str, Any]:
    """When, and on what."""
    from pgq_fast._impl import __impl__

    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "implementation": __impl__,
        "postgresql": str(embedded_version()),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        **{name: version(name) for name in LIBRARIES},
    }
