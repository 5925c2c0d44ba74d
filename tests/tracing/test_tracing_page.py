"""The programs of docs/guides/tracing.md run as they stand there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from support.doc_blocks import run_block, write_blocks


@pytest.mark.usefixtures("layout")
def test_the_programs(queue_dsn: str, tmp_path: Path) -> None:
    page = "docs/guides/tracing.md"
    names = {"with_opentelemetry.py", "with_sentry.py", "with_logfire.py"}
    assert write_blocks(page, tmp_path) == names
    outputs = {name: run_block(tmp_path, name, PGQUEUER_DSN=queue_dsn).stdout for name in names}

    spans = {
        span["name"]: span
        for span in map(
            json.loads, re.findall(r"^\{$.*?^\}$", outputs["with_opentelemetry.py"], re.M | re.S)
        )
    }
    for below, above in (("process greet", "send greet"), ("send greet", "order")):
        assert spans[below]["parent_id"] == spans[above]["context"]["span_id"]
    for line in ("order", "Enqueue", "Processing job"):
        assert line in outputs["with_logfire.py"]
