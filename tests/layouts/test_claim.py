"""A claim whose jobs are made when they are asked for."""

from __future__ import annotations

from typing import Any

import pytest

from pgq_fast.errors import MalformedRowError
from pgq_fast.layouts.base import Claim

pytestmark = pytest.mark.impl_agnostic


def test_jobs_are_made_once() -> None:
    reads = []

    def read(claim: Claim) -> list[Any]:
        reads.append(claim)
        claim.known = True
        return ["job"]

    claim = Claim.unread(1, False, read)
    assert (claim.found, claim.known, reads) == (1, False, [])
    assert claim.jobs is claim.jobs == ["job"]
    assert claim.known
    assert reads == [claim]


def test_what_cannot_be_read_is_an_error_each_time() -> None:
    def read(claim: Claim) -> list[Any]:
        raise MalformedRowError

    claim = Claim.unread(1, False, read)
    for _ in range(2):
        with pytest.raises(MalformedRowError):
            _ = claim.jobs
