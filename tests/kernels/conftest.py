"""Each implementation of the kernels, whichever one the run is about."""

from __future__ import annotations

import hypothesis
import pytest

from kernels.twins import TWINS, Twin

# How long an example takes depends on what else the machine does, and is no matter here.
hypothesis.settings.register_profile("kernels", deadline=None)
hypothesis.settings.load_profile("kernels")


@pytest.fixture(params=TWINS, ids=[twin.name for twin in TWINS])
def twin(request: pytest.FixtureRequest) -> Twin:
    """The test runs once for each implementation."""
    chosen: Twin = request.param
    return chosen
