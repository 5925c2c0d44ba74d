"""The server refuses statements: they take too long, wait too long, or its disk is full."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import psycopg

from faults.stage import Kind, RoundFailed, Setting, Stage
from pgq_fast.settings import Layout

TIMEOUT: Final = "400ms"
"""That of the workers' sessions."""

LOCKED: Final = (0.6, 1.2)
"""Seconds for which a table is locked."""

DISK: Final = 24 * 2**20
"""Bytes of the disk that gets full: an empty database takes a third."""

FULL: Final = (0.5, 1.5)
"""Seconds for which it is full."""

_TABLES: Final = {
    Layout.compat: ("pgqueuer", "pgqueuer_log"),
    Layout.lease: ("pgqueuer_ready", "pgqueuer_lease", "pgqueuer_log_batches"),
}


def lock_a_table() -> Callable[[Stage], Awaitable[None]]:
    async def strike(stage: Stage) -> None:
        strikes = stage.crew.all_struck()
        with stage.connect() as connection, connection.transaction():
            table = stage.random.choice(_TABLES[stage.layout])
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            await stage.moment(*LOCKED)
        for one in strikes:
            one.end = time.monotonic()

    return strike


@contextlib.asynccontextmanager
async def on_small_disk(stage: Stage) -> AsyncIterator[Setting]:
    """A tablespace on a disk of its own.

    Raises:
        RoundFailed: This account may mount nothing.
    """
    folder = stage.server.folder / stage.name
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)]
    done = await asyncio.to_thread(subprocess.run, mount, capture_output=True, text=True)
    if done.returncode != 0:
        folder.rmdir()
        raise RoundFailed(f"a full disk takes a mount, which root may make: {done.stderr.strip()}")
    try:
        place = folder / "pg"
        place.mkdir(mode=0o700)
        if stage.server.account is not None:
            shutil.chown(place, stage.server.account)
        with psycopg.connect(stage.server.dsn, autocommit=True) as admin:
            admin.execute(f"CREATE TABLESPACE {stage.name} LOCATION '{place}'")
        try:
            yield Setting(
                stage.server.tcp_dsn(stage.name), tablespace=stage.name, handle=folder / "filler"
            )
        finally:
            with psycopg.connect(stage.server.dsn, autocommit=True) as admin:
                admin.execute(f"DROP TABLESPACE {stage.name}")
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", str(folder)], check=True)


async def fill_disk(stage: Stage) -> None:
    filler = stage.handle
    assert isinstance(filler, Path)
    strikes = stage.crew.all_struck()
    refused = refusals(stage)
    try:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(64 * 1024))
        # Pages that are there already take jobs for a while.
        await stage.until("statements that the full disk fails", lambda: refusals(stage) > refused)
        await stage.moment(*FULL)
    finally:
        filler.unlink()
    for one in strikes:
        one.end = time.monotonic()


def refusals(stage: Stage) -> int:
    """How often the server said so."""
    return (stage.server.folder / "log").read_bytes().count(b"No space left on device")


KINDS = (
    Kind(
        "statement-timeout",
        "A table is locked for longer than the workers' `statement_timeout`.",
        lock_a_table(),
        session={"statement_timeout": TIMEOUT},
        errors=frozenset({"QueryCanceledError", "QueryCanceled"}),
    ),
    Kind(
        "lock-timeout",
        "A table is locked for longer than the workers' `lock_timeout`.",
        lock_a_table(),
        session={"lock_timeout": TIMEOUT},
        errors=frozenset({"LockNotAvailableError", "LockNotAvailable"}),
    ),
    Kind(
        "disk-full",
        "The disk of the queue's tablespace is full for a while.",
        fill_disk,
        setting=on_small_disk,
        errors=frozenset({"DiskFullError", "DiskFull"}),
    ),
)
