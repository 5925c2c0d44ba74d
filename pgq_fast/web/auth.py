"""Who gets in."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final, Self

from fastapi import Request

from pgq_fast.errors import IncompleteLoginError
from pgq_fast.web.faults import PageError
from pgq_fast.web.settings import WebSettings

__all__ = ["Login", "guard", "is_loopback"]

CHALLENGE: Final = 'Basic realm="pgq_fast", charset="UTF-8"'
"""The value of ``WWW-Authenticate``: what browsers can answer."""


def _digest(text: str) -> bytes:
    """Of equal length for all, so that a comparison tells nothing of the length either."""
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


@dataclasses.dataclass(frozen=True)
class Login:
    """What a request has to bring; as digests.

    Attributes:
        user: Of the user name.
        password: Of its password.
        token: Of the bearer token.
    """

    user: bytes | None = dataclasses.field(default=None, repr=False)
    password: bytes | None = dataclasses.field(default=None, repr=False)
    token: bytes | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def of(cls, settings: WebSettings) -> Self | None:
        """The login that *settings* ask for; None for none.

        Raises:
            IncompleteLoginError: There is a user without a password or the reverse.
        """
        user = settings.user or None
        password = settings.password.get_secret_value() if settings.password else None
        token = settings.token.get_secret_value() if settings.token else None
        if (user is None) != (not password):
            raise IncompleteLoginError
        if not user and not token:
            return None
        return cls(
            _digest(user) if user else None,
            _digest(password) if password else None,
            _digest(token) if token else None,
        )

    def admits(self, authorization: str | None) -> bool:
        """Whether the header *authorization* has it."""
        scheme, _, credentials = (authorization or "").partition(" ")
        credentials = credentials.strip()
        if scheme.lower() == "bearer":
            return self._is_token(credentials)
        if scheme.lower() != "basic":
            return False
        try:
            plain = base64.b64decode(credentials, validate=True).decode()
        except (binascii.Error, ValueError):
            return False
        user, _, password = plain.partition(":")
        # All are compared, whatever the first comparison says.
        is_user = self.user is not None and hmac.compare_digest(_digest(user), self.user)
        is_password = self.password is not None and hmac.compare_digest(
            _digest(password), self.password
        )
        return (is_user and is_password) | self._is_token(password)

    def _is_token(self, text: str) -> bool:
        return self.token is not None and hmac.compare_digest(_digest(text), self.token)


def is_loopback(host: str) -> bool:
    """Whether *host*, an address or a name without a port, means this machine only."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def guard(settings: WebSettings) -> Callable[[Request], Awaitable[None]]:
    """The dependency that lets requests in, or raises ``PageError``.

    Without a login only requests of this machine get in, and only to a name of this machine: a page
    of somebody else's must not reach the dashboard by having its own name lead here.

    Raises:
        IncompleteLoginError: See :meth:`Login.of`.
    """
    login = Login.of(settings)

    async def admit(request: Request) -> None:
        if login is not None:
            if not login.admits(request.headers.get("authorization")):
                raise PageError(
                    401,
                    "The dashboard needs a login.",
                    headers={"WWW-Authenticate": CHALLENGE},
                )
        elif not settings.allow_unprotected and not _is_local(request):
            raise PageError(
                403,
                "Without a login the dashboard answers this machine only: set PGQUEUER_WEB_USER "
                "and PGQUEUER_WEB_PASSWORD, or give create_web_router the dependencies that "
                "protect it, or set PGQUEUER_WEB_ALLOW_UNPROTECTED if something else does.",
            )

    return admit


def _is_local(request: Request) -> bool:
    # No client address: a socket of the file system.
    if request.client is not None and not is_loopback(request.client.host):
        return False
    return is_loopback(request.url.hostname or "")
