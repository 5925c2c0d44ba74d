"""The schema of a trial run goes when the run does, whenever that is."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest

from pgq_fast import trial
from pgq_fast.choices import Layout
from pgq_fast.loops import run_in_loop
from support.server import trial_schemas

# Nothing of this is in a kernel.
pytestmark = pytest.mark.impl_agnostic


def cut_off(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Have a signal arrive as runs of the loop begin, by their *numbers*."""
    runs = 0

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        nonlocal runs
        runs += 1
        if runs in numbers:
            coroutine.close()
            raise KeyboardInterrupt
        return run_in_loop(coroutine)

    monkeypatch.setattr(trial, "run_in_loop", run)


@pytest.mark.parametrize("run", [1, 2], ids=["installs", "drops"])
def test_an_interrupt_as_the_schema_comes_or_goes(
    dsn: str, run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(monkeypatch, run)
    found: list[list[str]] = []

    def go_through() -> None:
        with trial.temporary_schema("pgq_fast_trial", "asyncpg", dsn, Layout.lease) as settings:
            found.append(trial_schemas(dsn))
            assert found == [[settings.db_schema]]

    with pytest.raises(KeyboardInterrupt):
        go_through()
    assert len(found) == run - 1
    assert trial_schemas(dsn) == []


def test_what_may_be_left_over_is_named(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The error of the block is raised, and not that of the clean-up."""
    cut_off(monkeypatch, 2)
    with (
        pytest.raises(ZeroDivisionError),
        trial.temporary_schema("pgq_fast_trial", "asyncpg", dsn, Layout.lease) as settings,
    ):
        raise ZeroDivisionError
    assert f"The schema {settings.db_schema} may be left over: drop it" in caplog.text
