"""Builds the compiled kernels; everything else about the package is in pyproject.toml.

Environment variables, each read at build time:

PGQ_FAST_NO_EXTENSIONS=1
    Build the pure-Python wheel. Without it, a kernel that does not compile fails the build.
PGQ_FAST_LINE_TRACING=1
    Kernels that report their lines to coverage and profilers. Slow.
PGQ_FAST_SANITIZE=address,undefined
    Kernels checked by these sanitizers of the C compiler (gcc and clang). To load the result,
    preload the sanitizer's runtime: ``LD_PRELOAD=$(gcc -print-file-name=libasan.so)``.
"""

from __future__ import annotations

import os
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


def extensions() -> list[Extension]:
    """One extension for each ``.pyx``; Cython runs when setuptools builds it."""
    if flag("PGQ_FAST_NO_EXTENSIONS"):
        return []
    macros: list[tuple[str, str | None]] = []
    arguments: list[str] = []
    if flag("PGQ_FAST_LINE_TRACING"):
        macros = [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")]
    if sanitizers := os.environ.get("PGQ_FAST_SANITIZE"):
        arguments = [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-g", "-O1"]
    return [
        Extension(
            f"{KERNELS}.{source.stem}",
            [f"{KERNELS}/{source.name}"],
            define_macros=macros,
            extra_compile_args=arguments,
            extra_link_args=arguments,
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
