from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pgq_fast.errors import PgqException
from pgq_fast.factories import load_factory, validate_factory_result

pytestmark = pytest.mark.impl_agnostic


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory; modules imported from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def test_a_function_is_its_own_factory() -> None:
    def factory(*args: object) -> object:
        return args

    before = list(sys.path)
    assert load_factory(factory) is factory
    assert sys.path == before


def test_a_path_is_imported_from_the_current_directory(here: Path) -> None:
    (here / "shop_worker.py").write_text("def create(*args):\n    return args\n")
    factory = load_factory("shop_worker:create")
    assert factory("a", "b") == ("a", "b")


def test_loading_twice_searches_the_directory_once(here: Path) -> None:
    (here / "shop_worker.py").write_text("def create(): ...\n")
    load_factory("shop_worker:create")
    load_factory("shop_worker:create")
    assert sys.path.count(os.getcwd()) == 1


def test_submodules_can_be_named(here: Path) -> None:
    (here / "shop").mkdir()
    (here / "shop" / "worker.py").write_text("class Create: ...\n")
    assert load_factory("shop.worker:Create").__module__ == "shop.worker"


@pytest.mark.parametrize("text", ["shop_worker", "", ":", "shop_worker:", ":create"])
def test_a_text_without_both_parts_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="'module:function'") as caught:
        load_factory(text)
    assert repr(text) in str(caught.value)
    assert isinstance(caught.value, PgqException)


def test_what_is_missing_is_named(here: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_worker"):
        load_factory("no_such_worker:create")
    (here / "shop_worker.py").write_text("create = 3\n")
    with pytest.raises(AttributeError, match="destroy"):
        load_factory("shop_worker:destroy")
    with pytest.raises(TypeError, match="'shop_worker:create' is a int"):
        load_factory("shop_worker:create")


def test_a_context_manager_is_accepted() -> None:
    @contextlib.asynccontextmanager
    async def factory() -> AsyncIterator[int]:
        yield 3

    made = factory()
    assert validate_factory_result(made) is made


def test_any_object_that_can_be_entered_is_accepted() -> None:
    class Entered:
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *_: object) -> None: ...

    made = Entered()
    assert validate_factory_result(made) is made


async def _coroutine() -> None: ...


async def _generator() -> AsyncIterator[int]:
    yield 3


@pytest.mark.parametrize(
    ("make", "kind"),
    [(_coroutine, "coroutine"), (_generator, "async_generator"), (dict, "dict")],
)
def test_other_results_are_refused_with_an_example(make: type, kind: str) -> None:
    with warnings.catch_warnings():
        # A coroutine that is thrown away would warn that it was never awaited.
        warnings.simplefilter("error")
        with pytest.raises(TypeError, match=rf"returned a {kind}") as caught:
            validate_factory_result(make())
    assert "@contextlib.asynccontextmanager" in str(caught.value)
