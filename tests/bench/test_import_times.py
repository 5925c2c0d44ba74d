"""What an import takes is measured, kept, and shown on the page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"

# The implementation is chosen by the benchmark.
pytestmark = pytest.mark.impl_agnostic


def test_a_run_becomes_a_part_of_the_page(bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "imports.json"
    done = subprocess.run(
        [sys.executable, str(BENCH / "imports.py"), "--repeat=1", "--modules=3", f"--json={path}"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    (chart,) = json.loads(path.read_text())["charts"]
    (series,) = chart["series"]
    taken = {point["x"]: point["runs"] for point in series["points"]}
    assert list(taken) == list(bench("imports").PROGRAMS)
    assert all(len(runs) == 1 and runs[0] > 0 for runs in taken.values())
    assert "the slowest 3 modules" in done.stdout

    page = bench("page").page([bench("charts").read(path)], "plots")
    assert "## What an import takes" in page
    assert "| pgq_fast and its first queue |" in page


def test_a_failing_import_is_explained(bench: Any) -> None:
    imports = bench("imports")
    with pytest.raises(imports.BenchError, match="No module named 'nothing_like_it'"):
        imports.run(sys.executable, "-c", "import nothing_like_it")
