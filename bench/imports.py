"""What ``import pgq_fast`` takes, and whose time that is.

    python bench/imports.py
    python bench/imports.py --runs 30 --modules 20 --python .venv-3.11/bin/python

Each run is an interpreter of its own under ``-X importtime``. Of each module the shortest of its
times counts, without the modules that it imports itself: what else the machine does can only add.
``PYDANTIC_DISABLE_PLUGINS`` is set, as plugins that happen to be installed are not the package's.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from options import positive_int

ROOT: Final = Path(__file__).resolve().parents[1]
RUNS: Final = 10
MODULES: Final = 10
LINE: Final = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \| +(\S+)$", re.MULTILINE)
# What an interpreter has imported before anything is asked of it is not counted.
PROGRAM: Final = "import sys; sys.stderr.write('-- begin\\n'); import pgq_fast"


def once(python: str) -> dict[str, float]:
    """Milliseconds of each module that one import of the package has brought.

    Raises:
        SystemExit: It cannot be imported.
    """
    environment = {**os.environ, "PYDANTIC_DISABLE_PLUGINS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [python, "-X", "importtime", "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"imports.py: {done.stderr.strip().splitlines()[-1]}")
    _, _, counted = done.stderr.partition("-- begin\n")
    return {name: int(microseconds) / 1e3 for microseconds, name in LINE.findall(counted)}


def shortest(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The shortest time of each module that all runs have imported."""
    names = set.intersection(*(set(run) for run in runs))
    return {name: min(run[name] for run in runs) for name in names}


def by_package(times: Mapping[str, float]) -> dict[str, float]:
    """The same for what is outside of the standard library, which is one."""
    found: defaultdict[str, float] = defaultdict(float)
    for name, milliseconds in times.items():
        package = name.partition(".")[0]
        standard = package in sys.stdlib_module_names or package.startswith("_")
        found["the standard library" if standard else package] += milliseconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=positive_int, default=RUNS, help=f"default: {RUNS}")
    parser.add_argument(
        "--modules", type=int, default=MODULES, help=f"the slowest; default: {MODULES}"
    )
    parser.add_argument("--python", default=sys.executable, help="default: this one")
    options = parser.parse_args()
    # The first one compiles what is not compiled yet.
    once(options.python)
    times = shortest([once(options.python) for _ in range(options.runs)])
    packages = by_package(times)
    print(f"import pgq_fast: {sum(times.values()):.0f} ms, {len(times)} modules")
    for package, milliseconds in packages.items():
        print(f"{milliseconds:8.1f} ms  {package}")
    print(f"\nthe slowest {options.modules} modules")
    for name, milliseconds in sorted(times.items(), key=lambda item: -item[1])[: options.modules]:
        print(f"{milliseconds:8.1f} ms  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
