"""Fixtures of the whole suite: a server a run, a database a test, drivers of each kind.

PGQ_TEST_DSN     a server to use instead of an embedded one; its role must be able to create
                 databases
PGQ_TEST_PG      version of the embedded server: 18 (default) or 16
PGQ_FAST_IMPL    c or python: the implementation that this run tests
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import os
import signal
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import pytest_asyncio

from pgq_fast.settings import DBSettings, Layout, db_settings
from support.drivers import KINDS, MakeDriver, open_driver
from support.layouts import LAYOUT_VARIABLE, Templates
from support.reuse import ReusedDatabases
from support.server import Databases, running_server, server_description

# Tests choose names, schema and connection themselves; the developer's shell must not.
for _name in [name for name in os.environ if name.startswith(("PGQUEUER_", "PGDSN"))]:
    del os.environ[_name]
# Logfire, where it is installed, is imported by pydantic, which takes longer than most of the
# processes that tests start.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "1"

HERE = Path(__file__).parent

# Folders whose tests reach no kernel, or are about processes, sessions and tables whatever decodes
# them: running them for both implementations tells nothing new.
IMPL_AGNOSTIC = {
    "cli",
    "docs",
    "drivers",
    "examples",
    "faults",
    "fleet",
    "insights",
    "logs",
    "mcp_server",
    "metrics",
    "migrate",
    "pgbouncer",
    "scheduler",
    "schema",
    "tracing",
    "web",
}
# Modules of these folders that do reach a kernel.
KERNEL_MODULES = {"test_psycopg_direct"}
# What differs between a connection and a pool, transactions and statements side by side, is tested
# on both layouts in these modules. Of the others, those of behaviour have no pool, the rest one.
POOL_MODULES = {
    "test_claims",
    "test_coalesced_enqueue",
    "test_enqueue",
    "test_lease_enqueue",
    "test_liveness",
    "test_nonsense_outcomes",
    "test_owned_connections",
    "test_wakeups",
}
# Folders whose subject differs from one PostgreSQL to the next.
PG_MATRIX = {"schema"}


def pytest_configure() -> None:
    """Have SIGTERM end the run as Ctrl-C does: with the fixtures' ends, so that no server stays."""

    def interrupt(signum: int, _frame: FrameType | None) -> None:
        # Once: what ends the server must not be cut off by a second signal.
        signal.signal(signum, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what runs in the background like this, and so would all programs be that
        # tests start, which are to end by Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _combination(item: pytest.Item) -> tuple[str | None, str | None]:
    """The layout and the kind of driver that a test is for, whatever its fixtures are called."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    names = [value for value in parameters.values() if isinstance(value, str)]
    kind = next((name for name in names if name in KINDS), None)
    return parameters.get("layout"), kind


def _is_wanted(item: pytest.Item) -> bool:
    """Whether the combination of parameters tells anything that others do not."""
    layout, kind = _combination(item)
    if "PGQ_TEST_PG" in os.environ:
        # Another server gets the same statements from every driver.
        return kind not in KINDS[1:]
    if kind != "asyncpg-pool" or item.path.stem in POOL_MODULES:
        return True
    return layout != Layout.lease.value and item.path.parent.name != "behaviour"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import modules of which the marks that are asked for select no test."""
    if not collection_path.match("test_*.py"):
        return None
    folder = collection_path.relative_to(HERE).parts[0]
    unwanted = False
    if config.option.markexpr == "not impl_agnostic":
        unwanted = folder in IMPL_AGNOSTIC and collection_path.stem not in KERNEL_MODULES
    elif config.option.markexpr == "pg_matrix":
        unwanted = folder not in PG_MATRIX and "pg_matrix" not in collection_path.read_text("utf-8")
    # None leaves it to others, as False would not.
    return unwanted or None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose among the combinations, and mark, before ``-m`` selects by marks."""
    if dropped := [item for item in items if not _is_wanted(item)]:
        config.hook.pytest_deselected(items=dropped)
        items[:] = filter(_is_wanted, items)
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        if folder in IMPL_AGNOSTIC and item.path.stem not in KERNEL_MODULES:
            item.add_marker(pytest.mark.impl_agnostic)
        if folder in PG_MATRIX:
            item.add_marker(pytest.mark.pg_matrix)
        # The kernels get the same bytes from every driver: of the many combinations, the twins in
        # Python are tested on a connection of each library with one layout, and of one with the
        # other.
        layout, kind = _combination(item)
        if kind == "asyncpg-pool" or (layout == Layout.lease.value and kind in KINDS[1:]):
            item.add_marker(pytest.mark.impl_agnostic)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked with ``layouts`` once for each layout that it names, or for all."""
    mark = metafunc.definition.get_closest_marker("layouts")
    if mark is not None and "layout" in metafunc.fixturenames:
        names = mark.args or [layout.value for layout in Layout]
        metafunc.parametrize("layout", names, indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Reports travel between processes as UTF-8, which not all that tests log can be."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


def pytest_report_header() -> list[str]:
    """What this run tests, for the log."""
    from pgq_fast._impl import __impl__

    drivers = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("asyncpg", "psycopg")
    )
    return [
        f"pgq_fast: implementation {__impl__}, PostgreSQL {server_description()}, {drivers}",
    ]


@pytest.fixture(scope="module", autouse=True)
def _young_heap() -> None:
    """Leave the garbage collector what the module makes to look at, not all that was imported.

    Tests have it look through everything, some of them again and again.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def pg_dsn() -> Iterator[str]:
    """DSN of the server, with the rights to create databases."""
    with running_server() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def databases(pg_dsn: str) -> Iterator[Databases]:
    """Makes databases on the server."""
    databases = Databases(pg_dsn)
    yield databases
    databases.close()


@pytest.fixture
def dsn(databases: Databases) -> Iterator[str]:
    """DSN of an empty database of the test's own."""
    with databases.temporary() as (_, dsn):
        yield dsn


@pytest.fixture(scope="session")
def queue_templates(databases: Databases) -> Iterator[Templates]:
    """Databases with the schema of each layout, to be copied."""
    with ExitStack() as stack:
        yield Templates(databases, stack)


@pytest.fixture
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    """The table layout of the test's queue: compat, or those that the mark ``layouts`` names.

    It is also that of the environment, so that everything which reads its settings from there,
    processes that the test starts included, works on the test's queue.
    """
    layout = Layout(getattr(request, "param", Layout.compat))
    monkeypatch.setenv(LAYOUT_VARIABLE, layout.value)
    db_settings.cache_clear()
    yield layout
    db_settings.cache_clear()


@pytest.fixture
def queue_settings(layout: Layout) -> DBSettings:
    """Settings for the queue of the test, as the environment has them."""
    return db_settings()


@pytest.fixture
def queue_template(queue_templates: Templates, layout: Layout) -> str:
    """Name of a database with the schema of the test's layout, to be copied."""
    return queue_templates.name(layout)


@pytest.fixture(scope="session")
def reused_databases(databases: Databases) -> Iterator[ReusedDatabases]:
    """Lends copies of templates."""
    with contextlib.closing(ReusedDatabases(databases)) as reused:
        yield reused


@pytest.fixture
def queue_dsn(reused_databases: ReusedDatabases, queue_template: str) -> Iterator[str]:
    """DSN of an empty queue of the test's own, with the schema of its layout."""
    with reused_databases.lent(queue_template) as dsn:
        yield dsn


@pytest_asyncio.fixture
async def make_driver() -> AsyncIterator[MakeDriver]:
    """``await make_driver(kind, dsn)``: a driver that is closed when the test ends."""
    async with AsyncExitStack() as stack:

        async def make(kind: str, dsn: str) -> Any:
            return await open_driver(kind, dsn, stack)

        yield make


@pytest_asyncio.fixture(params=KINDS)
async def anydriver(request: pytest.FixtureRequest, make_driver: MakeDriver, queue_dsn: str) -> Any:
    """A driver on a database with the schema; the test runs once for each kind."""
    return await make_driver(request.param, queue_dsn)
