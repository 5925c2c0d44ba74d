"""Runs what a page of the documentation shows, in its order, as one program on one queue.

What a page may have:

- a ``python`` block whose first line is ``# name.py``: a file; a later command has to run it;
- any other ``python`` block: it runs as it stands, ``await`` included, with the names of the blocks
  before it and those that docs/guides/index.md gives to all pages;
- a ``sql`` block, sent to the queue's database;
- a ``sh`` block, run line by line; see :meth:`Page.shell`;
- a comment ``<!-- check ... -->``: Python that is not shown, to see that what is shown works;
- a comment ``<!-- not run: REASON -->`` right before a block that cannot run.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import importlib
import inspect
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pgq_fast.settings import db_settings
from support.doc_blocks import ROOT

BLOCK: Final = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?"
    r"^(?P<indent> *)```(?P<kind>python|sh|sql)\n(?P<code>.*?)^(?P=indent)```$"
    r"|^<!-- check\n(?P<check>.*?)^-->$",
    re.DOTALL | re.MULTILINE,
)
EXTRAS: Final = frozenset(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
)


@dataclasses.dataclass(frozen=True)
class Block:
    """Something that a page has run, with the line on which its code begins."""

    kind: str
    code: str
    line: int
    reason: str | None

    @property
    def file(self) -> str | None:
        """Name of the file that it is, if it is one."""
        named = re.match(r"# (\w+\.py)\n", self.code)
        return named[1] if self.kind == "python" and named else None


def blocks_of(page: str) -> list[Block]:
    """The blocks of *page*, a path from the root of the repository."""
    text = (ROOT / page).read_text()
    blocks = []
    for found in BLOCK.finditer(text):
        kind = found["kind"] or "check"
        group = "code" if found["kind"] else "check"
        indent = found["indent"] or ""
        code = re.sub(rf"^{indent}", "", found[group], flags=re.MULTILINE)
        line = text.count("\n", 0, found.start(group)) + 1
        blocks.append(Block(kind, code, line, found["reason"]))
    return blocks


class Page:
    """The run of a page, in *folder*, with the *names* that its Python can use."""

    def __init__(self, page: str, folder: Path, names: dict[str, Any], database: Any) -> None:
        self.page = page
        self.folder = folder
        self.names = names
        self.database = database
        self.files: set[str] = set()
        # Modules of the same names that were there before.
        self.hidden: dict[str, ModuleType] = {}
        names["page"] = self

    async def run(self) -> None:
        """Run its blocks; an error says where in the page it happened."""
        sys.path.insert(0, str(self.folder))
        try:
            for block in blocks_of(self.page):
                if block.reason is None:
                    try:
                        await self._run(block)
                    except BaseException as error:
                        error.add_note(f"in {self.page}, the block at line {block.line}")
                        raise
        finally:
            sys.path.remove(str(self.folder))
            for name in self.files:
                sys.modules.pop(name.removesuffix(".py"), None)
            sys.modules.update(self.hidden)
        unused = [name for name in self.files if not self._is_used(name)]
        assert not unused, f"{self.page} shows {unused} and runs none of them"

    def _is_used(self, name: str) -> bool:
        stem = name.removesuffix(".py")
        return any(
            re.search(rf"\b{stem}\b", block.code)
            for block in blocks_of(self.page)
            if block.kind in ("sh", "check")
        )

    async def _run(self, block: Block) -> None:
        if block.file is not None:
            (self.folder / block.file).write_text(block.code)
            self.files.add(block.file)
            stem = block.file.removesuffix(".py")
            if (hidden := sys.modules.pop(stem, None)) is not None:
                self.hidden[stem] = hidden
            importlib.invalidate_caches()
        elif block.kind == "sh":
            await self.shell(block.code)
        elif block.kind == "sql":
            await self.database.execute(block.code)
        else:
            # With the page's own line numbers.
            padded = "\n" * (block.line - 1) + block.code
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            compiled = compile(padded, self.page, "exec", flags, dont_inherit=True)
            result = eval(compiled, self.names)
            if inspect.isawaitable(result):
                await result

    async def shell(self, code: str) -> None:
        """Run the commands of a block, one after the other; each has to end well.

        - ``export NAME=VALUE`` counts for the rest of the page, unless it says where a database is.
        - ``pip install`` is not run: the extras that it names have to exist.
        - ``pgq`` and ``python FILE`` run in this process, workers until their queue is empty.
        """
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            match words:
                case []:
                    pass
                case ["export", assignment]:
                    name, _, value = assignment.partition("=")
                    if not name.endswith("DSN"):
                        os.environ[name] = value
                        db_settings.cache_clear()
                case ["pip", "install", *wanted]:
                    named = re.findall(r"\[(.*?)\]", " ".join(wanted))
                    extras = {extra for each in named for extra in each.split(",")}
                    assert extras <= EXTRAS, f"no such extras: {extras - EXTRAS}"
                case ["pgq", *arguments] if "--processes" in arguments:
                    await self._process("-m", "pgq_fast", *self._drained(arguments))
                case ["pgq", *arguments]:
                    await asyncio.to_thread(self._pgq, self._drained(arguments))
                case ["python", file]:
                    await asyncio.to_thread(runpy.run_path, file, run_name="__main__")
                case _:
                    raise AssertionError(f"how to run {line!r}?")

    @staticmethod
    def _drained(arguments: list[str]) -> list[str]:
        """A worker would go on for ever."""
        if "run" in arguments and "--mode" not in arguments:
            return [*arguments, "--mode", "drain"]
        return arguments

    @staticmethod
    def _pgq(arguments: list[str]) -> None:
        from pgq_fast.__main__ import main

        before, original, sys.argv = dict(os.environ), sys.argv, ["pgq", *arguments]
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise AssertionError(f"pgq {arguments} ended with exit code {end.code}") from end
        finally:
            sys.argv = original
            os.environ.clear()
            os.environ.update(before)
            db_settings.cache_clear()

    async def _process(self, *arguments: str) -> None:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        print(done.stdout, done.stderr)
        assert done.returncode == 0, done.stdout + done.stderr
