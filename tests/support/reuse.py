"""Databases that serve one test after the other: emptying one costs a tenth of making one."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import psycopg
from psycopg import sql

from support.server import Databases

# Seconds that the sessions of a test get to end once they have been told to.
PATIENCE: Final = 10.0

END_OTHERS = """
SELECT count(pg_terminate_backend(pid))
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
FILLED = """
SELECT oid::regclass::text
FROM pg_class
WHERE oid >= 16384 AND relkind = 'r' AND pg_relation_size(oid) > 0
"""
RESTART = """
SELECT setval(seqrelid::regclass, seqstart, false) FROM pg_sequence
"""


def _rows_of(catalog: str) -> str:
    """A statement that tells of any row of *catalog* that it was added, changed or removed."""
    return f"""
    SELECT format('{catalog} %s %s', count(*), sum(xmin::text::bigint)) FROM {catalog}
    """


# A row of a catalog that was written again carries another transaction id. pg_class is looked at in
# detail, as emptying a table writes its row; that includes how many rows it is taken to have.
FINGERPRINT = f"""
SELECT string_agg(fact, E'\\n' ORDER BY fact) FROM (
    SELECT format(
        'relation %s %s %s %s %s %s %s %s %s', oid, relname, relnamespace, relowner,
        relpersistence, reloptions, relacl, CASE relkind WHEN 'r' THEN reltuples END,
        CASE relkind WHEN 'r' THEN pg_relation_size(oid) END
    )
    FROM pg_class
    WHERE oid >= 16384
    UNION ALL
    SELECT format('analysed %s', count(*)) FROM pg_statistic WHERE starelid >= 16384
    UNION ALL
    SELECT format('settings %s', count(*))
    FROM pg_db_role_setting
    JOIN pg_database ON pg_database.oid = setdatabase
    WHERE datname = current_database()
    UNION ALL
    SELECT format('prepared %s', count(*))
    FROM pg_prepared_xacts
    WHERE database = current_database()
    {
    "".join(
        f" UNION ALL {_rows_of(catalog)}"
        for catalog in (
            "pg_attrdef",
            "pg_attribute",
            "pg_constraint",
            "pg_default_acl",
            "pg_enum",
            "pg_extension",
            "pg_index",
            "pg_inherits",
            "pg_namespace",
            "pg_policy",
            "pg_proc",
            "pg_publication",
            "pg_rewrite",
            "pg_trigger",
            "pg_type",
        )
    )
}
) AS facts (fact)
"""


class ReusedDatabases:
    """Copies of templates, lent to one test after the other.

    What comes back is looked at when the next test asks: by then the fixtures of the one before
    have closed their connections. If anything but rows differs from the template then, a changed
    function, statistics of the planner, a setting, the database is dropped.

    The session that looks stays open, beside those of the tests: a new one would have to read the
    catalogs again, which takes four times as long as the look.
    """

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._returned: defaultdict[str, list[_Copy]] = defaultdict(list)
        self._fingerprints: dict[str, str] = {}

    @contextlib.contextmanager
    def lent(self, template: str) -> Iterator[str]:
        """The DSN of a database that is like *template*, for the duration of a block."""
        copy = self._again(template) or self._made(template)
        try:
            yield copy.dsn
        finally:
            self._returned[template].append(copy)

    def _made(self, template: str) -> _Copy:
        copy = _Copy(*self._databases.make(template))
        if template not in self._fingerprints:
            # A copy as it was made says what the next ones must be like.
            self._fingerprints[template] = copy.emptied()
        return copy

    def _again(self, template: str) -> _Copy | None:
        while returned := self._returned[template]:
            copy = returned.pop()
            if copy.emptied() == self._fingerprints[template]:
                return copy
            copy.close()
            self._databases.discard(copy.name)
        return None

    def close(self) -> None:
        """Close the sessions."""
        for copies in self._returned.values():
            for copy in copies:
                copy.close()


class _Copy:
    """A database, and a session in it that empties it."""

    def __init__(self, name: str, dsn: str) -> None:
        self.name = name
        self.dsn = dsn
        self._session: psycopg.Connection | None = None

    def emptied(self) -> str:
        """Empty all tables; what else there is in the database."""
        try:
            return _emptied(self._opened())
        except psycopg.OperationalError:
            # A test has ended all sessions, or the server.
            self.close()
            return _emptied(self._opened())

    def _opened(self) -> psycopg.Connection:
        if self._session is None:
            self._session = psycopg.connect(self.dsn, autocommit=True)
        return self._session

    def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            self._session.close()
            self._session = None


def _emptied(connection: psycopg.Connection) -> str:
    """Empty all tables of a database; what else there is in it."""
    deadline = time.monotonic() + PATIENCE
    while others := connection.execute(END_OTHERS).fetchone():
        if others[0] == 0:
            break
        if time.monotonic() > deadline:
            return "still in use"
        time.sleep(0.001)
    if filled := connection.execute(FILLED).fetchall():
        tables = sql.SQL(", ").join(sql.SQL(name) for (name,) in filled)
        # Tables that a test added may refer to each other.
        empty = sql.SQL("SET lock_timeout = 1000; TRUNCATE {} CASCADE").format(tables)
        try:
            connection.execute(empty)
        except psycopg.errors.LockNotAvailable:
            # A prepared transaction has it.
            return "locked"
    connection.execute(RESTART)
    fingerprint = connection.execute(FINGERPRINT).fetchone()
    assert fingerprint is not None
    return str(fingerprint[0])
