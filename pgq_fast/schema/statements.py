"""Statements as data, and the two runners that send them through a driver."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Generator
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from pgq_fast.drivers.base import (
    Driver,
    RowDriver,
    SyncDriver,
    SyncRowDriver,
    SyncTransaction,
    Transaction,
)
from pgq_fast.errors import SessionStateError

__all__ = [
    "BEGIN",
    "COMMIT",
    "Pause",
    "Rows",
    "Statement",
    "Steps",
    "fetch_exists",
    "run_async",
    "run_sync",
]

T = TypeVar("T")

Rows: TypeAlias = list[dict[str, Any]]


class Statement(NamedTuple):
    """One round trip.

    Attributes:
        sql: Several statements, separated by semicolons, only where there are no arguments.
        args: Values of ``$1, $2, ...``.
        returns_rows: Whether the rows are wanted; without them the steps are sent ``[]``.
    """

    sql: str
    args: tuple[object, ...] = ()
    returns_rows: bool = False


class Pause(NamedTuple):
    """A time in which nothing is done, and the connection is free."""

    seconds: float


Steps: TypeAlias = Generator[Statement | Pause, Rows, T]
"""A database operation: yields statements, is sent their rows, returns its result."""


BEGIN: Final = Statement("BEGIN")
COMMIT: Final = Statement("COMMIT")
"""What is yielded between the two is one transaction on one session, whatever the driver. A failure
in it rolls it back before it is raised inside the steps."""


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
    target: Driver | Transaction = driver
    async with contextlib.AsyncExitStack() as block:
        try:
            statement = next(steps)
            while True:
                rows: Rows = []
                try:
                    if statement is BEGIN:
                        if not isinstance(driver, RowDriver):
                            raise SessionStateError("A transaction of several statements")
                        target = await block.enter_async_context(driver.transaction())
                    elif statement is COMMIT:
                        target = driver
                        await block.aclose()
                    elif isinstance(statement, Pause):
                        await asyncio.sleep(statement.seconds)
                    else:
                        rows = await _send(target, statement)
                except BaseException as error:
                    target = driver
                    await block.__aexit__(type(error), error, error.__traceback__)
                    statement = steps.throw(error)
                else:
                    statement = steps.send(rows)
        except StopIteration as done:
            result: T = done.value
            return result


async def _send(driver: Driver | Transaction, statement: Statement) -> Rows:
    if statement.returns_rows:
        return await driver.fetch(statement.sql, *statement.args)
    await driver.execute(statement.sql, *statement.args)
    return []


def run_sync(driver: SyncDriver, steps: Steps[T]) -> T:
    """The blocking counterpart of :func:`run_async`."""
    target: SyncDriver | SyncTransaction = driver
    with contextlib.ExitStack() as block:
        try:
            statement = next(steps)
            while True:
                rows: Rows = []
                try:
                    if statement is BEGIN:
                        if not isinstance(driver, SyncRowDriver):
                            raise SessionStateError("A transaction of several statements")
                        target = block.enter_context(driver.transaction())
                    elif statement is COMMIT:
                        target = driver
                        block.close()
                    elif isinstance(statement, Pause):
                        time.sleep(statement.seconds)
                    else:
                        rows = _send_sync(target, statement)
                except BaseException as error:
                    target = driver
                    block.__exit__(type(error), error, error.__traceback__)
                    statement = steps.throw(error)
                else:
                    statement = steps.send(rows)
        except StopIteration as done:
            result: T = done.value
            return result


def _send_sync(driver: SyncDriver | SyncTransaction, statement: Statement) -> Rows:
    if statement.returns_rows:
        return driver.fetch(statement.sql, *statement.args)
    # The protocol promises fetch only; drivers that refuse it for statements without rows
    # have execute beside it.
    execute = getattr(driver, "execute", driver.fetch)
    execute(statement.sql, *statement.args)
    return []
