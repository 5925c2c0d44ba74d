"""What ``import pgq_fast`` takes, beside what it cannot do without, and what the first queue adds.

    python bench/imports.py
    python bench/imports.py --repeat 30 --modules 20 --python .venv-3.11/bin/python

Each import has an interpreter of its own; the programs go in turn. What a process needs only once
it has a queue is imported with that: a driver, and pydantic-settings, which reads the environment.
``PYDANTIC_DISABLE_PLUGINS`` is set, as plugins that happen to be installed are not the package's.

``--modules`` lists the slowest modules as well, from ``-X importtime``: of each the shortest of its
times, without the modules that it imports itself. What else the machine does can only add.
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
from typing import Any, Final

import facts
from options import add_kept, positive_int
from recording import Recording, print_chart
from servers import BenchError

ROOT: Final = Path(__file__).resolve().parents[1]
REPEAT: Final = 20

PROGRAMS: Final = {
    "asyncio and a pydantic model": """
import asyncio
from pydantic import BaseModel
class Model(BaseModel, defer_build=True):
    number: int
""",
    "pgq_fast": "import pgq_fast",
    "pgq_fast and its first queue": """
import pgq_fast
from pgq_fast.db import AsyncpgDriver
from pgq_fast.settings import db_settings
db_settings()
""",
    "pgqueuer": "import pgqueuer",
}
# What an interpreter has imported before anything is asked of it is not counted.
TIMED: Final = """
import sys, time
began = time.perf_counter()
exec(sys.argv[1])
print((time.perf_counter() - began) * 1e3)
"""
VERSION: Final = "import platform; print(platform.python_version())"

LINE: Final = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \| +(\S+)$", re.MULTILINE)
LISTED: Final = "import sys; sys.stderr.write('-- begin\\n'); import pgq_fast"


def run(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """An interpreter with *arguments*, run to its end.

    Raises:
        BenchError: It fails.
    """
    environment = {**os.environ, "PYDANTIC_DISABLE_PLUGINS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [python, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchError(f"{python}: {done.stderr.strip().splitlines()[-1]}")
    return done


def measure(pythons: Sequence[str], repeat: int) -> dict[str, Any]:
    """The chart: milliseconds of each program, on each interpreter."""
    runs: dict[tuple[str, str], list[float]] = {
        (python, program): [] for python in pythons for program in PROGRAMS
    }
    # The first one compiles what is not compiled yet.
    for number in range(repeat + 1):
        for (python, program), found in runs.items():
            taken = float(run(python, "-c", TIMED, PROGRAMS[program]).stdout)
            if number:
                found.append(round(taken, 1))
    return {
        "name": "import",
        "title": "From the first line of a program to the end of its imports: milliseconds",
        "x": "",
        "y": "ms",
        "categories": True,
        "series": [
            {
                "label": f"Python {run(python, '-c', VERSION).stdout.strip()}",
                "points": [
                    {"x": program, "settings": "", "runs": runs[python, program]}
                    for program in PROGRAMS
                ],
            }
            for python in pythons
        ],
        "missing": [],
    }


def module_times(python: str) -> dict[str, float]:
    """Milliseconds of each module that one import of the package has brought."""
    _, _, counted = run(python, "-X", "importtime", "-c", LISTED).stderr.partition("-- begin\n")
    return {name: int(microseconds) / 1e3 for microseconds, name in LINE.findall(counted)}


def shortest(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The shortest time of each module that all runs have imported."""
    names = set.intersection(*(set(times) for times in runs))
    return {name: min(times[name] for times in runs) for name in names}


def by_package(times: Mapping[str, float]) -> dict[str, float]:
    """The same for what is outside of the standard library, which is one."""
    found: defaultdict[str, float] = defaultdict(float)
    for name, milliseconds in times.items():
        package = name.partition(".")[0]
        standard = package in sys.stdlib_module_names or package.startswith("_")
        found["the standard library" if standard else package] += milliseconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def print_modules(python: str, repeat: int, most: int) -> None:
    """Whose time an import is."""
    times = shortest([module_times(python) for _ in range(repeat)])
    print(f"\n{python}: {sum(times.values()):.0f} ms, {len(times)} modules")
    for package, milliseconds in by_package(times).items():
        print(f"{milliseconds:8.1f} ms  {package}")
    print(f"\nthe slowest {most} modules")
    for name, milliseconds in sorted(times.items(), key=lambda item: -item[1])[:most]:
        print(f"{milliseconds:8.1f} ms  {name}")


def main() -> int:
    """Run; 1 for an error that is explained."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=positive_int, default=REPEAT, help=f"default: {REPEAT}")
    parser.add_argument(
        "--python", action="append", help="may be given several times; default: this one"
    )
    parser.add_argument("--modules", type=int, help="list as many of them; default: none")
    add_kept(parser)
    options = parser.parse_args()
    options.scale = 1.0
    pythons = options.python or [sys.executable]
    try:
        recording = Recording("imports", options)
        about = facts.without_server()
        facts.print_facts(about)
        found = measure(pythons, options.repeat)
        print_chart(found)
        for python in pythons if options.modules else ():
            print_modules(python, options.repeat, options.modules)
    except BenchError as error:
        print(f"imports.py: {error}", file=sys.stderr)
        return 1
    recording.keep(recording.document(about, charts=[found]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
