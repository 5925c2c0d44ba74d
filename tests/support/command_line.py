"""Runs the command line as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

Done: TypeAlias = subprocess.CompletedProcess[str]


class CommandLine:
    """``python -m PACKAGE`` in an environment without PostgreSQL variables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        *arguments: str,
        dsn: str | None = None,
        package: str = "pgq_fast",
        program: str | None = None,
        environment: dict[str, str] | None = None,
    ) -> Done:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PG") or name == "PGQ_FAST_IMPL"
        }
        start = ["-m", package] if program is None else ["-c", program]
        to_database = [] if dsn is None else ["--pg-dsn", dsn]
        return subprocess.run(
            [sys.executable, *start, *to_database, *arguments],
            env={**clean, "PYTHONPATH": str(Path(__file__).parents[2]), **(environment or {})},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )
