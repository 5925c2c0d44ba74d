"""Templates to answers."""

from __future__ import annotations

import functools
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from pgq_fast.web import formats
from pgq_fast.web.faults import PageError
from pgq_fast.web.guards import csrf_token, remember_token
from pgq_fast.web.paths import address
from pgq_fast.web.settings import WebSettings

__all__ = ["NAVIGATION", "refusal", "render"]

NAVIGATION: Final = (
    ("/", "Overview"),
    ("/jobs", "Jobs"),
    ("/failures", "Failures"),
    ("/workers", "Workers"),
    ("/entrypoints", "Entrypoints"),
    ("/schedules", "Schedules"),
    ("/system", "System"),
)


@functools.cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("pgq_fast.web"),
        # Whatever a template is called.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(formats.FILTERS)
    return environment


@functools.cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pgq-fast")
    except PackageNotFoundError:
        # Run from a tree that was not installed.
        return "0"


def render(
    request: Request,
    name: str,
    context: dict[str, Any],
    *,
    base: str,
    settings: WebSettings,
    live: bool,
    status: int = 200,
) -> HTMLResponse:
    """The template *name*.

    Args:
        request: Asks for it.
        name: File below ``templates``.
        context: What the page shows.
        base: Path of the dashboard.
        settings: What is allowed.
        live: Whether there is a stream of events.
        status: HTTP status.
    """
    token = csrf_token(request)
    text = _templates().get_template(name).render(
        **context,
        url=functools.partial(address, base),
        csrf=token,
        read_only=settings.read_only,
        show_payloads=settings.show_payloads,
        live=live,
        navigation=NAVIGATION,
        version=_version(),
    )  # fmt: skip
    response = HTMLResponse(text, status_code=status)
    if not settings.read_only:
        remember_token(request, response, token, base)
    return response


def refusal(
    request: Request, error: PageError, *, base: str, settings: WebSettings
) -> HTMLResponse:
    """The page that says why there is none. It has nothing of the queue in it."""
    response = render(
        request,
        "refusal.html",
        {"error": error, "title": f"Error {error.status}", "active": None},
        base=base,
        settings=settings,
        live=False,
        status=error.status,
    )
    response.headers.update(error.headers)
    return response
