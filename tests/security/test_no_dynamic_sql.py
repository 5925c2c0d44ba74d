"""No value becomes part of SQL: not by formatting in the code, nor by a name of the settings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from pydantic import ValidationError

import pgq_fast
from pgq_fast.settings import DBSettings

pytestmark = pytest.mark.impl_agnostic

PACKAGE: Final = Path(pgq_fast.__file__).parent
SQL: Final = re.compile(
    r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE|ALTER|DROP|TRUNCATE|LOCK TABLE|COPY|LISTEN"
    r"|UNLISTEN|NOTIFY|GRANT|SET)\b\s+[\w{(*\"$]"
)

# Where SQL is put together, and of what.
COMPOSED: Final = {
    "schema": "objects, whose names the settings have checked, and definitions of this package",
    "sql": "files of this package, with names that the settings have checked",
    "drivers": "channels, tables and columns as identifiers",
    "errors.py": "none, but words of messages",
    "trial.py": "the name of a schema that it has made up itself",
    "cli/measure.py": "settings of PostgreSQL, by a list in the module",
}


def formatted(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Strings of SQL that something is put into: line, text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            if "{}" in parts:
                yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mod, ast.Add)):
            for side in (node.left, node.right):
                if isinstance(side, ast.Constant) and isinstance(side.value, str):
                    yield node.lineno, f"{side.value}{{}}"
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "format"
            and isinstance(node.func.value, ast.Constant)
        ):
            yield node.lineno, f"{node.func.value.value}{{}}"


def test_sql_is_put_together_in_few_places() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if COMPOSED.keys().isdisjoint(
            (path.relative_to(PACKAGE).parts[0], str(path.relative_to(PACKAGE)))
        )
        for line, text in formatted(ast.parse(path.read_text()))
        if SQL.search(text)
    ]
    assert found == []


def test_the_search_finds_what_it_is_for() -> None:
    bad = """
a = f"SELECT * FROM t WHERE id = {value}"
b = "DELETE FROM t WHERE x = %s" % value
c = "UPDATE t SET x = {}".format(value)
d = "INSERT INTO t VALUES (" + value
"""
    assert [line for line, text in formatted(ast.parse(bad)) if SQL.search(text)] == [2, 3, 4, 5]


INJECTIONS: Final = [
    "x; DROP TABLE pgqueuer; --",
    'x" CASCADE; --',
    "x'); SELECT pg_sleep(10); --",
    "x\0",
    "x y",
    "x/**/",
    "$1",
    "{queue_table}",
    "\ud800",
    "x\n",
    "x\\",
    "x'",
    'x"',
]
NAMES: Final = [
    "channel",
    "db_schema",
    "function",
    "statistics_table",
    "queue_status_type",
    "queue_table",
    "queue_table_log",
    "trigger",
    "schedules_table",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_no_identifiers(name: str) -> None:
    assert name in DBSettings.model_fields
    # A channel is sent as a literal and as a quoted identifier, and may have more letters.
    more = [] if name == "channel" else ["1x", "x--", "x-y"]
    for text in INJECTIONS + more:
        with pytest.raises(ValidationError):
            DBSettings(**{name: text})  # type: ignore[arg-type]


@pytest.mark.parametrize("variable", ["PGQUEUER_PREFIX", "PGQUEUER_SCHEMA", "PGQUEUER_CHANNEL"])
def test_names_of_the_environment(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in INJECTIONS:
        # Neither is possible in an environment.
        if "\0" in text or "\ud800" in text:
            continue
        monkeypatch.setenv(variable, text)
        with pytest.raises(ValidationError):
            DBSettings()
