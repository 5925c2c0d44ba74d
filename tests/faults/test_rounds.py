"""Short rounds of some kinds of faults, over layouts and drivers; `make faults` has all of them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from faults.kinds import KINDS
from faults.runner import Grounds, play
from pgq_fast.settings import Layout

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def grounds() -> Iterator[Grounds]:
    with Grounds() as grounds:
        yield grounds


@pytest.mark.parametrize(
    ("kind", "layout_name", "driver"),
    [
        ("kill", "compat", "psycopg"),
        ("pause", "lease", "asyncpg-pool"),
        ("terminate", "compat", "asyncpg-pool"),
        ("restart-immediate", "lease", "owned-psycopg"),
        ("end-claim", "lease", "asyncpg"),
        ("cut", "compat", "owned-asyncpg"),
        ("upgrade", "lease", "owned-asyncpg"),
    ],
)
async def test_the_account_adds_up(
    grounds: Grounds, kind: str, layout_name: str, driver: str
) -> None:
    seed = secrets.token_hex(4)
    print(f"python -m faults --brief --kinds {kind} --layouts {layout_name}"
          f" --drivers {driver} --seed {seed}")  # fmt: skip
    result, folder = await play(grounds, KINDS[kind], Layout(layout_name), driver, seed, brief=True)
    assert result.problems == [], f"seed {seed}, journals and logs in {folder}"
    assert result.blows > 0
    assert result.account.finished > 0
