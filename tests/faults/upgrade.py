"""The schema is upgraded under load."""

from __future__ import annotations

from typing import Any

import psycopg

from faults.stage import Kind, Stage

INDEXES = """
    SELECT indexrelid::regclass::text FROM pg_index
    JOIN pg_class AS indexed ON indexed.oid = indrelid
    WHERE indexed.relname ~ '^pgqueuer_(log|log_batches|log_entries|statistics)$'
      AND NOT indisprimary AND NOT indisunique
    ORDER BY 1
"""


def indexes(connection: psycopg.Connection[Any]) -> list[str]:
    """Those of the log and of the statistics, on either layout."""
    return [name for (name,) in connection.execute(INDEXES)]


async def upgrade(stage: Stage) -> None:
    """From a schema that lacks an index."""
    with stage.connect() as connection:
        before = indexes(connection)
        connection.execute(f"DROP INDEX {stage.random.choice(before)}")
        await stage.moment()
        await stage.queries.upgrade()
        after = indexes(connection)
    if after != before:
        stage.problems.append(f"the upgrade left indexes {after} where {before} were")


KINDS = (Kind("upgrade", "`pgq upgrade` of a schema that lacks an index.", upgrade, ends="nobody"),)
