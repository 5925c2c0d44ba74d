"""What ``instructions.py`` counts: each kernel once, on fixed input, under callgrind.

    valgrind --tool=callgrind --instr-atstart=no python bench/counted.py REQUESTS.so LAYOUT

The shared library has the requests of ``callgrind_requests.c``. Outside of valgrind this only runs
the kernels. The layout is a number: with another one than 0, what is imported comes to lie at other
addresses.
"""

from __future__ import annotations

import ctypes
import gc
import random
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

# Calls before the one that counts: what is made once is there, and the interpreter has specialised
# what it runs.
WARM_UP: Final = 10
# Calls that count, of each kernel: what counting itself takes, and what differs with the addresses
# that things happen to be at, is then next to nothing.
CALLS: Final = 5
NOTHING: Final = "nothing"
"""The label of what counting itself costs."""

Kernel = Callable[[], object]


def leave_gaps(layout: int) -> list[str]:
    """Make strings as long as names are, and keep the half that *layout* says.

    What is imported is put where the others were.
    """
    kept = [f"{number:0{length}}" for number in range(3000) for length in (8, 20)]
    random.Random(layout).shuffle(kept)
    del kept[len(kept) // 2 :]
    return kept


def kernels(codec: ModuleType, notify: ModuleType) -> Mapping[str, Kernel]:
    """Each kernel on ``ITEMS`` items, by what it is called in the baseline."""
    from kernel_inputs import (
        ENTRYPOINT,
        EVENT,
        IDS,
        ITEMS,
        NUMBERS,
        OWNER,
        PAYLOAD,
        claim_answer,
        lease_columns,
        read_all,
    )

    from pgq_fast import Job
    from pgq_fast.arguments import MAX_NAME_BYTES
    from pgq_fast.enqueue import MAX_PAYLOAD_BYTES
    from pgq_fast.models import parse_headers

    answer, lease = claim_answer(), lease_columns()
    jobs, _ = codec.build_jobs(Job, answer, OWNER, parse_headers)
    numbers = list(NUMBERS)
    zeros, names, payloads = [0] * ITEMS, [ENTRYPOINT] * ITEMS, [PAYLOAD] * ITEMS
    absent: list[bytes | None] = [None] * ITEMS
    outcomes = [(job, "successful", None) for job in jobs]
    parse = notify.parse_event
    return {
        "build_jobs": lambda: codec.build_jobs(Job, answer, OWNER, parse_headers),
        "build_jobs, all fields read": lambda: read_all(
            codec.build_jobs(Job, answer, OWNER, parse_headers)[0]
        ),
        "build_leased_jobs": lambda: codec.build_leased_jobs(Job, OWNER, parse_headers, *lease),
        "decode_ids": lambda: codec.decode_ids(IDS),
        "encode_ids": lambda: codec.encode_ids(numbers),
        "encode_int8_array": lambda: codec.encode_int8_array(numbers),
        "outcome_columns": lambda: codec.outcome_columns(outcomes),
        "plain_columns": lambda: codec.plain_columns(
            names, payloads, zeros, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES
        ),
        "pack_jobs": lambda: codec.pack_jobs(names, payloads, zeros),
        "encode_copy_jobs": lambda: codec.encode_copy_jobs(
            IDS, zeros, names, payloads, absent, None
        ),
        "encode_copy_jobs, deferred": lambda: codec.encode_copy_jobs(
            IDS, zeros, names, payloads, absent, numbers
        ),
        "encode_copy_log": lambda: codec.encode_copy_log(IDS, zeros, names),
        "parse_event": lambda: [parse(EVENT) for _ in range(ITEMS)],
    }


def main() -> int:
    """Run each kernel between two requests."""
    library, layout = sys.argv[1], int(sys.argv[2])
    # Before the package is imported, the names of which are then looked up by their addresses.
    kept = leave_gaps(layout) if layout else []
    from pgq_fast._impl import codec, notify

    requests: Any = ctypes.CDLL(library)
    # Last: the first ones pay for what is looked up once.
    measured: dict[str, Kernel] = {**kernels(codec, notify), NOTHING: lambda: None}
    # A collection in between would count for the kernel in which it happens to fall.
    gc.collect()
    gc.disable()
    for _ in range(WARM_UP):
        for kernel in measured.values():
            kernel()
    zero, dump = requests.zero, requests.dump
    requests.start()
    for name, kernel in measured.items():
        label = name.encode()
        zero()
        for _ in range(CALLS):
            kernel()
        dump(label)
    del kept
    return 0


if __name__ == "__main__":
    sys.exit(main())
