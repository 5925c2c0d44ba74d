"""What every answer says to browsers, and what every action must prove."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs, urlsplit

from fastapi import Request, Response

from pgq_fast.web.faults import PageError

__all__ = ["PAGE_HEADERS", "csrf_token", "read_form", "remember_token", "verify_action"]

PAGE_HEADERS: Final[Mapping[str, str]] = {
    # No script and no style but the files of the package, and in nobody's frame.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": browsers then hide the origin of forms too, which actions look at.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

LARGEST_FORM: Final = 64 * 1024
"""Bytes of a form: more than the ids of a page take by far."""

_COOKIE: Final = "pgq_csrf"
_FIELD: Final = "csrf"
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_MOST_FIELDS: Final = 2_000


def csrf_token(request: Request) -> str:
    """The token that forms of a page send along: that of the browser's cookie, or a new one.

    Only a page of the dashboard can read it, and only the dashboard can set the cookie that has to
    say the same: no secret of the process's is needed, so several may share the work.
    """
    token = request.cookies.get(_COOKIE, "")
    return token if _TOKEN.fullmatch(token) else secrets.token_urlsafe(32)


def remember_token(request: Request, response: Response, token: str, base: str) -> None:
    """Have the browser keep *token* for the dashboard at the path *base*, if it does not yet."""
    if request.cookies.get(_COOKIE) != token:
        response.set_cookie(
            _COOKIE,
            token,
            path=base or "/",
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )


async def read_form(request: Request) -> dict[str, list[str]]:
    """The fields of a form.

    Raises:
        PageError: It is too large, or none.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        # As it comes: the length that the request claims need not be true.
        if len(body) > LARGEST_FORM:
            raise PageError(413, f"A form is {LARGEST_FORM // 1024} KiB at most.")
    if not body:
        return {}
    if kind != "application/x-www-form-urlencoded":
        raise PageError(415, "Send the form as application/x-www-form-urlencoded.")
    try:
        return parse_qs(body.decode(), max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise PageError(400, "The form cannot be read.") from None


def verify_action(request: Request, form: Mapping[str, list[str]]) -> None:
    """See that an action was asked for by a page of the dashboard, or by a program with a token.

    Raises:
        PageError: It was not.
    """
    if request.headers.get("authorization", "").lower().startswith("bearer "):
        # No browser sends that by itself, and no page of somebody else's can have it sent.
        return
    if not _is_same_origin(request):
        raise PageError(
            403,
            "The request came from another site. Behind a proxy, have it pass the Host header on.",
        )
    cookie = request.cookies.get(_COOKIE, "")
    (sent,) = form.get(_FIELD, [""])[:1]
    # As bytes: of other text than ASCII it compares nothing, and raises an error.
    if not _TOKEN.fullmatch(cookie) or not hmac.compare_digest(
        cookie.encode(), sent.encode(errors="replace")
    ):
        raise PageError(
            403,
            "The page was too old for this action. Load it again and repeat; programs send "
            "Authorization: Bearer instead.",
        )


def _is_same_origin(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    # Browsers leave it out where neither TLS nor this machine vouches for the connection.
    origin = request.headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc.lower() == request.url.netloc.lower()
    except ValueError:
        # A header that is no address.
        return False
