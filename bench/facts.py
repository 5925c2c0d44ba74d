"""What figures depend on: the machine, the server, the versions; and what to hold against them."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from servers import query

# Load average a CPU up to which a machine counts as idle.
IDLE: Final = 0.25
PACKAGES: Final = ("pgqueuer", "pgq_fast", "asyncpg", "psycopg", "pydantic", "uvloop")

SERVER_SETTINGS: Final = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_level",
    "wal_sync_method",
    "shared_buffers",
    "work_mem",
    "max_wal_size",
    "checkpoint_timeout",
    "autovacuum",
    "jit",
    "max_connections",
)


def processor() -> str:
    """The model of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """What the figures depend on, the server aside."""
    return {
        "cpu": processor(),
        "cpu_count": os.cpu_count(),
        "system": platform.platform(),
        # What else was going on when the run began.
        "load_average": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Python and the packages."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        found[name] = version(name.replace("_", "-"))
    return found


def server(dsn: str) -> dict[str, str]:
    """Its version and settings."""
    return {
        name: asyncio.run(query(dsn, "SELECT current_setting($1)", name))
        for name in SERVER_SETTINGS
    }


def gather(dsn: str) -> dict[str, Any]:
    """``versions``, ``machine``, ``server`` and ``warnings``, as the files of figures have them.

    Raises:
        BenchError: The server does not answer, or refuses.
    """
    facts: dict[str, Any] = {"versions": versions(), "machine": machine(), "server": server(dsn)}
    return {**facts, "warnings": warnings(facts)}


def without_server() -> dict[str, Any]:
    """The same of what no server has a part in."""
    facts: dict[str, Any] = {"versions": versions(), "machine": machine(), "server": {}}
    return {**facts, "warnings": load(facts["machine"])}


def in_words(facts: dict[str, Any]) -> list[str]:
    """A line for each part and each warning."""
    return [
        *(
            f"{title}: " + ", ".join(f"{name} {value}" for name, value in facts[title].items())
            for title in ("versions", "machine", "server")
            if facts[title]
        ),
        *(f"WARNING: {warning}" for warning in facts["warnings"]),
    ]


def print_facts(facts: dict[str, Any]) -> None:
    """The same for a reader."""
    print(*in_words(facts), sep="\n")


def warnings(facts: dict[str, Any]) -> list[str]:
    """What to hold against the figures."""
    from pgq_fast.trial import cheap_commits

    return cheap_commits(facts["server"]) + load(facts["machine"])


def load(machine: Mapping[str, Any]) -> list[str]:
    """The same, of the machine."""
    average, cpus = machine["load_average"], machine["cpu_count"]
    if average > IDLE * cpus:
        return [f"the machine is at other work: load {average}, {cpus} CPUs"]
    return []
