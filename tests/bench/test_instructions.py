"""The gate on instruction counts: what it lets through, and what it says. CI runs the counting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TOOLS = {"python": "3.13.0", "processor": "x86_64 avx2", "compiler": "cc 12", "cython": "3.3.0"}
COUNTS = {"build_jobs": 1_000_000, "parse_event": 200_000}

# Nothing of the package is run here.
pytestmark = pytest.mark.impl_agnostic


@pytest.fixture
def gate(bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """``gate(counts, *arguments, **tools)``: the status where callgrind says *counts*."""
    instructions = bench("instructions")
    path = tmp_path / "baseline.json"

    def run(counts: dict[str, int], *arguments: str, **tools: str) -> int:
        monkeypatch.setattr(instructions, "toolchain", lambda: {**TOOLS, **tools})
        monkeypatch.setattr(instructions, "count", lambda layout=0: counts)
        status = instructions.main([f"--baseline={path}", *arguments])
        assert isinstance(status, int)
        return status

    run.path = path  # type: ignore[attr-defined]
    return run


def test_what_was_written_is_met(gate: Any) -> None:
    assert gate(COUNTS, "--update") == 0
    assert gate(COUNTS) == 0


@pytest.mark.parametrize(
    ("counts", "status", "said"),
    [
        ({**COUNTS, "parse_event": 205_900}, 0, "within 3%"),
        ({**COUNTS, "parse_event": 206_200}, 1, "FAILED: parse_event: +3.1% instructions"),
        ({**COUNTS, "build_jobs": 500_000}, 0, "-50.00%"),
        ({"build_jobs": 1_000_000}, 1, "FAILED: parse_event: in the baseline only"),
        ({**COUNTS, "encode_ids": 5}, 1, "FAILED: encode_ids: not in the baseline"),
    ],
)
def test_counts_beside_the_baseline(
    gate: Any, capsys: pytest.CaptureFixture[str], counts: dict[str, int], status: int, said: str
) -> None:
    gate(COUNTS, "--update")
    capsys.readouterr()
    assert gate(counts) == status
    assert said in capsys.readouterr().out


def test_what_an_unlucky_address_costs_is_no_regression(
    gate: Any, bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    instructions = bench("instructions")
    tried: list[int] = []
    # What each layout of the memory takes.
    counts = {
        0: {**COUNTS, "build_jobs": 1_090_000},
        1: {**COUNTS, "build_jobs": 1_080_000},
        2: {**COUNTS, "parse_event": 220_000},
    }

    def count(layout: int = 0) -> dict[str, int]:
        tried.append(layout)
        return counts[layout]

    def run(*arguments: str) -> list[int]:
        monkeypatch.setattr(instructions, "count", count)
        tried.clear()
        assert instructions.main([f"--baseline={gate.path}", *arguments]) == 0
        return tried

    # A baseline allows no more than the kernel takes where it is lucky.
    gate(COUNTS, "--update")
    written = gate.path.read_text()
    assert run("--update") == [0, 1, 2]
    assert gate.path.read_text() == written
    assert run() == [0, 1, 2]
    assert "within 3%" in capsys.readouterr().out
    counts[1] = COUNTS
    assert run() == [0, 1]


@pytest.mark.parametrize(
    ("name", "value"), [("compiler", "cc 13"), ("cython", "3.4"), ("python", "3.13.1")]
)
def test_another_toolchain_is_not_compared_and_says_why(
    gate: Any, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    gate(COUNTS, "--update")
    capsys.readouterr()
    assert gate({**COUNTS, "build_jobs": 9_000_000}, **{name: value}) == 0
    said = capsys.readouterr().out
    assert f"NOT COMPARED: {name} is {value!r}, and {TOOLS[name]!r} in the baseline" in said
    assert "within" not in said


def test_python_versions_have_baselines_of_their_own(
    gate: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    gate(COUNTS, "--update")
    more = {**COUNTS, "build_jobs": 1_500_000}
    assert gate(more, python="3.11.7") == 0
    assert "NOT COMPARED: there is no baseline for Python 3.11" in capsys.readouterr().out
    gate(more, "--update", python="3.11.7")
    assert gate(COUNTS) == 0
    assert gate(more) == 1
    assert gate(more, python="3.11.7") == 0
    assert list(json.loads(gate.path.read_text())) == ["3.11 on x86_64 avx2", "3.13 on x86_64 avx2"]


def test_without_valgrind_the_command_says_what_to_install(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    instructions = bench("instructions")
    monkeypatch.setattr(instructions.shutil, "which", lambda _: None)
    assert instructions.main([]) == 2
    assert "apt-get install valgrind" in capsys.readouterr().err


def test_every_kernel_is_counted(bench: Any) -> None:
    counted = bench("counted")
    from pgq_fast._pure import codec, notify

    kernels = counted.kernels(codec, notify)
    public = {
        name
        for module in (codec, notify)
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == module.__name__
        if not name.startswith("_")
    }
    assert {name.partition(",")[0] for name in kernels} == public
    for kernel in kernels.values():
        assert kernel()
    baseline = json.loads(bench("instructions").BASELINE.read_text())
    assert baseline
    for entry in baseline.values():
        assert set(entry["counts"]) == set(kernels)
