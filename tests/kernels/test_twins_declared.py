"""The twins look the same from outside, and the stubs tell the truth about the compiled one."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pgq_fast_ext
from kernels.twins import PURE, TWINS

pytestmark = pytest.mark.impl_agnostic

STUBS = Path(pgq_fast_ext.__file__).parent


def functions(module: ModuleType) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", None) == module.__name__
        and not isinstance(value, type)
    }


def constants(module: ModuleType) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, int) and not name.startswith("_")
    }


def shape(function: Any) -> list[tuple[str, Any, Any]]:
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
    ]


def declared(path: Path) -> dict[str, str]:
    """The public functions of a file, each as the text of its annotated signature."""
    return {
        node.name: f"({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}"
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.returns
    }


@pytest.mark.skipif(TWINS == (PURE,), reason="an installation that is declared to have none")
def test_the_compiled_kernels_are_compiled() -> None:
    (compiled,) = [twin for twin in TWINS if twin.name == "c"]
    for module in (compiled.codec, compiled.notify):
        assert module.__file__ is not None
        assert not module.__file__.endswith(".py")


@pytest.mark.parametrize("kernel", ["codec", "notify"])
@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_same_names_signatures_and_docstrings(twin: Any, kernel: str) -> None:
    ours, reference = getattr(twin, kernel), getattr(PURE, kernel)
    assert functions(ours).keys() == functions(reference).keys()
    assert functions(reference)
    for name, function in functions(ours).items():
        twin_function = functions(reference)[name]
        assert shape(function) == shape(twin_function), name
        assert inspect.getdoc(function) == inspect.getdoc(twin_function), name
    assert constants(ours) == constants(reference)


@pytest.mark.parametrize("kernel", ["codec", "notify"])
def test_stub_declares_what_the_pure_twin_does(kernel: str) -> None:
    pure = Path(str(getattr(PURE, kernel).__file__))
    assert declared(STUBS / f"{kernel}.pyi") == declared(pure)


def test_every_kernel_has_a_stub() -> None:
    # An installation has the stubs, and none of what they are compiled from.
    sources = Path(__file__).parents[2] / "pgq_fast_ext"
    assert {path.stem for path in sources.glob("*.pyx")} == {
        path.stem for path in STUBS.glob("*.pyi")
    }
