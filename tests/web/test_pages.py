"""What the pages show, and that their actions do what they say, on both table layouts."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta

import asyncpg
import httpx
import pytest

from behaviour.helpers import Tables
from pgq_fast.db import AsyncpgPoolDriver
from pgq_fast.models import CronExpressionEntrypoint
from pgq_fast.queries import Queries
from pgq_fast.settings import Layout
from pgq_fast.types import CronEntrypoint, CronExpression
from pgq_fast.web.formats import NOTHING
from support.layouts import queries_of
from web.conftest import MakeClient, dashboard
from web.helpers import WORKER, act, claim, ids, link, run, text

pytestmark = pytest.mark.layouts()


async def all_pages(client: httpx.AsyncClient, path: str, words: str = "Next page") -> list[int]:
    """The jobs of a list, page by page."""
    found: list[int] = []
    following: str | None = path
    while following is not None:
        page = await text(client, following)
        assert ids(page), following
        found += ids(page)
        following = link(page, words)
    return found


async def test_an_empty_queue_has_all_pages(client: httpx.AsyncClient, layout: Layout) -> None:
    for path in (
        *("/", "/jobs", "/failures", "/workers", "/schedules", "/entrypoints", "/system"),
        *("/jobs?status=deferred", "/jobs?status=picked", "/jobs?status=failed"),
        *("/entrypoints?window=24h", "/workers?stale_after=30", "/?window=15m"),
        *(f"/partials/{name}" for name in ("overview", "jobs", "failures", "workers")),
        *("/partials/entrypoints", "/partials/schedules"),
    ):
        page = await text(client, path)
        assert ("<html" in page) == ("/partials/" not in path)
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert f"<b>{layout.value}</b>" in await text(client, "/system")


async def test_the_overview_counts_jobs_by_place(
    queries: Queries, client: httpx.AsyncClient
) -> None:
    await queries.enqueue(["a"] * 4, [None] * 4, [0] * 4)
    await queries.enqueue("a", None, execute_after=timedelta(hours=1))
    await run(queries, "held", "failed", "failed")
    await run(queries, "done", "successful", "successful", "successful", "exception")
    await queries.enqueue(["busy"] * 3, [None] * 3, [0] * 3)
    await claim(queries, "busy", 3)

    page = await text(client, "/")
    assert 'data-summary="4 queued, 3 running, 2 held"' in page
    for name, number in {"successful": 3, "failed": 3, "canceled": 0}.items():
        assert re.search(rf"</span>{name} <b>{number}</b>", page), name
    # The bars say so too: of the present slot, and of no other.
    assert re.search(r"<title>[\d:]+ UTC: 3 successful, 3 failed</title>", page)
    assert re.search(r"p99 <b>[\d.]+ (ms|s)</b>", page)
    assert "Of a sample of 6 jobs." in page


async def test_entrypoints_at_a_glance(queries: Queries, client: httpx.AsyncClient) -> None:
    await run(queries, "mails", "successful", "successful", "successful", "exception")
    await queries.enqueue(["mails"] * 2, [None] * 2, [0] * 2)
    await queries.enqueue("reports", None, execute_after=timedelta(hours=1))
    page = await text(client, "/entrypoints")
    rows = {
        name: re.findall(r'<td class="number[^"]*">([^<]*)</td>', row)
        for name, row in re.findall(r'entrypoint=(\w+)">\1</a></th>(.*?)</tr>', page, re.DOTALL)
    }
    queued, deferred, picked, waited, ended, failed, *_ = rows["mails"]
    assert (queued, deferred, picked, ended, failed) == ("2", "0", "0", "4", "25.0 %")
    assert waited != NOTHING
    assert rows["reports"][:5] == ["0", "1", "0", NOTHING, "0"]


async def test_lists_go_on_where_the_page_before_ended(
    queries: Queries, client: httpx.AsyncClient
) -> None:
    later = timedelta(hours=1)
    made = await queries.enqueue(["a"] * 120, [None] * 120, [n % 3 for n in range(120)])
    made += await queries.enqueue(["b"] * 7, [None] * 7, [0] * 7)
    deferred = await queries.enqueue(["c"] * 60, [None] * 60, [0] * 60, [later] * 60)
    deferred += await queries.enqueue(["d"] * 60, [None] * 60, [0] * 60, [2 * later] * 60)

    found = await all_pages(client, "/jobs")
    assert sorted(found) == sorted(made)
    # In the order of claims within an entrypoint.
    assert found[:120] == sorted(made[:120], key=lambda job: (-((job - made[0]) % 3), job))
    found = await all_pages(client, "/jobs?status=deferred")
    assert sorted(found) == sorted(deferred)
    assert set(found[:60]) == set(deferred[:60])

    await claim(queries, "a", 110)
    await claim(queries, "b", 7)
    picked = await all_pages(client, "/jobs?status=picked")
    assert len(picked) == len(set(picked)) == 117
    await run(queries, "e", *["failed"] * 60)
    held = await all_pages(client, "/jobs?status=failed")
    assert held == sorted(held, reverse=True)
    assert len(held) == 60
    assert await all_pages(client, "/failures") == held


async def test_filters(queries: Queries, client: httpx.AsyncClient, tables: Tables) -> None:
    a = await queries.enqueue(["a"] * 3, [None] * 3, [-5, 0, 5])
    b = await queries.enqueue(["b & c"] * 3, [None] * 3, [-5, 0, 5])
    await tables.edit(a[2], "created = now() - interval '2 hours'")

    async def listed(query: str) -> list[int]:
        return ids(await text(client, f"/jobs?{query}"))

    assert await listed("entrypoint=b+%26+c") == b[::-1]
    assert await listed("lowest=0") == [a[2], a[1], b[2], b[1]]
    assert await listed("lowest=0&highest=0") == [a[1], b[1]]
    assert await listed("highest=-1&entrypoint=a") == [a[0]]
    assert await listed("older=1h") == [a[2]]
    assert await listed("older=6h") == []
    assert await listed("entrypoint=nothing") == []
    held = await run(queries, "d", "failed", "failed")
    assert await listed("status=failed&entrypoint=d") == held[::-1]
    assert await listed("status=failed&entrypoint=a") == []
    # What one filters by stays in the form and in the links.
    page = await text(client, "/jobs?entrypoint=b+%26+c&older=1m&status=queued")
    assert 'value="b &amp; c"' in page
    assert "entrypoint=b+%26+c" in (link(page, "Deferred ") or "")


async def test_nonsense_is_refused(queries: Queries, client: httpx.AsyncClient) -> None:
    await queries.enqueue("a", None)
    for query in (
        *("lowest=x", "lowest=9999999999", "highest=1_0", "lowest=²", "entrypoint=a%00"),
        # Words that are no cursor, cursors that are none of this list.
        *("after=zz", "after=W10", "after=WyJhIl0", "after=eyJhIjoxfQ", "after=W251bGxd"),
        *("status=failed&after=WzFlMzBd", f"entrypoint={'x' * 2000}"),
    ):
        response = await client.get(f"/jobs?{query}")
        assert response.status_code == 400, query
        assert response.headers["content-type"].startswith("text/html")


async def test_a_job_with_its_log_and_traceback(
    queries: Queries, client: httpx.AsyncClient
) -> None:
    (held,) = await run(queries, "mails", "failed", message="mailer <down>")
    page = await text(client, f"/jobs/{held}")
    assert "Held after a failure" in page
    assert "mailer &lt;down&gt;" in page
    assert "raise ConnectionError(message)" in page
    statuses = re.findall(r'<span class="tag \w+">(\w+)</span></td>', page)
    assert statuses[0] == "failed"
    assert set(statuses) <= {"failed", "picked", "queued"}

    (done,) = await run(queries, "mails", "successful")
    page = await text(client, f"/jobs/{done}")
    assert "has left the queue" in page
    assert re.findall(r'<span class="tag \w+">(\w+)</span></td>', page) == [
        "successful",
        "picked",
        "queued",
    ]
    response = await client.get("/jobs/987654")
    assert response.status_code == 404
    assert "no job 987654" in response.text
    for nonsense in ("x", "9" * 30, "-", "1.5"):
        assert (await client.get(f"/jobs/{nonsense}")).status_code == 400


async def test_a_job_is_found_wherever_it_is(queries: Queries, client: httpx.AsyncClient) -> None:
    await queries.enqueue(["a", "a"], [None, None], [3, 4])
    (later,) = await queries.enqueue("b", None, execute_after=timedelta(hours=1))
    (busy,) = await queries.enqueue("c", None)
    await claim(queries, "c")
    for place in ("queued", "deferred", "picked"):
        page = await text(client, f"/jobs?status={place}")
        for job in ids(page):
            target = link(page, str(job))
            assert target is not None
            assert f"<h1>Job {job}</h1>" in await text(client, target)
    assert "May run from" in await text(client, f"/jobs/{later}")
    assert str(WORKER) in await text(client, f"/jobs/{busy}")


async def test_payloads_are_hidden_unless_allowed(
    queries: Queries, client: httpx.AsyncClient, make_client: MakeClient
) -> None:
    secret = {"token": "sesame-header"}
    (job,) = await queries.enqueue("a", b'{"password": "sesame"}', headers=secret)
    (binary,) = await queries.enqueue("a", b"\xff\x00sesame")
    (later,) = await queries.enqueue(
        "b", b"sesame", execute_after=timedelta(hours=1), headers=secret
    )
    await queries.enqueue("c", b"sesame", headers=secret)
    await claim(queries, "c")
    await run(queries, "d", "failed", "exception")
    paths = [f"/jobs/{number}" for number in range(job, later + 4)]
    paths += ["/jobs", "/jobs?status=deferred", "/jobs?status=picked", "/failures", "/workers"]
    for path in paths:
        page = await text(client, path)
        assert "sesame" not in page, path
        assert "secret payload" not in page, path

    open_client = make_client(dashboard(queries, show_payloads=True))
    page = await text(open_client, f"/jobs/{job}")
    assert "&#34;password&#34;: &#34;sesame&#34;" in page
    assert "sesame-header" in page
    assert "ff 00 73 65" in await text(open_client, f"/jobs/{binary}")
    assert "sesame" in await text(open_client, f"/jobs/{later}")
    assert "sesame" not in await text(open_client, "/jobs")


async def test_what_jobs_say_is_text(queries: Queries, client: httpx.AsyncClient) -> None:
    evil = '<script>alert("1")</script>\'"&'
    await run(queries, evil, "failed", "exception", "successful", message=evil)
    await queries.enqueue(evil, None, dedupe_key=evil)
    await queries.enqueue(evil, None, execute_after=timedelta(hours=1))
    (busy,) = await queries.enqueue(f"{evil}2", None)
    await claim(queries, f"{evil}2")
    await queries.insert_schedule(
        {
            CronExpressionEntrypoint(CronEntrypoint(evil), CronExpression("* * * * *")): timedelta(
                hours=1
            )
        }
    )
    for path in (
        *("/", "/jobs", "/jobs?status=deferred", "/jobs?status=picked", "/failures", "/workers"),
        *("/entrypoints", "/schedules", f"/jobs/{busy}", f"/jobs/{busy - 1}", f"/jobs/{busy - 2}"),
    ):
        page = await text(client, path, params={"entrypoint": evil} if path == "/jobs" else None)
        assert "<script>alert" not in page, path
        assert "alert(&#34;1" in page or path == "/", path


async def test_workers_and_leases(
    queries: Queries, client: httpx.AsyncClient, tables: Tables, layout: Layout
) -> None:
    await queries.enqueue(["a"] * 5, [None] * 5, [0] * 5)
    await claim(queries, "a", 3)
    page = await text(client, "/workers")
    assert str(WORKER) in page
    assert re.search(r'<td class="number">3</td>', page)
    assert "None." in page
    assert ("<h2>Leases</h2>" in page) == (layout is Layout.lease)
    await tables.make_stale()
    page = await text(client, "/workers")
    # The jobs, and the lease that they are in.
    silent = len(re.findall(r'<td class="number bad">1 h ago</td>', page))
    assert silent == (4 if layout is Layout.lease else 3)


async def test_schedules(queries: Queries, client: httpx.AsyncClient) -> None:
    key = CronExpressionEntrypoint(CronEntrypoint("nightly"), CronExpression("0 3 * * *"))
    await queries.insert_schedule({key: timedelta(hours=2)})
    page = await text(client, "/schedules")
    assert "<code>0 3 * * *</code>" in page
    assert "in 1 h 59 min" in page


async def test_held_jobs_are_requeued(
    queries: Queries, client: httpx.AsyncClient, tables: Tables
) -> None:
    first, second, third = await run(queries, "a", "failed", "failed", "failed")
    response = await act(client, "/failures", "/jobs/requeue", {"ids": [first, second]})
    assert response.status_code == 303
    assert "2 jobs were asked to be queued again." in await text(
        client, response.headers["location"]
    )
    assert await tables.count("queued") == 2
    # The button of a row is about its row.
    response = await act(client, "/failures", "/jobs/requeue", {"ids": [1, 2], "only": third})
    assert response.headers["location"] == "/failures?did=requeued-1"
    assert await tables.count("queued") == 3
    assert ids(await text(client, "/failures")) == []
    jobs = await claim(queries, "a", 10)
    assert [job.id for job in jobs] == [first, second, third]


async def test_a_key_that_is_taken_is_said(
    queries: Queries, client: httpx.AsyncClient, tables: Tables
) -> None:
    await queries.enqueue("a", None, dedupe_key="k")
    (job,) = await claim(queries, "a")
    await queries.log_jobs([(job, "failed", None)])
    await queries.enqueue("a", None, dedupe_key="k")
    response = await act(client, "/failures", "/jobs/requeue", {"ids": job.id})
    assert response.status_code == 409
    assert "dedupe key" in response.text
    assert await tables.count("failed") == 1


async def test_a_role_that_may_only_read(
    queries: Queries, queue_dsn: str, layout: Layout, tables: Tables, make_client: MakeClient
) -> None:
    role = f"reader_{uuid.uuid4().hex}"
    await tables.rows(f"CREATE ROLE {role}")
    await tables.rows(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    (held,) = await run(queries, "a", "failed")
    try:
        async with asyncpg.create_pool(
            queue_dsn, min_size=1, server_settings={"role": role}
        ) as pool:
            client = make_client(dashboard(queries_of(AsyncpgPoolDriver(pool), layout)))
            for path in (
                *("/", "/jobs", "/jobs?status=deferred", "/jobs?status=picked", "/failures"),
                *("/workers", "/entrypoints", "/schedules", "/system", f"/jobs/{held}"),
            ):
                await text(client, path)
            response = await act(client, "/failures", "/jobs/requeue", {"ids": held})
            assert response.status_code == 503
            assert "not allowed" in response.text
    finally:
        await tables.rows(f"DROP OWNED BY {role}")
        await tables.rows(f"DROP ROLE {role}")


async def test_jobs_are_canceled_one_by_one_and_many_at_once(
    queries: Queries, client: httpx.AsyncClient, tables: Tables
) -> None:
    made = await queries.enqueue(["a"] * 4, [None] * 4, [0] * 4)
    (later,) = await queries.enqueue("b", None, execute_after=timedelta(hours=1))
    (held,) = await run(queries, "c", "failed")
    await claim(queries, "a", 1)
    page = f"/jobs/{made[0]}"
    response = await act(client, page, f"{page}/cancel", {"page": f"job-{made[0]}"})
    assert response.headers["location"] == f"{page}?did=canceled-1"
    fields = {"ids": [made[1], later, held], "page": "jobs", "status": "deferred", "lowest": "0"}
    response = await act(client, "/jobs", "/jobs/cancel", fields)
    assert response.headers["location"] == "/jobs?status=deferred&lowest=0&did=canceled-3"
    assert await tables.ended("canceled") == sorted([made[0], made[1], later, held])
    assert await tables.count() == 2


async def test_programs_get_what_pgqueuer_answers(
    queries: Queries, make_client: MakeClient, tables: Tables
) -> None:
    client = make_client(dashboard(queries, token="t"), headers={"Authorization": "Bearer t"})
    (held,) = await run(queries, "a", "failed")
    response = await client.post("/jobs/requeue", data={"ids": held})
    assert (response.status_code, response.content) == (204, b"")
    response = await client.post(f"/jobs/{held}/cancel", headers={"HX-Request": "true"})
    assert (response.status_code, response.headers["hx-refresh"]) == (204, "true")
    assert await tables.count() == 0


async def test_an_installation_that_is_not_there(
    queries: Queries, client: httpx.AsyncClient
) -> None:
    await queries.uninstall()
    response = await client.get("/jobs")
    assert response.status_code == 503
    assert "pgq install" in response.text
    assert "relation" not in response.text


async def test_the_wrong_layout_is_named(
    queries: Queries, layout: Layout, make_client: MakeClient
) -> None:
    other = Layout.compat if layout is Layout.lease else Layout.lease
    client = make_client(dashboard(queries_of(queries.driver, other)))
    response = await client.get("/")
    # pgqueuer's statements work on the views of the lease layout in part; where they do not, the
    # reason is said.
    if layout is Layout.compat:
        assert response.status_code == 503
        assert "PGQUEUER_LAYOUT" in response.text
    else:
        assert response.status_code in (200, 503)
