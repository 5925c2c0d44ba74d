"""A short soak, and what decides whether figures are flat."""

from __future__ import annotations

import secrets

import pytest

from faults.runner import Grounds
from faults.soak import BOUNDS, Series, check, soak, thirds
from pgq_fast.settings import Layout

SECONDS = 10.0

# How long jobs wait is a matter of the machine, which runs other tests.
TIMELESS = {name: bound for name, bound in BOUNDS.items() if name != "latency"}


@pytest.mark.timeout(200)
async def test_what_should_stay_flat_does() -> None:
    seed = secrets.token_hex(4)
    with Grounds() as grounds:
        result, figures, folder = await soak(
            grounds, SECONDS, Layout.lease, "owned-asyncpg", seed, TIMELESS
        )
    assert result.problems == [], f"seed {seed}, journals and logs in {folder}"
    assert {name.partition(" ")[0] for name in figures} == BOUNDS.keys()
    assert result.account.finished > 0


def rising(before: float, after: float) -> Series:
    """A hundred samples: a beginning that does not count, then from *before* to *after*."""
    counted = [before + (after - before) * step / 74 for step in range(75)]
    return [(float(at), value) for at, value in enumerate([1e12] * 25 + counted)]


@pytest.mark.parametrize(
    ("kind", "before", "after", "flat"),
    [
        ("memory", 70e6, 71e6, True),
        ("memory", 70e6, 100e6, False),
        ("objects", 70_000, 70_100, True),
        ("objects", 70_000, 80_000, False),
        ("connections", 6, 6, True),
        ("connections", 6, 40, False),
        ("dead_rows", 3000, 4000, True),
        ("dead_rows", 3000, 30_000, False),
        ("latency", 0.01, 0.02, True),
        ("latency", 0.01, 0.5, False),
    ],
)
def test_what_is_flat(kind: str, before: float, after: float, flat: bool) -> None:
    name = f"{kind} of worker 1"
    found, problems = check({name: rising(before, after)}, 0.0, 99.0, BOUNDS)
    assert (problems == []) is flat
    first, last = found[name]
    assert before <= first <= last <= after


def test_without_samples_nothing_is_flat() -> None:
    with pytest.raises(ValueError, match="no samples"):
        thirds([(1.0, 5.0)], 0.0, 99.0)
