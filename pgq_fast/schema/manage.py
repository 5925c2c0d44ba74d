"""The operations on an installation, as steps for ``run_async`` or ``run_sync``."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Container, Iterable, Iterator
from typing import Literal

from pgq_fast.drivers.base import SessionLockKey
from pgq_fast.errors import LayoutMismatchError, SessionStateError
from pgq_fast.logconfig import logger
from pgq_fast.schema import ddl, lookups
from pgq_fast.schema.catalog import inspect
from pgq_fast.schema.differences import differences
from pgq_fast.schema.layout import require_layout
from pgq_fast.schema.objects import locate
from pgq_fast.schema.planning import Plan, plan
from pgq_fast.schema.statements import BEGIN, COMMIT, Statement, Steps, fetch_exists
from pgq_fast.schema.target import target
from pgq_fast.settings import DBSettings

__all__ = [
    "alter_durability",
    "apply_upgrade",
    "has_function",
    "has_table",
    "has_trigger",
    "has_user_defined_enum",
    "install",
    "lock",
    "optimize_autovacuum",
    "optimize_autovacuum_rollback",
    "plan_upgrade",
    "schema_is_installed",
    "table_has_column",
    "table_has_index",
    "uninstall",
    "unlock",
    "verify",
]


def install(settings: DBSettings, create_schema: bool = True) -> Steps[None]:
    """Create all objects, or none: the statements go to the server together.

    Fails where some exist already.

    Args:
        settings: Names and durability.
        create_schema: Whether to create ``db_schema`` too; without it the schema must exist.

    Raises:
        LayoutMismatchError: The other layout is there, or both; nothing was created.
    """
    yield from require_layout(settings)
    yield Statement(ddl.install_sql(settings, create_schema=create_schema))


def uninstall(settings: DBSettings) -> Steps[None]:
    """Drop all objects and every job in them.

    Raises:
        LayoutMismatchError: The other layout is there, or both; nothing was dropped.
    """
    yield from require_layout(settings)
    yield Statement(ddl.uninstall_sql(settings))


def schema_is_installed(settings: DBSettings) -> Steps[bool]:
    """Whether a table or the status type is there already: then ``install`` would fail."""
    live = yield from inspect(settings)
    return bool(live.tables or live.enums)


def plan_upgrade(settings: DBSettings) -> Steps[Plan]:
    """What :func:`apply_upgrade` would do, without doing it.

    Raises:
        SchemaDriftError: A column has a type that nothing converts.
        LayoutMismatchError: The other layout is there, or both.
    """
    yield from require_layout(settings)
    live = yield from inspect(settings)
    return plan(live, settings)


def lock(settings: DBSettings) -> Statement:
    """Wait for the lock that serialises upgrades of an installation, and hold it.

    The key is pgqueuer's, so the two exclude each other. The lock belongs to the session: over
    a connection pool it may be released before the upgrade ends, and two concurrent upgrades
    may then fail on each other's statements. A driver behind a pooler in transaction mode refuses
    it with ``SessionStateError``.
    """
    return Statement("SELECT pg_advisory_lock($1)", (SessionLockKey(_lock_key(settings)),))


def unlock(settings: DBSettings) -> Statement:
    """Release what :func:`lock` took."""
    return Statement("SELECT pg_advisory_unlock($1)", (SessionLockKey(_lock_key(settings)),))


def _lock_key(settings: DBSettings) -> int:
    return zlib.crc32(settings.qualified.queue_table.encode())


def apply_upgrade(settings: DBSettings) -> Steps[Plan]:
    """Bring the installation to what this release declares; what was done.

    Every statement commits by itself, so an upgrade that fails half-way stays half done and the
    next one goes on from there; behind a pooler in transaction mode, where the lock of a session
    does not hold, all of them are one transaction. The notes are logged as warnings.

    Raises:
        SchemaDriftError: A column has a type that nothing converts; nothing was changed.
        LayoutMismatchError: The other layout is there, or both; nothing was changed.
    """
    try:
        yield lock(settings)
    except SessionStateError:
        done = yield from _apply_in_turns(settings)
    else:
        done = yield from _apply_under_lock(settings)
    for note in done.notes:
        logger.warning("%s", note)
    return done


def _apply_under_lock(settings: DBSettings) -> Steps[Plan]:
    """Plan and apply with the session's lock held, and release it."""
    try:
        done = yield from plan_upgrade(settings)
        for text in done.statements:
            yield Statement(text)
    except BaseException:
        # The failure matters more than the lock, which a lost connection has released anyway.
        with contextlib.suppress(Exception):
            yield unlock(settings)
        raise
    yield unlock(settings)
    return done


def _apply_in_turns(settings: DBSettings) -> Steps[Plan]:
    """Plan and apply where no lock outlasts a transaction: in two that take it for their own.

    All is done in the second one, except for labels: they cannot be used before their transaction
    has ended. It plans anew, so that it does not matter who had a turn in between.
    """
    wanted = target(settings).status_type
    labels = {ddl.add_label(wanted, label, settings) for label in wanted.labels}
    yield from _begin_turn(settings)
    first = yield from plan_upgrade(settings)
    added = tuple(each for each in first.statements if each in labels)
    for text in added:
        yield Statement(text)
    yield COMMIT
    yield from _begin_turn(settings)
    rest = yield from plan_upgrade(settings)
    for text in rest.statements:
        yield Statement(text)
    yield COMMIT
    return Plan(added + rest.statements, rest.notes)


def _begin_turn(settings: DBSettings) -> Steps[None]:
    yield BEGIN
    yield Statement("SELECT pg_advisory_xact_lock($1)", (_lock_key(settings),))


def alter_durability(settings: DBSettings) -> Steps[None]:
    """Make the tables logged or unlogged, as the settings' durability has it; rows stay.

    Raises:
        LayoutMismatchError: The other layout is there, or both.
    """
    yield from require_layout(settings)
    yield Statement("\n\n".join(ddl.alter_durability_sql(settings)))


def optimize_autovacuum(settings: DBSettings) -> Steps[None]:
    """Set storage parameters that suit how each table is used.

    Raises:
        LayoutMismatchError: The other layout is there, or both.
    """
    yield from require_layout(settings)
    yield Statement(ddl.optimize_autovacuum_sql(settings))


def optimize_autovacuum_rollback(settings: DBSettings) -> Steps[None]:
    """Take back what :func:`optimize_autovacuum` set.

    Raises:
        LayoutMismatchError: The other layout is there, or both.
    """
    yield from require_layout(settings)
    yield Statement(ddl.optimize_autovacuum_rollback_sql(settings))


def table_has_column(settings: DBSettings, table: str, column: str) -> Steps[bool]:
    """Whether *table* has *column*."""
    return fetch_exists(lookups.table_column_exists_sql(settings), table, column)


def table_has_index(settings: DBSettings, table: str, index: str) -> Steps[bool]:
    """Whether *table* has *index*."""
    return fetch_exists(lookups.index_exists_sql(settings), table, index)


def has_user_defined_enum(settings: DBSettings, key: str, enum: str) -> Steps[bool]:
    """Whether *key* is a label of the enum type *enum*."""
    return fetch_exists(lookups.label_exists_sql(settings), key, enum)


def has_table(settings: DBSettings, table: str) -> Steps[bool]:
    """Whether there is a table or view *table*."""
    return fetch_exists(lookups.table_exists_sql(settings), table)


def has_function(settings: DBSettings, function: str) -> Steps[bool]:
    """Whether there is a function *function*."""
    return fetch_exists(lookups.function_exists_sql(settings), function)


def has_trigger(settings: DBSettings, trigger: str) -> Steps[bool]:
    """Whether a table has a trigger *trigger*."""
    return fetch_exists(lookups.trigger_exists_sql(settings), trigger)


def verify(
    settings: DBSettings, expect: Literal["present", "absent"] = "present"
) -> Steps[list[str]]:
    """What is not as expected, a line each; empty where everything is.

    Where another layout is there than the settings ask for, that is the one line.

    Args:
        settings: Names; ``widen_id`` says whether 32-bit ids are a problem.
        expect: ``"present"`` reports what is missing or different, ``"absent"`` what is there.
    """
    if expect == "present":
        try:
            yield from require_layout(settings)
        except LayoutMismatchError as mismatch:
            return [str(mismatch)]
    live = yield from inspect(settings)
    if expect == "present":
        return [found.problem for found in differences(live, settings) if found.problem]

    def unexpected(kind: str, names: Iterable[str], found: Container[str]) -> Iterator[str]:
        for name in names:
            if locate(settings, name).name in found:
                yield f"unexpected {kind} '{name}'"

    wanted = target(settings)
    triggers = {name for _, name in live.triggers}
    return [
        *unexpected("table", (each.name for each in wanted.tables), live.tables),
        *unexpected("view", (each.name for each in wanted.views), live.views),
        *unexpected("sequence", (each.name for each in wanted.sequences), live.sequences),
        *unexpected(
            "type",
            [wanted.status_type.name, settings.legacy_statistics_status_type],
            live.enums,
        ),
        *unexpected("function", (each.name for each in wanted.functions), live.functions),
        *unexpected("trigger", dict.fromkeys(each.name for each in wanted.triggers), triggers),
    ]
