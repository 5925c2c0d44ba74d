"""What is installed: reads the objects of one installation from PostgreSQL's catalog.

Only objects with the names of the settings are looked at, never whole schemas. ``current_schema()``
stands in where the settings name no schema, as it does for the statements that create objects.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Final, Literal

from pgq_fast.schema.statements import Rows, Steps, query
from pgq_fast.schema.target import STATUS_TYPE, Location, locate, retired, target
from pgq_fast.settings import DBSettings

__all__ = [
    "Installed",
    "InstalledColumn",
    "InstalledIndex",
    "InstalledTable",
    "InstalledTrigger",
    "inspect",
]


@dataclasses.dataclass(frozen=True, slots=True)
class InstalledColumn:
    """A column; type and default spelled as in the declaration, ``<status>`` included."""

    name: str
    type: str
    is_enum: bool
    not_null: bool
    default: str | None
    numbering: Literal["serial", "identity"] | None


@dataclasses.dataclass(frozen=True, slots=True)
class InstalledTable:
    """A table with what hangs on it.

    Attributes:
        sequence: SQL name of the sequence that numbers the rows, None without one.
        sequence_type: Its data type.
    """

    columns: dict[str, InstalledColumn]
    unlogged: bool
    primary_key: tuple[str, ...]
    unique: frozenset[tuple[str, ...]]
    sequence: str | None
    sequence_type: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class InstalledIndex:
    """An index; not *valid* where a concurrent build broke off."""

    table: str
    definition: str
    unique: bool
    valid: bool


@dataclasses.dataclass(frozen=True, slots=True)
class InstalledTrigger:
    """A trigger of the queue table.

    Attributes:
        events: ``pg_trigger.tgtype``: when it fires, as bits.
        enabled: False where somebody switched it off.
    """

    function: str
    events: int
    enabled: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Installed:
    """What the catalog holds, keyed by the catalog's names.

    Attributes:
        schema_exists: Whether ``db_schema`` is there; True where the settings name none.
        enums: Labels of the status type and of its retired companion, in order.
        functions: Bodies.
    """

    schema_exists: bool
    enums: dict[str, tuple[str, ...]]
    tables: dict[str, InstalledTable]
    indexes: dict[str, InstalledIndex]
    functions: dict[str, str]
    triggers: dict[str, InstalledTrigger]


_WANTED: Final = """
WITH wanted AS (
    SELECT ns.oid AS schema, w.name
    FROM unnest($1::text[], $2::text[]) AS w(schema, name)
    JOIN pg_namespace ns ON ns.nspname = coalesce(w.schema, current_schema())
)"""

_TABLES: Final = f"""{_WANTED}, tables AS (
    SELECT c.oid, c.relname, c.relpersistence
    FROM wanted JOIN pg_class c ON c.relnamespace = wanted.schema AND c.relname = wanted.name
    WHERE c.relkind IN ('r', 'p')
)"""

_COLUMNS_QUERY: Final = f"""{_TABLES}
SELECT t.relname::text AS "table", t.relpersistence = 'u' AS unlogged, a.attname::text AS name,
       format_type(a.atttypid, a.atttypmod) AS type, y.typtype = 'e' AS is_enum,
       a.attnotnull AS not_null, a.attidentity <> '' AS identity,
       pg_get_expr(d.adbin, d.adrelid) AS "default"
FROM tables t
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type y ON y.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
ORDER BY t.relname, a.attnum"""

_KEYS_QUERY: Final = f"""{_TABLES}
SELECT t.relname::text AS "table", k.contype = 'p' AS is_primary,
       array_agg(a.attname::text ORDER BY key.position) AS columns
FROM tables t
JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype IN ('p', 'u')
CROSS JOIN unnest(k.conkey) WITH ORDINALITY AS key(attnum, position)
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = key.attnum
GROUP BY t.relname, k.oid, k.contype"""

# deptype: 'a' ties a serial's sequence to its column, 'i' that of an identity column.
_SEQUENCES_QUERY: Final = f"""{_TABLES}
SELECT t.relname::text AS "table", format('%I.%I', ns.nspname, s.relname) AS name,
       format_type(q.seqtypid, NULL) AS type
FROM tables t
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname = 'id'
JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid
     AND d.refobjsubid = a.attnum AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_namespace ns ON ns.oid = s.relnamespace
JOIN pg_sequence q ON q.seqrelid = s.oid"""

_INDEXES_QUERY: Final = f"""{_TABLES}
SELECT t.relname::text AS "table", c.relname::text AS name, i.indisunique AS is_unique,
       i.indisvalid AS valid, pg_get_indexdef(i.indexrelid) AS definition
FROM tables t
JOIN pg_index i ON i.indrelid = t.oid
JOIN pg_class c ON c.oid = i.indexrelid
WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)"""

_TRIGGERS_QUERY: Final = f"""{_TABLES}
SELECT g.tgname::text AS name, p.proname::text AS function, g.tgtype::integer AS events,
       g.tgenabled IN ('O', 'A') AS enabled
FROM tables t
JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal
JOIN pg_proc p ON p.oid = g.tgfoid"""

_ENUMS_QUERY: Final = f"""{_WANTED}
SELECT y.typname::text AS name,
       coalesce(array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
                FILTER (WHERE e.enumlabel IS NOT NULL), '{{}}') AS labels
FROM wanted
JOIN pg_type y ON y.typnamespace = wanted.schema AND y.typname = wanted.name AND y.typtype = 'e'
LEFT JOIN pg_enum e ON e.enumtypid = y.oid
GROUP BY y.oid, y.typname"""

_FUNCTIONS_QUERY: Final = f"""{_WANTED}
SELECT p.proname::text AS name, p.prosrc AS body
FROM wanted
JOIN pg_proc p ON p.pronamespace = wanted.schema AND p.proname = wanted.name AND p.pronargs = 0"""

_SCHEMA_QUERY: Final = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1::text) AS exists"


def inspect(settings: DBSettings) -> Steps[Installed]:
    """Read what is installed under the names of *settings*."""
    schema_exists = True
    if settings.db_schema:
        (row,) = yield query(_SCHEMA_QUERY, settings.db_schema)
        schema_exists = bool(row["exists"])
    wanted, gone = target(settings), retired(settings)
    tables = _located(settings, (table.name for table in wanted.tables))
    columns = yield query(_COLUMNS_QUERY, *tables)
    keys = yield query(_KEYS_QUERY, *tables)
    sequences = yield query(_SEQUENCES_QUERY, *tables)
    indexes = yield query(_INDEXES_QUERY, *tables)
    triggers = yield query(_TRIGGERS_QUERY, *_located(settings, [wanted.trigger.table]))
    enums = yield query(_ENUMS_QUERY, *_located(settings, [wanted.status_type.name, gone.type]))
    functions = yield query(_FUNCTIONS_QUERY, *_located(settings, [wanted.function.name]))
    spelling = _Spelling(locate(settings, wanted.status_type.name))
    return Installed(
        schema_exists=schema_exists,
        enums={row["name"]: tuple(row["labels"]) for row in enums},
        tables=_tables(columns, keys, sequences, spelling),
        indexes={
            row["name"]: InstalledIndex(
                table=row["table"],
                definition=spelling.of_index(row["definition"]),
                unique=row["is_unique"],
                valid=row["valid"],
            )
            for row in indexes
        },
        functions={row["name"]: row["body"] for row in functions},
        triggers={
            row["name"]: InstalledTrigger(row["function"], row["events"], row["enabled"])
            for row in triggers
        },
    )


def _located(settings: DBSettings, names: Iterable[str]) -> tuple[list[str | None], list[str]]:
    """Schemas and names as the two arrays that the queries take."""
    locations: list[Location] = [locate(settings, name) for name in names]
    return [location.schema for location in locations], [loc.name for loc in locations]


class _Spelling:
    """Turns the catalog's text into the declaration's.

    The catalog qualifies and quotes the status type as the ``search_path`` and the name demand.
    """

    def __init__(self, status_type: Location) -> None:
        name = rf'(?:(?:"[^"]+"|\w+)\.)?"?{re.escape(status_type.name)}"?(?!\w)'
        self._type = re.compile(name)
        self._cast = re.compile(f"::{name}")

    def of_type(self, text: str) -> str:
        return STATUS_TYPE if self._type.fullmatch(text) else text

    def of_expression(self, text: str) -> str:
        return self._cast.sub(f"::{STATUS_TYPE}", text)

    def of_index(self, definition: str) -> str:
        tail = definition[definition.index(" USING ") + 1 :]
        # Storage parameters are the administrator's business.
        return self.of_expression(re.sub(r" WITH \([^)]*\)", "", tail))


def _tables(
    columns: Rows, keys: Rows, sequences: Rows, spelling: _Spelling
) -> dict[str, InstalledTable]:
    sequence_of = {row["table"]: (row["name"], row["type"]) for row in sequences}
    tables: dict[str, InstalledTable] = {}
    for row in columns:
        name = row["table"]
        if name not in tables:
            sequence, sequence_type = sequence_of.get(name, (None, None))
            own_keys = [key for key in keys if key["table"] == name]
            tables[name] = InstalledTable(
                columns={},
                unlogged=row["unlogged"],
                primary_key=next(
                    (tuple(key["columns"]) for key in own_keys if key["is_primary"]), ()
                ),
                unique=frozenset(
                    tuple(key["columns"]) for key in own_keys if not key["is_primary"]
                ),
                sequence=sequence,
                sequence_type=sequence_type,
            )
        column = _column(row, spelling)
        tables[name].columns[column.name] = column
    return tables


def _column(row: dict[str, object], spelling: _Spelling) -> InstalledColumn:
    default = row["default"]
    numbering: Literal["serial", "identity"] | None = None
    if row["identity"]:
        numbering = "identity"
    elif isinstance(default, str) and default.startswith("nextval("):
        # The default is what makes a column serial; it is not compared as text.
        numbering, default = "serial", None
    return InstalledColumn(
        name=str(row["name"]),
        type=spelling.of_type(str(row["type"])),
        is_enum=bool(row["is_enum"]),
        not_null=bool(row["not_null"]),
        default=None if default is None else spelling.of_expression(str(default)),
        numbering=numbering,
    )
