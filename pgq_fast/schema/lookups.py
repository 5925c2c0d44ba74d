"""Catalog queries for single objects: one boolean column ``exists``, names as parameters.

Names match as the catalog spells them, or as SQL would without quotes: folded to lower case and cut
off. They are looked for in ``db_schema`` or else ``current_schema()``.
"""

from __future__ import annotations

from pgq_fast.settings import DBSettings

__all__ = [
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


def _named(column: str, parameter: str) -> str:
    """*column* is the name in *parameter*, quoted or not."""
    return f"{column} IN ({parameter}::text::name, lower({parameter}::text)::name)"


def table_exists_sql(settings: DBSettings) -> str:
    """``$1``: table or view."""
    return (
        f"SELECT EXISTS (SELECT FROM pg_class c WHERE {_named('c.relname', '$1')} "
        f"AND c.relkind IN {_READABLE} AND {_in_schema(settings, 'c.relnamespace')}) AS exists"
    )


def table_column_exists_sql(settings: DBSettings) -> str:
    """``$1``: table or view, ``$2``: column."""
    return (
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        f"WHERE {_named('c.relname', '$1')} AND a.attname = $2::text AND a.attnum > 0 "
        f"AND NOT a.attisdropped AND c.relkind IN {_READABLE} "
        f"AND {_in_schema(settings, 'c.relnamespace')}) AS exists"
    )


def index_exists_sql(settings: DBSettings) -> str:
    """``$1``: table, ``$2``: index."""
    return (
        "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        f"JOIN pg_class t ON t.oid = i.indrelid WHERE {_named('t.relname', '$1')} "
        f"AND {_named('c.relname', '$2')} AND {_in_schema(settings, 't.relnamespace')}) AS exists"
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
    return (
        f"SELECT EXISTS (SELECT FROM ({user_types_sql(settings)}) AS label "
        f"WHERE label.enumlabel = $1::text AND {_named('label.typname', '$2')}) AS exists"
    )
