"""What a declaration of database objects is made of, and how their names reach the catalog.

Everything is spelled the way PostgreSQL's catalog prints it, so that a declared object and an
installed one compare as text. ``<status>`` stands for the status type and ``<ids>`` for the
sequence of ids, whose names and schema depend on the settings.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import Final, Literal, NamedTuple

from pgq_fast.settings import DBSettings

__all__ = [
    "IDS_SEQUENCE",
    "NAME_LENGTH",
    "NEXT_ID",
    "STATUS_TYPE",
    "Column",
    "EnumType",
    "Function",
    "Index",
    "Location",
    "Retired",
    "Sequence",
    "Table",
    "Target",
    "Trigger",
    "View",
    "bare",
    "beside",
    "indexes_of",
    "locate",
]

STATUS_TYPE: Final = "<status>"

IDS_SEQUENCE: Final = "<ids>"

NEXT_ID: Final = f"nextval('{IDS_SEQUENCE}'::regclass)"
"""The default of ids that several tables share."""

# PostgreSQL cuts longer names off; NAMEDATALEN - 1 bytes, and our names are ASCII.
NAME_LENGTH: Final = 63


class Location(NamedTuple):
    """Where the catalog keeps an object.

    ``schema`` is None where the connection's ``current_schema()`` decides.
    """

    schema: str | None
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column. Those that number their rows themselves are primary keys.

    Attributes:
        numbering: ``serial`` for a default from an owned sequence, ``identity`` for an identity
            column, None for an ordinary one.
        external: Whether large values are kept out of line and as they are; else PostgreSQL's
            default for the type.
    """

    name: str
    type: str
    not_null: bool = False
    default: str | None = None
    numbering: Literal["serial", "identity"] | None = None
    external: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Index:
    """An index that no constraint brings along; *definition* starts with ``USING``."""

    name: str
    table: str
    definition: str
    unique: bool = False

    @property
    def rebuild_name(self) -> str:
        """Name under which a new definition is built beside the old one.

        The same as pgqueuer's, so that each finds what the other left half done.
        """
        return f"pgq_rebuild_{zlib.crc32(self.name.encode()):08x}"


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table; *unlogged* as the settings' durability asks for it when it is created.

    Attributes:
        parameters: Storage parameters that belong to the table, with their values.
        fixed: Those among them that are not for the administrator to tune.
    """

    name: str
    columns: tuple[Column, ...]
    unlogged: bool
    unique: tuple[tuple[str, ...], ...] = ()
    primary_key: tuple[str, ...] = ("id",)
    parameters: tuple[tuple[str, str], ...] = ()
    fixed: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Sequence:
    """A sequence of ids that no column owns.

    Attributes:
        used: Where its values are: table and expression.
    """

    name: str
    used: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class EnumType:
    """An enum type with its labels in order."""

    name: str
    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Function:
    """A plpgsql trigger function; *body* is what stands between the dollar quotes."""

    name: str
    body: str


@dataclasses.dataclass(frozen=True, slots=True)
class Trigger:
    """A statement-level trigger after some kinds of change of *table*.

    Attributes:
        events: ``INSERT``, ``UPDATE``, ``DELETE``, ``TRUNCATE``.
        update_of: The columns whose update counts; none for any.
        arguments: What the function is given; words.
    """

    name: str
    table: str
    function: str
    events: tuple[str, ...]
    update_of: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """A view; *query* has no comments and names each column of each of its parts."""

    name: str
    columns: tuple[Column, ...]
    query: str


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """All objects of one installation, named as in the settings."""

    status_type: EnumType
    tables: tuple[Table, ...]
    indexes: tuple[Index, ...]
    functions: tuple[Function, ...]
    triggers: tuple[Trigger, ...]
    bucket_index: Index
    """The one of *indexes* that keeps a statistics bucket to one row."""
    sequences: tuple[Sequence, ...] = ()
    views: tuple[View, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Retired:
    """Objects of earlier releases that nothing uses any more.

    Attributes:
        index: On the queue table; None where there is no such table.
    """

    index: str | None
    type: str
    table: str
    column: str


def locate(settings: DBSettings, name: str) -> Location:
    """Where the catalog keeps the object that SQL calls ``settings.qualify(name)``.

    Names reach SQL unquoted, so PostgreSQL folds them to lower case and cuts them off.
    """
    schema = name.rpartition(".")[0].rpartition(".")[2] or settings.db_schema
    return Location(
        None if schema is None else _folded(schema),
        _folded(bare(name)),
    )


def beside(settings: DBSettings, table: str, name: str) -> str:
    """SQL for an index *name*, which lives in the schema of its table."""
    schema = settings.qualify(table).rpartition(".")[0]
    return f"{schema}.{name}" if schema else name


def bare(name: str) -> str:
    """*name* without a schema."""
    return name.rpartition(".")[2]


def indexes_of(table: str, rows: tuple[tuple[str, str, bool], ...]) -> tuple[Index, ...]:
    """Indexes of *table*, each given by the suffix of its name, definition, and uniqueness."""
    return tuple(
        Index(f"{bare(table)}_{suffix}", table, definition, unique)
        for suffix, definition, unique in rows
    )


def _folded(name: str) -> str:
    return name.lower()[:NAME_LENGTH]
