"""The programs of docs/guides/mcp.md run as they stand there."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgq_fast.queries import Queries
from support.doc_blocks import run_block, write_blocks
from support.drivers import MakeDriver


@pytest.mark.usefixtures("layout")
async def test_the_programs(make_driver: MakeDriver, queue_dsn: str, tmp_path: Path) -> None:
    assert write_blocks("docs/guides/mcp.md", tmp_path) == {"ask.py", "in_process.py"}
    queries = Queries(await make_driver("asyncpg", queue_dsn))
    await queries.enqueue(["greet"] * 2, [None] * 2, [0] * 2)
    result = run_block(tmp_path, "ask.py", PGQUEUER_DSN=queue_dsn)
    assert result.stdout == "greet queued 2\n"
    result = run_block(tmp_path, "in_process.py", PGQUEUER_DSN=queue_dsn)
    assert "queue_table_info" in result.stdout
