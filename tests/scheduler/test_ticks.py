"""When expressions fire: in UTC, whatever the time zone of the process, and as pgqueuer says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pgqueuer.core.executors
import pgqueuer.domain.types
import pytest

from pgq_fast import executors
from pgq_fast.types import CronEntrypoint, CronExpression

NextTick = Callable[[str, datetime], datetime]


async def never(schedule: Any) -> None: ...


@pytest.fixture(params=["pgq_fast", "pgqueuer"])
def next_tick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> NextTick:
    """``next_tick(expression, now)``, here and by the original."""
    module: Any = executors if request.param == "pgq_fast" else pgqueuer.core.executors

    def next_tick(expression: str, now: datetime) -> datetime:
        monkeypatch.setattr(module, "utc_now", lambda: now)
        parameters = module.ScheduleExecutorFactoryParameters(
            entrypoint=CronEntrypoint("tick"),
            expression=CronExpression(expression),
            func=never,
            clean_old=False,
        )
        executor = module.ScheduleExecutor(parameters)
        found: datetime = executor.get_next()
        assert executor.next_in() == found - now
        return found

    return next_tick


@pytest.fixture(params=["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ZoneInfo]:
    """The time zone of the process; the last one's clocks move by half an hour."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield ZoneInfo(request.param)
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "now", "expected"),
    [
        ("* * * * *", "2026-01-01 00:00:59.9", "2026-01-01 00:01:00"),
        # A tick that is now has been.
        ("* * * * *", "2026-01-01 00:01:00", "2026-01-01 00:02:00"),
        # The sixth field counts seconds.
        ("* * * * * *", "2026-01-01 00:00:00.5", "2026-01-01 00:00:01"),
        ("* * * * * */20", "2026-01-01 00:00:41", "2026-01-01 00:01:00"),
        ("30 4 * * * 15,45", "2026-01-01 04:30:15", "2026-01-01 04:30:45"),
        ("30 4 * * * 15,45", "2026-01-01 04:30:45", "2026-01-02 04:30:15"),
        ("0 9 * * mon-fri", "2026-01-02 09:00:00", "2026-01-05 09:00:00"),
        ("0 0 29 2 *", "2026-01-01 00:00:00", "2028-02-29 00:00:00"),
        ("0 0 l * *", "2026-02-03 00:00:00", "2026-02-28 00:00:00"),
        # The seventh counts years.
        ("0 0 1 1 * 0 2030", "2026-01-01 00:00:00", "2030-01-01 00:00:00"),
    ],
)
def test_the_next_tick(next_tick: NextTick, expression: str, now: str, expected: str) -> None:
    assert next_tick(expression, at(now)) == at(expected)


def days_of_change(zone: ZoneInfo) -> list[datetime]:
    """Midnights, in UTC, between which and the next one *zone* moves its clocks in 2026."""
    days = [at("2026-01-01") + timedelta(days=day) for day in range(365)]

    def offset(day: datetime) -> timedelta | None:
        return day.astimezone(zone).utcoffset()

    return [day for day in days if offset(day) != offset(day + timedelta(days=1))]


def test_no_tick_is_skipped_or_repeated_when_clocks_move(
    next_tick: NextTick, zone: ZoneInfo
) -> None:
    """In the hour that the local clock skips a tick runs, and once in the one that it repeats."""
    changes = days_of_change(zone)
    assert len(changes) == 2
    for midnight in changes:
        now, ticks = midnight - timedelta(seconds=1), []
        while now < midnight + timedelta(days=1):
            now = next_tick("*/30 * * * *", now)
            ticks.append(now)
        assert ticks == [midnight + number * timedelta(minutes=30) for number in range(49)]


def test_a_daily_tick_is_a_day_after_the_last_one_when_clocks_move(
    next_tick: NextTick, zone: ZoneInfo
) -> None:
    for midnight in days_of_change(zone):
        for hour in range(24):
            first = midnight - timedelta(days=1) + timedelta(hours=hour)
            second = next_tick(f"0 {hour} * * *", first)
            assert second == first + timedelta(days=1)
            assert next_tick(f"0 {hour} * * *", second) == second + timedelta(days=1)
