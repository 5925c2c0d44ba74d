"""Statements as data, and the two runners that send them through a driver."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

from pgq_fast.drivers.base import Driver, SyncDriver

__all__ = ["Rows", "Statement", "Steps", "fetch_exists", "run_async", "run_sync"]

T = TypeVar("T")

Rows: TypeAlias = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class Statement:
    """One round trip.

    Attributes:
        sql: Several statements, separated by semicolons, only where there are no arguments.
        args: Values of ``$1, $2, ...``.
        returns_rows: Whether the rows are wanted; without them the steps are sent ``[]``.
    """

    sql: str
    args: tuple[object, ...] = ()
    returns_rows: bool = False


Steps: TypeAlias = Generator[Statement, Rows, T]
"""A database operation: yields statements, is sent their rows, returns its result."""


def query(sql: str, *args: object) -> Statement:
    """A statement whose rows are wanted."""
    return Statement(sql, args, returns_rows=True)


def fetch_exists(sql: str, *args: object) -> Steps[bool]:
    """Run a ``SELECT EXISTS (...)``; its answer."""
    (row,) = yield query(sql, *args)
    return bool(row["exists"])


async def run_async(driver: Driver, steps: Steps[T]) -> T:
    """Carry out *steps* over *driver* and return their result.

    A statement's failure is raised inside *steps* too, so that they can clean up with further
    statements.
    """
    try:
        statement = next(steps)
        while True:
            try:
                rows = await _send(driver, statement)
            except BaseException as error:
                statement = steps.throw(error)
            else:
                statement = steps.send(rows)
    except StopIteration as done:
        result: T = done.value
        return result


async def _send(driver: Driver, statement: Statement) -> Rows:
    if statement.returns_rows:
        return await driver.fetch(statement.sql, *statement.args)
    await driver.execute(statement.sql, *statement.args)
    return []


def run_sync(driver: SyncDriver, steps: Steps[T]) -> T:
    """The blocking counterpart of :func:`run_async`."""
    try:
        statement = next(steps)
        while True:
            try:
                rows = _send_sync(driver, statement)
            except BaseException as error:
                statement = steps.throw(error)
            else:
                statement = steps.send(rows)
    except StopIteration as done:
        result: T = done.value
        return result


def _send_sync(driver: SyncDriver, statement: Statement) -> Rows:
    if statement.returns_rows:
        return driver.fetch(statement.sql, *statement.args)
    # The protocol promises fetch only; drivers that refuse it for statements without rows
    # have execute beside it.
    execute = getattr(driver, "execute", driver.fetch)
    execute(statement.sql, *statement.args)
    return []
