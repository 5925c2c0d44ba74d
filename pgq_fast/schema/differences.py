"""How an installed schema differs from the declared one, and what to do about each difference.

The comparison is made once and read twice: an upgrade takes the statements and notes,
verification the problems.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final

from pgq_fast.errors import SchemaDriftError
from pgq_fast.schema import ddl
from pgq_fast.schema.catalog import (
    Installed,
    InstalledColumn,
    InstalledIndex,
    InstalledTable,
    InstalledTrigger,
    InstalledView,
    Spelling,
    spelling_of,
)
from pgq_fast.schema.objects import (
    STATUS_TYPE,
    Column,
    Function,
    Index,
    Sequence,
    Table,
    Target,
    Trigger,
    View,
    locate,
)
from pgq_fast.schema.target import retired, target
from pgq_fast.settings import DBSettings

__all__ = ["Difference", "differences"]

# Bits of pg_trigger.tgtype; AFTER and FOR EACH STATEMENT have none.
_EVENTS: Final = {"INSERT": 4, "DELETE": 8, "UPDATE": 16, "TRUNCATE": 32}

_TEXT_TYPES: Final = ("text", "character varying")


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as declared.

    Attributes:
        problem: What verification reports; None for left-overs that do no harm.
        statements: What an upgrade does about it, one round trip each.
        notes: What the operator should know: long locks, or what an upgrade leaves alone.
        drift: Set where the upgrade must not begin at all.
    """

    problem: str | None = None
    statements: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    drift: SchemaDriftError | None = None


def differences(live: Installed, settings: DBSettings) -> Iterator[Difference]:
    """Compare *live* with the declaration; in an order in which the statements can be applied.

    Labels and sequences come before the columns that default to them, columns before the indexes
    and views over them, functions before their triggers, the retired type last: a column refers to
    it until that has been converted. Objects that the
    declaration does not know are somebody else's and are left alone.
    """
    wanted = target(settings)
    if not live.schema_exists:
        yield Difference(statements=(f"CREATE SCHEMA IF NOT EXISTS {settings.db_schema};",))
    yield from _status_type(live, wanted, settings)
    for sequence in wanted.sequences:
        yield from _ids(live, sequence, settings)
    for table in wanted.tables:
        yield from _table(live, table, settings)
    yield from _retired_objects(live, settings)
    for index in wanted.indexes:
        yield from _index(live, index, wanted, settings)
    for function in wanted.functions:
        yield from _function(live, function, settings)
    for trigger in wanted.triggers:
        yield from _trigger(live, trigger, wanted, settings)
    spelling = spelling_of(settings)
    for view in wanted.views:
        yield from _view(live, view, spelling, settings)
    yield from _retired_type(live, settings)


def _status_type(live: Installed, wanted: Target, settings: DBSettings) -> Iterator[Difference]:
    enum = wanted.status_type
    installed = live.enums.get(locate(settings, enum.name).name)
    if installed is None:
        yield Difference(f"missing type '{enum.name}'", (ddl.create_enum(enum, settings),))
        return
    for label in enum.labels:
        if label not in installed:
            yield Difference(
                f"missing label '{label}' of type '{enum.name}'",
                (ddl.add_label(enum, label, settings),),
            )


def _ids(live: Installed, sequence: Sequence, settings: DBSettings) -> Iterator[Difference]:
    installed = live.sequences.get(locate(settings, sequence.name).name)
    if installed is None:
        # Where there are tables, they may hold ids.
        create = ddl.restore_sequence if live.tables else ddl.create_sequence
        yield Difference(
            f"missing sequence '{sequence.name}'",
            (create(sequence, settings),),
            (
                f"The ids of jobs go on after those in the tables, since {sequence.name} is "
                "missing; ids of jobs that have left the log may be given once more.",
            )
            if live.tables
            else (),
        )
    elif installed != "bigint":
        yield Difference(
            f"different type of sequence '{sequence.name}': {installed}, expected bigint",
            (f"ALTER SEQUENCE {settings.qualify(sequence.name)} AS bigint;",),
        )


def _table(live: Installed, table: Table, settings: DBSettings) -> Iterator[Difference]:
    installed = live.tables.get(locate(settings, table.name).name)
    if installed is None:
        yield Difference(f"missing table '{table.name}'", (ddl.create_table(table, settings),))
        return
    for column in table.columns:
        found = installed.columns.get(column.name)
        if found is None:
            yield _missing_column(table, column, settings)
        else:
            yield from _column(table, column, found, settings)
    yield from _keys(table, installed, settings)
    yield from _sequence(table, installed, settings)
    yield from _parameters(table, installed, settings)
    if installed.unlogged != table.unlogged:
        yield _persistence(table, installed, settings)


def _missing_column(table: Table, column: Column, settings: DBSettings) -> Difference:
    definition = ddl.column_definition(column, settings)
    statements = [f"ALTER TABLE {settings.qualify(table.name)} ADD COLUMN {definition};"]
    if column.external:
        statements.append(ddl.store_externally(table, [column], settings))
    return Difference(f"missing column '{table.name}.{column.name}'", tuple(statements))


def _column(
    table: Table, column: Column, found: InstalledColumn, settings: DBSettings
) -> Iterator[Difference]:
    alter = f"ALTER TABLE {settings.qualify(table.name)}"
    where = f"{table.name}.{column.name}"
    converted = found.type != column.type
    if converted:
        yield _conversion(table, column, found, settings)
    if found.numbering != column.numbering:
        yield Difference(
            f"different column '{where}': {found.numbering or 'plain'}, "
            f"expected {column.numbering or 'plain'}",
            notes=(
                f"{where} does not number its rows as it should ({found.numbering or 'plain'} "
                f"instead of {column.numbering or 'plain'}), which an upgrade does not change: "
                "change the column by hand.",
            ),
        )
    if found.not_null != column.not_null:
        verb = "SET" if column.not_null else "DROP"
        yield Difference(
            f"different column '{where}': {'nullable' if column.not_null else 'not null'}",
            (f"{alter} ALTER COLUMN {column.name} {verb} NOT NULL;",),
        )
    # A conversion brings its default along.
    if found.default != column.default and not converted:
        wanted = None if column.default is None else ddl.spell(column.default, settings)
        yield Difference(
            f"different default of column '{where}': {found.default}, expected {wanted}",
            (f"{alter} ALTER COLUMN {column.name} {_default_action(column, settings)};",),
        )
    if column.external and not found.external:
        yield Difference(
            f"different storage of column '{where}': expected external",
            (ddl.store_externally(table, [column], settings),),
        )


def _default_action(column: Column, settings: DBSettings) -> str:
    if column.default is None:
        return "DROP DEFAULT"
    return f"SET DEFAULT {ddl.spell(column.default, settings)}"


def _conversion(
    table: Table, column: Column, found: InstalledColumn, settings: DBSettings
) -> Difference:
    qualified = settings.qualify(table.name)
    where = f"{table.name}.{column.name}"
    declared = ddl.spell(column.type, settings)
    problem = f"different type of column '{where}': {found.type}, expected {declared}"
    rewrite = (
        f"The upgrade rewrites {table.name} to convert {column.name} to {declared}: nobody can "
        "read or write the table meanwhile, for a time that grows with its size. "
        "Choose a quiet moment.",
    )
    if (found.type, column.type) == ("integer", "bigint"):
        statement = f"ALTER TABLE {qualified} ALTER COLUMN {column.name} TYPE bigint;"
        if settings.widen_id:
            return Difference(problem, (statement,), rewrite)
        return Difference(
            notes=(
                f"{where} stays a 32-bit integer, since widening is switched off. To widen it "
                f"later: {statement}",
            )
        )
    if column.type == STATUS_TYPE and (found.is_enum or found.type.startswith(_TEXT_TYPES)):
        # A default has the old type, and there is no conversion for it: out and in again.
        actions = [f"ALTER COLUMN {column.name} DROP DEFAULT"] if found.default else []
        actions.append(
            f"ALTER COLUMN {column.name} TYPE {declared} USING {column.name}::text::{declared}"
        )
        if column.default is not None:
            actions.append(f"ALTER COLUMN {column.name} {_default_action(column, settings)}")
        return Difference(problem, (f"ALTER TABLE {qualified} {', '.join(actions)};",), rewrite)
    return Difference(
        problem,
        drift=SchemaDriftError(
            table=table.name, column=column.name, installed=found.type, declared=declared
        ),
    )


def _keys(table: Table, installed: InstalledTable, settings: DBSettings) -> Iterator[Difference]:
    alter = f"ALTER TABLE {settings.qualify(table.name)}"
    wanted, found = ", ".join(table.primary_key), ", ".join(installed.primary_key)
    # A column that numbers the rows brings the key along when it is added.
    brought = any(
        column.numbering and column.name not in installed.columns for column in table.columns
    )
    if wanted and not found and not brought:
        yield Difference(
            f"missing primary key of table '{table.name}'",
            (f"{alter} ADD PRIMARY KEY ({wanted});",),
        )
    elif found not in ("", wanted):
        expected = f"({wanted})" if wanted else "none"
        yield Difference(
            f"different primary key of table '{table.name}': ({found}), expected {expected}",
            notes=(
                f"The primary key of {table.name} is ({found}) instead of {expected}, which an "
                "upgrade does not change: change it by hand.",
            ),
        )
    for columns in table.unique:
        if columns not in installed.unique:
            names = ", ".join(columns)
            yield Difference(
                f"missing unique constraint of table '{table.name}': ({names})",
                (f"{alter} ADD UNIQUE ({names});",),
            )


def _sequence(
    table: Table, installed: InstalledTable, settings: DBSettings
) -> Iterator[Difference]:
    # Widening a column leaves its sequence as it is, and the sequence is what runs out.
    if installed.sequence is None or installed.sequence_type == "bigint":
        return
    statement = f"ALTER SEQUENCE {installed.sequence} AS bigint;"
    if settings.widen_id:
        yield Difference(
            f"different type of the ids of table '{table.name}': {installed.sequence_type}, "
            "expected bigint",
            (statement,),
        )
    else:
        yield Difference(
            notes=(
                f"The sequence that numbers {table.name} still ends at the largest "
                f"{installed.sequence_type}, since widening is switched off. To widen it later: "
                f"{statement}",
            )
        )


def _parameters(
    table: Table, installed: InstalledTable, settings: DBSettings
) -> Iterator[Difference]:
    """What is not set; a value of somebody else's is their tuning, except for the fixed ones."""
    for name, value in table.parameters:
        found = installed.parameters.get(name)
        if found is None or (name in table.fixed and _switch(found) != _switch(value)):
            problem = (
                f"missing storage parameter '{name}' of table '{table.name}'"
                if found is None
                else f"different storage parameter '{name}' of table '{table.name}': {found}, "
                f"expected {value}"
            )
            yield Difference(problem, (ddl.set_parameters(table, [(name, value)], settings),))


def _switch(value: str) -> str:
    """One spelling for each of the two states of a boolean parameter."""
    return {"false": "off", "no": "off", "0": "off"}.get(value.lower(), value.lower())


def _persistence(table: Table, installed: InstalledTable, settings: DBSettings) -> Difference:
    # An upgrade never changes it: that would rewrite the table, and the settings say what a
    # new installation should be like, not what this one was meant to be.
    is_now = "unlogged" if installed.unlogged else "logged"
    level = settings.durability.value
    return Difference(
        notes=(
            f"{table.name} is {is_now}, which durability '{level}' does not ask for. Set "
            "PGQUEUER_DURABILITY to what you want; if that is "
            f"'{level}', change the tables with 'pgq durability {level}'.",
        )
    )


def _retired_objects(live: Installed, settings: DBSettings) -> Iterator[Difference]:
    gone = retired(settings)
    if gone.index is not None and locate(settings, gone.index).name in live.indexes:
        index = Index(gone.index, settings.queue_table, "")
        yield Difference(statements=(ddl.drop_index(index, settings),))
    table = live.tables.get(locate(settings, gone.table).name)
    column = table.columns.get(gone.column) if table else None
    if column is None:
        return
    alter = f"ALTER TABLE {settings.qualify(gone.table)}"
    relax = f"{alter} ALTER COLUMN {gone.column} DROP NOT NULL;"
    yield Difference(
        # Nothing fills it any more: rows could not be inserted.
        f"column '{gone.table}.{gone.column}' is obsolete and not null"
        if column.not_null
        else None,
        (relax,) if column.not_null else (),
        (
            f"{gone.table}.{gone.column} is not used any more. If you do not need its data: "
            f"{alter} DROP COLUMN {gone.column};",
        ),
    )


def _index(
    live: Installed, index: Index, wanted: Target, settings: DBSettings
) -> Iterator[Difference]:
    table = locate(settings, index.table).name
    if table not in live.tables:
        # Reported with its table, which is empty: nothing to merge, nobody to disturb.
        yield Difference(statements=(ddl.create_index(index, settings),))
        return
    installed = live.indexes.get(locate(settings, index.name).name)
    rebuilt = live.indexes.get(index.rebuild_name)
    clear = ddl.drop_index(index, settings, name=index.rebuild_name)
    if installed is not None and _as_declared(installed, index, table):
        if rebuilt is not None:
            yield Difference(statements=(clear,))
        return
    if installed is None and rebuilt is not None and _as_declared(rebuilt, index, table):
        # pgqueuer drops the old index and renames the new one in two steps.
        yield Difference(f"missing index '{index.name}'", (ddl.swap_rebuilt(index, settings),))
        return
    statements = [clear] if rebuilt is not None else []
    if index == wanted.bucket_index:
        statements.append(ddl.merge_buckets(settings))
    notes = (
        f"The upgrade builds {index.name}: nobody can write to {index.table} meanwhile, for a "
        "time that grows with its size. Choose a quiet moment.",
    )
    if installed is None:
        statements.append(ddl.create_index(index, settings))
        yield Difference(f"missing index '{index.name}'", tuple(statements), notes)
        return
    # Build first and swap then: if the build fails, the old index is still there.
    statements += [
        ddl.create_index(index, settings, name=index.rebuild_name),
        ddl.swap_rebuilt(index, settings),
    ]
    yield Difference(_index_problem(installed, index, table, settings), tuple(statements), notes)


def _as_declared(installed: InstalledIndex, index: Index, table: str) -> bool:
    return installed == InstalledIndex(table, index.definition, index.unique, valid=True)


def _index_problem(
    installed: InstalledIndex, index: Index, table: str, settings: DBSettings
) -> str:
    if _as_declared(dataclasses.replace(installed, valid=True), index, table):
        return f"invalid index '{index.name}': its build broke off"

    def described(on: str, definition: str, unique: bool) -> str:
        kind = "unique " if unique else ""
        return f"{kind}on {on} {ddl.spell(definition, settings)}"

    return (
        f"different index '{index.name}': "
        f"{described(installed.table, installed.definition, installed.unique)}, "
        f"expected {described(table, index.definition, index.unique)}"
    )


def _function(live: Installed, function: Function, settings: DBSettings) -> Iterator[Difference]:
    body = live.functions.get(locate(settings, function.name).name)
    if body is None:
        yield Difference(
            f"missing function '{function.name}'", (ddl.create_function(function, settings),)
        )
    elif body.split() != function.body.split():
        # Releases differ in indentation; that is no reason to replace it.
        yield Difference(
            f"different function '{function.name}'",
            (ddl.create_function(function, settings, replace=True),),
        )


def _trigger(
    live: Installed, trigger: Trigger, wanted: Target, settings: DBSettings
) -> Iterator[Difference]:
    label = f"'{trigger.name}'"
    if sum(other.name == trigger.name for other in wanted.triggers) > 1:
        label += f" of table '{trigger.table}'"
    table, name = locate(settings, trigger.table).name, locate(settings, trigger.name).name
    installed = live.triggers.get((table, name))
    if installed is None:
        yield Difference(f"missing trigger {label}", (ddl.create_trigger(trigger, settings),))
        return
    declared = InstalledTrigger(
        function=locate(settings, trigger.function).name,
        events=sum(_EVENTS[event] for event in trigger.events),
        update_of=frozenset(trigger.update_of),
        arguments=trigger.arguments,
        conditional=False,
        enabled=installed.enabled,
    )
    if installed != declared:
        yield Difference(
            f"different trigger {label}", (ddl.create_trigger(trigger, settings, replace=True),)
        )
    if not installed.enabled:
        qualified = settings.qualify(trigger.table)
        yield Difference(
            f"disabled trigger {label}",
            notes=(
                f"The trigger {trigger.name} is disabled, so workers hear of new jobs only when "
                f"they poll: ALTER TABLE {qualified} ENABLE TRIGGER {trigger.name};",
            ),
        )


def _view(
    live: Installed, view: View, spelling: Spelling, settings: DBSettings
) -> Iterator[Difference]:
    installed = live.views.get(locate(settings, view.name).name)
    if installed is None:
        yield Difference(f"missing view '{view.name}'", (ddl.create_view(view, settings),))
        return
    declared = InstalledView(
        tuple((column.name, column.type) for column in view.columns),
        spelling.of_query(view.query),
    )
    if installed.columns != declared.columns:
        yield Difference(
            f"different columns of view '{view.name}'", (ddl.recreate_view(view, settings),)
        )
    elif installed != declared:
        # In place, so that rights to the view stay.
        yield Difference(
            f"different view '{view.name}'", (ddl.create_view(view, settings, replace=True),)
        )


def _retired_type(live: Installed, settings: DBSettings) -> Iterator[Difference]:
    gone = retired(settings).type
    if locate(settings, gone).name in live.enums:
        yield Difference(statements=(f"DROP TYPE IF EXISTS {settings.qualify(gone)};",))
