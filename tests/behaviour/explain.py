"""The plans of statements, as those who prepare them get them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from behaviour.helpers import Tables


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """*plan* and all below it."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def subplan(plan: dict[str, Any], name: str) -> dict[str, Any]:
    """The part of *plan* that computes the common table expression *name*."""
    (found,) = [node for node in nodes(plan) if node.get("Subplan Name") == f"CTE {name}"]
    return found


async def plans(tables: Tables, query: str, *literals: str) -> list[dict[str, Any]]:
    """The plans of the first and the seventh execution of *query*, prepared."""
    found = []
    await tables.rows(f"PREPARE query AS {query}")
    for _ in range(7):
        explained = await tables.value(
            f"EXPLAIN (FORMAT JSON) EXECUTE query ({', '.join(literals)})"
        )
        found.append(explained if isinstance(explained, list) else json.loads(explained))
    await tables.rows("DEALLOCATE query")
    return [found[0][0]["Plan"], found[-1][0]["Plan"]]


def types(plan: dict[str, Any]) -> set[str]:
    return {node["Node Type"] for node in nodes(plan)}
