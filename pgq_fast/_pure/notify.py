"""The payload of a NOTIFY to what it says. The twin of ``pgq_fast_ext.notify``."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID


def parse_event(payload: str | bytes | bytearray) -> tuple[str, Any]:
    """What *payload*, received on the queue's channel, says.

    Args:
        payload: JSON, UTF-8 where it is bytes.

    Returns:
        ``("table_changed_event", operation)``, or ``("cancellation_event", event)``, or
        ``("health_check_event", event)`` with *event* the decoded object.

    Raises:
        ValueError: *payload* is none of these.
    """
    try:
        event = json.loads(payload if isinstance(payload, str) else payload.decode())
    except RecursionError:
        raise ValueError("the payload is nested too deeply") from None
    if not isinstance(event, dict):
        raise ValueError("the payload is no JSON object")
    kind = event.get("type")
    if kind == "table_changed_event":
        operation = event.get("operation")
        if operation not in ("insert", "update", "delete", "truncate"):
            raise ValueError("a table_changed_event names no known operation")
        if not isinstance(event.get("table"), str):
            raise ValueError("a table_changed_event names no table")
        return kind, operation
    if kind == "cancellation_event":
        ids = event.get("ids")
        if not isinstance(ids, list) or not all(type(value) is int for value in ids):
            raise ValueError("a cancellation_event lists no job ids")
        return kind, event
    if kind == "health_check_event":
        token = event.get("id")
        if not isinstance(token, str):
            raise ValueError("a health_check_event carries no id")
        UUID(token)
        return kind, event
    raise ValueError("the payload is no known event")
