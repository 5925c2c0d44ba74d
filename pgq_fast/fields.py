"""What the fields of several models are made with."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic_core import from_json

__all__ = ["parsed_json", "utc_now"]


def utc_now() -> datetime:
    """The client's clock, in UTC. Leases and heartbeats never depend on it."""
    return datetime.now(UTC)


def parsed_json(value: object) -> object:
    """JSON text as the drivers may deliver it, parsed; anything else as it is."""
    return from_json(value) if isinstance(value, (str, bytes, bytearray)) else value
