"""SQL text: one statement a file, built once for each set of names.

A file holds one statement in PostgreSQL's own syntax, with ``{queue_table}`` and the like where a
name from the settings goes; values are always parameters. Lines between ``-- [flag`` and
``-- flag]`` belong to the variants that have the flag, and ``-- include name x=$1`` stands for the
lines of another file with ``$1`` for its ``<x>``. Comments are not sent to the server.

The folders are those of the table layouts; a statement that is the same on all is in ``common``.

A heartbeat, and a registration to be told, is dated by ``statement_timestamp()``. Of a statement
that is new to a session, asyncpg sends the values once the server has answered to the text, and
``now()`` would be the time of the text: long ago, where the loop was blocked in between.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pgq_fast.choices import Layout

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from pgq_fast.settings import DBSettings

_PAGE: Final = 8192
"""Bytes of a page of PostgreSQL."""


def _file(name: str) -> Traversable:
    # Not imported before there is a statement to read: it brings a dozen modules.
    from importlib.resources import files

    return files(__package__) / f"{name}.sql"


@functools.cache
def _lines(name: str) -> tuple[str, ...]:
    text = _file(name).read_text(encoding="utf-8")
    lines: list[str] = []
    for line in text.splitlines():
        keyword, _, included = line.strip().partition("-- include ")
        if included and not keyword:
            lines += _included(*included.split())
        else:
            lines.append(line)
    return tuple(lines)


@functools.cache
def _folder(name: str, layout: Layout) -> str:
    return "common" if _file(f"common/{name}").is_file() else layout.value


def _included(name: str, *arguments: str) -> Iterator[str]:
    values = dict(argument.split("=", 1) for argument in arguments)
    for line in _lines(name):
        yield re.sub(r"<(\w+)>", lambda found: values[found[1]], line)


def _render(name: str, settings: DBSettings, flags: tuple[str, ...]) -> str:
    lines: list[str] = []
    closing: str | None = None
    for line in _lines(name):
        bare = line.strip()
        if closing is not None:
            if bare == closing:
                closing = None
        elif bare.startswith("-- ["):
            flag = bare[4:]
            if flag not in flags:
                closing = f"-- {flag}]"
        elif bare and not bare.startswith("--"):
            lines.append(line.rstrip())
    persistence = settings.durability.config
    return "\n".join(lines).format_map(
        {
            **vars(settings.qualified),
            **vars(settings.lease_names),
            **vars(settings.migration_names),
            "channel": settings.channel,
            "schema_expr": settings.schema_expr,
            "jobs_unlogged": persistence.queue_table,
            "records_unlogged": persistence.queue_log_table,
        }
    )


def statement(name: str, settings: DBSettings, *flags: str) -> str:
    """The statement in file *name*, for the objects that *settings* name.

    Args:
        name: Path below this package without its ending, such as ``compat/claim``.
        settings: Where the names come from; they were validated as identifiers there.
        flags: The optional parts to include.
    """
    # Kept with the settings: to hash and compare their names would take longer than a good part
    # of what a job costs.
    key = (name, flags)
    text = settings.statements.get(key)
    if text is None:
        text = settings.statements[key] = _render(name, settings, flags)
    return text


def size_class(size: int) -> int:
    """Which plans suit tables of *size* bytes: they change where the size grows eightfold."""
    return (size // _PAGE).bit_length() // 3


def sized_statement(size: int, name: str, settings: DBSettings, *flags: str) -> str:
    """As :func:`statement`, for tables of a :func:`size_class`, which a comment in the text names.

    A plan that PostgreSQL has made while a table was small is kept when it has grown, until the
    table is analysed: on an empty table that is a scan of all of it, and a queue is always empty
    before it is full. A statement with another text gets a plan of its own.
    """
    key: tuple[str, tuple[str | int, ...]] = (name, (*flags, size))
    text = settings.statements.get(key)
    if text is None:
        text = f"{statement(name, settings, *flags)}\n-- size class {size}"
        settings.statements[key] = text
    return text


def layout_statement(name: str, settings: DBSettings, *flags: str) -> str:
    """The statement *name* on the table layout of *settings*; see :func:`statement`."""
    return statement(f"{_folder(name, settings.layout)}/{name}", settings, *flags)
