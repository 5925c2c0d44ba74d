#!/usr/bin/env python3
"""Whether this environment has the versions of ``constraints.txt``, no others and nothing else.

Known vulnerabilities are looked up by version, so a list of versions is what an audit needs:
``pip-audit --requirement .ci/constraints.txt --no-deps`` asks a service of the network, which a run
of CI need not reach. ``--write`` makes the list anew from the environment.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

LIST = Path(__file__).with_name("constraints.txt")
# What builds and installs is not what the package depends on, and the package itself has no version
# to pin.
OWN = frozenset({"pgq-fast", "pip"})
# The same library, compiled on this machine or brought along.
EITHER = frozenset({"psycopg-binary", "psycopg-c"})
PYTHON = f"Python {sys.version_info.major}.{sys.version_info.minor}"
HEADER = (
    f"# The versions that the tests ran with. Written by: .ci/dependencies.py --write, {PYTHON}\n"
)


def normal(name: str) -> str:
    """*name* as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, importlib.metadata.Distribution]:
    """What is installed, by name."""
    found = {normal(each.name): each for each in importlib.metadata.distributions()}
    return {name: each for name, each in sorted(found.items()) if name not in OWN}


def line_of(name: str, distribution: importlib.metadata.Distribution) -> str:
    """The line of the list for a distribution, only for the Pythons that can have it."""
    pythons = distribution.metadata.get_all("Requires-Python") or [""]
    needs = re.fullmatch(r">=3\.(1[2-9])(\.\d+)?", pythons[0])
    marker = f'; python_version >= "3.{needs[1]}"' if needs else ""
    return f"{name}=={distribution.version}{marker}\n"


def listed(text: str) -> dict[str, str]:
    """The versions that the list *text* has for this Python, by name."""
    lines = re.findall(
        r"^([\w.-]+)==([^;\s]+)(?:; python_version >= \"3\.(\d+)\")?$", text, re.MULTILINE
    )
    return {
        normal(name): version
        for name, version, needs in lines
        if not needs or sys.version_info >= (3, int(needs))
    }


def main() -> int:
    """Write the list, or say where it and the environment differ."""
    found = installed()
    if sys.argv[1:] == ["--write"]:
        LIST.write_text(HEADER + "".join(line_of(*each) for each in found.items()))
        return 0
    text = LIST.read_text()
    wanted = listed(text)
    # Another Python may need more than the one that the list was made with.
    is_complete = PYTHON in text.partition("\n")[0]
    faults = [
        f"{name} is {each.version}, and the list says {wanted.get(name, 'nothing of it')}"
        for name, each in found.items()
        if (wanted[name] != each.version if name in wanted else is_complete and name not in EITHER)
    ]
    print(*faults, sep="\n", end="\n" if faults else "")
    print(f"{len(found)} distributions, {len(faults)} of them not as listed")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
