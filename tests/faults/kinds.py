"""All kinds of faults, by name."""

from __future__ import annotations

from typing import Final

from faults import clock, handlers, limits, network, pooler, servers, signals, upgrade
from faults.stage import Kind

KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        *signals.KINDS,
        *servers.KINDS,
        *network.KINDS,
        *pooler.KINDS,
        *limits.KINDS,
        *handlers.KINDS,
        *clock.KINDS,
        *upgrade.KINDS,
    )
}
