"""A headless Chromium, as the machine has it: nothing is downloaded."""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRE_VARIABLE = "PGQ_TEST_REQUIRE_CHROMIUM"

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")

ARGUMENTS = (
    # Root, as in containers, has no sandbox; and a container's /dev/shm is small.
    *(("--no-sandbox",) if getattr(os, "geteuid", lambda: 1)() == 0 else ()),
    "--disable-dev-shm-usage",
    "--disable-gpu",
)


def chromium() -> str:
    """Path of the program. Without it the test is skipped, or fails where it is asked for."""
    program = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if program is not None:
        return program
    missing = "Chromium is not installed (Debian: apt-get install chromium)"
    if os.environ.get(REQUIRE_VARIABLE) == "1":
        pytest.fail(f"{missing}, and {REQUIRE_VARIABLE}=1 asks for it")
    pytest.skip(missing)
