"""Tests an installed pgq_fast from outside: ``python .ci/installed.py c python``.

The arguments are the implementations that the installation must have, the one that is taken unless
another is asked for first; what is not named must be missing. With each one the package is
imported and the kernel tests of this repository run, those that need no PostgreSQL. Needs pytest,
hypothesis, httpx and the extra ``fastapi``, and no compiler.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMPLEMENTATIONS = ("c", "python")
# Inputs that each test tries: many are tried elsewhere, and these see that the installation works.
EXAMPLES = "20"
PACKAGES = ("pgq_fast", "pgq_fast_ext")

FACTS = """
import pgq_fast
from pgq_fast import _impl
print(pgq_fast.__impl__)
print(_impl.codec.__file__)
print(_impl.notify.__file__)
"""
# Without the settings in pyproject.toml, which are for more plugins than these tests need, and
# without the fixtures of the other tests, which are for databases.
KERNEL_TESTS = [
    *("-m", "pytest", "-q", "-p", "no:cacheprovider", "--override-ini=addopts="),
    *(f"--rootdir={ROOT}", f"--confcutdir={ROOT / 'tests' / 'kernels'}"),
    *(f"--override-ini=pythonpath={ROOT / 'tests'}", "-W", "ignore::pytest.PytestConfigWarning"),
    f"--ignore={ROOT / 'tests' / 'kernels' / 'test_on_server.py'}",
    str(ROOT / "tests" / "kernels"),
]


def python(arguments: list[str], implementation: str, folder: str, *, capture: bool) -> str:
    """Run this interpreter in *folder*, which is not the repository.

    Raises:
        SystemExit: It failed.
    """
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables.setdefault("PGQ_TEST_FUZZ_EXAMPLES", EXAMPLES)
    result = subprocess.run(
        [sys.executable, *arguments],
        env={**variables, "PGQ_FAST_IMPL": implementation},
        cwd=folder,
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if result.returncode:
        raise SystemExit(f"PGQ_FAST_IMPL={implementation}: exit status {result.returncode}")
    return result.stdout or ""


def check_import(asked: str, expected: str, folder: str) -> None:
    """The implementation *asked* for is *expected*, and none of it comes from the repository.

    Raises:
        SystemExit: It is another one, or it was loaded from where it should not be.
    """
    found, *files = python(["-c", FACTS], asked, folder, capture=True).splitlines()
    endings = (".so", ".pyd") if expected == "c" else (".py",)
    if found != expected or not all(name.endswith(endings) for name in files):
        raise SystemExit(f"PGQ_FAST_IMPL={asked!r} loads {found!r} from {files}, not {expected!r}")
    if any(Path(name).is_relative_to(ROOT / package) for name in files for package in PACKAGES):
        raise SystemExit(f"{files} are the repository's, not those of an installation")
    print(f"PGQ_FAST_IMPL={asked!r}: {found!r} from {Path(files[0])}", flush=True)


def check_missing(implementation: str, folder: str) -> None:
    """Asking for *implementation* is an error.

    Raises:
        SystemExit: It is there.
    """
    result = subprocess.run(
        [sys.executable, "-c", "import pgq_fast"],
        env={**os.environ, "PGQ_FAST_IMPL": implementation},
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if result.returncode == 0 or "MissingImplementationError" not in result.stderr:
        raise SystemExit(f"PGQ_FAST_IMPL={implementation} should be missing: {result.stderr!r}")


def main() -> None:
    """Check what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("implementations", nargs="+", choices=IMPLEMENTATIONS)
    implementations = parser.parse_args().implementations
    with tempfile.TemporaryDirectory() as folder:
        check_import("", implementations[0], folder)
        for implementation in IMPLEMENTATIONS:
            if implementation in implementations:
                check_import(implementation, implementation, folder)
            else:
                check_missing(implementation, folder)
        # The tests compare every implementation that there is.
        python(KERNEL_TESTS, implementations[0], folder, capture=False)
        if implementations[1:]:
            # What is about the implementation in use, with the other one.
            arguments = [*KERNEL_TESTS, "-m", "not impl_agnostic"]
            python(arguments, implementations[1], folder, capture=False)


if __name__ == "__main__":
    main()
