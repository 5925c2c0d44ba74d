"""The pages of the dashboard as a router."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from importlib.resources import files
from typing import Any, Final, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Request, Response, params
from fastapi.responses import RedirectResponse, StreamingResponse
from fastapi.routing import APIRoute

from pgq_fast.drivers.failures import is_server_unavailable, sqlstate_of
from pgq_fast.errors import (
    DashboardError,
    InvalidCursorError,
    LayoutMismatchError,
    UnreadableQueueError,
)
from pgq_fast.insights import DEFAULT_STALE_THRESHOLD
from pgq_fast.logconfig import logger
from pgq_fast.queries import Queries, is_unique_violation
from pgq_fast.web import formats
from pgq_fast.web.auth import guard
from pgq_fast.web.faults import PageError
from pgq_fast.web.guards import PAGE_HEADERS, read_form, verify_action
from pgq_fast.web.pages import refusal, render
from pgq_fast.web.paths import address, base_of
from pgq_fast.web.reads import Reads
from pgq_fast.web.requests import AGES, Asked, cursor_of, ids_of, job_id_of
from pgq_fast.web.settings import WebSettings
from pgq_fast.web.sse import Broadcaster
from pgq_fast.web.views import WINDOWS, Views

__all__ = ["build_router", "create_web_router"]

STATIC_FILES: Final = {
    "app.js": "text/javascript",
    "htmx.min.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "style.css": "text/css",
}

MOST_STREAMS: Final = 100
"""Streams of events at once; who gets none looks for news at intervals only."""

_OWN_PATH: Final = "pgq_fast_path"
_INSUFFICIENT_PRIVILEGE: Final = "42501"
_UNDEFINED_TABLE: Final = "42P01"

Endpoint = Callable[..., Awaitable[Response]]
EndpointT = TypeVar("EndpointT", bound=Endpoint)


def create_web_router(
    *,
    dependencies: Sequence[params.Depends] | None = None,
    include_sse: bool = True,
    settings: WebSettings | None = None,
) -> APIRouter:
    """The dashboard, to be included in an application, with a prefix or without.

    It reads the queue from ``app.state.pgq_queries``, a ``Queries``, and with *include_sse* the
    events from ``app.state.pgq_broadcaster``, a started ``Broadcaster``; without one, pages look
    for news at intervals.

    Args:
        dependencies: What protects it, such as ``[Depends(require_login)]``: run before each
            request, the dashboard's own login is not asked for then. None: the login of *settings*,
            without one only this machine gets in. An empty list: nothing.
        include_sse: Whether there is a stream of events.
        settings: What is allowed; by default what the environment says.

    Raises:
        IncompleteLoginError: *settings* have a user without a password or the reverse.
    """
    settings = settings or WebSettings()
    if dependencies is None:
        dependencies = [Depends(guard(settings))]
    return build_router(Views(), settings, dependencies, include_sse=include_sse)


def build_router(
    views: Views,
    settings: WebSettings,
    dependencies: Sequence[params.Depends],
    *,
    include_sse: bool,
) -> APIRouter:
    """As :func:`create_web_router`, on *views* of the caller's."""
    return _Dashboard(views, settings, include_sse).router(dependencies)


class _Route(APIRoute):
    """A route whose answers, refusals included, say the same to browsers.

    It belongs to a router, which may be a part of somebody's application: so there is no middleware
    for this, nor a handler of exceptions.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler with all that."""
        handle = super().get_route_handler()
        own: str = getattr(self.endpoint, _OWN_PATH)
        settings: WebSettings = getattr(self.endpoint, "pgq_fast_settings")  # noqa: B009

        async def answer(request: Request) -> Response:
            base = base_of(request, own)
            request.scope["pgq_fast.base"] = base
            request.scope["pgq_fast.partial"] = own.startswith("/partials/")
            try:
                response = await handle(request)
            except HTTPException as error:
                # Of a dependency of the user's, whose application knows how to say it.
                error.headers = {**PAGE_HEADERS, **(error.headers or {})}
                raise
            except PageError as error:
                response = refusal(request, error, base=base, settings=settings)
            except Exception as error:
                refused = _explained(error)
                if refused is None:
                    raise
                response = refusal(request, refused, base=base, settings=settings)
            for name, value in PAGE_HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return answer


def _explained(error: Exception) -> PageError | None:
    """What to say about an *error* of the queue or the database; None if it is another one."""
    if isinstance(error, UnreadableQueueError):
        return PageError(500, str(error))
    if isinstance(error, InvalidCursorError):
        return PageError(400, str(error))
    if isinstance(error, (DashboardError, LayoutMismatchError)):
        return PageError(503, str(error))
    if is_unique_violation(error):
        # Requeueing is the one thing here that may meet another job's key.
        return PageError(
            409,
            "Nothing was queued: another job has the dedupe key of one of these by now. Requeue "
            "them one by one, and cancel the one that is refused.",
        )
    # Its own words may tell about the server what not every viewer is to know: those are logged.
    code = sqlstate_of(error)
    if is_server_unavailable(error):
        said = "The database cannot be reached."
    elif code == _UNDEFINED_TABLE:
        said = "The queue's tables are not there: run pgq install, or look at the settings."
    elif code == _INSUFFICIENT_PRIVILEGE:
        said = "The database role of the dashboard is not allowed to do this."
    elif code is not None:
        said = "The database refused; the log of the dashboard says why."
    else:
        return None
    logger.error("A page of the dashboard failed", exc_info=error)
    return PageError(503, said)


class _Dashboard:
    """The endpoints. Paths, names and parameters are those of pgqueuer's dashboard and more."""

    def __init__(self, views: Views, settings: WebSettings, include_sse: bool) -> None:
        self._views = views
        self._settings = settings
        self._sse = include_sse

    def router(self, dependencies: Sequence[params.Depends]) -> APIRouter:
        """The router with all routes."""
        router = APIRouter(
            dependencies=list(dependencies), route_class=_Route, include_in_schema=False
        )

        def add(path: str, name: str, endpoint: Endpoint, *methods: str) -> None:
            async def own(request: Request) -> Response:
                return await endpoint(request)

            setattr(own, _OWN_PATH, path)
            own.pgq_fast_settings = self._settings  # type: ignore[attr-defined]
            router.add_api_route(
                path, own, methods=list(methods) or ["GET"], name=name, response_model=None
            )

        add("/static/{filename}", "web_static", self.static)
        add("/healthz", "healthz", self.health)
        if self._sse:
            add("/events", "sse_events", self.events)
        add("/", "overview", self.overview)
        add("/partials/overview", "partial_overview", self.overview)
        add("/entrypoints", "entrypoints", self.entrypoints)
        add("/partials/entrypoints", "partial_entrypoints", self.entrypoints)
        add("/jobs", "jobs", self.jobs)
        add("/partials/jobs", "partial_jobs", self.jobs)
        add("/jobs/goto", "goto_job", self.goto)
        add("/jobs/requeue", "requeue_jobs_action", self.requeue, "POST")
        add("/jobs/cancel", "cancel_jobs_action", self.cancel, "POST")
        add("/jobs/{job_id}", "job_detail", self.job)
        add("/jobs/{job_id}/cancel", "cancel_job", self.cancel_one, "POST")
        add("/failures", "failures", self.failures)
        add("/partials/failures", "partial_failures", self.failures)
        add("/workers", "workers", self.workers)
        add("/partials/workers", "partial_workers", self.workers)
        add("/schedules", "schedules", self.schedules)
        add("/partials/schedules", "partial_schedules", self.schedules)
        add("/system", "system", self.system)
        return router

    # -- Pages --------------------------------------------------------------------------------

    def _render(
        self, request: Request, name: str, context: dict[str, Any], title: str, active: str
    ) -> Response:
        base = request.scope["pgq_fast.base"]
        return render(
            request,
            # A partial is the live part of the page with the same name.
            f"parts/{name}.html" if request.scope["pgq_fast.partial"] else f"{name}.html",
            {
                **context,
                "title": title,
                "active": active,
                "refresh": self._refresh(request, base, name),
                "did": _did(request),
            },
            base=base,
            settings=self._settings,
            live=self._sse and _broadcaster(request) is not None,
        )

    def _refresh(self, request: Request, base: str, name: str) -> str:
        """Where the live part of this page comes from, with the filters of now."""
        query = {key: value for key, value in request.query_params.items() if key != "did"}
        return address(base, f"/partials/{name}", **query)

    async def overview(self, request: Request) -> Response:
        """Numbers and charts."""
        context = await self._views.overview(_reads(request), _window(request))
        return self._render(request, "overview", context, "Overview", "/")

    async def entrypoints(self, request: Request) -> Response:
        """A row for each entrypoint."""
        context = await self._views.entrypoints(_reads(request), _window(request))
        return self._render(request, "entrypoints", context, "Entrypoints", "/entrypoints")

    async def jobs(self, request: Request) -> Response:
        """The queue, page by page."""
        reads, asked = _reads(request), Asked.of(request.query_params)
        page = await reads.jobs(asked.filters, cursor_of(request.query_params.get("after", "")))
        context = {
            "page": page,
            "words": asked.words,
            "ages": AGES,
            "counts": (await self._views.numbers(reads)).counts,
            "names": [] if request.scope["pgq_fast.partial"] else await reads.names(),
            "hint": Reads.hint,
            "first": not request.query_params.get("after"),
        }
        return self._render(request, "jobs", context, "Jobs", "/jobs")

    async def goto(self, request: Request) -> Response:
        """To the page of a job, by the number that was typed."""
        base = request.scope["pgq_fast.base"]
        text = request.query_params.get("id", "").strip()
        try:
            path = f"/jobs/{job_id_of(text)}"
        except PageError:
            path = "/jobs"
        return RedirectResponse(address(base, path), status_code=303)

    async def job(self, request: Request) -> Response:
        """All about a job."""
        job_id = job_id_of(request.path_params["job_id"])
        shown = self._settings.show_payloads
        job, history, cut = await _reads(request).job(
            job_id, payload=shown, hint=cursor_of(request.query_params.get("at", ""))
        )
        if job is None and not history:
            raise PageError(
                404,
                f"Job {job_id} was not found, neither in the log nor where it was looked for: the "
                "queue is too long to look at all of it. Go to it through the list of jobs."
                if cut
                else f"There is no job {job_id} in the queue, nor in the log.",
            )
        kind, text = formats.payload(job["payload"]) if job and shown else ("", "")
        context = {
            "job_id": job_id,
            "job": job,
            "history": history,
            "cut": cut,
            "payload_kind": kind,
            "payload_text": text,
        }
        return self._render(request, "job", context, f"Job {job_id}", "/jobs")

    async def failures(self, request: Request) -> Response:
        """Held jobs, and what the log has of others."""
        reads = _reads(request)
        asked = Asked.of({**request.query_params, "status": "failed"})
        context = {
            "words": asked.words,
            "held": await reads.jobs(
                asked.filters, cursor_of(request.query_params.get("after", ""))
            ),
            "exceptions": await reads.exceptions(cursor_of(request.query_params.get("before", ""))),
        }
        return self._render(request, "failures", context, "Failures", "/failures")

    async def workers(self, request: Request) -> Response:
        """Who holds jobs."""
        reads = _reads(request)
        typed = request.query_params.get("stale_after", "")
        seconds = int(typed) if typed.isascii() and typed.isdigit() and len(typed) < 8 else 0
        threshold = timedelta(seconds=seconds) if seconds else DEFAULT_STALE_THRESHOLD
        numbers = await self._views.numbers(reads)
        context = {
            "workers": await reads.workers(),
            "leases": await reads.leases(),
            "stale": await reads.stale(threshold),
            "stale_after": int(threshold.total_seconds()),
            "idle": numbers.idle,
        }
        return self._render(request, "workers", context, "Workers", "/workers")

    async def schedules(self, request: Request) -> Response:
        """What runs at certain times."""
        context = {"schedules": await _reads(request).schedules()}
        return self._render(request, "schedules", context, "Schedules", "/schedules")

    async def system(self, request: Request) -> Response:
        """The tables."""
        reads = _reads(request)
        context = {
            "tables": await reads.queries.schema_info(),
            "uncounted": await reads.uncounted(),
            "layout": reads.layout.value,
        }
        return self._render(request, "system", context, "System", "/system")

    async def static(self, request: Request) -> Response:
        """A file of the package."""
        name = request.path_params["filename"]
        if name not in STATIC_FILES:
            raise PageError(404, "There is no such file.")
        content = (files("pgq_fast.web") / "static" / name).read_bytes()
        # Addresses have the version of the package in them.
        return Response(
            content,
            media_type=STATIC_FILES[name],
            headers={"Cache-Control": "private, max-age=86400"},
        )

    async def health(self, request: Request) -> Response:
        """Whether the queue can be read."""
        await _reads(request).alive()
        return Response('{"status":"ok"}', media_type="application/json")

    async def events(self, request: Request) -> Response:
        """The stream of events."""
        broadcaster = _broadcaster(request)
        if broadcaster is None:
            raise PageError(404, "Nothing listens: set app.state.pgq_broadcaster.")
        if len(broadcaster.subscribers) >= MOST_STREAMS:
            raise PageError(503, "Too many streams of events are open.")
        return StreamingResponse(
            broadcaster.stream(),
            media_type="text/event-stream",
            # nginx would keep events back otherwise.
            headers={"X-Accel-Buffering": "no"},
        )

    # -- Actions ------------------------------------------------------------------------------

    async def _action(self, request: Request) -> dict[str, list[str]]:
        if self._settings.read_only:
            raise PageError(
                403, "The dashboard is read-only: unset PGQUEUER_WEB_READ_ONLY to change jobs."
            )
        form = await read_form(request)
        verify_action(request, form)
        return form

    async def requeue(self, request: Request) -> Response:
        """Queue held jobs again."""
        form = await self._action(request)
        # The button of a row is about that row, whatever else was chosen.
        if ids := ids_of(form.get("only") or form.get("ids", [])):
            await _queries(request).requeue_jobs(ids)
        return _done(request, form, f"requeued-{len(ids)}")

    async def cancel(self, request: Request) -> Response:
        """Take jobs out of the queue."""
        form = await self._action(request)
        if ids := ids_of(form.get("ids", [])):
            await _queries(request).mark_job_as_cancelled(ids)
        return _done(request, form, f"canceled-{len(ids)}")

    async def cancel_one(self, request: Request) -> Response:
        """Take a job out of the queue."""
        form = await self._action(request)
        await _queries(request).mark_job_as_cancelled([job_id_of(request.path_params["job_id"])])
        return _done(request, form, "canceled-1")


def _queries(request: Request) -> Queries:
    return _reads(request).queries


def _reads(request: Request) -> Reads:
    return Reads(getattr(request.app.state, "pgq_queries", None))


def _broadcaster(request: Request) -> Broadcaster | None:
    found = getattr(request.app.state, "pgq_broadcaster", None)
    return found if isinstance(found, Broadcaster) else None


def _window(request: Request) -> str:
    asked = request.query_params.get("window", "1h")
    return asked if asked in WINDOWS else "1h"


_DEEDS: Final = {"requeued": "queued again", "canceled": "canceled"}


def _did(request: Request) -> str | None:
    """What the action that led here has done: made from a word and a number of the address."""
    deed, _, number = request.query_params.get("did", "").partition("-")
    if deed not in _DEEDS or not (number.isascii() and number.isdigit() and len(number) < 5):
        return None
    jobs = int(number)
    if not jobs:
        return "No job was chosen."
    asked = "1 job was asked to be" if jobs == 1 else f"{jobs:,} jobs were asked to be"
    return f"{asked} {_DEEDS[deed]}."


def _done(request: Request, form: dict[str, list[str]], did: str) -> Response:
    """Back to the page that the action was on, which is one of the dashboard's in any case."""
    if request.headers.get("hx-request"):
        return Response(status_code=204, headers={"HX-Refresh": "true"})
    if "text/html" not in request.headers.get("accept", ""):
        return Response(status_code=204)
    base = request.scope["pgq_fast.base"]
    (page,) = form.get("page", [""])[:1]
    if page.startswith("job-"):
        target = address(base, f"/jobs/{job_id_of(page.removeprefix('job-'))}", did=did)
    elif page == "jobs":
        words = Asked.of({name: values[0] for name, values in form.items()}).words
        target = address(base, "/jobs", **words, did=did)
    else:
        target = address(base, "/failures", did=did)
    return RedirectResponse(target, status_code=303)
