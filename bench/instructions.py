"""How many instructions the compiled kernels take, held against a committed baseline.

    make instructions                 compare; 1 if a kernel takes more than the tolerance allows
    make instructions-update          make what is counted now the baseline

Callgrind counts on fixed input, so the machine may be busy meanwhile and the figures do not change:
two runs agree to the instruction. They do depend on what made and runs the kernels. The baseline
has one entry for each Python version and processor, with its toolchain. With another toolchain
nothing can be said: the counts are printed with a line that tells what differs, and the command
ends well. Fewer instructions than in the baseline end well too, and are worth an update.

They depend on addresses as well: two attributes that share an entry of the interpreter's cache of
types are searched for in every class each time, and whether they do differs from one folder to the
next. So a kernel that takes too much is counted again with its memory laid out otherwise, and the
least counts.

An update is made from a clean build, and is a change of its own in the history: what it allows is
seen there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from counted import CALLS, NOTHING
from kernel_inputs import ITEMS
from servers import BenchError

HERE: Final = Path(__file__).resolve().parent
BASELINE: Final = HERE / "instructions.json"
# Part by which a count may exceed its baseline. A kernel that is new or gone moves the counts of
# others, as memory lies elsewhere: by 1 % or so.
TOLERANCE: Final = 0.03
# Layouts of the memory that are tried, of which the first is how it comes. In one of sixty, reading
# the fields of a job took 9 % more.
LAYOUTS: Final = 3
# Seconds after which valgrind counts as hanging; it takes about ten.
PATIENCE: Final = 300
# Of a file of callgrind's: the name that the dump was asked for with, and what was counted.
LABEL: Final = re.compile(r"^desc: Trigger: Client Request: (.+)$", re.MULTILINE)
TOTAL: Final = re.compile(r"^totals: (\d+)$", re.MULTILINE)

Counts = Mapping[str, int]


def first_line(command: Sequence[str]) -> str:
    """What a command says of itself.

    Raises:
        BenchError: It is not there.
    """
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(f"{command[0]} cannot be run, and is needed: {error}") from error
    return said.splitlines()[0]


def compiler() -> list[str]:
    """The C compiler that setuptools takes for the kernels."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def processor() -> str:
    """The machine's kind, and the vector instructions that valgrind has its programs see.

    The C library chooses its functions by them.
    """
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        flags = None
    known = set(flags[1].split()) if flags else set()
    return " ".join([platform.machine(), *sorted(known & {"avx", "avx2"})])


def toolchain() -> dict[str, str]:
    """Everything but the code that the counts depend on.

    Raises:
        BenchError: valgrind or the compiler is missing.
    """
    if shutil.which("valgrind") is None:
        raise BenchError("valgrind is not installed: on Debian, apt-get install valgrind")
    return {
        "python": platform.python_version(),
        "processor": processor(),
        "python_compiler": platform.python_compiler(),
        "compiler": first_line([compiler()[0], "--version"]),
        "flags": os.environ.get("CFLAGS", ""),
        "cython": version("Cython"),
        "libc": " ".join(platform.libc_ver()),
        "valgrind": first_line(["valgrind", "--version"]),
    }


def count(layout: int = 0) -> Counts:
    """Instructions of a call of each kernel, on ``ITEMS`` items.

    Args:
        layout: One of ``LAYOUTS``: where in memory the names lie that the kernels look up.

    Raises:
        BenchError: It cannot be counted here; the message has the reason.
    """
    with tempfile.TemporaryDirectory(prefix="pgq-fast-instructions-") as name:
        folder = Path(name)
        library = folder / "requests.so"
        source = HERE / "callgrind_requests.c"
        run([*compiler(), "-shared", "-fPIC", "-O1", "-o", str(library), str(source)])
        program = [sys.executable, str(HERE / "counted.py"), str(library), str(layout)]
        # Else a first run would differ, in which the modules are compiled.
        run(program)
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
        run([*valgrind, f"--callgrind-out-file={folder / 'counted'}", *program])
        files = [file.read_text() for file in folder.glob("counted.*")]
    totals = {
        label[1]: int(total[1])
        for file in files
        if (label := LABEL.search(file)) and (total := TOTAL.search(file))
    }
    if NOTHING not in totals or len(totals) < 2:
        raise BenchError(f"callgrind has counted nothing: {sorted(totals)}")
    overhead = totals.pop(NOTHING)
    return {name: round((total - overhead) / CALLS) for name, total in sorted(totals.items())}


def run(command: Sequence[str]) -> None:
    """Run it, the kernels compiled and nothing left to chance.

    Raises:
        BenchError: It failed, or hangs.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PGQUEUER_", "PGQ_FAST_", "PYTHON"))
    }
    environment |= {
        "PGQ_FAST_IMPL": "c",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(HERE.parent),
        # Plugins run code of their own where models are made.
        "PYDANTIC_DISABLE_PLUGINS": "1",
    }
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"cannot count: {error}") from error
    if done.returncode:
        raise BenchError(f"{shlex.join(command)}:\n{done.stderr.strip()[-2000:]}")


# ------------------------------------------------------------------------------ the baseline


def place(tools: Mapping[str, str]) -> str:
    """Which entry of the baseline a toolchain has: one for each Python version and processor."""
    return f"{'.'.join(tools['python'].split('.')[:2])} on {tools['processor']}"


def read_baseline(path: Path) -> dict[str, Any]:
    """All entries; none where there is no file."""
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def differences(tools: Mapping[str, str], entry: Mapping[str, Any] | None) -> list[str]:
    """Why a baseline cannot be compared with; empty if it can."""
    if entry is None:
        return [f"there is no baseline for Python {place(tools)}"]
    before = entry["toolchain"]
    return [
        f"{name} is {tools.get(name)!r}, and {before.get(name)!r} in the baseline"
        for name in sorted({*tools, *before})
        if tools.get(name) != before.get(name)
    ]


def faults(counts: Counts, before: Counts, tolerance: float) -> list[str]:
    """What is wrong: kernels that take more, and kernels that are in one of the two only."""
    found = [f"{name}: not in the baseline" for name in counts.keys() - before.keys()]
    found += [f"{name}: in the baseline only" for name in before.keys() - counts.keys()]
    for name in counts.keys() & before.keys():
        if counts[name] > before[name] * (1 + tolerance):
            part = counts[name] / before[name] - 1
            found.append(f"{name}: {part:+.1%} instructions, {tolerance:.0%} is tolerated")
    return sorted(found)


def least(counts: Counts, others: Counts) -> Counts:
    """The lower count of each kernel of *counts*."""
    return {name: min(value, others.get(name, value)) for name, value in counts.items()}


def table(counts: Counts, before: Counts) -> str:
    """Instructions an item, beside those of the baseline."""
    lines = [f"{'instructions an item':32} {'now':>10} {'baseline':>10}"]
    for name, value in counts.items():
        line = f"{name:32} {value / ITEMS:10,.1f}"
        if name in before:
            line += f" {before[name] / ITEMS:10,.1f} {value / before[name] - 1:+8.2%}"
        lines.append(line)
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", action="store_true", help="write the baseline")
    parser.add_argument("--baseline", metavar="FILE", type=Path, default=BASELINE)
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help=f"a part; default: {TOLERANCE}"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Count and compare, or write; 1 for more instructions, 2 where it cannot be counted."""
    options = parse(arguments)
    baseline = read_baseline(options.baseline)
    try:
        tools = toolchain()
        entry = baseline.get(place(tools))
        comparable = entry is not None and not differences(tools, entry)
        counts = count()
        for layout in range(1, LAYOUTS):
            if options.update or (
                comparable and faults(counts, entry["counts"], options.tolerance)
            ):
                counts = least(counts, count(layout))
    except BenchError as error:
        print(f"instructions.py: {error}", file=sys.stderr)
        return 2
    print(table(counts, entry["counts"] if entry else {}))
    if options.update:
        baseline[place(tools)] = {"toolchain": tools, "counts": counts}
        text = json.dumps(baseline, indent=2, sort_keys=True)
        options.baseline.write_text(text + "\n", encoding="utf-8")
        print(f"{place(tools)}: written to {options.baseline.name}")
        return 0
    if why := differences(tools, entry):
        print(*(f"NOT COMPARED: {reason}" for reason in why), sep="\n")
        return 0
    assert entry is not None
    wrong = faults(counts, entry["counts"], options.tolerance)
    print(*(f"FAILED: {fault}" for fault in wrong), sep="\n", end="\n" if wrong else "")
    if wrong:
        print("if that is meant: make instructions-update, and commit what it writes")
        return 1
    print(f"{len(counts)} kernels, each within {options.tolerance:.0%} of the baseline, or below")
    return 0


if __name__ == "__main__":
    sys.exit(main())
