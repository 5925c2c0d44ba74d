"""A migration that ends anywhere loses nothing, and the next call mends whatever it leaves."""

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
from pgq_fast.schema.statements import Pause, run_sync
from pgq_fast.settings import Layout

pytestmark = pytest.mark.timeout(300)

BATCH = 12


def run_until(driver: SyncPsycopgDriver, migration: Any, end: int) -> bool:
    """Carry out *end* steps; whether that was all of them. Then the process is gone."""
    step = next(migration)
    for _ in range(end):
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
    target = OTHER[source]
    end = 0
    completed = False
    switched = set()
    while not completed:
        end += 1
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
    assert end > 20


class StepFailedError(Exception):
    """What a lost connection and the like look like."""


class Failing:
    """A driver, one of whose statements fails."""

    def __init__(self, driver: SyncPsycopgDriver, place: int) -> None:
        self.driver = driver
        self.place = place
        self.number = 0

    def fetch(self, sql: str, *args: object) -> Any:
        return self.send(self.driver.fetch, sql, args)

    def execute(self, sql: str, *args: object) -> Any:
        return self.send(self.driver.execute, sql, args)

    def send(self, method: Any, sql: str, args: tuple[object, ...]) -> Any:
        result = method(sql, *args)
        self.number += 1
        if self.number - 1 == self.place:
            # The worst case: it has taken effect, which nobody was told.
            raise StepFailedError
        return result


def test_failure_of_any_step_leaves_the_queue_where_it_was(source: Layout, filled: Filled) -> None:
    target = OTHER[source]
    place = 0
    failed = True
    while failed:
        failed = False
        with ExitStack() as stack:
            dsn = filled.database(source, stack)
            connection = stack.enter_context(psycopg.connect(dsn, autocommit=True))
            driver = SyncPsycopgDriver(connection)
            before = contents(dsn)
            failing = Failing(driver, place)
            try:
                run_sync(failing, steps(on(source), target, batch_size=BATCH))
            except StepFailedError:
                failed = True
                now = run_sync(driver, installed_layout(on(source)))
                if now is source:
                    assert contents(dsn) == before
                    assert [
                        each for each in left_overs(dsn) if not each.endswith("_migration")
                    ] == []
                let_lapse(dsn)
                run_sync(driver, steps(on(source), target, batch_size=BATCH))
            assert contents(dsn) == before
            # Where the last statement failed, which has an effect on the next migration only.
            assert left_overs(dsn) in ([], ["pgqueuer_migration"])
            assert run_sync(driver, manage.verify(on(target))) == []
        # Not all, as the test above ends at every one.
        place += 3
    assert place > 20
