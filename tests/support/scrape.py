"""A scrape as Prometheus makes it: over HTTP, read by prometheus-client's own parser."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import TypeAlias

from prometheus_client.parser import text_string_to_metric_families

Samples: TypeAlias = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Scrape:
    """What an answer says.

    Attributes:
        samples: Values by name and labels.
        types: Type of each family that declares one, by name.
    """

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.types = {family.name: family.type for family in families}
        self.samples: Samples = {}
        for family in families:
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self.samples, f"{key} is there twice"
                self.samples[key] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """The value of a sample, which must be there."""
        return self.samples[name, frozenset(labels.items())]

    def labels(self, name: str) -> list[dict[str, str]]:
        """The labels of all samples of that name."""
        return [dict(labels) for other, labels in self.samples if other == name]


async def scrape(port: int, path: str = "/metrics") -> Scrape:
    """Ask the server on *port* of this machine."""

    def get() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            assert answer.headers["content-type"].startswith("text/plain; version=")
            body: bytes = answer.read()
        return body.decode()

    return Scrape(await asyncio.to_thread(get))
