"""Which layout is installed, and whether that is what the settings ask for.

It is asked where it may differ: before the schema is changed, when a worker starts, and after a
failure that a wrong layout explains. A statement that succeeds costs nothing more.
"""

from __future__ import annotations

from typing import Final

from pgq_fast.choices import Layout
from pgq_fast.drivers.base import Driver, SyncDriver
from pgq_fast.drivers.failures import sqlstate_of
from pgq_fast.errors import LayoutMismatchError
from pgq_fast.logconfig import logger
from pgq_fast.schema.objects import locate
from pgq_fast.schema.statements import Steps, query, run_async, run_sync
from pgq_fast.settings import DBSettings

__all__ = [
    "installed_layout",
    "mismatch_behind",
    "mismatch_behind_sync",
    "require_layout",
]

# In compat the queue is a table; in lease it is a view, which would stay unseen here.
_TABLES: Final = """
SELECT wanted.place
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (schema, name, place)
JOIN pg_namespace AS n ON n.nspname = coalesce(wanted.schema, current_schema())
JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.name
WHERE c.relkind IN ('r', 'p')
ORDER BY wanted.place"""

# What a statement for one layout meets in the other: no such table; a view that cannot be
# truncated, copied into or altered; one that cannot be inserted into, updated or deleted from; one
# whose rows cannot be locked.
_SUSPICIOUS: Final = frozenset({"42P01", "42809", "55000", "0A000"})


def installed_layout(settings: DBSettings) -> Steps[Layout | None]:
    """The layout that is installed under the names of *settings*, whatever they ask for.

    None where there is none.

    Raises:
        LayoutMismatchError: There are tables of both.
    """
    tables = (settings.queue_table, settings.lease_names.ready_table)
    locations = [locate(settings, name) for name in tables]
    rows = yield query(
        _TABLES,
        [location.schema for location in locations],
        [location.name for location in locations],
    )
    places = {int(row["place"]) for row in rows}
    if len(places) == 2:
        raise _mismatch(None, settings)
    if not places:
        return None
    return Layout.compat if places == {1} else Layout.lease


def require_layout(settings: DBSettings) -> Steps[None]:
    """See that no other layout than that of *settings* is installed.

    Raises:
        LayoutMismatchError: There is.
    """
    installed = yield from installed_layout(settings)
    if installed is not None and installed is not settings.layout:
        raise _mismatch(installed, settings)


def _mismatch(installed: Layout | None, settings: DBSettings) -> LayoutMismatchError:
    tables = {
        Layout.compat: f"a table {settings.qualified.queue_table}",
        Layout.lease: f"a table {settings.lease_names.ready_table}",
    }
    return LayoutMismatchError(
        installed=installed and installed.value,
        wanted=settings.layout.value,
        found=tuple(tables.values()) if installed is None else (tables[installed],),
    )


async def mismatch_behind(
    error: Exception, driver: Driver, settings: DBSettings
) -> LayoutMismatchError | None:
    """The mismatch that explains the failure *error* of a statement over *driver*, if there is one.

    Inside a transaction of the user's, which takes no statement any more, nobody can know: then the
    error gets a note instead.
    """
    if sqlstate_of(error) not in _SUSPICIOUS:
        return None
    return await run_async(driver, _explain(error, settings, _in_transaction(driver)))


def mismatch_behind_sync(
    error: Exception, driver: SyncDriver, settings: DBSettings
) -> LayoutMismatchError | None:
    """The blocking counterpart of :func:`mismatch_behind`."""
    if sqlstate_of(error) not in _SUSPICIOUS:
        return None
    return run_sync(driver, _explain(error, settings, _in_transaction(driver)))


def _in_transaction(driver: object) -> bool:
    """Whether the user has a transaction open, as far as *driver* tells."""
    ask = getattr(driver, "in_transaction", None)
    return ask is not None and bool(ask())


def _explain(
    error: Exception, settings: DBSettings, aborted: bool
) -> Steps[LayoutMismatchError | None]:
    if not aborted:
        try:
            yield from require_layout(settings)
        except LayoutMismatchError as mismatch:
            return mismatch
        except Exception:
            # Somebody else's driver may be in such a transaction without saying so.
            logger.debug("The layout could not be looked up", exc_info=True)
        else:
            return None
    # Several callers may be told of one failure.
    note = (
        f"The settings ask for the layout {settings.layout.value}. If the tables are of another "
        "one, which Queries.installed_layout() tells after the transaction, this is why."
    )
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return None
