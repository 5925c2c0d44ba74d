"""Trials that grow, sweeps and earlier runs: what is measured, and what is said of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
BENCH: Final = ROOT / "bench"

# The implementations are chosen by the benchmark, measurement by measurement.
pytestmark = pytest.mark.impl_agnostic


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # What is started is no worker of this run; it would measure nothing, were it one.
    environment.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )


def test_a_run_has_its_charts(pg_dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "growth.json"
    done = python(
        "bench/growth.py",
        "--only=churn",
        "--quick",
        "--scale=0.0001",
        f"--dsn={pg_dsn}",
        f"--json={path}",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    assert found["kind"] == "growth"
    assert (
        found["command"] == "python bench/growth.py --only=churn --quick --scale=0.0001 --dsn=DSN"
    )
    assert [chart["name"] for chart in found["charts"]] == ["churn-rate", "churn-size"]
    for chart in found["charts"]:
        assert chart["missing"] == []
        labels = [series["label"] for series in chart["series"]]
        assert labels == ["pgq_fast, lease", "pgq_fast, compat", "pgqueuer"]
        for series in chart["series"]:
            assert [point["x"] for point in series["points"]] == [1, 2, 3, 4, 5, 6]
            assert all(len(point["runs"]) == 1 for point in series["points"])
            assert all(point["runs"][0] > 0 for point in series["points"])
        assert chart["title"] in done.stdout


@pytest.mark.parametrize("layout", ["compat", "lease"])
def test_a_part_of_a_queue(bench: Any, pg_dsn: str, layout: str) -> None:
    trial = bench("measure").Trial(
        "part", "pgq_fast", 50, layout=layout, left=3000, entrypoints=3, payload=0
    )
    figures = bench("trials").run_trial(trial, pg_dsn)
    assert figures["rate"] > 0


def test_waits_of_a_worker_that_has_a_load(bench: Any, pg_dsn: str) -> None:
    trial = bench("measure").Trial("latency", "pgq_fast", 10, layout="lease", load="half")
    figures = bench("trials").run_trial(trial, pg_dsn)
    assert 0 < figures["p50"] <= figures["p99"]
    assert figures["capacity"] > 0


@pytest.mark.parametrize("found", [[1, 2, 2], [1, 9], [1, 5]])
@pytest.mark.parametrize("expected", [[1, 2, 3, 4], [1, 2, 4, 8]])
def test_what_is_no_part_is_noticed(bench: Any, found: list[int], expected: list[int]) -> None:
    measure = bench("measure")
    with pytest.raises(measure.MeasurementError, match="repeated"):
        measure.require_part("runs", found, expected)


def test_a_part_in_any_order_is_accepted(bench: Any) -> None:
    bench("measure").require_part("runs", [4, 1], [1, 2, 4, 8])
    bench("measure").require_part("runs", [3, 1], [1, 2, 3])


def test_what_fails_is_missing_and_is_not_tried_again(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    growth, sweeps, trials = bench("growth"), bench("sweeps"), bench("trials")
    small, large = (sweeps.LEASE.trial("drain", jobs) for jobs in (100, 200))
    asked = []

    def run_trial(trial: Any, *_: Any) -> dict[str, float]:
        asked.append(trial)
        if trial is large:
            raise trials.TrialFailed("no end after 300 s")
        return {"rate": 10.0 * len(asked)}

    monkeypatch.setattr(growth, "run_trial", run_trial)
    points = [sweeps.Point(1, small, "rate"), sweeps.Point(2000, large, "rate")]
    sweep = sweeps.Sweep("x", "X", "things", "jobs/s", {"a line": points})
    runs = growth.Runs("dsn", 300)
    runs.run(growth.trials_of([sweep, sweep]), 2)
    assert asked == [small, large, small]
    chart = growth.chart(sweep, runs)
    (series,) = chart["series"]
    assert [(point["x"], point["runs"]) for point in series["points"]] == [(1, [10.0, 30.0])]
    assert chart["missing"] == [{"label": "a line, 2,000 things", "reason": "no end after 300 s"}]


@pytest.mark.parametrize("extent", [{}, {"quick": True}, {"full": True}])
def test_sweeps_are_of_all_packages_and_grow(bench: Any, extent: dict[str, bool]) -> None:
    sweeps = bench("sweeps")
    names = []
    for family in sweeps.FAMILIES.values():
        for sweep in family(sweeps.Extent(**extent)):
            names.append(sweep.name)
            assert {package.label for package in sweeps.PACKAGES} <= sweep.lines.keys()
            for points in sweep.lines.values():
                assert [point.x for point in points] == sorted({point.x for point in points})
    assert len(names) == len(set(names))
    (backlog,) = sweeps.backlog(sweeps.Extent(**extent))
    largest = max(point.x for points in backlog.lines.values() for point in points)
    assert largest == {"quick": 100_000, "full": 10_000_000}.get("".join(extent), 1_000_000)


# ------------------------------------------------------------------------------ earlier runs


def a_run(rate: list[float], scale: float = 1.0, fsync: str = "on") -> dict[str, Any]:
    entry = {"settings": "1 consumer", "best": True, "runs": [{"rate": each} for each in rate]}
    point = {"x": 10, "settings": "", "runs": rate}
    return {
        "date": "2030-01-02",
        "versions": {"python": "3.13.0"},
        "machine": {"cpu_count": 2, "load_average": rate[0]},
        "server": {"fsync": fsync},
        "scale": scale,
        "scenarios": [{"name": "drain", "sides": {"pgq_fast": [entry]}}],
        "charts": [
            {"name": "backlog", "y": "jobs/s", "series": [{"label": "lease", "points": [point]}]}
        ],
    }


def test_a_run_beside_an_earlier_one(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    earlier = bench("earlier")
    now, before = a_run([30.0, 20.0, 40.0], fsync="off"), a_run([10.0, 20.0, 15.0], scale=0.5)
    scenario, chart = earlier.ratios(now, before)
    assert (scenario.where, scenario.what, scenario.figure) == (
        "drain", "pgq_fast: 1 consumer", "rate",
    )  # fmt: skip
    assert (chart.where, chart.what, chart.figure) == ("backlog", "lease: 10", "jobs/s")
    for ratio in (scenario, chart):
        assert ratio.value == 30 / 15
        assert (ratio.lowest, ratio.highest) == (20 / 20, 40 / 10)
    earlier.print_beside(now, before, "old.json")
    shown = capsys.readouterr().out
    assert "WARNING: fsync is off, was on" in shown
    assert "WARNING: the scale is 1.0, was 0.5" in shown
    assert "load_average" not in shown
    assert "2.00 (1.00 to 4.00)" in shown


def test_runs_with_nothing_in_common(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before = {**a_run([1.0]), "scenarios": [], "charts": []}
    bench("earlier").print_beside(a_run([1.0]), before, "old.json")
    assert "nothing was measured in both" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_an_earlier_run_that_is_none_is_refused_at_once(tmp_path: Path, content: str) -> None:
    path = tmp_path / "old.json"
    path.write_text(content)
    for script in ("compare.py", "growth.py"):
        done = python(f"bench/{script}", f"--compare={path}")
        assert done.returncode == 1
        assert done.stderr.startswith(f"{script}: --compare")


def test_the_command_is_shown_without_secrets_and_files(bench: Any) -> None:
    typed = bench("command").typed
    assert (
        typed(["/a/b/growth.py", "--dsn", "postgresql://u:hush@h/d", "--json", "/my/f", "--quick"])
        == "python bench/growth.py --dsn DSN --quick"
    )
    assert (
        typed(["growth.py", "--dsn=postgresql://u:hush@h/d", "--compare=/my/f", "--only=a b"])
        == "python bench/growth.py --dsn=DSN '--only=a b'"
    )


# ------------------------------------------------------------------------------ pytest bench/


def test_pytest_measures_without_being_told_to(pg_dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    done = python(
        "-m",
        "pytest",
        "bench/test_path_enqueue.py",
        "-pno:cacheprovider",
        "-k=test_single and lease and not driver",
        f"--pg-dsn={pg_dsn}",
        "--path-rounds=2",
        "--path-scale=0.01",
        f"--benchmark-json={path}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())
    machine = found["machine_info"]
    assert machine["versions"]["pgqueuer"] == "1.6.0"
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        off = machine["server"][name] == "off"
        # In the header, and beside the figures.
        assert done.stdout.count(f"WARNING: {name} is off") == (2 if off else 0)
        assert off == any(warning.startswith(name) for warning in machine["warnings"])
    (single,) = found["benchmarks"]
    assert single["name"] == "test_single[lease]"
    rates = [run["rate"] for run in single["extra_info"]["runs"]]
    assert len(rates) == 2
    # A job's time, not the trial's: what else a trial does is not in it.
    assert single["stats"]["data"] == pytest.approx([1 / rate for rate in rates])


def test_pytest_says_that_a_server_does_not_answer() -> None:
    done = python("-m", "pytest", "bench", "--pg-dsn=postgresql://user:hush@127.0.0.1:1/nowhere")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--pg-dsn: cannot use the server" in done.stderr
    assert "hush" not in done.stdout + done.stderr
