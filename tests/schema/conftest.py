"""Databases in the states that upgrades meet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.schema import manage
from pgq_fast.schema.statements import run_sync
from pgq_fast.settings import DBSettings
from support.pg_programs import ReleaseDatabase, schema_dump
from support.server import Databases

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def release_database(databases: Databases) -> Iterator[ReleaseDatabase]:
    """``release_database("1.0.2")``: DSN of a database as that pgqueuer release installs it."""
    with ExitStack() as stack:

        def make(release: str) -> str:
            _, dsn = stack.enter_context(databases.temporary())
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute((FIXTURES / f"pgqueuer-{release}.sql").read_bytes())
            return dsn

        yield make


@pytest.fixture(scope="session")
def fresh_dump(databases: Databases) -> str:
    """The schema of a new installation with default settings."""
    return _dump_of(databases, DBSettings())


@pytest.fixture(scope="session")
def fresh_lease_dump(databases: Databases) -> str:
    """The same of the lease layout."""
    return _dump_of(databases, DBSettings(layout="lease"))


def _dump_of(databases: Databases, settings: DBSettings) -> str:
    with databases.temporary() as (_, dsn):
        with psycopg.connect(dsn, autocommit=True) as connection:
            run_sync(SyncPsycopgDriver(connection), manage.install(settings))
        return schema_dump(dsn)


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    """A connection to the test's database, each statement in a transaction of its own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def driver(connection: psycopg.Connection) -> SyncPsycopgDriver:
    """A blocking driver on the test's database."""
    return SyncPsycopgDriver(connection)
