"""The deep import paths lead to the objects of the public modules, not to others like them."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from support.first_imports import run_each

pytestmark = pytest.mark.impl_agnostic

# Deep path of the original: the module that is its home here.
HOMES = {
    "core.applications": "applications",
    "core.completion": "completion",
    "core.executors": "executors",
    "core.insights": "insights",
    "core.logconfig": "logconfig",
    "core.qm": "qm",
    "core.sm": "sm",
    "core.tm": "tasks",
    "domain.errors": "errors",
    "domain.models": "models",
    "domain.settings": "settings",
    "domain.types": "types",
    "ports.driver": "drivers.base",
    "ports.repository": "repository",
    "ports.tracing": "tracing",
    "adapters.cli.cli": "cli.app",
    "adapters.cli.factories": "factories",
    "adapters.cli.supervisor": "supervisor",
    "adapters.connections": "connections",
    "adapters.drivers.asyncpg": "drivers.asyncpg",
    "adapters.drivers.psycopg": "drivers.psycopg",
    "adapters.inmemory": "memory",
    "adapters.inmemory.driver": "memory",
    "adapters.inmemory.queries": "memory",
    "adapters.persistence.qb": "builders",
    "adapters.persistence.queries": "queries",
    "adapters.web": "web",
    "adapters.web.sse": "web.sse",
}


# Only programs import these, and may need more than the package itself.
PROGRAMS = {"adapters.cli.cli", "adapters.web", "adapters.web.sse"}


@pytest.mark.parametrize(("deep", "home"), HOMES.items())
def test_a_deep_path_exports_objects_of_its_home(deep: str, home: str) -> None:
    module = importlib.import_module(f"pgq_fast.{deep}")
    origin = importlib.import_module(f"pgq_fast.{home}")
    original = importlib.import_module(f"pgqueuer.{deep}")
    assert module.__all__
    for name in module.__all__:
        assert hasattr(original, name), name
        if hasattr(origin, name):
            assert getattr(module, name) is getattr(origin, name), name
    # Nothing is defined in a deep path, so nothing can exist twice.
    assert [
        name
        for name in module.__all__
        if getattr(getattr(module, name), "__module__", "") == module.__name__
    ] == []


def test_the_ports_are_the_protocols() -> None:
    ports = importlib.import_module("pgq_fast.ports")
    assert set(ports.__all__) == set(importlib.import_module("pgqueuer.ports").__all__)
    assert ports.RepositoryPort is importlib.import_module("pgq_fast.repository").RepositoryPort
    assert ports.Driver is importlib.import_module("pgq_fast.db").Driver
    assert ports.TracingProtocol is importlib.import_module("pgq_fast.tracing").TracingProtocol


def test_one_class_under_all_its_names() -> None:
    for name, paths in {
        "Job": ("", "models", "domain.models"),
        "Queries": ("", "queries", "adapters.persistence.queries"),
        "AsyncpgDriver": ("", "db", "adapters.drivers.asyncpg"),
        "PsycopgDriver": ("", "db", "adapters.drivers.psycopg"),
        "InMemoryQueries": ("", "adapters.inmemory", "adapters.inmemory.queries"),
        "PgQueuer": ("", "applications", "core.applications"),
        "RetryRequested": ("", "errors", "domain.errors"),
        "SchedulerManager": ("", "sm", "core.sm"),
        "QueueManager": ("", "qm", "core.qm"),
    }.items():
        found = {
            getattr(importlib.import_module(f"pgq_fast.{path}" if path else "pgq_fast"), name)
            for path in paths
        }
        assert len(found) == 1, name


def test_a_deep_path_can_be_the_first_import() -> None:
    run_each([f"import pgq_fast.{deep}" for deep in sorted(HOMES)])


def test_optional_libraries_are_not_imported_with_the_package() -> None:
    code = (
        "import sys, pgq_fast\n"
        f"import {', '.join(f'pgq_fast.{deep}' for deep in sorted(HOMES.keys() - PROGRAMS))}\n"
        "late = {'asyncpg', 'psycopg', 'psycopg_pool', 'croniter', 'typer', 'rich', 'fastapi'}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
