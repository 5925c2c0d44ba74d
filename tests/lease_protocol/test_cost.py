"""What statements of the lease layout must not do over and over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from lease_protocol.conftest import Join
from pgq_fast._impl import codec
from pgq_fast.sql import statement

pytestmark = [pytest.mark.layouts("lease"), pytest.mark.pg_matrix]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


@pytest.mark.parametrize("keyed", [False, True])
async def test_a_lease_is_unpacked_once_however_many_of_its_jobs_are_settled(
    join: Join, keyed: bool
) -> None:
    """Or a batch that fails as a whole would take the square of its size."""
    member = await join()
    count = 300
    keys = [f"k{number}" for number in range(count)] if keyed else None
    await member.queries.enqueue(["e"] * count, [b""] * count, [0] * count, dedupe_key=keys)
    jobs = await member.claim(count)
    ((lease,),) = await member.rows("SELECT id FROM pgqueuer_lease")
    some = len(jobs) - 50
    ((answer,),) = await member.rows(
        "EXPLAIN (ANALYZE, FORMAT JSON) "
        + statement("lease/settle", member.settings, "unselective", "payloads"),
        codec.encode_ids([lease] * some),
        codec.encode_ids(range(1, some + 1)),
        member.owner,
        ["queued"] * some,
        [None] * some,
        [timedelta(0)] * some,
    )
    plan = json.loads(answer)[0]["Plan"]
    unpacking = [
        node["Actual Loops"]
        for node in nodes(plan)
        if node["Node Type"] == "Function Scan" and node["Actual Rows"] == count
    ]
    assert unpacking == [1]
    assert len(await member.claim(count)) == some
