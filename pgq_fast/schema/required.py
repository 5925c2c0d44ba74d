"""What a worker needs of an installation, and a look for all of it in one statement."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

from pgq_fast.choices import Layout
from pgq_fast.schema import lookups
from pgq_fast.schema.lease_tables import lease_tables
from pgq_fast.schema.statements import Steps, query
from pgq_fast.settings import DBSettings

__all__ = ["Requirement", "first_missing", "required"]

Kind: TypeAlias = Literal["table", "column", "label", "index"]

_COLUMNS: Final = (
    "updated",
    "heartbeat",
    "queue_manager_id",
    "execute_after",
    "headers",
    "attempts",
    "slot",
)
_LABELS: Final = ("canceled", "failed")


class Requirement(NamedTuple):
    """An object that has to be there.

    Attributes:
        kind: What it is.
        owner: The table or enum type that it is, or is part of.
        name: What it is called there; empty for a table.
        problem: What to tell who lacks it.
    """

    kind: Kind
    owner: str
    name: str
    problem: str


def required(settings: DBSettings) -> list[Requirement]:
    """All that workers need, in the order in which it is worth telling."""
    queue, log, status = settings.queue_table, settings.queue_table_log, settings.queue_status_type
    lease = settings.layout is Layout.lease
    own = [each.name for each in lease_tables(settings)] if lease else []
    return [
        *(
            Requirement(
                "table",
                table,
                "",
                f"The required table '{table}' is missing: run 'pgq install' to create it",
            )
            for table in (queue, settings.statistics_table, *own)
        ),
        Requirement("table", log, "", f"The {log} table is missing: run 'pgq upgrade'"),
        *(
            Requirement(
                "column",
                table,
                column,
                f"The required column '{column}' is missing in the '{table}' table: "
                "run 'pgq upgrade'",
            )
            for table, column in (*((queue, column) for column in _COLUMNS), (log, "traceback"))
        ),
        *(
            Requirement(
                "label",
                status,
                label,
                f"The {status} type has no label '{label}': run 'pgq upgrade'",
            )
            for label in _LABELS
        ),
        *(
            Requirement(
                "index",
                table,
                index,
                f"The required index '{index}' is missing in the '{table}' table: "
                "run 'pgq upgrade'",
            )
            for table, index in _indexes(settings)
        ),
    ]


def _indexes(settings: DBSettings) -> list[tuple[str, str]]:
    """Tables with the indexes without which a worker would be wrong or slow."""
    if settings.layout is Layout.lease:
        names, tables = settings.lease_names, lease_tables(settings)
        return [
            (tables.ready.name, names.ready_order_index),
            (tables.lease.name, names.lease_seat_index),
        ]
    log, queue = settings.queue_table_log, settings.queue_table
    return [(log, f"{log}_job_id_status"), (queue, f"{queue}_picked_slot_idx")]


def first_missing(settings: DBSettings) -> Steps[Requirement | None]:
    """The first of :func:`required` that is not there, or None."""
    wanted = required(settings)
    rows = yield query(
        lookups.first_missing_sql(settings),
        [each.kind for each in wanted],
        [each.owner for each in wanted],
        [each.name for each in wanted],
    )
    return wanted[int(rows[0]["place"]) - 1] if rows else None
