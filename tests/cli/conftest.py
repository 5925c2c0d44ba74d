"""The command line, as a process of its own and within the one of the test."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from pgq_fast.settings import db_settings
from support.command_line import CommandLine, Done

IMPLEMENTATION: Final = "PGQ_FAST_IMPL"


@pytest.fixture
def pgq(tmp_path: Path) -> CommandLine:
    """Runs the command line; the current directory is ``pgq.folder``."""
    return CommandLine(tmp_path)


class InProcess:
    """Runs a command within the test's process: the same as a process of its own, but quicker."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(
        self,
        *arguments: str,
        dsn: str | None = None,
        environment: dict[str, str] | None = None,
    ) -> Done:
        """Run it in an environment without PostgreSQL variables but these."""
        before = dict(os.environ)
        for name in [name for name in before if name.startswith("PG") and name != IMPLEMENTATION]:
            del os.environ[name]
        os.environ.update(environment or {})
        to_database = [] if dsn is None else ["--pg-dsn", dsn]
        return self.run(before, *to_database, *arguments)

    def run(self, before: dict[str, str], *arguments: str) -> Done:
        """Run it, and restore the environment of *before*."""
        from pgq_fast.__main__ import main

        self._capsys.readouterr()
        original, sys.argv = sys.argv, ["pgq", *arguments]
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.argv = original
            os.environ.clear()
            os.environ.update(before)
            db_settings.cache_clear()
        output, errors = self._capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, output, errors)


@pytest.fixture
def pgq_quick(capsys: pytest.CaptureFixture[str]) -> InProcess:
    """As ``pgq``, for a test that runs many commands."""
    return InProcess(capsys)


@pytest.fixture
def pgq_here(queue_dsn: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., Awaitable[Done]]:
    """Runs a command on the test's queue and in the environment of now."""
    runner = InProcess(capsys)

    async def run(*arguments: str) -> Done:
        # In a thread, because it runs a loop of its own.
        return await asyncio.to_thread(
            runner.run, dict(os.environ), "--pg-dsn", queue_dsn, *arguments
        )

    return run
