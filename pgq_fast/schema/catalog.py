"""What is installed: reads the objects of one installation from PostgreSQL's catalog.

Only objects with the names of the settings are looked at, never whole schemas. ``current_schema()``
stands in where the settings name no schema, as it does for the statements that create objects.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Final, Literal

from pgq_fast.schema.objects import (
    IDS_SEQUENCE,
    NAME_LENGTH,
    NEXT_ID,
    STATUS_TYPE,
    Function,
    Location,
    Sequence,
    View,
    locate,
)
from pgq_fast.schema.statements import Rows, Steps, query
from pgq_fast.schema.target import retired, target
from pgq_fast.settings import DBSettings

__all__ = [
    "Installed",
    "InstalledColumn",
    "InstalledIndex",
    "InstalledTable",
    "InstalledTrigger",
    "InstalledView",
    "Spelling",
    "inspect",
    "spelling_of",
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
    external: bool


@dataclasses.dataclass(frozen=True, slots=True)
class InstalledTable:
    """A table with what hangs on it.

    Attributes:
        parameters: Storage parameters.
        sequence: SQL name of the sequence that numbers the rows, None without one.
        sequence_type: Its data type.
    """

    columns: dict[str, InstalledColumn]
    unlogged: bool
    primary_key: tuple[str, ...]
    unique: frozenset[tuple[str, ...]]
    parameters: dict[str, str]
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
    """A trigger of one of the tables.

    Attributes:
        events: ``pg_trigger.tgtype``: when it fires, as bits.
        update_of: The columns whose update counts; none for any.
        conditional: Whether it has a ``WHEN``.
        enabled: False where somebody switched it off.
    """

    function: str
    events: int
    update_of: frozenset[str]
    arguments: tuple[str, ...]
    conditional: bool
    enabled: bool


@dataclasses.dataclass(frozen=True, slots=True)
class InstalledView:
    """A view.

    Attributes:
        columns: Name and type of each, in order.
        query: As :meth:`Spelling.of_query` spells it.
    """

    columns: tuple[tuple[str, str], ...]
    query: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Installed:
    """What the catalog holds, keyed by the catalog's names.

    Attributes:
        schema_exists: Whether ``db_schema`` is there; True where the settings name none.
        enums: Labels of the status type and of its retired companion, in order.
        sequences: Data types.
        functions: Bodies.
        triggers: By table and name.
    """

    schema_exists: bool
    enums: dict[str, tuple[str, ...]]
    sequences: dict[str, str]
    tables: dict[str, InstalledTable]
    indexes: dict[str, InstalledIndex]
    functions: dict[str, str]
    triggers: dict[tuple[str, str], InstalledTrigger]
    views: dict[str, InstalledView]


_WANTED: Final = """
WITH wanted AS (
    SELECT ns.oid AS schema, w.name
    FROM unnest($1::text[], $2::text[]) AS w(schema, name)
    JOIN pg_namespace ns ON ns.nspname = coalesce(w.schema, current_schema())
)"""

_TABLES: Final = f"""{_WANTED}, tables AS (
    SELECT c.oid, c.relname, c.relpersistence, c.reloptions
    FROM wanted JOIN pg_class c ON c.relnamespace = wanted.schema AND c.relname = wanted.name
    WHERE c.relkind IN ('r', 'p')
)"""

_COLUMNS_QUERY: Final = f"""{_TABLES}
SELECT t.relname::text AS "table", t.relpersistence = 'u' AS unlogged, a.attname::text AS name,
       format_type(a.atttypid, a.atttypmod) AS type, y.typtype = 'e' AS is_enum,
       a.attnotnull AS not_null, a.attidentity <> '' AS identity, a.attstorage = 'e' AS external,
       coalesce(t.reloptions, '{{}}') AS parameters, pg_get_expr(d.adbin, d.adrelid) AS "default"
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

# Arguments are bytes, each ended by a zero.
_TRIGGERS_QUERY: Final = f"""{_TABLES}
SELECT t.relname::text AS "table", g.tgname::text AS name, p.proname::text AS function,
       g.tgtype::integer AS events, g.tgenabled IN ('O', 'A') AS enabled,
       g.tgqual IS NOT NULL AS conditional, encode(g.tgargs, 'escape') AS arguments,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = t.oid AND a.attnum = ANY(g.tgattr::int2[])) AS update_of
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

_SEQUENCES_OF_NO_TABLE_QUERY: Final = f"""{_WANTED}
SELECT c.relname::text AS name, format_type(q.seqtypid, NULL) AS type
FROM wanted
JOIN pg_class c ON c.relnamespace = wanted.schema AND c.relname = wanted.name AND c.relkind = 'S'
JOIN pg_sequence q ON q.seqrelid = c.oid"""

_VIEWS_QUERY: Final = f"""{_WANTED}
SELECT c.relname::text AS name, pg_get_viewdef(c.oid) AS query,
       array_agg(a.attname::text ORDER BY a.attnum) AS columns,
       array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) AS types
FROM wanted
JOIN pg_class c ON c.relnamespace = wanted.schema AND c.relname = wanted.name AND c.relkind = 'v'
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
GROUP BY c.oid, c.relname"""

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
    owned = yield query(_SEQUENCES_QUERY, *tables)
    indexes = yield query(_INDEXES_QUERY, *tables)
    triggers = yield query(
        _TRIGGERS_QUERY, *_located(settings, {trigger.table for trigger in wanted.triggers})
    )
    enums = yield query(_ENUMS_QUERY, *_located(settings, [wanted.status_type.name, gone.type]))
    functions = yield query(_FUNCTIONS_QUERY, *_located(settings, _names(wanted.functions)))
    sequences: Rows = []
    if wanted.sequences:
        sequences = yield query(
            _SEQUENCES_OF_NO_TABLE_QUERY, *_located(settings, _names(wanted.sequences))
        )
    views: Rows = []
    if wanted.views:
        views = yield query(_VIEWS_QUERY, *_located(settings, _names(wanted.views)))
    spelling = spelling_of(settings)
    return Installed(
        schema_exists=schema_exists,
        enums={row["name"]: tuple(row["labels"]) for row in enums},
        sequences={row["name"]: row["type"] for row in sequences},
        tables=_tables(columns, keys, owned, spelling),
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
            (row["table"], row["name"]): InstalledTrigger(
                function=row["function"],
                events=row["events"],
                update_of=frozenset(row["update_of"]),
                arguments=tuple(row["arguments"].split("\\000")[:-1]),
                conditional=row["conditional"],
                enabled=row["enabled"],
            )
            for row in triggers
        },
        views={
            row["name"]: InstalledView(
                columns=tuple(
                    zip(row["columns"], map(spelling.of_type, row["types"]), strict=True)
                ),
                query=spelling.of_query(row["query"]),
            )
            for row in views
        },
    )


def _names(objects: Iterable[Function | Sequence | View]) -> list[str]:
    return [each.name for each in objects]


def _located(settings: DBSettings, names: Iterable[str]) -> tuple[list[str | None], list[str]]:
    """Schemas and names as the two arrays that the queries take."""
    locations: list[Location] = [locate(settings, name) for name in names]
    return [location.schema for location in locations], [loc.name for loc in locations]


def spelling_of(settings: DBSettings) -> Spelling:
    """The spelling of what *settings* name."""
    wanted = target(settings)
    return Spelling(
        locate(settings, wanted.status_type.name),
        [locate(settings, sequence.name) for sequence in wanted.sequences],
        [locate(settings, table.name) for table in wanted.tables],
    )


class Spelling:
    """Turns the catalog's text into the declaration's.

    The catalog qualifies and quotes names as the ``search_path`` and the names demand.
    """

    def __init__(
        self, status_type: Location, sequences: Iterable[Location], tables: Iterable[Location]
    ) -> None:
        self._type = re.compile(f"{_quoted(status_type)}")
        self._cast = re.compile(f"::{_quoted(status_type)}")
        self._sequence = re.compile(
            rf"(?<=^nextval\(')(?:{'|'.join(map(_quoted, sequences)) or '(?!)'})(?='::regclass\)$)"
        )
        names = "|".join(re.escape(table.name) for table in tables)
        self._table_schema = re.compile(rf"\b\w+\.(?=(?:{names})\b)")
        self._column_table = re.compile(rf"\b(?:{names})\.(?=\w)")

    def of_type(self, text: str) -> str:
        """A type."""
        return STATUS_TYPE if self._type.fullmatch(text) else text

    def of_expression(self, text: str) -> str:
        """A default or a condition."""
        return self._cast.sub(f"::{STATUS_TYPE}", self._sequence.sub(IDS_SEQUENCE, text))

    def of_index(self, definition: str) -> str:
        """What follows the table in the definition of an index."""
        tail = definition[definition.index(" USING ") + 1 :]
        # Storage parameters are the administrator's business.
        return self.of_expression(re.sub(r" WITH \([^)]*\)", "", tail))

    def of_query(self, text: str) -> tuple[str, ...]:
        """The words of a view's query, the same for the catalog's text and for the declared one.

        The catalog adds parentheses, casts and the names of tables to what was written. Without
        them the texts compare; what a cast decides shows in the types of the columns.
        """
        text = re.sub(r'["();]', " ", text).lower()
        text = re.sub(rf"\w{{{NAME_LENGTH},}}", lambda name: name[0][:NAME_LENGTH], text)
        text = re.sub(r"::\s*(?:timestamp with time zone|\w+(?:\.\w+)?)(?:\[\])?", " ", text)
        text = self._column_table.sub("", self._table_schema.sub("", text))
        return tuple(word for word in re.findall(r"'[^']*'|\w+|[^\w\s]", text) if word != "as")


def _quoted(location: Location) -> str:
    """Pattern for a name as the catalog may print it."""
    return rf'(?:(?:"[^"]+"|\w+)\.)?"?{re.escape(location.name)}"?(?!\w)'


def _tables(
    columns: Rows, keys: Rows, sequences: Rows, spelling: Spelling
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
                parameters=dict(option.split("=", 1) for option in row["parameters"]),
                sequence=sequence,
                sequence_type=sequence_type,
            )
        column = _column(row, spelling)
        tables[name].columns[column.name] = column
    return tables


def _column(row: dict[str, object], spelling: Spelling) -> InstalledColumn:
    default = row["default"]
    if isinstance(default, str):
        default = spelling.of_expression(default)
    numbering: Literal["serial", "identity"] | None = None
    if row["identity"]:
        numbering = "identity"
    elif isinstance(default, str) and default.startswith("nextval(") and default != NEXT_ID:
        # The default is what makes a column serial; it is not compared as text.
        numbering, default = "serial", None
    return InstalledColumn(
        name=str(row["name"]),
        type=spelling.of_type(str(row["type"])),
        is_enum=bool(row["is_enum"]),
        not_null=bool(row["not_null"]),
        default=None if default is None else str(default),
        numbering=numbering,
        external=bool(row["external"]),
    )
