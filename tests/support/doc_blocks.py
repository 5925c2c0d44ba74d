"""The programs that a page of the documentation shows, to be run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pgq_fast

ROOT = Path(pgq_fast.__file__).parents[1]


def python_blocks(page: str) -> dict[str, str]:
    """The Python blocks of *page* by the name of the file in their first line, ``# name.py``.

    Every block has one: what is shown is run.
    """
    text = (ROOT / page).read_text()
    blocks: dict[str, str] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        first = code.partition("\n")[0]
        named = re.fullmatch(r"# (\w+\.py)", first)
        assert named, f"{page}: a block begins with {first!r}, not with the name of a file"
        assert named[1] not in blocks, f"{page}: {named[1]} is there twice"
        blocks[named[1]] = code
    return blocks


def write_blocks(page: str, folder: Path) -> set[str]:
    """Write the blocks of *page* to *folder*; the names of the files."""
    blocks = python_blocks(page)
    for name, code in blocks.items():
        (folder / name).write_text(code)
    return set(blocks)


def run_block(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with *command* in *folder*; it must end well."""
    result = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result
