"""Who gets in."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final, Self
from urllib.parse import urlsplit

from fastapi import Request

from pgq_fast.errors import IncompleteLoginError
from pgq_fast.web.faults import PageError
from pgq_fast.web.settings import WebSettings

__all__ = ["Login", "guard", "is_loopback"]

CHALLENGE: Final = 'Basic realm="pgq_fast", charset="UTF-8"'
"""The value of ``WWW-Authenticate``: what browsers can answer."""

MOST_GUESSES: Final = 20
"""Wrong logins of an address after which no more of it are looked at for a while."""

GUESSES_FORGOTTEN_AFTER: Final = 60.0
"""Seconds from the first of them."""

_MOST_ADDRESSES: Final = 10_000


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


class Guesses:
    """Wrong logins by address: so many in a minute that nobody gets far by trying.

    A header that was right before is no guess, so that somebody else's guesses, which may come from
    the same address by way of a proxy, lock nobody out who is at work.
    """

    def __init__(self) -> None:
        # The time of the first guess and the number of all, the latest address last.
        self._by_address: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._right: bytes | None = None

    def wait(self, address: str, authorization: str) -> float:
        """Seconds until *authorization* may be looked at: 0 for now."""
        if self._right is not None and hmac.compare_digest(_digest(authorization), self._right):
            return 0.0
        since, count = self._by_address.get(address, (0.0, 0))
        left = since + GUESSES_FORGOTTEN_AFTER - time.monotonic()
        if left <= 0:
            self._by_address.pop(address, None)
            return 0.0
        return left if count >= MOST_GUESSES else 0.0

    def wrong(self, address: str) -> None:
        """Note a wrong login."""
        since, count = self._by_address.pop(address, (time.monotonic(), 0))
        self._by_address[address] = since, count + 1
        if len(self._by_address) > _MOST_ADDRESSES:
            self._by_address.popitem(last=False)

    def right(self, authorization: str) -> None:
        """Note a login that got in."""
        self._right = _digest(authorization)


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
    guesses = Guesses()

    async def admit(request: Request) -> None:
        if login is not None:
            _check(login, guesses, request)
        elif not settings.allow_unprotected and not _is_local(request):
            raise PageError(
                403,
                "Without a login the dashboard answers this machine only: set PGQUEUER_WEB_USER "
                "and PGQUEUER_WEB_PASSWORD, or give create_web_router the dependencies that "
                "protect it, or set PGQUEUER_WEB_ALLOW_UNPROTECTED if something else does.",
            )

    return admit


def _check(login: Login, guesses: Guesses, request: Request) -> None:
    authorization = request.headers.get("authorization", "")
    address = "" if request.client is None else request.client.host
    if authorization and (seconds := guesses.wait(address, authorization)):
        raise PageError(
            429,
            "There were too many wrong logins from this address: try again in a minute.",
            headers={"Retry-After": str(int(seconds) + 1)},
        )
    if login.admits(authorization):
        guesses.right(authorization)
        return
    # Browsers ask without a login first, which is no guess.
    if authorization:
        guesses.wrong(address)
    raise PageError(401, "The dashboard needs a login.", headers={"WWW-Authenticate": CHALLENGE})


def _is_local(request: Request) -> bool:
    # No client address: a socket of the file system.
    if request.client is not None and not is_loopback(request.client.host):
        return False
    try:
        # Not by request.url, which makes up a name where the header is none.
        return is_loopback(urlsplit(f"//{request.headers.get('host', '')}").hostname or "")
    except ValueError:
        return False
