"""The driver without a database."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pgq_fast import Job, PgQueuer
from pgq_fast.drivers.base import ListenerRemover
from pgq_fast.memory import InMemoryDriver
from pgq_fast.types import Channel

pytestmark = pytest.mark.impl_agnostic


async def test_notifications_reach_the_listeners_of_their_channel() -> None:
    driver = InMemoryDriver()
    first: list[str] = []
    second: list[str] = []
    await driver.add_listener("one", first.append)
    await driver.add_listener("one", second.append)
    await driver.add_listener("two", second.append)
    await driver.notify("one", "a")
    await driver.notify("two", "b")
    await driver.notify("nobody", "c")
    assert first == ["a"]
    assert second == ["a", "b"]


async def test_a_removed_listener_hears_nothing_more() -> None:
    driver = InMemoryDriver()
    heard: list[str] = []
    assert isinstance(driver, ListenerRemover)
    await driver.add_listener("one", heard.append)
    await driver.remove_listener("two", heard.append)
    await driver.notify("one", "a")
    await driver.remove_listener("one", heard.append)
    await driver.remove_listener("one", heard.append)
    await driver.notify("one", "b")
    assert heard == ["a"]


async def test_a_failing_listener_disturbs_neither_sender_nor_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver = InMemoryDriver()
    heard: list[str] = []

    def fail(payload: str) -> None:
        raise RuntimeError("listener")

    await driver.add_listener("one", fail)
    await driver.add_listener("one", heard.append)
    with caplog.at_level(logging.ERROR, logger="pgqueuer"):
        await driver.notify("one", "secret")
    assert heard == ["secret"]
    assert "channel one" in caplog.text
    assert "secret" not in caplog.text


async def test_a_listener_may_remove_itself() -> None:
    driver = InMemoryDriver()
    heard: list[str] = []

    def once(payload: str) -> None:
        heard.append(payload)
        driver._listeners["one"].remove(once)

    await driver.add_listener("one", once)
    await driver.add_listener("one", heard.append)
    await driver.notify("one", "a")
    await driver.notify("one", "b")
    assert heard == ["a", "a", "b"]


async def test_there_is_no_sql() -> None:
    async with InMemoryDriver() as driver:
        with pytest.raises(NotImplementedError, match="InMemoryQueries"):
            await driver.fetch("SELECT 1")
        with pytest.raises(NotImplementedError, match="InMemoryQueries"):
            await driver.execute("SELECT 1")
        assert not driver.shutdown.is_set()
        assert driver.tm.tasks == set()


async def test_a_worker_hears_the_queue_on_a_channel_of_its_own() -> None:
    pgq = PgQueuer.in_memory(channel=Channel("ch_other"))
    ran = asyncio.Event()

    @pgq.entrypoint("greet")
    async def greet(job: Job) -> None:
        ran.set()

    worker = asyncio.create_task(pgq.run())
    try:
        # The worker is idle by then, so nothing but the notification starts the job.
        await asyncio.sleep(0.2)
        assert pgq.queries is not None
        await pgq.queries.enqueue("greet", None)
        async with asyncio.timeout(10):
            await ran.wait()
    finally:
        pgq.shutdown.set()
        await worker
