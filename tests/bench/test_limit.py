"""The statements of workers and producers, sent again without them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"

# The implementation is chosen by the benchmark.
pytestmark = pytest.mark.impl_agnostic


def test_a_run_becomes_a_part_of_the_page(bench: Any, pg_dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "limit.json"
    done = subprocess.run(
        [
            *(sys.executable, str(BENCH / "limit.py"), "--repeat=1", "--scale=0.0001"),
            *("--only=drain, compat", "--only=single jobs, lease"),
            *(f"--dsn={pg_dsn}", f"--json={path}"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    rates, share, cpu = found["charts"]
    sides = {
        series["label"]: [point["x"] for point in series["points"]] for series in rates["series"]
    }
    bare = ["pgq_fast", "its statements in a bare loop"]
    assert sides["drain, compat"] == bare
    # One comes with the embedded server, where PATH has none.
    assert sides["single jobs, lease"] == [*bare, "its statements by pgbench"]
    for chart in (rates, cpu):
        for series in chart["series"]:
            assert all(point["runs"][0] > 0 for point in series["points"])
    for series in share["series"]:
        (point,) = series["points"]
        assert 0 <= point["runs"][0] < 100

    folder = tmp_path / "docs" / "results"
    assert bench("plots").main([str(path), f"--into={folder}", "--no-readme"]) == 0
    page = folder.with_suffix(".md").read_text()
    assert "## Against the limit" in page
    for chart in found["charts"]:
        assert f"![{chart['title']}](results/limit-{chart['name']}.svg)" in page


@pytest.mark.parametrize(
    ("task", "layout"), [("drain", "lease"), ("lists", "compat"), ("lists", "lease")]
)
def test_the_statements_alone_do_what_was_done(
    bench: Any, pg_dsn: str, task: str, layout: str
) -> None:
    trial = bench("measure").Trial(task, "pgq_fast", 30, layout=layout)
    figures = bench("trials").run_trial(trial, pg_dsn, program="bare.py")
    assert {"rate", "bare_rate", "cpu", "bare_cpu"} <= figures.keys()


async def test_statements_that_do_something_else_are_noticed(
    bench: Any, pg_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare, measure = bench("bare"), bench("measure")

    async def replay(connection: Any, calls: list[Any]) -> None:
        # All but the first list of jobs.
        await original(connection, calls[len(calls) // 2 :])

    original = bare.replay
    monkeypatch.setattr(bare, "replay", replay)
    trial = measure.Trial("lists", "pgq_fast", 40, list_size=20)
    name = "pgq_fast_bench_limit"
    connection = await asyncpg.connect(pg_dsn)
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    try:
        with pytest.raises(measure.MeasurementError, match="40 expected, 20 missing"):
            await bare.measure(trial, measure.Database(pg_dsn, name))
    finally:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.close()


def test_what_is_ours_is_what_the_loop_does_not_take(bench: Any) -> None:
    share = bench("limit").share
    assert share({"rate": 75.0, "bare_rate": 100.0}) == 25.0
    assert share({"rate": 101.0, "bare_rate": 100.0}) == 0.0


def test_a_trial_that_fails_is_missing_with_its_reason(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, trials = bench("limit"), bench("trials")

    def run_trial(trial: Any, _: str, program: str) -> dict[str, float]:
        assert program == "bare.py"
        if trial.layout == "compat":
            raise trials.TrialFailed("no end after 600 s")
        return {"rate": 8.0, "cpu": 2.0, "bare_rate": 10.0, "bare_cpu": 1.0}

    monkeypatch.setattr(limit, "run_trial", run_trial)
    chosen = {name: limit.TRIALS[name] for name in ("drain, lease", "drain, compat")}
    rates, share, cpu = limit.measure(chosen, 2, "dsn")
    for chart in (rates, share, cpu):
        assert [series["label"] for series in chart["series"]] == ["drain, lease"]
        assert chart["missing"] == [{"label": "drain, compat", "reason": "no end after 600 s"}]
    assert share["series"][0]["points"][0]["runs"] == pytest.approx([20.0, 20.0])


def test_a_statement_as_a_script_of_pgbench(bench: Any) -> None:
    bare = bench("bare")
    query = (
        "-- One job: its id.\nINSERT INTO t VALUES ($1::text, $2::bytea, $3)\n-- $9\nRETURNING id"
    )
    text, values = bare.script(bare.Call("fetch", (query, "a b", b"\x00x", 7), {}))
    assert text == "INSERT INTO t VALUES (:value1::text, :value2::bytea, :value3)\nRETURNING id;\n"
    assert values == {"value1": "a b", "value2": "\\x0078", "value3": "7"}
