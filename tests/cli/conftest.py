"""The command line, as a process of its own and within the one of the test."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from pgq_fast.settings import db_settings
from support.command_line import CommandLine, Done


@pytest.fixture
def pgq(tmp_path: Path) -> CommandLine:
    """Runs the command line; the current directory is ``pgq.folder``."""
    return CommandLine(tmp_path)


@pytest.fixture
def pgq_here(
    queue_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Awaitable[Done]]]:
    """Runs a command on the test's queue without a new process: nothing but quicker."""
    from pgq_fast.__main__ import main

    before = dict(os.environ)

    def call() -> int:
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    async def run(*arguments: str) -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["pgq", "--pg-dsn", queue_dsn, *arguments])
        # In a thread, because it runs a loop of its own.
        code = await asyncio.to_thread(call)
        output, errors = capsys.readouterr()
        return subprocess.CompletedProcess(sys.argv, code, output, errors)

    yield run
    os.environ.clear()
    os.environ.update(before)
    db_settings.cache_clear()
