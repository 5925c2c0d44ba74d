"""Catalog queries for objects by name, mostly for one: a boolean column ``exists``.

Names match as the catalog spells them, or as SQL would without quotes: folded to lower case and cut
off. They are looked for in ``db_schema`` or else ``current_schema()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgq_fast.settings import DBSettings


__all__ = [
    "first_missing_sql",
    "function_exists_sql",
    "index_exists_sql",
    "label_exists_sql",
    "table_column_exists_sql",
    "table_exists_sql",
    "trigger_exists_sql",
    "user_types_sql",
]

# Tables, partitioned tables, views, foreign tables: what can be read as a table.
_READABLE = "('r', 'p', 'v', 'f')"


def _in_schema(settings: DBSettings, namespace: str) -> str:
    return f"{namespace} = (SELECT oid FROM pg_namespace WHERE nspname = {settings.schema_expr})"


def _named(column: str, name: str) -> str:
    """*column* is what the expression *name* says, quoted or not."""
    return f"{column} IN ({name}::text::name, lower({name}::text)::name)"


def _table(settings: DBSettings, table: str) -> str:
    return (
        f"EXISTS (SELECT FROM pg_class c WHERE {_named('c.relname', table)} "
        f"AND c.relkind IN {_READABLE} AND {_in_schema(settings, 'c.relnamespace')})"
    )


def _column(settings: DBSettings, table: str, column: str) -> str:
    return (
        "EXISTS (SELECT FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        f"WHERE {_named('c.relname', table)} AND a.attname = {column}::text AND a.attnum > 0 "
        f"AND NOT a.attisdropped AND c.relkind IN {_READABLE} "
        f"AND {_in_schema(settings, 'c.relnamespace')})"
    )


def _index(settings: DBSettings, table: str, index: str) -> str:
    return (
        "EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        f"JOIN pg_class t ON t.oid = i.indrelid WHERE {_named('t.relname', table)} "
        f"AND {_named('c.relname', index)} AND {_in_schema(settings, 't.relnamespace')})"
    )


def _label(settings: DBSettings, label: str, type_name: str) -> str:
    return (
        f"EXISTS (SELECT FROM ({user_types_sql(settings)}) AS label "
        f"WHERE label.enumlabel = {label}::text AND {_named('label.typname', type_name)})"
    )


def table_exists_sql(settings: DBSettings) -> str:
    """``$1``: table or view."""
    return f"SELECT {_table(settings, '$1')} AS exists"


def table_column_exists_sql(settings: DBSettings) -> str:
    """``$1``: table or view, ``$2``: column."""
    return f"SELECT {_column(settings, '$1', '$2')} AS exists"


def index_exists_sql(settings: DBSettings) -> str:
    """``$1``: table, ``$2``: index."""
    return f"SELECT {_index(settings, '$1', '$2')} AS exists"


def first_missing_sql(settings: DBSettings) -> str:
    """``place``, from 1 on, of the first object that is not there; no row where all are.

    ``$1``: kinds, of ``table``, ``column``, ``index`` and ``label``; ``$2``: for each, a table or
    enum type; ``$3``: the name of what it has to have.
    """
    return (
        "SELECT place FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY "
        "AS wanted (kind, owner, name, place) WHERE NOT CASE kind "
        f"WHEN 'table' THEN {_table(settings, 'wanted.owner')} "
        f"WHEN 'column' THEN {_column(settings, 'wanted.owner', 'wanted.name')} "
        f"WHEN 'index' THEN {_index(settings, 'wanted.owner', 'wanted.name')} "
        f"ELSE {_label(settings, 'wanted.name', 'wanted.owner')} END ORDER BY place LIMIT 1"
    )


def function_exists_sql(settings: DBSettings) -> str:
    """``$1``: function."""
    return (
        f"SELECT EXISTS (SELECT FROM pg_proc p WHERE {_named('p.proname', '$1')} "
        f"AND {_in_schema(settings, 'p.pronamespace')}) AS exists"
    )


def trigger_exists_sql(settings: DBSettings) -> str:
    """``$1``: trigger, on any table."""
    return (
        "SELECT EXISTS (SELECT FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid "
        f"WHERE {_named('g.tgname', '$1')} AND {_in_schema(settings, 'c.relnamespace')}) AS exists"
    )


def user_types_sql(settings: DBSettings) -> str:
    """All labels of enum types as ``enumlabel, typname``.

    Of every schema where the settings name none: a type anywhere on the ``search_path`` counts.
    """
    where = f" WHERE {_in_schema(settings, 'y.typnamespace')}" if settings.db_schema else ""
    return (
        "SELECT e.enumlabel::text AS enumlabel, y.typname::text AS typname "
        f"FROM pg_enum e JOIN pg_type y ON y.oid = e.enumtypid{where}"
    )


def label_exists_sql(settings: DBSettings) -> str:
    """``$1``: label, ``$2``: enum type."""
    return f"SELECT {_label(settings, '$1', '$2')} AS exists"
