"""The command line as a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.command_line import CommandLine


@pytest.fixture
def pgq(tmp_path: Path) -> CommandLine:
    """Runs the command line; the current directory is ``pgq.folder``."""
    return CommandLine(tmp_path)
