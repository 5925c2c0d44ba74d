"""The pages of the documentation do what they say; their links and names lead somewhere."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import re
import shlex
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest
import pytest_asyncio
import typer.main
import yaml

import pgq_fast
from pgq_fast import AsyncpgDriver, AsyncpgPoolDriver, PgQueuer, Queries
from pgq_fast.cli.app import app
from pgq_fast.settings import db_settings
from pgq_fast.types import QueueExecutionMode
from support.doc_blocks import ROOT
from support.doc_pages import EXTRAS, Page, blocks_of

DOCS: Final = ROOT / "docs"
PAGES: Final = sorted(str(path.relative_to(ROOT)) for path in DOCS.rglob("*.md"))

# Their programs are run in the folders of what they are about.
ELSEWHERE: Final = {
    *(f"docs/guides/{name}.md" for name in ("dashboard", "logging", "mcp", "metrics", "tracing")),
}
# Pages about what each layout does in a way of its own; the others are run on one.
BOTH_LAYOUTS: Final = {
    "docs/operations.md",
    *(
        f"docs/guides/{name}.md"
        for name in (
            "cancellation", "completion", "concurrency", "deferred", "durability", "enqueueing",
            "failures", "heartbeat", "inspection", "names", "retention", "transactions",
        )
    ),
}  # fmt: skip
# Blocks that cannot run, in all pages together.
NOT_RUN_AT_MOST: Final = 5

RUN: Final = [page for page in PAGES if page not in ELSEWHERE and blocks_of(page)]


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What pages export, and where they work, ends with them."""
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    db_settings.cache_clear()


class Names(dict[str, Any]):
    """What docs/guides/index.md says that the snippets of all pages have, and tools for checks."""

    def __init__(self, dsn: str, connection: Any, pool: Any) -> None:
        driver = AsyncpgDriver(connection)
        super().__init__(
            __name__="page",
            asyncio=asyncio,
            dsn=dsn,
            connection=connection,
            pool=pool,
            driver=driver,
            queries=Queries(driver),
            pgq=PgQueuer(driver),
            Job=pgq_fast.Job,
            PgQueuer=PgQueuer,
            Queries=Queries,
            drain=self.drain,
        )

    async def drain(self, pgq: PgQueuer | None = None) -> None:
        """Run the handlers of *pgq*, by default of the page's, until the queue is empty."""
        pgq = pgq or self["pgq"]
        worker = PgQueuer(AsyncpgPoolDriver(self["pool"]), resources=pgq.resources)
        worker.qm.entrypoint_registry.update(pgq.qm.entrypoint_registry)
        await worker.run(mode=QueueExecutionMode.drain)


@pytest.fixture
def page_dsn(page: str, request: pytest.FixtureRequest) -> str:
    """A database with a queue; for a page that installs it, without one."""
    dsn: str = request.getfixturevalue("dsn" if page == "docs/quickstart.md" else "queue_dsn")
    os.environ["PGQUEUER_DSN"] = dsn
    return dsn


@pytest_asyncio.fixture
async def names(page_dsn: str) -> AsyncIterator[Names]:
    dsn = page_dsn
    async with asyncpg.create_pool(dsn, min_size=0) as pool:
        connection = await asyncpg.connect(dsn)
        try:
            yield Names(dsn, connection, pool)
        finally:
            await connection.close()


@pytest.mark.layouts("compat")
@pytest.mark.parametrize("page", RUN)
@pytest.mark.usefixtures("layout", "environment")
async def test_a_page(page: str, names: Names, tmp_path: Path) -> None:
    await Page(page, tmp_path, names, names["connection"]).run()


@pytest.mark.layouts("lease")
@pytest.mark.parametrize("page", [page for page in RUN if page in BOTH_LAYOUTS])
@pytest.mark.usefixtures("layout")
async def test_a_page_on_the_lease_layout(page: str, names: Names, tmp_path: Path) -> None:
    await Page(page, tmp_path, names, names["connection"]).run()


def test_few_blocks_cannot_run() -> None:
    reasons = [block.reason for page in PAGES for block in blocks_of(page) if block.reason]
    assert len(reasons) <= NOT_RUN_AT_MOST, reasons


def test_every_page_is_in_the_navigation() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"]

    def leaves(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield f"docs/{entry}"
        else:
            for each in entry.values() if isinstance(entry, dict) else entry:
                yield from leaves(each)

    assert sorted(leaves(nav)) == PAGES


def anchors(page: Path) -> set[str]:
    """The headings of *page* as the links name them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    here = ROOT / page
    text = re.sub(r"^```.*?^```$", "", here.read_text(), flags=re.DOTALL | re.MULTILINE)
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (here.parent / path) if path else here
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def shown_commands(page: str) -> Iterator[list[str]]:
    """The words of each ``pgq`` command line that *page* shows, in blocks and within the text."""
    text = (ROOT / page).read_text()
    lines = re.findall(r"^(?: {4}|\$ )?(pgq (?!= ).*)$", text, re.MULTILINE)
    lines += [span for span in re.findall(r"`(pgq [^`\n]+)`", text) if "..." not in span]
    for line in lines:
        yield shlex.split(line.replace("\\", ""), comments=True)[1:]


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_exist(page: str) -> None:
    program = typer.main.get_command(app)
    wrong = []
    for words in shown_commands(page):
        own = words[: words.index("--")] if "--" in words else words
        command, known = program, set()
        for word in own:
            known |= {
                name for each in command.params for name in (*each.opts, *each.secondary_opts)
            }
            # An option's value is no command, and neither is what stands for one in capitals.
            if word in getattr(command, "commands", {}):
                command = command.commands[word]
            elif word.startswith("-") and word not in known:
                wrong.append(" ".join(words))
        if command is program and not any(word.isupper() or word[0] in "-[" for word in own):
            wrong.append(" ".join(words))
    assert wrong == []


def test_extras_that_are_shown_exist() -> None:
    named = {
        (page, extra)
        for page in PAGES
        for extras in re.findall(r"\bpgq-fast\[([\w,-]+)\]", (ROOT / page).read_text())
        for extra in extras.split(",")
    }
    assert {("docs/quickstart.md", "asyncpg"), ("docs/guides/dashboard.md", "web")} <= named
    assert {each for each in named if each[1] not in EXTRAS} == set()


def test_variables_that_are_shown_are_explained() -> None:
    explained = (DOCS / "configuration.md").read_text()
    named = {
        (page, name)
        for page in PAGES
        for name in re.findall(r"\b(?:PGQUEUER|PGQ_FAST)_[A-Z_]*[A-Z]\b", (ROOT / page).read_text())
    }
    assert {each for each in named if f"`{each[1]}" not in explained} == set()


def documented() -> set[str]:
    """Qualified names of everything that the API pages show."""
    found = set()
    for page in (DOCS / "api").glob("*.md"):
        for path in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE):
            try:
                module = importlib.import_module(path)
            except ModuleNotFoundError:
                owner, _, name = path.rpartition(".")
                module, names = importlib.import_module(owner), [name]
            else:
                names = list(getattr(module, "__all__", vars(module)))
            found |= {f"{module.__name__}.{name}" for name in names if hasattr(module, name)}
            found |= {
                f"{value.__module__}.{value.__qualname__}"
                for name in names
                if inspect.isclass(value := getattr(module, name, None))
                or inspect.isfunction(value)
            }
    return found


def test_every_public_name_has_its_place_in_the_api_pages() -> None:
    shown = documented()
    index = (DOCS / "api/index.md").read_text()
    missing = []
    for name in (*pgq_fast.__all__, "install_as_pgqueuer", "__impl__", "__version__"):
        value = getattr(pgq_fast, name)
        qualified = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', name)}"
        if qualified not in shown and f"pgq_fast.{name}" not in (index if name[0] == "_" else ""):
            missing.append(name)
        assert f"{name}`" in index
    assert missing == []


def test_every_error_has_its_remedy() -> None:
    from pgq_fast import errors

    page = (DOCS / "troubleshooting.md").read_text()
    names = [
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.PgqException)
    ]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_tests_that_the_pages_name_exist() -> None:
    missing = []
    for page in [*PAGES, "README.md", "SECURITY.md"]:
        text = (ROOT / page).read_text()
        for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
            path = ROOT / file
            if not path.exists() or (name and f"def {name}(" not in path.read_text()):
                missing.append(f"{page}: {file}::{name}")
    assert missing == []
