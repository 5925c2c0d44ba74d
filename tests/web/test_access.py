"""Who gets in, what an action has to prove, and what answers say to browsers."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request

from behaviour.helpers import Tables
from pgq_fast.errors import IncompleteLoginError, UnprotectedDashboardError, UnreadableQueueError
from pgq_fast.memory import InMemoryDriver, InMemoryQueries
from pgq_fast.queries import Queries
from pgq_fast.web import create_web_app, create_web_router, serve
from pgq_fast.web.auth import MOST_GUESSES, Guesses, Login, is_loopback
from pgq_fast.web.reads import Reads
from pgq_fast.web.settings import WebSettings
from web.conftest import MakeClient, dashboard
from web.helpers import act, link, run, text, token

LOGIN = {"user": "ada", "password": "pässword", "token": "t0ken"}


def basic(user: str, password: str) -> dict[str, str]:
    word = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {word}"}


def addresses(page: str) -> list[str]:
    """All that *page* loads, links to or sends to, but for places on itself."""
    return re.findall(r'(?:src|href|action|hx-get|data-events)="(?!#)([^"]*)"', page)


async def test_a_login_is_asked_for_and_checked(
    queries: Queries, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgq_fast.web.auth.MOST_GUESSES", 1000)
    client = make_client(dashboard(queries, **LOGIN), address="192.0.2.1")
    for headers in (
        {},
        basic("ada", "password"),
        basic("ada", ""),
        basic("", "pässword"),
        basic("eve", "pässword"),
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer t0ke"},
        {"Authorization": "Digest t0ken"},
    ):
        # All of it: files, health and actions too.
        for method, path in (
            *(("GET", path) for path in ("/", "/jobs/1", "/healthz", "/static/app.js")),
            ("POST", "/jobs/requeue"),
        ):
            response = await client.request(method, path, headers=headers)
            assert response.status_code == 401, (headers, path)
            assert response.headers["www-authenticate"].startswith("Basic ")
            assert response.headers["x-frame-options"] == "DENY"
    for headers in (
        basic("ada", "pässword"),
        basic("anybody", "t0ken"),
        {"Authorization": "bearer t0ken"},
    ):
        await text(client, "/", headers=headers)


@pytest.mark.parametrize("given", [{"user": "a"}, {"password": "b"}, {"user": "", "password": "b"}])
def test_half_a_login_is_an_error(given: dict[str, str]) -> None:
    settings = WebSettings(**given)  # type: ignore[arg-type]
    for make in (Login.of, lambda each: create_web_router(settings=each)):
        with pytest.raises(IncompleteLoginError, match="PGQUEUER_WEB_PASSWORD"):
            make(settings)
    with pytest.raises(IncompleteLoginError):
        create_web_app(settings=settings)


def test_the_environment_has_the_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGQUEUER_WEB_USER", "ada")
    monkeypatch.setenv("PGQUEUER_WEB_PASSWORD", "secret")
    login = Login.of(WebSettings())
    assert login is not None
    assert login.admits(basic("ada", "secret")["Authorization"])
    assert "secret" not in repr(WebSettings())
    assert repr(login) == "Login()"


async def test_without_a_login_only_this_machine_gets_in(
    queries: Queries, make_client: MakeClient
) -> None:
    app = dashboard(queries)
    for address, base, status in (
        ("127.0.0.1", "http://localhost:8080", 200),
        ("::1", "http://[::1]:8080", 200),
        ("192.0.2.1", "http://localhost:8080", 403),
        # A name of somebody else's that leads here.
        ("127.0.0.1", "http://evil.example:8080", 403),
        ("127.0.0.1", "http://localhost.evil.example", 403),
    ):
        response = await make_client(app, address=address, base_url=base).get("/")
        assert response.status_code == status, (address, base)
        assert status == 200 or "PGQUEUER_WEB_USER" in response.text
    wide = make_client(dashboard(queries, allow_unprotected=True), address="192.0.2.1")
    await text(wide, "/")


async def test_dependencies_of_the_application_protect_it(
    queries: Queries, make_client: MakeClient
) -> None:
    def who(request: Request) -> None:
        if request.headers.get("x-user") != "ada":
            raise HTTPException(401, "no", headers={"X-Login": "there"})

    app = FastAPI()
    app.state.pgq_queries = queries
    app.include_router(create_web_router(dependencies=[Depends(who)]))
    client = make_client(app, address="192.0.2.1", base_url="http://queue.example")
    response = await client.get("/")
    assert response.status_code == 401
    assert response.headers["x-login"] == "there"
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    await text(client, "/", headers={"X-User": "ada"})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "queue.example", ""])
def test_it_does_not_listen_more_widely_without_a_login(host: str) -> None:
    with pytest.raises(UnprotectedDashboardError) as caught:
        serve(host=host, dsn="postgresql://nowhere.invalid/x")
    message = str(caught.value)
    assert "PGQUEUER_WEB_USER" in message
    assert "\n" not in message


def test_what_counts_as_this_machine() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "", "10.0.0.1", "localhost.example")))


async def test_actions_need_the_token_of_a_page(
    queries: Queries, make_client: MakeClient, tables: Tables
) -> None:
    client = make_client(dashboard(queries))
    (held,) = await run(queries, "a", "failed")
    page = await text(client, "/failures")
    good = {"csrf": token(page), "ids": held}
    cookie = client.cookies["pgq_csrf"]
    assert cookie == good["csrf"]

    stranger = make_client(dashboard(queries))
    other = {"csrf": token(await text(stranger, "/failures")), "ids": held}
    for who, fields, headers in (
        (client, {"ids": held}, {}),
        (client, {**good, "csrf": ""}, {}),
        (client, other, {}),
        (make_client(dashboard(queries)), good, {}),
        (client, good, {"Sec-Fetch-Site": "cross-site"}),
        (client, good, {"Sec-Fetch-Site": "same-site"}),
        (client, good, {"Origin": "http://evil.example"}),
        (client, good, {"Origin": "null"}),
        # What a browser sends by itself proves nothing.
        (client, {"ids": held}, basic("a", "b")),
    ):
        for path in ("/jobs/requeue", "/jobs/cancel", f"/jobs/{held}/cancel"):
            response = await who.post(path, data=fields, headers=headers)
            assert response.status_code == 403, (fields, headers, path)
    assert await tables.count("failed") == 1

    same = {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}
    response = await client.post("/jobs/requeue", data=good, headers=same)
    assert response.status_code == 303
    assert await tables.count("queued") == 1


async def test_the_cookie_is_out_of_reach(queries: Queries, make_client: MakeClient) -> None:
    app = dashboard(queries, prefix="/q")
    response = await make_client(app, base_url="https://localhost").get("/q/jobs")
    said = response.headers["set-cookie"].lower()
    for part in ("httponly", "samesite=strict", "secure", "path=/q"):
        assert part in said
    response = await make_client(app).get("/q/jobs")
    assert "secure" not in response.headers["set-cookie"].lower()


async def test_read_only(queries: Queries, make_client: MakeClient, tables: Tables) -> None:
    (held,) = await run(queries, "a", "failed")
    client = make_client(dashboard(queries, read_only=True, token="t"))
    client.headers["Authorization"] = "Bearer t"
    for path in ("/", "/jobs", "/jobs?status=failed", "/failures", f"/jobs/{held}"):
        page = await text(client, path)
        assert "read-only" in page
        assert 'type="checkbox"' not in page
        assert not re.search(r"<button[^>]*>(Requeue|Cancel)", page), path
    for path in ("/jobs/requeue", "/jobs/cancel", f"/jobs/{held}/cancel"):
        response = await client.post(path, data={"ids": held})
        assert response.status_code == 403
        assert "PGQUEUER_WEB_READ_ONLY" in response.text
    assert await tables.count("failed") == 1


async def test_forms_are_bounded(queries: Queries, make_client: MakeClient) -> None:
    client = make_client(dashboard(queries, token="t"), headers={"Authorization": "Bearer t"})
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    async def send(content: Any, headers: dict[str, str]) -> int:
        response = await client.post("/jobs/requeue", content=content, headers=headers)
        return response.status_code

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"ids=1&" * 1000

    assert await send(b"ids=" + b"1" * 70_000, form) == 413
    assert await send(endless(), form) == 413
    assert await send(b"ids=1&" * 1_500, form) == 400
    assert await send(b"ids=1&" * 3_000, form) == 400
    assert await send(b"ids=x", form) == 400
    assert await send(b"ids=99999999999999999999", form) == 400
    assert await send(b"\xff", form) == 400
    assert await send(b'{"ids": [1]}', {"Content-Type": "application/json"}) == 415
    assert await send(b"", {}) == 204


async def test_every_answer_is_closed_to_others(queries: Queries, make_client: MakeClient) -> None:
    client = make_client(dashboard(queries))
    for path in ("/", "/partials/jobs", "/jobs/1", "/jobs/goto?id=1", "/healthz", "/static/app.js"):
        response = await client.get(path)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "same-origin"
        cached = response.headers["cache-control"]
        assert cached == ("private, max-age=86400" if "static" in path else "no-store")


async def test_pages_load_nothing_from_elsewhere(queries: Queries, make_client: MakeClient) -> None:
    client = make_client(dashboard(queries))
    (held,) = await run(queries, "a", "failed")
    for path in ("/", "/jobs", "/failures", "/workers", "/entrypoints", "/system", f"/jobs/{held}"):
        page = await text(client, path)
        for target in addresses(page):
            assert target.startswith("/"), target
            assert not target.startswith("//"), target
        # Nothing that the policy would have to allow.
        assert not re.search(r"<script(?![^>]* src=)|<style|<[^>]* (style|on[a-z]+)=", page)
        for name in re.findall(r'"(/static/[^"]+)"', page):
            assert (await client.get(name)).status_code == 200
    for name in ("/static/../settings.py", "/static/..%2fapp.py", "/static/nothing.js"):
        assert (await client.get(name)).status_code == 404


async def test_redirects_stay_here(queries: Queries, make_client: MakeClient) -> None:
    client = make_client(dashboard(queries))
    for typed in ("//evil.example", "https://evil.example", "1//evil.example", "\\\\evil"):
        response = await client.get("/jobs/goto", params={"id": typed})
        assert response.headers["location"] == "/jobs"
        fields = {"page": typed, "next": typed}
        response = await act(client, "/failures", "/jobs/requeue", fields)
        assert response.headers["location"] == "/failures?did=requeued-0"
    response = await client.get("/jobs/goto", params={"id": " 12 "})
    assert response.headers["location"] == "/jobs/12"


def included(queries: Queries) -> FastAPI:
    return dashboard(queries, prefix="/admin/queue")


def mounted(queries: Queries) -> FastAPI:
    app = FastAPI()
    app.mount("/admin/queue", dashboard(queries))
    return app


def mounted_and_included(queries: Queries) -> FastAPI:
    app = FastAPI()
    app.mount("/admin", dashboard(queries, prefix="/queue"))
    return app


async def test_a_prefix_like_a_path_of_its_own(queries: Queries, make_client: MakeClient) -> None:
    client = make_client(dashboard(queries, prefix="/partials/jobs"))
    for path in ("/", "/jobs", "/jobs/goto"):
        response = await client.get(f"/partials/jobs{path}", follow_redirects=True)
        assert "<html" in response.text
    assert "<html" not in await text(client, "/partials/jobs/partials/jobs")


def behind_a_proxy(queries: Queries) -> Any:
    """The proxy takes the prefix off and says so, as uvicorn's root_path does."""
    app = dashboard(queries)

    async def proxied(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"].removeprefix("/admin/queue") or "/"
        await app({**scope, "path": path, "root_path": "/admin/queue"}, receive, send)

    return proxied


@pytest.mark.parametrize(
    "place",
    [included, mounted, mounted_and_included, behind_a_proxy],
    ids=lambda each: each.__name__,
)
async def test_under_a_prefix(
    place: Any, queries: Queries, make_client: MakeClient, tables: Tables
) -> None:
    client = make_client(place(queries))
    (held,) = await run(queries, "a", "failed")
    base = "/admin/queue"
    for path in ("/", "/jobs", "/failures", f"/jobs/{held}", "/workers", "/jobs/999"):
        page = (await client.get(base + path)).text
        for target in addresses(page):
            assert target.startswith(f"{base}/"), (path, target)
    page = await text(client, f"{base}/")
    for words in ("Jobs", "Failures", "Workers"):
        await text(client, link(page, words) or "")
    for name in re.findall(r'"(/admin/queue/static/[^"]+)"', page):
        assert (await client.get(name)).status_code == 200
    response = await act(client, f"{base}/failures", f"{base}/jobs/requeue", {"ids": held})
    assert response.headers["location"] == f"{base}/failures?did=requeued-1"
    assert await tables.count("queued") == 1
    response = await client.get(f"{base}/jobs/goto?id={held}")
    assert response.headers["location"] == f"{base}/jobs/{held}"


async def test_the_users_application_stays_as_it_was(
    queries: Queries, make_client: MakeClient
) -> None:
    app = included(queries)

    @app.get("/jobs", name="jobs")
    async def own_jobs() -> str:
        return "own"

    client = make_client(app)
    response = await client.get("/jobs")
    assert response.json() == "own"
    assert "content-security-policy" not in response.headers
    assert list((await client.get("/openapi.json")).json()["paths"]) == ["/jobs"]
    # Names of the user's routes lead nowhere else.
    assert link(await text(client, "/admin/queue/"), "Jobs") == "/admin/queue/jobs"


async def test_a_queue_without_tables_is_refused(make_client: MakeClient) -> None:
    memory = InMemoryQueries(InMemoryDriver())
    with pytest.raises(UnreadableQueueError, match="InMemoryQueries"):
        Reads(memory)
    response = await make_client(dashboard(memory)).get("/")
    assert response.status_code == 500
    assert "app.state.pgq_queries" in response.text


async def test_a_lost_database_is_said_without_its_words(
    queries: Queries, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def lost() -> AsyncIterator[None]:
        raise ConnectionRefusedError(111, "connection to database.internal refused")
        yield

    monkeypatch.setattr(queries.driver, "transaction", lost)
    response = await make_client(dashboard(queries)).get("/jobs")
    assert response.status_code == 503
    assert "cannot be reached" in response.text
    assert "database.internal" not in response.text


def test_importing_the_package_imports_nothing_of_this() -> None:
    code = (
        "import sys, pgq_fast, pgq_fast.__main__\n"
        "found = {'fastapi', 'starlette', 'jinja2', 'uvicorn', 'pgq_fast.web'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_is_missing_is_named() -> None:
    code = (
        "import sys\n"
        "sys.modules['jinja2'] = None\n"
        "try:\n"
        "    import pgq_fast.web\n"
        "except ModuleNotFoundError as error:\n"
        "    assert \"pip install 'pgq-fast[web]'\" in str(error), error\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_client_of_these_tests_follows_no_redirects() -> None:
    """Or the tests of redirects would see the page behind them."""
    assert httpx.AsyncClient().follow_redirects is False


async def test_guesses_of_an_address_come_to_an_end(
    queries: Queries, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("pgq_fast.web.auth.time.monotonic", lambda: now)
    app = dashboard(queries, **LOGIN)
    guesser, other = (make_client(app, address=f"192.0.2.{number}") for number in (1, 2))
    right, wrong = basic("ada", "pässword"), basic("ada", "wrong")
    # A request without a login is none, however often it is sent.
    for _ in range(MOST_GUESSES + 5):
        assert (await guesser.get("/")).status_code == 401
    for _ in range(MOST_GUESSES):
        assert (await guesser.get("/", headers=wrong)).status_code == 401
    for path in ("/", "/healthz", "/static/app.js"):
        for headers in (wrong, right, {"Authorization": "Bearer t0ken"}):
            answer = await guesser.get(path, headers=headers)
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == "61"
    # Others are not concerned, and who was in before stays in.
    await text(other, "/", headers=right)
    await text(guesser, "/", headers=right)
    assert (await guesser.get("/", headers=wrong)).status_code == 429
    now += 61
    assert (await guesser.get("/", headers=wrong)).status_code == 401
    await text(guesser, "/", headers={"Authorization": "Bearer t0ken"})


def test_addresses_that_guess_take_no_memory_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgq_fast.web.auth._MOST_ADDRESSES", 10)
    guesses = Guesses()
    for number in range(1000):
        guesses.wrong(f"192.0.2.{number}")
    assert len(guesses._by_address) == 10


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://[evil"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://localhost@evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "[evil"},
        {"Host": "localhost@evil.example"},
        {"Host": "evil.example", "X-Forwarded-Host": "localhost"},
        {"Host": "evil.example", "X-Forwarded-For": "127.0.0.1"},
    ],
    ids=str,
)
async def test_no_header_of_a_stranger_gets_an_action_through(
    queries: Queries, tables: Tables, client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    await run(queries, "e", "failed")
    page = await text(client, "/failures")
    response = await client.post(
        "/jobs/requeue", data={"csrf": token(page), "ids": "1"}, headers=headers
    )
    assert response.status_code in (400, 403)
    assert await tables.count("failed") == 1


@pytest.mark.parametrize(
    "sent", ["", "ü" * 43, "\ud800".encode("utf-8", "surrogatepass"), "x" * 43]
)
async def test_tokens_that_are_none(
    queries: Queries, tables: Tables, client: httpx.AsyncClient, sent: Any
) -> None:
    await run(queries, "e", "failed")
    await text(client, "/failures")
    response = await client.post("/jobs/requeue", data={"csrf": sent, "ids": "1"})
    assert response.status_code in (400, 403)
    assert await tables.count("failed") == 1


@pytest.mark.parametrize("prefix", ["", "/admin/queue"])
@pytest.mark.parametrize(
    "path",
    [
        "//", "/./", "/x/../", "/%2e%2e/", "/jobs/../jobs/1", "/JOBS", "/jobs/", "/static/../jobs",
        "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd", "/jobs;x=1",
    ],
)  # fmt: skip
async def test_no_spelling_of_a_path_gets_past_the_login(
    queries: Queries, make_client: MakeClient, prefix: str, path: str
) -> None:
    (job_id,) = await queries.enqueue("e", b"payload-to-hide")
    client = make_client(dashboard(queries, prefix, **LOGIN), address="192.0.2.1")
    for spelled in (f"{prefix}{path}", f"{path}{prefix}", f"{prefix}/jobs/{job_id}{path}"):
        # As it stands, which a client would change otherwise.
        request = client.build_request("GET", "http://localhost/")
        request.url = request.url.copy_with(raw_path=spelled.encode())
        response = await client.send(request)
        assert response.status_code in (401, 404, 405, 307), spelled
        assert "payload-to-hide" not in response.text
