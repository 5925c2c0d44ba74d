"""Fixtures of the tests of bench/."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``bench("figures")``: a module of the benchmark."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module
