"""Which implementation is loaded, and what must not be built.

What is built, and what is in it, is looked at by ``make wheels``.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

import pgq_fast
from pgq_fast import _impl

ROOT = Path(__file__).resolve().parent.parent
CHOSEN = ("codec", "notify")
BUILD_VARIABLES = ("PGQ_FAST_NO_EXTENSIONS", "PGQ_FAST_LINE_TRACING", "PGQ_FAST_SANITIZE")


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run *code* in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_implementation_is_the_one_asked_for() -> None:
    asked = os.environ.get("PGQ_FAST_IMPL")
    assert pgq_fast.__impl__ == asked if asked else pgq_fast.__impl__ in ("c", "python")


@pytest.mark.parametrize("name", CHOSEN)
def test_the_modules_in_use_belong_to_the_implementation(name: str) -> None:
    module = getattr(_impl, name)
    origin = Path(module.__file__)
    if pgq_fast.__impl__ == "c":
        assert module.__name__ == f"pgq_fast_ext.{name}"
        assert origin.suffix in (".so", ".pyd")
    else:
        assert module.__name__ == f"pgq_fast._pure.{name}"
        assert origin.suffix == ".py"


@pytest.mark.parametrize("implementation", ["c", "python"])
def test_each_implementation_can_be_asked_for(implementation: str) -> None:
    result = python("import pgq_fast; print(pgq_fast.__impl__)", PGQ_FAST_IMPL=implementation)
    assert result.stdout.strip() == implementation, result.stderr


@pytest.mark.impl_agnostic
def test_unset_takes_the_compiled_one() -> None:
    result = python("import pgq_fast; print(pgq_fast.__impl__)", PGQ_FAST_IMPL="")
    assert result.stdout.strip() == "c", result.stderr


@pytest.mark.impl_agnostic
def test_an_unknown_implementation_is_an_error() -> None:
    result = python("import pgq_fast", PGQ_FAST_IMPL="fast")
    assert result.returncode != 0
    assert "MissingImplementationError" in result.stderr
    assert "'fast'" in result.stderr


WITHOUT_KERNELS = """
import sys

class NoKernels:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("pgq_fast_ext."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoKernels())
import pgq_fast
print(pgq_fast.__impl__)
"""


@pytest.mark.impl_agnostic
def test_asking_for_a_missing_extension_is_an_error() -> None:
    result = python(WITHOUT_KERNELS, PGQ_FAST_IMPL="c")
    assert result.returncode != 0
    assert "MissingImplementationError" in result.stderr


@pytest.mark.impl_agnostic
def test_without_the_extension_the_twins_are_taken() -> None:
    result = python(WITHOUT_KERNELS, PGQ_FAST_IMPL="")
    assert result.stdout.strip() == "python", result.stderr


# ------------------------------------------------------------------------------ distributions


def build(source: Path, target: Path, kind: str, variables: Mapping[str, str]) -> Path:
    """Build an ``sdist`` or a ``wheel`` of *source* into *target*."""
    plain = {name: value for name, value in os.environ.items() if name not in BUILD_VARIABLES}
    result = subprocess.run(
        [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", f"--outdir={target}"],
        env={**plain, **variables},
        cwd=source,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist", {})


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist's content: what is built from it comes from nothing else."""
    folder = tmp_path_factory.mktemp("source")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    return top


@pytest.mark.impl_agnostic
def test_a_kernel_that_does_not_compile_fails_the_build(unpacked: Path, tmp_path: Path) -> None:
    broken = unpacked / "pgq_fast_ext" / "broken.pyx"
    broken.write_text("cdef int f(:\n")
    try:
        with pytest.raises(AssertionError, match=r"broken\.pyx"):
            build(unpacked, tmp_path, "wheel", {})
    finally:
        broken.unlink()


@pytest.mark.impl_agnostic
def test_a_build_variable_with_another_value_is_refused(unpacked: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="PGQ_FAST_NO_EXTENSIONS='yes'"):
        build(unpacked, tmp_path, "wheel", {"PGQ_FAST_NO_EXTENSIONS": "yes"})


@pytest.mark.impl_agnostic
def test_the_version_has_one_source() -> None:
    from importlib.metadata import version

    assert importlib.util.find_spec("pgq_fast") is not None
    assert f'version = "{version("pgq-fast")}"' in (ROOT / "pyproject.toml").read_text()
