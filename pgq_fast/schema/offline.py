"""An upgrade script for a database that nobody can look into beforehand.

It suits every earlier installation and can be run again: each statement checks by itself what
is there. ``psql -f`` runs it; not inside one transaction, which could not use the labels that it
has just added to the status type.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgq_fast.choices import Layout
from pgq_fast.schema import ddl
from pgq_fast.schema.objects import STATUS_TYPE, Index, Table, beside, locate
from pgq_fast.schema.target import retired, target
from pgq_fast.settings import DBSettings

__all__ = ["upgrade_script"]


def upgrade_script(settings: DBSettings) -> str:
    """The script as text."""
    return "\n\n".join([ddl.header(settings), *_statements(settings)])


def _statements(settings: DBSettings) -> Iterator[str]:
    """In an order that works for every release: see :func:`pgq_fast.schema.differences`."""
    wanted, gone = target(settings), retired(settings)
    enum = wanted.status_type
    if settings.layout is Layout.lease:
        yield _refuse_compat(settings)
    if settings.db_schema:
        yield f"CREATE SCHEMA IF NOT EXISTS {settings.db_schema};"
    yield ddl.block(ddl.create_enum(enum, settings), on_error="duplicate_object")
    for label in enum.labels:
        yield ddl.add_label(enum, label, settings)
    for sequence in wanted.sequences:
        yield ddl.restore_sequence(sequence, settings)
    for table in wanted.tables:
        yield ddl.create_table(table, settings, guarded=True)
        yield _complete_columns(table, settings)
        external = [column for column in table.columns if column.external]
        if external:
            yield ddl.store_externally(table, external, settings)
        if table.primary_key or table.unique:
            yield _add_keys(table, settings)
        if table.parameters:
            yield _complete_parameters(table, settings)
        if settings.widen_id and any(column.numbering for column in table.columns):
            yield _widen(table, settings)
    yield _statistics_status(settings)
    yield _relax_retired_column(settings)
    if gone.index is not None:
        yield f"DROP INDEX IF EXISTS {beside(settings, settings.queue_table, gone.index)};"
    for index in wanted.indexes:
        if index == wanted.bucket_index:
            yield ddl.merge_buckets(settings)
        yield _rebuild_index(index, settings)
        yield ddl.drop_index(index, settings, name=index.rebuild_name)
    for function in wanted.functions:
        yield ddl.create_function(function, settings, replace=True)
    for trigger in wanted.triggers:
        yield ddl.create_trigger(trigger, settings, replace=True)
    for view in wanted.views:
        yield ddl.create_view(view, settings, replace=True)
    yield f"DROP TYPE IF EXISTS {settings.qualify(gone.type)};"


def _refuse_compat(settings: DBSettings) -> str:
    """Stop where the names of the views are those of tables: that is the other layout."""
    queue = settings.qualified.queue_table
    return ddl.block(
        "IF EXISTS (",
        f"    SELECT FROM pg_class WHERE oid = to_regclass('{queue}') AND relkind IN ('r', 'p')",
        ") THEN",
        f"    RAISE EXCEPTION '{queue} is a table: the layout compat is installed, '",
        "        'and this script is for the layout lease. Nothing was changed.';",
        "END IF;",
    )


def _complete_parameters(table: Table, settings: DBSettings) -> str:
    """Set the storage parameters that are not set; a value that somebody chose stays."""
    qualified = settings.qualify(table.name)
    lines: list[str] = []
    for name, value in table.parameters:
        kept = f"{name}={value}" if name in table.fixed else f"{name}=%"
        lines += [
            "IF NOT EXISTS (",
            "    SELECT FROM pg_class c, unnest(c.reloptions) AS option",
            f"    WHERE c.oid = '{qualified}'::regclass AND option LIKE '{kept}'",
            ") THEN",
            f"    ALTER TABLE {qualified} SET ({name} = {value});",
            "END IF;",
        ]
    return ddl.block(*lines)


def _complete_columns(table: Table, settings: DBSettings) -> str:
    """Add what is missing and restate the defaults; only the catalog changes."""
    plain = [column for column in table.columns if column.numbering is None]
    actions = [
        f"ADD COLUMN IF NOT EXISTS {ddl.column_definition(column, settings)}" for column in plain
    ]
    actions += [
        f"ALTER COLUMN {column.name} SET DEFAULT {ddl.spell(column.default, settings)}"
        for column in plain
        if column.default is not None
    ]
    body = ",\n    ".join(actions)
    return f"ALTER TABLE {settings.qualify(table.name)}\n    {body};"


def _add_keys(table: Table, settings: DBSettings) -> str:
    qualified = settings.qualify(table.name)
    keys = [f"UNIQUE ({', '.join(columns)})" for columns in table.unique]
    if table.primary_key:
        keys.insert(0, f"PRIMARY KEY ({', '.join(table.primary_key)})")
    lines: list[str] = []
    for key in keys:
        lines += [
            "IF NOT EXISTS (SELECT FROM pg_constraint k",
            f"               WHERE k.conrelid = '{qualified}'::regclass",
            f"                 AND pg_get_constraintdef(k.oid) = '{key}') THEN",
            f"    ALTER TABLE {qualified} ADD {key};",
            "END IF;",
        ]
    return ddl.block(*lines)


def _column_is(qualified: str, column: str, condition: str) -> str:
    """SQL: whether the table has the column, and it meets the condition."""
    return (
        f"EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = '{qualified}'::regclass\n"
        f"           AND a.attname = '{column}' AND NOT a.attisdropped AND {condition})"
    )


def _widen(table: Table, settings: DBSettings) -> str:
    qualified = settings.qualify(table.name)
    condition = _column_is(qualified, "id", "a.atttypid = 'integer'::regtype")
    return ddl.block(
        f"IF {condition} THEN",
        f"    ALTER TABLE {qualified} ALTER COLUMN id TYPE bigint;",
        "END IF;",
        # Widening a column leaves its sequence as it is.
        f"IF pg_get_serial_sequence('{qualified}', 'id') IS NOT NULL THEN",
        "    EXECUTE format('ALTER SEQUENCE %s AS bigint', "
        f"pg_get_serial_sequence('{qualified}', 'id'));",
        "END IF;",
    )


def _statistics_status(settings: DBSettings) -> str:
    statistics = settings.qualified.statistics_table
    status = settings.qualified.queue_status_type
    condition = _column_is(statistics, "status", f"a.atttypid <> '{status}'::regtype")
    return ddl.block(
        f"IF {condition} THEN",
        f"    ALTER TABLE {statistics}",
        f"        ALTER COLUMN status TYPE {status} USING status::text::{status};",
        "END IF;",
    )


def _relax_retired_column(settings: DBSettings) -> str:
    gone = retired(settings)
    qualified = settings.qualify(gone.table)
    condition = _column_is(qualified, gone.column, "a.attnotnull")
    alter = f"ALTER TABLE {qualified}"
    return f"-- Not used any more; without it: {alter} DROP COLUMN {gone.column};\n" + ddl.block(
        f"IF {condition} THEN",
        f"    {alter} ALTER COLUMN {gone.column} DROP NOT NULL;",
        "END IF;",
    )


def _rebuild_index(index: Index, settings: DBSettings) -> str:
    """Create the index; drop it before that where its definition is another one.

    Both in one block, so there is never a moment without an index that others can see.
    """
    qualified = settings.qualify(index.table)
    status_type = locate(settings, settings.queue_status_type).name
    definition = index.definition.replace(STATUS_TYPE, status_type).replace("'", "''")
    unique = "TRUE" if index.unique else "FALSE"
    return ddl.block(
        "IF EXISTS (",
        "    SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid",
        f"    WHERE i.indrelid = '{qualified}'::regclass",
        f"      AND c.relname = '{locate(settings, index.name).name}'",
        f"      AND (i.indisunique <> {unique} OR NOT i.indisvalid",
        # Storage parameters are left alone; a type is qualified where search_path hides it.
        "           OR regexp_replace(regexp_replace(substring(",
        "                  pg_get_indexdef(i.indexrelid) FROM ' (USING .*)'),",
        "                  ' WITH \\([^)]*\\)', ''), '::\\w+\\.', '::', 'g')",
        f"              <> '{definition}')",
        ") THEN",
        f"    DROP INDEX {beside(settings, index.table, index.name)};",
        "END IF;",
        ddl.create_index(index, settings, guarded=True),
    )
