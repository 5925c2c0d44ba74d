"""Each implementation of the kernels, whichever one the run is about."""

from __future__ import annotations

import os

import hypothesis
import pytest

from kernels.twins import TWINS, Twin

# How many inputs each test looks at; `make fuzz` asks for many more.
EXAMPLES = int(os.environ.get("PGQ_TEST_FUZZ_EXAMPLES") or 100)

# How long an example takes depends on what else the machine does, and is no matter here.
hypothesis.settings.register_profile("kernels", deadline=None, max_examples=EXAMPLES)
hypothesis.settings.load_profile("kernels")


@pytest.fixture(params=TWINS, ids=[twin.name for twin in TWINS])
def twin(request: pytest.FixtureRequest) -> Twin:
    """The test runs once for each implementation."""
    chosen: Twin = request.param
    return chosen
