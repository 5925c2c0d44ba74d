"""When a worker registers to be told, and how long it polls beside that."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import pytest

from layouts.fake import Clock, FakeDriver
from pgq_fast.layouts.waiting import (
    FIRST_POLL,
    LONGEST_POLL,
    REGISTERED_FOR,
    RENEWED_AFTER,
    Waiting,
)
from pgq_fast.settings import DBSettings, Layout
from pgq_fast.types import QueueManagerId

pytestmark = pytest.mark.impl_agnostic

OWNER = QueueManagerId(uuid.UUID(int=1))
SETTINGS = DBSettings(layout=Layout.lease)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, "pgq_fast.layouts.waiting")


@pytest.fixture
def driver() -> FakeDriver:
    driver = FakeDriver({"WITH before": "wait", "DELETE": "wait no more"})
    driver.answers["wait"] = [(True,)]
    return driver


@pytest.fixture
def waiting(driver: Any) -> Waiting:
    return Waiting(driver, SETTINGS)


async def test_registers_once_and_again_before_the_time_is_over(
    waiting: Waiting, driver: FakeDriver, clock: Clock
) -> None:
    await waiting.begin(OWNER, False)
    assert driver.sent == [("wait", (OWNER, True, False, REGISTERED_FOR))]
    driver.sent.clear()
    clock.now += RENEWED_AFTER.total_seconds() - 0.1
    await waiting.begin(OWNER, False)
    assert driver.names() == []
    clock.now += 0.1
    await waiting.begin(OWNER, False)
    assert driver.names() == ["wait"]
    assert REGISTERED_FOR > 2 * RENEWED_AFTER


async def test_another_wish_is_said_at_once(
    waiting: Waiting, driver: FakeDriver, clock: Clock
) -> None:
    for seats in (False, True, True, False):
        await waiting.begin(OWNER, seats)
    assert [args[2] for _, args in driver.sent] == [False, True, False]


async def test_leaves_only_where_it_is_registered(
    waiting: Waiting, driver: FakeDriver, clock: Clock
) -> None:
    await waiting.end(OWNER)
    assert driver.names() == []
    await waiting.begin(OWNER, False)
    await waiting.end(OWNER)
    await waiting.end(OWNER)
    assert driver.names() == ["wait", "wait no more"]
    await waiting.begin(OWNER, False)
    assert driver.names() == ["wait"]


async def test_a_registration_that_failed_is_tried_again(
    waiting: Waiting, driver: FakeDriver, clock: Clock
) -> None:
    def refuse(*_: object) -> Any:
        raise OSError("the network is down")

    driver.answers["wait"] = refuse
    with pytest.raises(OSError, match="network"):
        await waiting.begin(OWNER, False)
    driver.answers["wait"] = [(True,)]
    await waiting.begin(OWNER, False)
    assert driver.names() == ["wait", "wait"]


async def test_polls_ever_more_seldom_while_an_older_transaction_is_in_progress(
    waiting: Waiting, clock: Clock
) -> None:
    await waiting.begin(OWNER, False)
    assert waiting.look == "first"
    pauses = [waiting.look_again(95, 100)]
    for _ in range(9):
        assert waiting.look == "again"
        pauses.append(waiting.look_again(95, None))
    assert pauses[0] == FIRST_POLL
    for pause, longer in itertools.pairwise(pauses):
        assert longer == min(2 * pause, LONGEST_POLL)
    assert pauses[-1] == LONGEST_POLL
    # Younger ones do not count.
    assert waiting.look_again(100, None) == RENEWED_AFTER
    assert waiting.look_again(103, None) == RENEWED_AFTER


@pytest.mark.parametrize("news", [True, False])
async def test_what_was_not_told_before_a_registration_counts_for_it(
    waiting: Waiting, driver: FakeDriver, clock: Clock, news: bool
) -> None:
    """The server knows whether it has had this worker registered all the time."""
    await waiting.begin(OWNER, False)
    assert waiting.look_again(100, 100) == RENEWED_AFTER
    clock.now += RENEWED_AFTER.total_seconds()
    driver.answers["wait"] = [(news,)]
    await waiting.begin(OWNER, False)
    assert waiting.look == ("first" if news else "again")
    assert waiting.look_again(150, 200) == (FIRST_POLL if news else RENEWED_AFTER)
