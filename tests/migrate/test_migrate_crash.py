"""A migration that ends anywhere loses nothing, and leaves nothing that the next does not mend."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from migrate.conftest import Filled
from migrate.helpers import OTHER, contents, left_overs, let_lapse, on, steps
from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.schema import manage
from pgq_fast.schema.layout import installed_layout
from pgq_fast.schema.statements import Pause, Statement, run_sync
from pgq_fast.settings import Layout

pytestmark = pytest.mark.timeout(300)

BATCH = 12


def changes(step: Any) -> bool:
    """Whether *step* changes anything: to be killed behind one that only reads is as before it."""
    return not isinstance(step, Pause) and (not step.returns_rows or "turn AS" in step.sql)


def run_until(driver: SyncPsycopgDriver, migration: Any, end: int) -> bool:
    """Carry out *migration* up to the step *end* of those that change anything; whether that was
    all. Then its process is gone.
    """
    step = next(migration)
    while end:
        end -= changes(step)
        rows: Any = []
        if isinstance(step, Pause):
            pass
        elif step.returns_rows:
            rows = driver.fetch(step.sql, *step.args)
        else:
            driver.execute(step.sql, *step.args)
        try:
            step = migration.send(rows)
        except StopIteration:
            return True
    return False


@pytest.mark.parametrize("then", ["on", "back"])
def test_killed_at_any_step(then: str, source: Layout, filled: Filled) -> None:
    """Behind every other one, and behind those between where it goes in the other direction."""
    target = OTHER[source]
    end = 0 if then == "on" else -1
    completed = False
    switched = set()
    while not completed:
        end += 2
        with ExitStack() as stack:
            dsn = filled.database(source, stack)
            connection = stack.enter_context(psycopg.connect(dsn, autocommit=True))
            driver = SyncPsycopgDriver(connection)
            before = contents(dsn)
            completed = run_until(driver, steps(on(source), target, batch_size=BATCH), end)
            # The jobs are in one place at any time.
            assert contents(dsn)["jobs"] == before["jobs"]
            let_lapse(dsn)
            to = target if then == "on" else source
            report = run_sync(driver, steps(on(source), to, batch_size=BATCH))
            switched.add(report.source)
            assert report.target is to
            assert contents(dsn) == before
            assert left_overs(dsn) == []
            assert run_sync(driver, manage.verify(on(to))) == []
    # Some were killed before the switch and some behind it.
    assert switched == set(Layout)
    assert end > 15


class StepFailedError(Exception):
    """What a lost connection and the like look like."""


class Failing:
    """A driver that fails once, at the change *place*, which takes effect: the worst case."""

    def __init__(self, driver: SyncPsycopgDriver, place: int) -> None:
        self._driver = driver
        self._left = place
        self.failed = False

    def fetch(self, sql: str, *args: object) -> Any:
        rows = self._driver.fetch(sql, *args)
        self._fail_after(Statement(sql, args, returns_rows=True))
        return rows

    def execute(self, sql: str, *args: object) -> Any:
        tag = self._driver.execute(sql, *args)
        self._fail_after(Statement(sql, args))
        return tag

    def _fail_after(self, step: Statement) -> None:
        self._left -= changes(step)
        if self._left < 0 and not self.failed:
            self.failed = True
            raise StepFailedError


def test_failure_of_any_step_leaves_the_queue_where_it_was(source: Layout, filled: Filled) -> None:
    target = OTHER[source]
    place = 0
    failed = True
    while failed:
        with ExitStack() as stack:
            dsn = filled.database(source, stack)
            connection = stack.enter_context(psycopg.connect(dsn, autocommit=True))
            driver = SyncPsycopgDriver(connection)
            before = contents(dsn)
            failing = Failing(driver, place)
            try:
                run_sync(failing, steps(on(source), target, batch_size=BATCH))
            except StepFailedError:
                if run_sync(driver, installed_layout(on(source))) is source:
                    assert contents(dsn) == before
                    assert left_overs(dsn) in ([], ["pgqueuer_migration"])
                let_lapse(dsn)
                run_sync(driver, steps(on(source), target, batch_size=BATCH))
            assert contents(dsn) == before
            # Where the last statement failed, which only the next migration minds.
            assert left_overs(dsn) in ([], ["pgqueuer_migration"])
            assert run_sync(driver, manage.verify(on(target))) == []
        failed = failing.failed
        # Not all, as the test above ends at every one.
        place += 3
    assert place > 15
