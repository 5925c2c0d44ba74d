"""What all jobs of a worker share: ``python examples/shared_resources.py``.

Clients, pools, caches and models are made once and handed to every job. An executor of our own
puts something around each call, here a count.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import os

import asyncpg

from pgq_fast import PgQueuer
from pgq_fast.executors import AbstractEntrypointExecutor
from pgq_fast.models import Context, Job
from pgq_fast.queries import Queries
from pgq_fast.types import QueueExecutionMode


class Translator:
    """Stands for something that takes long to make."""

    def __init__(self) -> None:
        self._words = {b"hund": "dog", b"katze": "cat"}

    async def translate(self, word: bytes) -> str:
        """The English word."""
        return self._words.get(word, "?")


@dataclasses.dataclass
class CountingExecutor(AbstractEntrypointExecutor):
    """Counts the words that went through, and leaves them to the function."""

    async def execute(self, job: Job, context: Context) -> None:
        """Run one job."""
        counts = context.resources["counts"]
        assert isinstance(counts, collections.Counter)
        counts[job.payload] += 1
        await self.parameters.func(job, context)  # type: ignore[call-arg]


async def main() -> None:
    counts: collections.Counter[bytes | None] = collections.Counter()
    async with asyncpg.create_pool(os.environ.get("PGDSN"), min_size=2) as pool:
        pgq = PgQueuer.from_asyncpg_pool(
            pool, resources={"translator": Translator(), "counts": counts}
        )

        @pgq.entrypoint("translate", executor_factory=CountingExecutor)
        async def translate(job: Job, context: Context) -> None:
            translator = context.resources["translator"]
            assert isinstance(translator, Translator)
            word = job.payload or b""
            print(f"{word.decode()} means {await translator.translate(word)}")

        words: list[bytes | None] = [b"hund", b"katze", b"hund"]
        await Queries.from_asyncpg_pool(pool).enqueue(["translate"] * 3, words, [0] * 3)
        await pgq.run(mode=QueueExecutionMode.drain)
    print(f"{counts[b'hund']} of {counts.total()} were dogs")


if __name__ == "__main__":
    asyncio.run(main())
