"""Libraries side by side: what the harness accepts, and what it says of the rest."""

from __future__ import annotations

import importlib
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


def test_each_library_drains_what_it_was_given(peers: Any, pg_dsn: str) -> None:
    chosen = [named(peers, name) for name in ("pgqueuer", "pgq_fast compat", "pgq_fast lease")]
    drain, bulk = peers.measure(chosen, 1, 0.001, pg_dsn)
    for chart in (drain, bulk):
        assert chart["missing"] == []
        assert [series["label"] for series in chart["series"]] == [peer.name for peer in chosen]
        for series in chart["series"]:
            assert [point["x"] for point in series["points"]] == ["defaults", "best"]
            assert all(len(point["runs"]) == 1 for point in series["points"])
            assert all(rate > 0 for point in series["points"] for rate in point["runs"])


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
    peer = peers.Peer("liar", str(program), (), {"defaults": 3}, {"defaults": {}})
    with pytest.raises(peers.MeasurementError, match="3 expected"):
        peers.run_trial(peer, sys.executable, "defaults", 3, pg_dsn)


def test_what_cannot_be_installed_is_missing_with_its_reason(
    peers: Any, pg_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "CACHE", tmp_path)
    # A folder that is not there: the installer fails without asking anybody.
    peer = replace(named(peers, "pgqueuer"), requirements=(str(tmp_path / "nothing"),))
    drain, _ = peers.measure([peer], 1, 0.001, pg_dsn)
    assert drain["series"] == []
    assert {entry["label"] for entry in drain["missing"]} == {
        "pgqueuer, defaults",
        "pgqueuer, best",
    }
    assert all("cannot be installed" in entry["reason"] for entry in drain["missing"])
