"""Each implementation of the kernels, whichever one the run is about."""

from __future__ import annotations

import pytest

from kernels.twins import TWINS, Twin


@pytest.fixture(params=TWINS, ids=[twin.name for twin in TWINS])
def twin(request: pytest.FixtureRequest) -> Twin:
    """The test runs once for each implementation."""
    chosen: Twin = request.param
    return chosen
