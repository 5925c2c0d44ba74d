"""Builds what is published, for this machine, and tries it: ``python .ci/wheels.py --help``.

0. cibuildwheel.toml, which builds them for all platforms, has wheels for exactly those.
1. An sdist, compared with the files that git tracks.
2. From the sdist and nothing else, a wheel for each Python and the pure-Python wheel. On Linux a
   compiled wheel is repaired: it gets the lowest manylinux tag that its symbols allow.
3. Each wheel is looked into: exactly the tracked files of the packages and a compiled module a
   kernel, without debug information and without paths of the machine that built it.
4. Each is installed into an environment of its own in which no compiler can be found, and tried
   there: the kernel tests, and jobs through an embedded PostgreSQL with asyncpg, or through the
   server that PGQ_TEST_DSN names, for a Python that has no embedded one.

What it makes is left in dist/. Needs the extra ``wheels``; the wheels' Pythons need pip alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pgq_fast", "pgq_fast_ext")
# Beside the packages in an sdist; setup.cfg is setuptools' own.
TOP = {
    *("CHANGELOG.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md"),
    *("SECURITY.md", "pyproject.toml", "setup.cfg", "setup.py"),
}
KERNEL_SOURCES = (".pyx", ".pxd")
COMPILED = (".so", ".pyd")
BUILD_VARIABLES = ("PGQ_FAST_NO_EXTENSIONS", "PGQ_FAST_LINE_TRACING", "PGQ_FAST_SANITIZE")
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "cl", "x86_64-linux-gnu-gcc", "tcc")
# What cibuildwheel.toml is for.
PLATFORMS = {
    ("linux", "x86_64,aarch64"): (
        *("manylinux_x86_64", "manylinux_aarch64"),
        *("musllinux_x86_64", "musllinux_aarch64"),
    ),
    ("macos", "x86_64,arm64"): ("macosx_x86_64", "macosx_arm64"),
    ("windows", "AMD64"): ("win_amd64",),
}
SUPPORTED = ("3.11", "3.12", "3.13", "3.14", "3.15")
JOBS = 2000
# What cibuildwheel.toml installs for the same tests.
TEST_REQUIREMENTS = ("pytest>=8.2", "hypothesis>=6.100", "httpx>=0.27")


Command: TypeAlias = Sequence[str | Path]


class CheckFailedError(Exception):
    """A command failed, or something is not as it must be."""


def run(command: Command, *, cwd: Path, **variables: str | None) -> str:
    """Run *command* in *cwd* with *variables* on top of the environment; None removes one.

    Raises:
        CheckFailedError: It failed; the message has what it printed.
    """
    environment = {**os.environ, **{name: value or "" for name, value in variables.items()}}
    for name in [name for name, value in variables.items() if value is None]:
        environment.pop(name, None)
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        raise CheckFailedError(f"{' '.join(map(str, command))}:\n{result.stdout}")
    return result.stdout


def require_equal(what: str, found: Iterable[str], expected: Iterable[str]) -> None:
    """Both name the same files.

    Raises:
        CheckFailedError: They do not.
    """
    extra, missing = set(found) - set(expected), set(expected) - set(found)
    if extra or missing:
        raise CheckFailedError(
            f"{what} is not what git tracks: {sorted(extra)} too many, {sorted(missing)} missing"
        )


def tracked() -> set[str]:
    """The files of the packages, as git has them."""
    return set(run(["git", "ls-files", "-z", *PACKAGES], cwd=ROOT).strip("\0").split("\0"))


def check_platforms() -> None:
    """cibuildwheel understands its settings, and makes a wheel of each Python for each platform.

    Raises:
        CheckFailedError: It does not.
    """
    for (platform, archs), tags in PLATFORMS.items():
        command: Command = [
            sys.executable,
            "-m",
            "cibuildwheel",
            "--platform",
            platform,
            "--archs",
            archs,
        ]
        file = ROOT / "cibuildwheel.toml"
        options: Command = ["--print-build-identifiers", "--config-file", file, ROOT]
        found = run([*command, *options], cwd=ROOT).split()
        expected = [f"cp{version.replace('.', '')}-{tag}" for version in SUPPORTED for tag in tags]
        if sorted(found) != sorted(expected):
            raise CheckFailedError(f"cibuildwheel has {found} for {platform}, not {expected}")


# ------------------------------------------------------------------------------------ building


def build_sdist(output: Path, files: set[str]) -> Path:
    """The sdist of the repository, with *files* in its packages."""
    scratch = output / "sdist"
    run(
        [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", scratch, ROOT],
        cwd=output,
        **dict.fromkeys(BUILD_VARIABLES),
    )
    (sdist,) = scratch.iterdir()
    with tarfile.open(sdist) as archive:
        names = [member.name.partition("/")[2] for member in archive if member.isfile()]
    content = [name for name in names if not name.startswith("pgq_fast.egg-info/")]
    require_equal(sdist.name, content, files | TOP)
    return sdist


def build_wheel(python: Path, sdist: Path, output: Path, variables: Mapping[str, str]) -> Path:
    """The wheel that *python* builds of *sdist*, isolated from everything else."""
    command: Command = [python, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps"]
    alone: dict[str, str | None] = {**dict.fromkeys(BUILD_VARIABLES), "CFLAGS": None}
    if sys.platform == "linux":
        # A Python compiled at home has its own folder searched for libraries, here and on every
        # machine that the wheel comes to.
        alone["LDSHARED"] = f"{os.environ.get('CC', 'cc')} -shared"
    run([*command, "--wheel-dir", output, sdist], cwd=output.parent, **{**alone, **variables})
    (wheel,) = output.glob("*.whl")
    return wheel


def repair(wheel: Path, output: Path) -> Path:
    """The same wheel with a tag that says on which Linux it runs; as it is elsewhere."""
    if sys.platform != "linux":
        return wheel
    tools = Path(sys.executable).parent
    run(
        [tools / "auditwheel", "repair", "--plat", "auto", "--wheel-dir", output, wheel],
        cwd=output.parent,
        PATH=f"{tools}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    )
    (repaired,) = output.glob("*.whl")
    if "manylinux" not in repaired.name and "musllinux" not in repaired.name:
        raise CheckFailedError(f"{repaired.name} runs on this machine only")
    return repaired


# -------------------------------------------------------------------------------- looking into


def check_content(wheel: Path, files: set[str], *, pure: bool) -> None:
    """The wheel has *files* less the kernels' sources, and the compiled kernels unless *pure*."""
    kernels = {name.removesuffix(".pyx") for name in files if name.endswith(".pyx")}
    with zipfile.ZipFile(wheel) as archive:
        # Repaired wheels have entries for folders too.
        names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        content = {name for name in names if ".dist-info/" not in name}
        compiled = {name for name in content if name.endswith(COMPILED)}
        for name in compiled:
            check_binary(f"{wheel.name}: {name}", archive.read(name))
    expected = {name for name in files if not name.endswith(KERNEL_SOURCES)}
    require_equal(wheel.name, content - compiled, expected)
    stems = [name.split(".")[0] for name in compiled]
    require_equal(f"{wheel.name}, compiled,", stems, set() if pure else kernels)
    if pure != wheel.name.endswith("-py3-none-any.whl"):
        raise CheckFailedError(f"{wheel.name} has the tag of the other kind of wheel")


def check_binary(name: str, data: bytes) -> None:
    """An ELF file has no debug information, no names for debuggers and no search path.

    Raises:
        CheckFailedError: It has.
    """
    if not data.startswith(b"\x7fELF"):
        return
    # It comes with auditwheel, which is there on Linux only.
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile

    sections = list(ELFFile(BytesIO(data)).iter_sections())
    unwanted = [
        section.name
        for section in sections
        if section.name.startswith((".debug", ".zdebug")) or section.name == ".symtab"
    ]
    paths = [
        tag.entry.d_tag
        for section in sections
        if isinstance(section, DynamicSection)
        for tag in section.iter_tags()
        if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH")
    ]
    if unwanted or paths:
        raise CheckFailedError(f"{name} has {unwanted + paths}")


# -------------------------------------------------------------------------------------- trying


def try_wheel(python: Path, wheel: Path, folder: Path, *, pure: bool) -> str:
    """What the kernel tests and the demo printed, in an environment of *wheel* alone."""
    environment = folder / "venv"
    run([python, "-m", "venv", environment], cwd=folder)
    scripts = environment / ("Scripts" if sys.platform == "win32" else "bin")
    own = scripts / "python"
    alone: dict[str, str | None] = {
        "PATH": str(scripts),
        **dict.fromkeys(("CC", "PYTHONPATH", "PGQ_FAST_IMPL")),
        # What is installed here is not kept.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if found := [name for name in COMPILERS if shutil.which(name, path=str(scripts))]:
        raise CheckFailedError(f"{found} can be found in {scripts}")
    pip: Command = [
        own,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--no-compile",
        "--quiet",
    ]
    dsn = os.environ.get("PGQ_TEST_DSN")
    extra = "asyncpg" if dsn else "demo"
    # The wheel's dependencies must do without a compiler too.
    requirements = [f"pgq-fast[{extra},fastapi] @ {wheel.as_uri()}", *TEST_REQUIREMENTS]
    run([*pip, "--only-binary=:all:", *requirements], cwd=folder, **alone)
    implementations = ["python"] if pure else ["c", "python"]
    printed = run([own, ROOT / ".ci" / "installed.py", *implementations], cwd=folder, **alone)
    server = ["--dsn", dsn] if dsn else []
    demo: Command = [scripts / "pgq", "demo", "--jobs", str(JOBS), *server]
    return printed + run(demo, cwd=folder, **alone)


# -------------------------------------------------------------------------------------- running


def find_pythons() -> list[Path]:
    """An interpreter of each supported version: this one, those on PATH, those of pyenv."""
    candidates = [Path(sys.executable)]
    candidates += [Path(path) for v in SUPPORTED if (path := shutil.which(f"python{v}"))]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates += sorted(pyenv.glob("versions/3.*/bin/python"))
    found: dict[str, Path] = {}
    for candidate in candidates:
        if (version := version_of(candidate)) in SUPPORTED:
            found.setdefault(version, candidate)
    return list(found.values())


def version_of(python: Path) -> str | None:
    """``3.13`` and the like; None where it cannot build a wheel and try it."""
    code = "import sys, pip, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def make(python: Path, sdist: Path, files: set[str], folder: Path, *, pure: bool) -> Path:
    """Build a wheel with *python*, look into it and try it."""
    began = time.monotonic()
    for name in ("built", "repaired"):
        (folder / name).mkdir(parents=True)
    variables = {"PGQ_FAST_NO_EXTENSIONS": "1"} if pure else {}
    wheel = build_wheel(python, sdist, folder / "built", variables)
    if not pure:
        wheel = repair(wheel, folder / "repaired")
    check_content(wheel, files, pure=pure)
    printed = try_wheel(python, wheel, folder, pure=pure)
    print(f"== {wheel.name} ({time.monotonic() - began:.0f} s)\n{printed}", flush=True)
    return wheel


def describe(file: Path) -> str:
    """Name and size, and of what is compiled how much the size is unpacked."""
    text = f"{file.stat().st_size / 1024:8.0f} KiB  {file.name}"
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as archive:
            kernels = [e.file_size for e in archive.infolist() if e.filename.endswith(COMPILED)]
        if kernels:
            text += f"  (kernels {sum(kernels) / 1024:.0f} KiB unpacked)"
    return text


def main() -> int:
    """Build and try everything; 1 if something is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pythons", nargs="*", type=Path, help="interpreters; default: this one")
    parser.add_argument("--found", action="store_true", help="one of each version that is found")
    arguments = parser.parse_args()
    pythons = [path.absolute() for path in arguments.pythons]
    if arguments.found:
        pythons += find_pythons()
    pythons = pythons or [Path(sys.executable)]
    target = ROOT / "dist"
    with tempfile.TemporaryDirectory(prefix="pgq-fast-wheels-") as name:
        folder = Path(name)
        try:
            check_platforms()
            files = tracked()
            sdist = build_sdist(folder, files)
            with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
                tasks = [
                    pool.submit(make, python, sdist, files, folder / str(number), pure=pure)
                    for number, (python, pure) in enumerate(
                        [*((python, False) for python in pythons), (pythons[0], True)]
                    )
                ]
                wheels = [task.result() for task in tasks]
        except CheckFailedError as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
        target.mkdir(exist_ok=True)
        kept = [Path(shutil.copy(file, target)) for file in (sdist, *wheels)]
    print("\n".join(map(describe, kept)))
    print(f"{len(kept)} files in {target.name}/: built, compared and tried")
    return 0


if __name__ == "__main__":
    sys.exit(main())
