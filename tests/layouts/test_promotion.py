"""When a worker looks for deferred jobs that have become due."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from layouts.fake import Clock, FakeDriver
from pgq_fast.layouts.promotion import PAUSE, ROWS, SHARE, Promotion
from pgq_fast.settings import DBSettings, Layout
from pgq_fast.types import QueueEntrypoint

pytestmark = pytest.mark.impl_agnostic

NAMES = [QueueEntrypoint("e"), QueueEntrypoint("f")]
SECOND = timedelta(seconds=1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, "pgq_fast.layouts.promotion")


@pytest.fixture
def driver() -> FakeDriver:
    driver = FakeDriver({"SELECT EXISTS": "any due", "WITH": "promote"})
    driver.answers.update({"any due": [(False,)], "promote": [(1,)]})
    return driver


@pytest.fixture
def promotion(driver: Any) -> Promotion:
    return Promotion(driver, DBSettings(layout=Layout.lease))


async def promoted(promotion: Promotion, driver: FakeDriver) -> list[str]:
    """What has been asked of the server."""
    await promotion.promote_due(NAMES, 0)
    return driver.names()


async def test_the_first_time_it_looks(
    promotion: Promotion, driver: FakeDriver, clock: Clock
) -> None:
    await promotion.promote_due(NAMES, 0)
    assert driver.sent == [("any due", (NAMES,))]


async def test_jobs_are_moved_only_where_some_are_due(
    promotion: Promotion, driver: FakeDriver, clock: Clock
) -> None:
    """For the statement that moves them tells those who wait even if it moves none."""
    driver.answers["any due"] = [(True,)]
    await promotion.promote_due(NAMES, 0)
    assert driver.sent == [("any due", (NAMES,)), ("promote", (NAMES, ROWS))]


async def test_as_many_as_can_be_moved_may_not_be_all(
    promotion: Promotion, driver: FakeDriver, clock: Clock
) -> None:
    driver.answers["any due"] = [(True,)]
    driver.answers["promote"] = lambda *_: [(left.pop(0),)]
    left = [ROWS, 2 * ROWS, 3]
    for _ in range(3):
        assert await promoted(promotion, driver) == ["any due", "promote"]
    assert await promoted(promotion, driver) == []


async def test_it_looks_when_the_next_one_that_is_known_is_due(
    promotion: Promotion, driver: FakeDriver, clock: Clock
) -> None:
    await promoted(promotion, driver)
    promotion.looked(5 * SECOND)
    # A retry, say.
    promotion.comes_in(2 * SECOND)
    promotion.comes_in(3 * SECOND)
    clock.now += 1.9
    assert await promoted(promotion, driver) == []
    promotion.looked(SECOND / 10)
    clock.now += 0.1
    assert await promoted(promotion, driver) == ["any due"]
    promotion.looked(5 * SECOND)
    promotion.looked(None)
    clock.now += 3600
    assert await promoted(promotion, driver) == []


async def test_a_look_that_finds_nothing_says_that_nothing_is_deferred(
    promotion: Promotion, driver: FakeDriver, clock: Clock
) -> None:
    promotion.looked(None)
    clock.now += 3600
    assert await promoted(promotion, driver) == []
    promotion.looked(timedelta(0))
    assert await promoted(promotion, driver) == ["any due"]


async def test_a_worker_that_does_not_rest_looks_from_time_to_time(
    promotion: Promotion, driver: FakeDriver, clock: Clock
) -> None:
    looks = 0
    for _ in range(100):
        looks += len(await promoted(promotion, driver))
        clock.now += PAUSE / 10
    assert 9 <= looks <= 11


async def test_slow_looks_are_seldom(
    promotion: Promotion, driver: FakeDriver, clock: Clock
) -> None:
    """However long one takes, most of the time is left for other things."""

    def slow(*_: object) -> Any:
        clock.now += 1
        return [(False,)]

    driver.answers["any due"] = slow
    began = clock.now
    looks = 0
    while clock.now < began + 1000:
        looks += len(await promoted(promotion, driver))
        clock.now += 0.5
    assert 0 < looks <= 1000 / SHARE
