"""The programs of docs/guides/logging.md run as they stand there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.doc_blocks import run_block, write_blocks


@pytest.mark.usefixtures("layout")
def test_the_programs(queue_dsn: str, tmp_path: Path) -> None:
    names = {"configured.py", "structured.py", "own_format.py"}
    assert write_blocks("docs/guides/logging.md", tmp_path) == names
    results = {name: run_block(tmp_path, name, PGQUEUER_DSN=queue_dsn) for name in names}
    assert results["configured.py"].stderr == ""
    (line,) = results["structured.py"].stderr.splitlines()
    fields = json.loads(line)
    assert fields["entrypoint"] == "greet"
    assert fields["exception"]["message"] == "nobody to greet"
    # Everything that the page shows of a line is in one.
    assert set(fields) == {
        "job_id", "entrypoint", "attempts", "queue_manager_id", "time", "level", "logger",
        "process", "message", "exception",
    }  # fmt: skip
    assert "job=" in results["own_format.py"].stderr
    assert " entrypoint=greet " in results["own_format.py"].stderr
