"""Builds the compiled kernels; everything else about the package is in pyproject.toml.

Environment variables, each read at build time:

PGQ_FAST_NO_EXTENSIONS=1
    Build the pure-Python wheel. Without it, a kernel that does not compile fails the build.
PGQ_FAST_LINE_TRACING=1
    Kernels that report their lines to coverage and profilers. Slow.
PGQ_FAST_SANITIZE=address,undefined
    Kernels checked by these sanitizers of the C compiler (gcc and clang). To load the result,
    preload the sanitizer's runtime: ``LD_PRELOAD=$(gcc -print-file-name=libasan.so)``.
CFLAGS
    The C compiler's, as usual. With ``-g`` in it the kernels keep their debug information, which
    makes them six times as large; a Python that was itself compiled with it does not do that.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from setuptools import Extension, setup

ROOT = Path(__file__).parent
KERNELS = "pgq_fast_ext"


def flag(name: str) -> bool:
    """Whether the environment variable *name* is ``1``; anything but that, ``0`` or unset ends."""
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise SystemExit(f"{name}={value!r} is not understood: set it to 1, or leave it unset")
    return value == "1"


def without_debug_information() -> tuple[list[str], list[str]]:
    """Arguments of the compiler and of the linker that leave it out, where it is not wanted."""
    wanted = flag("PGQ_FAST_LINE_TRACING") or "-g" in os.environ.get("CFLAGS", "").split()
    if wanted or sys.platform == "win32":
        # Microsoft's compiler writes it to a file of its own.
        return [], []
    # Python's own -g comes first on the command line, and the last one counts. Apple's linker
    # needs no such argument: there the information stays in the object files.
    return ["-g0"], ["-Wl,--strip-all"] if sys.platform == "linux" else []


def extensions() -> list[Extension]:
    """One extension for each ``.pyx``; Cython runs when setuptools builds it."""
    if flag("PGQ_FAST_NO_EXTENSIONS"):
        return []
    macros: list[tuple[str, str | None]] = []
    compile_arguments, link_arguments = without_debug_information()
    if flag("PGQ_FAST_LINE_TRACING"):
        macros = [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")]
    if sanitizers := os.environ.get("PGQ_FAST_SANITIZE"):
        compile_arguments = [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-g", "-O1"]
        link_arguments = compile_arguments
    return [
        Extension(
            f"{KERNELS}.{source.stem}",
            [f"{KERNELS}/{source.name}"],
            define_macros=macros,
            extra_compile_args=compile_arguments,
            extra_link_args=link_arguments,
        )
        for source in sorted((ROOT / KERNELS).glob("*.pyx"))
    ]


# Bounds are checked by default: a kernel switches checks off where it proved the bounds itself.
directives: dict[str, Any] = {
    "language_level": 3,
    "boundscheck": True,
    "wraparound": True,
    "initializedcheck": True,
    "cdivision": False,
    "linetrace": flag("PGQ_FAST_LINE_TRACING"),
}

setup(
    ext_modules=extensions(),
    options={
        "build_ext": {
            # The build directory gets the generated C, not the source tree.
            "cython_c_in_temp": True,
            "cython_directives": directives,
            # The variables above change the result and no file: never reuse an older object.
            "force": True,
        }
    },
)
