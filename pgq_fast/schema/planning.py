"""What an upgrade would do to a database."""

from __future__ import annotations

import dataclasses

from pgq_fast.schema.catalog import Installed
from pgq_fast.schema.differences import differences
from pgq_fast.settings import DBSettings

__all__ = ["Plan", "plan"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The way from what is installed to what this release declares.

    Attributes:
        statements: To be applied in order, each in a transaction of its own: a label added to
            an enum type cannot be used before its transaction has ended.
        notes: Long locks that the statements take, and what they leave for you to decide.
    """

    statements: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def plan(live: Installed, settings: DBSettings) -> Plan:
    """The statements and notes that bring *live* to what *settings* declare.

    Raises:
        SchemaDriftError: A column has a type that nothing converts; nothing is to be applied.
    """
    statements: list[str] = []
    notes: list[str] = []
    for difference in differences(live, settings):
        if difference.drift is not None:
            raise difference.drift
        statements += difference.statements
        notes += difference.notes
    return Plan(tuple(statements), tuple(notes))
