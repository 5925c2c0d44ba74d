"""The benchmark measures what it says. How fast anything is, is not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"

# The implementations are chosen by the benchmark, measurement by measurement.
pytestmark = pytest.mark.impl_agnostic

# Numbers of jobs of the scenarios, times this, are the fewest that the benchmark accepts.
TINY = 0.001


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / "compare.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )


def databases(dsn: str) -> list[str]:
    """Databases of the benchmark that exist on the server."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE 'pgq_fast_bench_%'"
        ).fetchall()
    return [name for (name,) in rows]


def test_measures_and_reports(pg_dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    names = ["drain-bare", "enqueue-32", "lease-latency"]
    done = compare(
        *(f"--only={name}" for name in names),
        f"--scale={TINY}",
        "--repeat=1",
        f"--dsn={pg_dsn}",
        f"--json={path}",
    )
    assert done.returncode == 0, done.stderr
    assert databases(pg_dsn) == []

    found = json.loads(path.read_text())
    assert found["kind"] == "compare"
    # Neither the DSN nor the file is anybody else's business.
    assert found["command"].endswith(f"--scale={TINY} --repeat=1 --dsn=DSN")
    assert found["versions"]["pgqueuer"] == "1.6.0"
    assert found["machine"]["cpu_count"] == os.cpu_count()
    off = [name for name in ("fsync", "synchronous_commit") if found["server"][name] == "off"]
    for name in off:
        assert f"WARNING: {name} is off" in done.stdout
        assert any(name in warning for warning in found["warnings"])

    assert [scenario["name"] for scenario in found["scenarios"]] == names
    for scenario in found["scenarios"]:
        for side in scenario["sides"].values():
            assert sum(entry["best"] for entry in side) == 1
            for entry in side:
                assert len(entry["runs"]) == 1
                assert all(value >= 0 for value in entry["runs"][0].values())
                assert all(entry["runs"][0].get(name, 1) > 0 for name in ("rate", "cpu", "p50"))
        for target in scenario["targets"]:
            assert target["lowest"] <= target["median"] <= target["highest"]
            assert target["title"] in done.stdout
    bare, together, lease = found["scenarios"]
    assert set(lease["sides"]) == {"pgqueuer", "lease"}
    assert lease["sides"]["lease"][0]["trial"]["layout"] == "lease"
    assert set(bare["sides"]) == {"bare SQL", "pgq_fast"}
    assert set(together["sides"]) == {"pgqueuer", "pgq_fast"}
    assert together["sides"]["pgq_fast"][0]["trial"]["producers"] == 32
    assert {"rate", "cpu", "wal"} <= together["sides"]["pgqueuer"][0]["runs"][0].keys()
    assert {"p50", "p99"} == lease["sides"]["pgqueuer"][0]["runs"][0].keys()


def test_a_pattern_that_names_nothing_lists_the_scenarios() -> None:
    done = compare("--only=nothing")
    assert done.returncode == 2
    assert "drain-defaults" in done.stdout


def test_a_measurement_that_fails_ends_the_run(pg_dsn: str) -> None:
    separator = "&" if "?" in pg_dsn else "?"
    done = compare(
        "--only=enqueue-1",
        f"--scale={TINY}",
        # There is no schema for the tables.
        f"--dsn={pg_dsn}{separator}options=-c%20search_path%3Dnowhere",
    )
    assert done.returncode == 1
    assert "compare.py: pgqueuer, producers" in done.stderr
    assert "no schema has been selected" in done.stderr
    assert databases(pg_dsn) == []


def test_a_server_that_does_not_answer_is_an_explained_error() -> None:
    done = compare("--only=enqueue-1", "--dsn=postgresql://user:hush@127.0.0.1:1/nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("compare.py: cannot use the server")
    assert "hush" not in done.stderr


@pytest.mark.parametrize("ran", [[1, 2], [1, 2, 3, 3], [1, 2, 4], []])
def test_a_job_that_did_not_run_exactly_once_is_noticed(bench: Any, ran: list[int]) -> None:
    measure = bench("measure")
    with pytest.raises(measure.MeasurementError, match="3 expected"):
        measure.require_same("runs", ran, [1, 2, 3])


def test_jobs_that_ran_once_in_any_order_are_accepted(bench: Any) -> None:
    bench("measure").require_same("runs", [3, 1, 2], [1, 2, 3])


def test_the_best_of_a_side_is_compared(bench: Any) -> None:
    figures, measure, scenarios = bench("figures"), bench("measure"), bench("scenarios")
    slow, quick, other = (
        measure.Trial("drain", package, 100, batch_size=size)
        for package, size in (("pgqueuer", 10), ("pgqueuer", 20), ("pgq_fast", None))
    )
    runs = {
        # The fastest single run is one of the side that is slower as a rule.
        slow: [{"rate": rate} for rate in (10.0, 99.0, 11.0)],
        quick: [{"rate": rate} for rate in (20.0, 25.0, 40.0)],
        other: [{"rate": rate} for rate in (60.0, 50.0, 40.0)],
    }
    at_least, at_most, none = (
        scenarios.Target("rate", "pgq_fast", "pgqueuer", **limit)
        for limit in ({"at_least": 2}, {"at_most": 1.9}, {})
    )
    scenario = scenarios.Scenario(
        "x", "x", {"pgqueuer": [slow, quick], "pgq_fast": [other]}, [at_least, at_most, none]
    )
    verdicts = figures.judge(scenario, runs)
    assert [verdict.met for verdict in verdicts] == [True, False, None]
    # Of the medians, 50 and 25; within a repeat from 40 / 40 to 60 / 20.
    assert verdicts[0].value == figures.Spread(2.0, 1.0, 3.0)


def test_a_limit_without_another_side_is_for_the_figure_itself(bench: Any) -> None:
    figures, measure, scenarios = bench("figures"), bench("measure"), bench("scenarios")
    trial = measure.Trial("drain", "pgq_fast", 100)
    target = scenarios.Target("cpu", "pgq_fast", at_most=3)
    scenario = scenarios.Scenario("x", "x", {"pgq_fast": [trial]}, [target])
    (verdict,) = figures.judge(scenario, {trial: [{"cpu": 4.0}, {"cpu": 2.0}, {"cpu": 3.0}]})
    assert verdict == figures.Verdict(target, figures.Spread(3.0, 2.0, 4.0), True)


def test_scenarios_share_what_they_have_in_common(bench: Any) -> None:
    scenarios = bench("scenarios")
    named = {scenario.name: scenario for group in scenarios.GROUPS for scenario in group}
    assert len(named) == sum(map(len, scenarios.GROUPS))
    for scenario in named.values():
        for target in scenario.targets:
            assert {target.of, target.over or target.of} <= scenario.sides.keys()
    (default,) = named["drain-defaults"].sides["pgq_fast"]
    assert default in named["drain-best"].sides["pgq_fast"]
    assert [default] == named["drain-bare"].sides["pgq_fast"]
