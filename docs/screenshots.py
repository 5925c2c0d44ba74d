"""Makes the pictures in docs/images: the dashboard on a queue that a worker really runs.

    python docs/screenshots.py            needs the extra ``test`` and Chromium

The jobs are run within a minute, and their log is then spread over the last hour, so that the
charts have something to show; how long each took stays as it was.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Final

import asyncpg
from playwright.async_api import async_playwright

from pgq_fast import AsyncpgDriver, AsyncpgPoolDriver, Job, PgQueuer, Queries
from pgq_fast.embedded import embedded_postgres
from pgq_fast.types import QueueExecutionMode
from pgq_fast.web import create_web_app
from pgq_fast.web.server import Server
from pgq_fast.web.settings import WebSettings

IMAGES: Final = Path(__file__).parent / "images"
LARGEST: Final = 150_000
PICTURES: Final = (
    ("overview", "light", "/", 745),
    ("overview", "dark", "/", 745),
    ("jobs", "light", "/jobs?status=deferred", 640),
    ("failures", "dark", "/failures", 560),
)
ENTRYPOINTS: Final = {"send_mail": 5, "resize_image": 3, "make_report": 1, "sync_customer": 2}

SPREAD: Final = """
WITH job AS (
    SELECT job_id, (percent_rank() OVER (ORDER BY md5(job_id::text))) AS place
    FROM pgqueuer_log GROUP BY job_id
)
UPDATE pgqueuer_log AS entry
SET created = created - interval '1 hour' * (place + 0.09 * sin(place * 19)), aggregated = false
FROM job WHERE job.job_id = entry.job_id
"""


def worker(connection: asyncpg.Connection) -> PgQueuer:
    pgq = PgQueuer(AsyncpgDriver(connection))
    for name, weight in ENTRYPOINTS.items():

        async def handle(job: Job, weight: int = weight) -> None:
            await asyncio.sleep(random.lognormvariate(0, 0.9) / weight)
            if job.id % 31 == 0:
                raise ConnectionError(f"mail.example refused the connection of job {job.id}")
            if job.id % 47 == 0:
                raise ValueError("the customer has no address")

        pgq.entrypoint(name, on_failure="hold" if weight == 1 else "delete")(handle)
    return pgq


async def enqueue(queries: Queries, count: int, delay: timedelta | None = None) -> None:
    names = random.choices(list(ENTRYPOINTS), list(ENTRYPOINTS.values()), k=count)
    payloads: list[bytes | None] = [b'{"customer": 4711}' * random.randint(1, 60) for _ in names]
    priorities = [random.choice((0, 0, 0, 5)) for _ in names]
    await queries.enqueue(names, payloads, priorities, [delay] * count)


async def history(dsn: str) -> None:
    """An hour of work."""
    connection = await asyncpg.connect(dsn)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    await enqueue(queries, 20_000)
    await worker(connection).run(mode=QueueExecutionMode.drain, max_concurrent_tasks=1_000)
    await connection.execute("TRUNCATE pgqueuer_statistics")
    await connection.execute(SPREAD)
    await queries.aggregate_logs()
    await enqueue(queries, 300, timedelta(minutes=40))
    await connection.close()


async def busy(dsn: str, stack: AsyncExitStack) -> list[asyncio.Task[None]]:
    """Workers and a producer of now."""

    async def produce() -> None:
        queries = Queries(AsyncpgDriver(await asyncpg.connect(dsn)))
        await enqueue(queries, 120)
        while True:
            await enqueue(queries, random.randint(5, 30))
            await asyncio.sleep(2)

    tasks = [asyncio.create_task(produce())]
    for _ in range(2):
        pgq = worker(await asyncpg.connect(dsn))

        @pgq.schedule("nightly_report", "0 3 * * *")
        async def nightly() -> None:
            """Not tonight."""

        tasks.append(asyncio.create_task(pgq.run(max_concurrent_tasks=3)))
    for task in tasks:
        stack.callback(task.cancel)
    return tasks


async def serve(dsn: str, stack: AsyncExitStack) -> str:
    settings = WebSettings(port=0)
    pool = await stack.enter_async_context(asyncpg.create_pool(dsn))
    app = create_web_app(settings=settings, queries=Queries(AsyncpgPoolDriver(pool)))
    server = Server(app, settings, log_level="warning")
    stack.push_async_callback(asyncio.wait_for, asyncio.create_task(server.serve()), 30)
    stack.callback(setattr, server, "should_exit", True)
    async with asyncio.timeout(30):
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


async def photograph(address: str) -> None:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("Chromium is not installed (Debian: apt-get install chromium)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        for name, scheme, path, height in PICTURES:
            context = await browser.new_context(
                color_scheme=scheme,  # type: ignore[arg-type]
                viewport={"width": 1200, "height": height},
            )
            page = await context.new_page()
            await page.goto(address + path)
            target = IMAGES / f"{name}-{scheme}.png"
            await page.screenshot(path=target)
            size = target.stat().st_size
            print(f"{target.name}: {size:,} bytes")
            assert size < LARGEST, "make the picture smaller"
            await context.close()
        await browser.close()


async def main(dsn: str) -> None:
    random.seed(20)
    await history(dsn)
    IMAGES.mkdir(exist_ok=True)
    async with AsyncExitStack() as stack:
        address = await serve(dsn, stack)
        await busy(dsn, stack)
        # For the chart of jobs, which knows what the dashboard has seen.
        await asyncio.sleep(60)
        await photograph(address)


if __name__ == "__main__":
    with embedded_postgres() as dsn:
        asyncio.run(main(dsn))
