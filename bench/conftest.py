"""``pytest bench/`` measures: on a server of the user's with ``--pg-dsn``, else an embedded one.

What the figures depend on goes into pytest-benchmark's JSON, and what is to be held against them
into the header and the summary.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import pytest
from facts import gather, in_words
from servers import BenchError, postgres
from whole_path import Path

# Measuring anything, and importing it, should not depend on what else is installed.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "1"

DSN = pytest.StashKey[str]()
FACTS = pytest.StashKey[dict[str, Any]]()
SERVER = pytest.StashKey[ExitStack]()
# Seconds a test: some repeat trials that take a while on a slow disk.
TIMEOUT = 600


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where to measure, and how often."""
    group = parser.getgroup("pgq_fast benchmarks")
    group.addoption(
        "--pg-dsn",
        help="a server of yours, where the role may create databases and CHECKPOINT; by default an "
        "embedded one",
    )
    group.addoption(
        "--path-rounds",
        type=int,
        default=2,
        help="repeats of each trial of the whole path; default: 2",
    )
    group.addoption(
        "--path-scale",
        type=float,
        default=1.0,
        help="multiplies the numbers of jobs of those trials; default: 1",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Measure, unless told otherwise: the suite's own settings are for runs that only test."""
    asked = config.invocation_params.args
    if "--benchmark-disable" not in asked and "--benchmark-skip" not in asked:
        config.option.benchmark_disable = False
    # An environment that chooses names, schema and connection would choose them for one library.
    for name in [name for name in os.environ if name.startswith("PGQUEUER_")]:
        del os.environ[name]


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Have a server, which is in the header already."""
    config = session.config
    if config.option.collectonly or hasattr(config, "workerinput"):
        return
    stack = config.stash[SERVER] = ExitStack()
    try:
        dsn = stack.enter_context(postgres(config.getoption("--pg-dsn")))
        config.stash[DSN], config.stash[FACTS] = dsn, gather(dsn)
    except BenchError as error:
        stack.close()
        raise pytest.UsageError(f"--pg-dsn: {error}") from error


def pytest_report_header(config: pytest.Config) -> list[str]:
    """What is measured with."""
    facts = config.stash.get(FACTS, None)
    return [] if facts is None else in_words(facts)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The warnings once more, beside the figures."""
    for warning in config.stash.get(FACTS, {}).get("warnings", ()):
        terminalreporter.write_line(f"WARNING: {warning}", yellow=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server, however the run ended."""
    if SERVER in config.stash:
        config.stash[SERVER].close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A limit for each benchmark that suits its trials."""
    for item in items:
        item.add_marker(pytest.mark.timeout(TIMEOUT))


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """The server, the versions and the warnings, with the machine."""
    facts = config.stash.get(FACTS, None)
    if facts is None:
        return
    for part in ("server", "versions", "warnings"):
        machine_info[part] = facts[part]
    machine_info["load_average"] = facts["machine"]["load_average"]


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, Any]) -> None:
    """The version, where there is no repository to ask."""
    facts = config.stash.get(FACTS, None)
    if facts is not None:
        commit_info["pgq_fast"] = facts["versions"]["pgq_fast"]


@pytest.fixture(scope="session")
def pg_dsn(request: pytest.FixtureRequest) -> str:
    """Of the server; its role may create databases."""
    return request.config.stash[DSN]


@pytest.fixture
def path(request: pytest.FixtureRequest, benchmark: Any, pg_dsn: str) -> Path:
    """Runs trials."""
    option = request.config.getoption
    return Path(benchmark, pg_dsn, option("--path-rounds"), option("--path-scale"))
