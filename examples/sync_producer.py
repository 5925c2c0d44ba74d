"""Enqueue from code without an event loop: ``python examples/sync_producer.py [NUMBER]``."""

from __future__ import annotations

import os
import sys

import psycopg

from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.queries import SyncQueries


def main(number: int) -> None:
    with psycopg.connect(os.environ.get("PGDSN", ""), autocommit=True) as connection:
        queries = SyncQueries(SyncPsycopgDriver(connection))
        names: list[bytes | None] = [f"visitor {i}".encode() for i in range(number)]
        queries.enqueue(["greet"] * number, names, [0] * number)
        for row in queries.queue_size():
            print(f"{row.count} jobs of {row.entrypoint!r} are {row.status}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
