"""What every command starts from: the global options, a connection."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
from collections.abc import AsyncIterator, Callable

import typer

from pgq_fast.builders import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgq_fast.choices import Layout
from pgq_fast.cli.errors import CliError, first_line
from pgq_fast.connections import connect_asyncpg, connect_psycopg
from pgq_fast.drivers.base import Driver
from pgq_fast.drivers.failures import sqlstate_of
from pgq_fast.drivers.pooling import poll_interval_of
from pgq_fast.factories import load_factory
from pgq_fast.queries import Queries
from pgq_fast.settings import ConnectionSettings, DBSettings, db_settings

__all__ = ["GlobalOptions", "cannot_connect", "load_reference", "open_listener", "open_queries"]


@dataclasses.dataclass(frozen=True)
class GlobalOptions:
    """The options before the command; empty strings where they are not given."""

    prefix: str = ""
    schema: str = ""
    layout: Layout | None = None
    pg_dsn: str = dataclasses.field(default="", repr=False)
    factory: str | None = None

    def apply_to_environment(self, *, schema_was_typed: bool) -> None:
        """Make the names the settings of this process, also for a factory's own ``Queries``.

        Args:
            schema_was_typed: The schema stands on the command line, so it outweighs the
                environment; there, ``DB_SCHEMA`` outweighs ``PGQUEUER_SCHEMA``.
        """
        if self.prefix:
            os.environ["PGQUEUER_PREFIX"] = self.prefix
        if self.schema:
            os.environ["PGQUEUER_SCHEMA"] = self.schema
        if self.layout is not None:
            os.environ["PGQUEUER_LAYOUT"] = self.layout.value
        if schema_was_typed:
            for name in [name for name in os.environ if name.upper() == "DB_SCHEMA"]:
                del os.environ[name]
        db_settings.cache_clear()


@contextlib.asynccontextmanager
async def open_queries(context: typer.Context, settings: DBSettings) -> AsyncIterator[Queries]:
    """The ``Queries`` that ``--factory`` makes, else one on a connection of its own.

    A factory's ``Queries`` has settings of its own; *settings* are then not used.

    Raises:
        CliError: The connection or the factory cannot be had.
    """
    options = context.ensure_object(GlobalOptions)
    async with contextlib.AsyncExitStack() as stack:
        if options.factory is None:
            yield Queries(
                await _connect(options.pg_dsn or None, stack, ConnectionSettings()),
                qbe=QueryBuilderEnvironment(settings),
                qbq=QueryQueueBuilder(settings),
                qbs=QuerySchedulerBuilder(settings),
            )
            return
        queries = await stack.enter_async_context(_load(options.factory))
        if not isinstance(queries, Queries):
            raise CliError(
                f"--factory {options.factory} yields a {type(queries).__name__}: "
                "it has to yield a Queries"
            )
        yield queries


@contextlib.asynccontextmanager
async def open_listener(context: typer.Context, driver: Driver) -> AsyncIterator[Driver | None]:
    """What can listen for notifications; None: nothing can.

    Args:
        context: With the global options.
        driver: That of the command's ``Queries``; it is used unless it leads to a pooler.

    Raises:
        CliError: The connection past the pooler cannot be had.
    """
    settings = ConnectionSettings()
    if poll_interval_of(driver) is None:
        yield driver
    elif context.ensure_object(GlobalOptions).factory is None and settings.listen_dsn is not None:
        async with contextlib.AsyncExitStack() as stack:
            direct = settings.model_copy(update={"transaction_pooling": False})
            yield await _connect(settings.listen_dsn, stack, direct)
    else:
        yield None


def load_reference(role: str, reference: str) -> Callable[..., object]:
    """The function that *reference*, given as *role*, names.

    Raises:
        CliError: There is none.
    """
    try:
        return load_factory(reference)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise CliError(
            f"{role} {reference} cannot be loaded: {first_line(error)}. Give "
            "'module:function', with a module that Python finds from the current directory"
        ) from error


def _load(reference: str) -> contextlib.AbstractAsyncContextManager[object]:
    made = load_reference("--factory", reference)()
    if not isinstance(made, contextlib.AbstractAsyncContextManager):
        if inspect.iscoroutine(made):
            made.close()
        raise CliError(
            f"--factory {reference} returned a {type(made).__name__}: it has to return an async "
            "context manager around a Queries; decorate it with contextlib.asynccontextmanager"
        )
    return made


async def _connect(
    dsn: str | None, stack: contextlib.AsyncExitStack, settings: ConnectionSettings
) -> Driver:
    pooling = settings.transaction_pooling
    try:
        try:
            connection = await stack.enter_async_context(connect_asyncpg(dsn, settings))
        except ModuleNotFoundError as missing:
            if missing.name != "asyncpg":
                raise
        else:
            from pgq_fast.drivers.asyncpg import AsyncpgDriver

            return await stack.enter_async_context(
                AsyncpgDriver(connection, transaction_pooling=pooling)
            )
        try:
            psycopg_connection = await stack.enter_async_context(connect_psycopg(dsn, settings))
        except ModuleNotFoundError as missing:
            if missing.name != "psycopg":
                raise
            raise CliError(
                "there is no driver to connect with: install one with pip install "
                "'pgq-fast[asyncpg]' or 'pgq-fast[psycopg]'"
            ) from None
        from pgq_fast.drivers.psycopg import PsycopgDriver

        return await stack.enter_async_context(
            PsycopgDriver(psycopg_connection, transaction_pooling=pooling)
        )
    except (ImportError, CliError):
        raise
    except Exception as error:
        raise cannot_connect(error) from error


def cannot_connect(error: Exception) -> CliError:
    """What to raise where a connection failed with *error*."""
    return CliError(
        f"cannot connect to PostgreSQL: {_connection_failure(error)}. Check --pg-dsn, the "
        "variables PGDSN and PGQUEUER_DSN, or PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE"
    )


def _connection_failure(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, OSError) or sqlstate_of(error) or type(error).__name__ in _SAFE_TO_SHOW:
        return first_line(error)
    # Complaints about a DSN quote it, and it may hold a password.
    return f"the connection string is not valid ({type(error).__name__})"


# psycopg's failures of the connection itself; libpq leaves passwords out of their text.
_SAFE_TO_SHOW = ("OperationalError", "ConnectionTimeout")
