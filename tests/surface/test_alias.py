"""``install_as_pgqueuer`` changes the import system: each case is a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from support.first_imports import run_each

pytestmark = pytest.mark.impl_agnostic

INSTALL = "from pgq_fast._alias import install_as_pgqueuer\ninstall_as_pgqueuer()\n"
# The real package is installed where the tests run; this takes it away.
HIDE_ORIGINAL = """
from importlib.machinery import PathFinder

def find_all_but_pgqueuer(name, path=None, target=None, find=PathFinder.find_spec):
    return None if name.partition(".")[0] == "pgqueuer" else find(name, path, target)

PathFinder.find_spec = find_all_but_pgqueuer
"""


def python(code: str, *options: str) -> None:
    """Run *code* in a new interpreter; fail with its traceback if it does."""
    result = subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture(params=["", HIDE_ORIGINAL], ids=["original installed", "original absent"])
def install(request: pytest.FixtureRequest) -> str:
    return str(request.param) + INSTALL


SAME_OBJECTS = [
    "import pgqueuer; assert pgqueuer is pgq_fast",
    "import pgqueuer.db as theirs; import pgq_fast.db as ours; assert theirs is ours",
    "from pgqueuer.db import AsyncpgDriver as a; from pgq_fast import AsyncpgDriver as b;"
    "assert a is b",
    "from pgqueuer import models as a; from pgq_fast import models as b; assert a is b",
    "import pgqueuer.core.completion as a; import pgq_fast.core.completion as b;assert a is b",
    "from pgqueuer.core.completion import CompletionWatcher as a;"
    "from pgq_fast.completion import CompletionWatcher as b; assert a is b",
    "from pgqueuer.ports.tracing import TRACER as a; from pgq_fast.tracing import TRACER as b;"
    "assert a is b",
    "import importlib; assert importlib.import_module('pgqueuer.sm').SchedulerManager "
    "is pgq_fast.SchedulerManager",
    "import pgqueuer.errors, pgqueuer; assert pgqueuer.errors is pgq_fast.errors",
]


def test_both_names_give_the_same_objects(install: str) -> None:
    run_each([f"{install}import pgq_fast\n{statements}" for statements in SAME_OBJECTS])


def test_submodules_are_loaded_when_they_are_asked_for(install: str) -> None:
    python(
        f"{install}"
        + textwrap.dedent(
            """
            import sys
            before = set(sys.modules)
            import pgqueuer
            assert set(sys.modules) - before == {"pgqueuer"}
            assert "pgq_fast.core.completion" not in sys.modules
            import pgqueuer.core.completion
            assert "pgq_fast.core.completion" in sys.modules
            """
        )
    )


def test_modules_keep_their_own_identity(install: str) -> None:
    python(
        f"{install}"
        + textwrap.dedent(
            """
            import importlib.util
            import pickle
            import pgqueuer.core.executors, pgqueuer.errors
            for name in ("", ".core", ".core.executors", ".errors"):
                module = importlib.import_module("pgqueuer" + name)
                assert module.__name__ == "pgq_fast" + name
                assert module.__spec__.name == "pgq_fast" + name
                assert module.__spec__.loader is module.__loader__
                assert not getattr(module.__spec__, "_initializing", False)
                assert importlib.util.find_spec("pgq_fast" + name) is module.__spec__
            request = pgqueuer.errors.RetryRequested()
            assert type(pickle.loads(pickle.dumps(request))) is type(request)
            assert importlib.reload(pgqueuer.errors) is pgqueuer.errors
            """
        )
    )


def test_what_has_no_counterpart_is_named_as_it_was_asked_for(install: str) -> None:
    python(
        f"{install}"
        + textwrap.dedent(
            """
            import importlib.util
            for name in ("pgqueuer.no_such_part", "pgqueuer.core.no_such_part"):
                assert importlib.util.find_spec(name) is None
                try:
                    importlib.import_module(name)
                except ModuleNotFoundError as error:
                    assert error.name == name and name in str(error), error
                else:
                    raise AssertionError(name)
            try:
                from pgqueuer import no_such_name
            except ImportError as error:
                assert "no_such_name" in str(error)
            else:
                raise AssertionError
            """
        )
    )


def test_a_missing_library_of_a_part_is_reported_as_such(install: str) -> None:
    python(
        f"{install}"
        + textwrap.dedent(
            """
            import sys
            sys.modules["croniter"] = None
            import pgqueuer.sm
            try:
                pgqueuer.PgQueuer.in_memory().schedule("tick", "* * * * *")
            except ImportError as error:
                assert error.name == "croniter", error
            else:
                raise AssertionError
            """
        )
    )


def test_installing_twice_changes_nothing(install: str) -> None:
    python(
        f"{install}"
        + textwrap.dedent(
            """
            import sys
            finders = list(map(type, sys.meta_path))
            import pgqueuer
            install_as_pgqueuer()
            assert list(map(type, sys.meta_path)) == finders
            import pgqueuer.db, pgq_fast.db
            assert pgqueuer.db is pgq_fast.db
            """
        )
    )


def test_installing_after_the_original_was_imported_is_refused() -> None:
    python(
        textwrap.dedent(
            """
            import sys
            import pgqueuer
            from pgq_fast._alias import install_as_pgqueuer
            finders = list(sys.meta_path)
            try:
                install_as_pgqueuer()
            except RuntimeError as error:
                assert "call install_as_pgqueuer() first" in str(error)
            else:
                raise AssertionError
            assert sys.meta_path == finders
            assert sys.modules["pgqueuer"].__name__ == "pgqueuer"
            """
        )
    )


def test_threads_may_import_at_once(install: str) -> None:
    python(
        f"{install}"
        + textwrap.dedent(
            """
            import importlib
            from concurrent.futures import ThreadPoolExecutor
            names = ["db", "core.qm", "core.sm", "domain.models", "adapters.inmemory", "queries"]
            def load(i):
                name = names[i % len(names)]
                package = ("pgqueuer", "pgq_fast")[i // len(names) % 2]
                return name, id(importlib.import_module(f"{package}.{name}"))
            with ThreadPoolExecutor(8) as threads:
                loaded = set(threads.map(load, range(48)))
            assert len(loaded) == len(names), loaded
            """
        )
    )
