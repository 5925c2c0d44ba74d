"""The quickstart of the README does what it says, in the words of the README."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def block(title: str) -> str:
    """The Python block that starts with the comment *title*."""
    (code,) = re.findall(rf"```python\n(# {re.escape(title)}\n.*?)```", README, re.DOTALL)
    return str(code)


@pytest.mark.pg_matrix
def test_quickstart(dsn: str, tmp_path: Path) -> None:
    for name in ("worker.py", "producer.py"):
        (tmp_path / name).write_text(block(name))

    def run(*command: str) -> str:
        result = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PGQUEUER_DSN": dsn, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    pgq = ("-m", "pgq_fast")
    run(*pgq, "install")
    run("producer.py")
    output = run(*pgq, "run", "worker:main", "--mode", "drain")
    greetings = [line for line in output.splitlines() if line.startswith("Hello")]
    # The job of the highest priority first; the others in any order.
    assert greetings[0] == "Hello, Barbara!"
    assert sorted(greetings) == sorted(
        f"Hello, {name}!" for name in ("Barbara", "world", "Ada", "Grace")
    )


@pytest.mark.impl_agnostic
def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.impl_agnostic
def test_targets_and_variables_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z]+)\b", README))
    assert targets >= {"demo", "test", "lint"}
    assert [target for target in targets if f"\n{target}:" not in makefile] == []
