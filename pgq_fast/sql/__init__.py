"""SQL text: one statement a file, built once for each set of names.

A file holds one statement in PostgreSQL's own syntax, with ``{queue_table}`` and the like where a
name from the settings goes; values are always parameters. Lines between ``-- [flag`` and
``-- flag]`` belong to the variants that have the flag, and ``-- include name x=$1`` stands for the
lines of another file with ``$1`` for its ``<x>``. Comments are not sent to the server.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from importlib.resources import files

from pgq_fast.settings import DBSettings


@functools.cache
def _lines(name: str) -> tuple[str, ...]:
    text = (files(__package__) / f"{name}.sql").read_text(encoding="utf-8")
    lines: list[str] = []
    for line in text.splitlines():
        keyword, _, included = line.strip().partition("-- include ")
        if included and not keyword:
            lines += _included(*included.split())
        else:
            lines.append(line)
    return tuple(lines)


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
