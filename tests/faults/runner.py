"""What rounds are played on: servers, and the facts of a run."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import platform
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from faults.clock import environment
from faults.server import Server, running_server
from faults.stage import Kind, Result, RoundFailed, Stage
from pgq_fast.settings import Layout
from support.server import embedded_version

LIBRARIES: Final = ("pgq_fast", "asyncpg", "psycopg")


class Grounds(contextlib.ExitStack):
    """Servers, each started when it is needed first and stopped at the end."""

    def __init__(self) -> None:
        super().__init__()
        self._servers: dict[bool, Server] = {}

    def server(self, kind: Kind) -> Server:
        """One that is fit for *kind*."""
        server = self._servers.get(kind.faked_clock)
        if server is None:
            server = self._servers[kind.faked_clock] = self._start(kind.faked_clock)
        return server

    def _start(self, faked_clock: bool) -> Server:
        if not faked_clock:
            return self.enter_context(running_server())
        folder = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="pgq-")))
        # The server runs as somebody else.
        folder.chmod(0o755)
        file = folder / "clock"
        return self.enter_context(running_server(environment(file), file))


async def play(
    grounds: Grounds, kind: Kind, layout: Layout, driver: str, seed: str, *, brief: bool
) -> tuple[Result, Path]:
    """One round, and the folder with its journals and logs, which is gone if all was well."""
    stem = f"{kind.name}-{layout.value}-{driver}"
    folder = Path(tempfile.mkdtemp(prefix=f"pgq-faults-{stem}-"))
    try:
        server = await asyncio.to_thread(grounds.server, kind)
        stage = Stage(kind, layout, driver, f"{seed}/{stem}", server, folder, brief=brief)
        result = await stage.play()
    except RoundFailed as error:
        # Before it had begun.
        result = Result(kind.name, layout.value, driver)
        result.problems.append(str(error))
    if not result.problems:
        await asyncio.to_thread(shutil.rmtree, folder)
    return result, folder


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
