"""The dashboard in a real browser: its policy lets its own scripts work, and they do.

PGQ_TEST_REQUIRE_CHROMIUM=1   has these tests fail, not be skipped, where it is not installed
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, TypeAlias

import psycopg
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Dialog, Page, async_playwright, expect

from behaviour.helpers import Tables, eventually
from pgq_fast.queries import Queries
from pgq_fast.settings import DBSettings
from pgq_fast.web.settings import WebSettings
from support.browser import ARGUMENTS, chromium
from support.drivers import open_driver
from support.layouts import queries_of
from web.helpers import WORKER, claim, run
from web.serving import listening

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = 20_000
"""Milliseconds that anything may take which a test waits for."""
expect.set_options(timeout=PATIENCE)

Visit: TypeAlias = Any
"""``async with visit(**options) as page``: a page of a browser that has never been here."""

PATHS = ("/", "/jobs", "/failures", "/workers", "/entrypoints", "/schedules", "/system")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium(), args=[*ARGUMENTS])
        yield launched
        await launched.close()


@pytest.fixture
def address(queue_dsn: str) -> Iterator[str]:
    """A dashboard on the test's queue."""
    with listening(queue_dsn) as address:
        yield address


@pytest.fixture
def visit(browser: Browser) -> Visit:
    @asynccontextmanager
    async def visit(**options: Any) -> AsyncIterator[Page]:
        context = await browser.new_context(**options)
        page = await context.new_page()
        page.set_default_timeout(PATIENCE)
        faults: list[str] = []
        # What the policy forbids is said here too.
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        yield page
        await context.close()
        assert faults == []

    return visit


@pytest_asyncio.fixture(loop_scope="module")
async def queue(queue_dsn: str, queue_settings: DBSettings) -> AsyncIterator[Queries]:
    """The queue, over a connection of this module's event loop."""
    async with AsyncExitStack() as stack:
        yield queries_of(await open_driver("asyncpg", queue_dsn, stack), queue_settings)


@pytest_asyncio.fixture(loop_scope="module")
async def seen(queue_dsn: str) -> AsyncIterator[Tables]:
    """The tables, likewise."""
    async with await psycopg.AsyncConnection.connect(queue_dsn, autocommit=True) as connection:
        yield Tables(connection)


@pytest.mark.layouts
async def test_pages_load_without_a_complaint(queue: Queries, address: str, visit: Visit) -> None:
    (held,) = await run(queue, "mails", "failed")
    await queue.enqueue(["busy"] * 3, [None] * 3, [0] * 3)
    await claim(queue, "busy", 3)
    async with visit() as page:
        for path in (*PATHS, f"/jobs/{held}"):
            answer = await page.goto(address + path)
            assert answer is not None
            assert answer.status == 200
            await expect(page.locator("h1")).to_be_visible()
            # The scripts of the page have run.
            assert await page.evaluate("typeof htmx") == "object"
        await page.goto(f"{address}/workers")
        await expect(page.get_by_text(str(WORKER))).to_be_visible()
        # By keyboard alone: the first stop leads past the navigation.
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "content"


@pytest.mark.layouts
async def test_news_arrive_by_themselves(queue: Queries, address: str, visit: Visit) -> None:
    async with visit() as page:
        await page.goto(address)
        queued = page.locator(".tiles dd").first
        await expect(queued).to_have_text("0")
        await queue.enqueue(["a"] * 3, [None] * 3, [0] * 3)
        await expect(queued).to_have_text("3")


async def test_news_come_with_the_notification(queue: Queries, address: str, visit: Visit) -> None:
    async with visit() as page:
        # Whatever is asked for at intervals never comes.
        await page.clock.install()
        await page.goto(address)
        await page.evaluate(
            "() => { window.heard = 0;"
            " document.body.addEventListener('queue-change', () => { window.heard += 1; }); }"
        )
        await queue.enqueue("a", None)

        async def heard() -> bool:
            # The page's own brake on redrawing runs by that clock.
            await page.clock.run_for(2_500)
            return bool(await page.evaluate("window.heard > 0"))

        await eventually(heard)


async def test_held_jobs_are_requeued_with_a_click(
    queue: Queries, address: str, visit: Visit, seen: Tables
) -> None:
    first, second, third = await run(queue, "mails", *["failed"] * 3)
    async with visit() as page:
        await page.goto(f"{address}/failures")
        await page.get_by_role("button", name=f"Requeue job {second}").click()
        await expect(page.locator("#notice")).to_have_text("1 job was asked to be queued again.")
        assert await seen.rows("SELECT id FROM pgqueuer WHERE status = 'queued'") == [second]

        await page.get_by_label("Choose all on this page").check()
        await page.get_by_role("button", name="Requeue chosen").click()
        await expect(page.locator("#notice")).to_have_text("2 jobs were asked to be queued again.")
        assert await seen.count("queued") == 3
        await expect(page.get_by_text("No job is held.")).to_be_visible()
        assert {first, third} <= set(await seen.rows("SELECT id FROM pgqueuer"))


async def test_canceling_asks_first(
    queue: Queries, address: str, visit: Visit, seen: Tables
) -> None:
    (job,) = await queue.enqueue("mails", None)
    async with visit() as page:
        asked: list[str] = []
        answer = "dismiss"

        async def reply(dialog: Dialog) -> None:
            asked.append(dialog.message)
            await (dialog.accept() if answer == "accept" else dialog.dismiss())

        page.on("dialog", reply)
        await page.goto(f"{address}/jobs/{job}")
        await page.get_by_role("button", name="Cancel job").click()
        assert len(asked) == 1
        assert await seen.count() == 1
        answer = "accept"
        await page.get_by_role("button", name="Cancel job").click()
        await expect(page.get_by_text("The job has left the queue.")).to_be_visible()
        assert await seen.ended("canceled") == [job]


async def test_filters_and_pages(queue: Queries, address: str, visit: Visit) -> None:
    await queue.enqueue(["mails"] * 60, [None] * 60, [0] * 60)
    await queue.enqueue(["reports"] * 2, [None] * 2, [5] * 2)
    await queue.enqueue("later", None, execute_after=timedelta(hours=1))
    async with visit() as page:
        await page.goto(f"{address}/jobs")
        rows = page.locator("tbody tr")
        await expect(rows).to_have_count(50)
        await page.get_by_role("link", name="Next page").click()
        await expect(rows).to_have_count(12)
        await page.get_by_label("Entrypoint").fill("reports")
        await page.get_by_role("button", name="Filter").click()
        await expect(rows).to_have_count(2)
        await page.get_by_role("link", name="Deferred").click()
        await expect(page.get_by_text("No job here.")).to_be_visible()
        await page.get_by_role("link", name="Reset").click()
        await expect(rows).to_have_count(1)


async def test_news_take_nothing_from_under_ones_hands(
    queue: Queries, address: str, visit: Visit
) -> None:
    await queue.enqueue("mails", None)
    async with visit() as page:
        await page.goto(f"{address}/jobs")
        await page.evaluate(
            "() => { window.asked = 0;"
            " document.body.addEventListener('htmx:beforeSend', () => { window.asked += 1; }); }"
        )

        async def asks() -> int:
            """How many requests news lead to, there and then."""
            asked: int = await page.evaluate(
                "() => { const before = window.asked;"
                " document.body.dispatchEvent(new CustomEvent('queue-change'));"
                " return window.asked - before; }"
            )
            return asked

        box = page.get_by_label("Choose job")
        await box.check()
        assert await asks() == 0
        await expect(box).to_be_checked()
        switch = page.get_by_role("button", name="Live")
        await box.uncheck()
        await switch.click()
        assert await asks() == 0
        await switch.click()
        # Not while another one is under way.
        await eventually(asks)


async def test_dark_and_light(address: str, visit: Visit) -> None:
    """By the system's choice; each with contrast enough to be read."""
    for scheme, is_dark in (("light", False), ("dark", True)):
        async with visit(color_scheme=scheme) as page:
            await page.goto(address)
            colours = await page.evaluate(
                "() => { const style = getComputedStyle(document.body);"
                " return [style.backgroundColor, style.color].map("
                "   (text) => text.match(/\\d+/g).slice(0, 3).map(Number)); }"
            )
            back, text = (_luminance(*colour) for colour in colours)
            assert (back < text) == is_dark
            lighter, darker = max(back, text), min(back, text)
            assert (lighter + 0.05) / (darker + 0.05) > 7


def _luminance(*colour: int) -> float:
    """As the Web Content Accessibility Guidelines define it."""
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4
        for part in (each / 255 for each in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


async def test_on_a_telephone(queue: Queries, address: str, visit: Visit) -> None:
    await run(queue, "an.entrypoint.with.quite.a.long.name", "failed", "exception")
    async with visit(viewport={"width": 360, "height": 700}) as page:
        for path in PATHS:
            await page.goto(address + path)
            # Wide tables scroll by themselves; the page does not.
            assert await page.evaluate(
                "document.documentElement.scrollWidth <= window.innerWidth"
            ), path


async def test_with_a_login(queue_dsn: str, visit: Visit) -> None:
    settings = WebSettings(user="ada", password="secret")  # type: ignore[arg-type]
    with listening(queue_dsn, settings) as address:
        credentials = {"username": "ada", "password": "secret"}
        async with visit(http_credentials=credentials) as page:
            async with page.expect_response(lambda answer: "/events" in answer.url) as events:
                await page.goto(address)
            # The stream has the login of the page.
            assert (await events.value).status == 200
