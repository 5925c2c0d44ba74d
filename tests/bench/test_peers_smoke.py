"""Libraries side by side: what the harness accepts, and what it says of the rest."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"

pytestmark = pytest.mark.impl_agnostic


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("peers")


def named(peers: Any, name: str) -> Any:
    (found,) = (peer for peer in peers.PEERS if peer.name == name)
    # What is installed here; nothing is fetched in tests.
    return replace(found, requirements=())


def test_each_library_is_measured_in_the_same_way(peers: Any, pg_dsn: str) -> None:
    chosen = [named(peers, name) for name in ("pgqueuer", "pgq_fast lease")]
    tasks = ("drain", "bulk")
    charts = peers.measure(chosen, 1, 0.0001, pg_dsn, tasks)
    for name, chart in zip(tasks, charts, strict=True):
        assert chart["missing"] == []
        assert chart["title"] == peers.TASKS[name].title
        assert [series["label"] for series in chart["series"]] == [peer.name for peer in chosen]
        for series in chart["series"]:
            assert [point["x"] for point in series["points"]] == [*peers.TASKS[name].settings]
            assert all(len(point["runs"]) == 1 for point in series["points"])
            assert all(rate > 0 for point in series["points"] for rate in point["runs"])


def test_two_workers_single_jobs_and_waits(peers: Any, pg_dsn: str) -> None:
    chosen = [named(peers, "pgq_fast lease")]
    charts = peers.measure(chosen, 1, 0.0001, pg_dsn, ("drain-2", "single", "wait"))
    for chart in charts:
        assert chart["missing"] == []
        (series,) = chart["series"]
        assert all(point["runs"][0] > 0 for point in series["points"])
    said = [chart["series"][0]["points"][0]["settings"] for chart in charts[:2]]
    assert ['"consumers": 1' in text for text in said] == [True, False]


def test_handlers_in_other_processes_are_counted(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PEER_RAN", str(tmp_path / "ran"))
    monkeypatch.syspath_prepend(str(BENCH / "programs"))
    ran = bench("protocol").Shared()
    child = os.fork()
    if not child:
        ran.append(7)
        os._exit(0)
    os.waitpid(child, 0)
    ran.append(8)
    assert len(ran) == 2
    assert list(ran) == [7, 8]
    assert 0 < ran.times[0] <= ran.times[1]


def test_jobs_that_are_not_queued_make_an_error(peers: Any, pg_dsn: str, tmp_path: Path) -> None:
    program = tmp_path / "idle.py"
    program.write_text(
        "import sys\nfor line in sys.stdin:\n    print('{\"seconds\": 1}', flush=True)\n"
    )
    peer = replace(named(peers, "pgq_fast compat"), program=str(program), table="pg_am")
    bulk, single = peers.measure([peer], 1, 0.0001, pg_dsn, ("bulk", "single"))
    for chart in (bulk, single):
        assert chart["series"] == []
        (missing,) = chart["missing"]
        assert "jobs expected" in missing["reason"]


@pytest.mark.parametrize("ran", [[0, 1, 1], [0, 1], [0, 1, 2, 2]])
def test_a_job_that_did_not_run_once_makes_an_error(
    peers: Any, pg_dsn: str, ran: list[int], tmp_path: Path
) -> None:
    program = tmp_path / "liar.py"
    program.write_text(
        "import json, sys\n"
        "role = json.loads(sys.stdin.readline())['role']\n"
        "print('{}', flush=True)\n"
        "if role != 'install':\n"
        "    sys.stdin.readline()\n"
        '    print(\'{"seconds": 1, "count": 3, "at": 1e9}\', flush=True)\n'
        "if role == 'work':\n"
        "    sys.stdin.readline()\n"
        f"    print(json.dumps({{'ran': {ran}}}), flush=True)\n"
    )
    peer = replace(named(peers, "pgqueuer"), program=str(program))
    with (
        pytest.raises(peers.MeasurementError, match="3 expected"),
        peers.new_trial(peer, "defaults", sys.executable, pg_dsn) as trial,
    ):
        trial.drain(3)


def test_what_cannot_be_installed_is_missing_with_its_reason(
    peers: Any, pg_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "CACHE", tmp_path)
    # A folder that is not there: the installer fails without asking anybody.
    peer = replace(named(peers, "pgqueuer"), requirements=(str(tmp_path / "nothing"),))
    asked = []

    def interpreter(peer: Any) -> Any:
        asked.append(peer.name)
        return original(peer)

    original = peers.interpreter
    monkeypatch.setattr(peers, "interpreter", interpreter)
    (drain,) = peers.measure([peer], 1, 0.001, pg_dsn, ["drain"])
    assert asked == ["pgqueuer"]
    assert drain["series"] == []
    assert {entry["label"] for entry in drain["missing"]} == {
        "pgqueuer, defaults",
        "pgqueuer, best",
    }
    assert all("cannot be installed" in entry["reason"] for entry in drain["missing"])


def test_libraries_are_named_with_the_versions_that_are_measured(peers: Any) -> None:
    found = peers.versions(peers.PEERS)
    assert found["procrastinate"] == "3.10.0"
    assert found["pgqueuer"] == "1.6.0"
    assert found["pg-boss"] == "12.38.0"
    assert len(found) == sum(1 for peer in peers.PEERS if peer.requirements)
    for peer in peers.PEERS:
        assert set(peer.settings) == set(peer.jobs) == {"defaults", "best"}
        assert (BENCH / "programs" / peer.program).exists()
