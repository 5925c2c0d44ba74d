"""``python -m faults``: rounds of faults, with a seed that is printed.

Every round is a queue under load to which a kind of fault is done several times; see stage.py. It
ends by itself, with an account of all jobs. The command fails if one does not add up.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import operator
import random
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from faults.kinds import KINDS
from faults.runner import Grounds, facts, play
from faults.stage import DRIVERS, Result
from pgq_fast.settings import Layout
from pgq_fast.signals import sigterm_as_exit


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    layouts = [layout.value for layout in Layout]
    parser.add_argument("--seed", help="repeats the choices of an earlier run; default: chosen")
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS], default=[*KINDS], metavar="KIND")
    parser.add_argument("--layouts", nargs="+", choices=layouts, default=layouts)
    parser.add_argument("--drivers", nargs="+", choices=DRIVERS, default=DRIVERS)
    parser.add_argument("--rounds", type=int, default=1, help="how often each; default: once")
    parser.add_argument(
        "--minutes", type=float, help="as many rounds as there is time for, in any order"
    )
    parser.add_argument("--brief", action="store_true", help="shorter rounds")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    return parser.parse_args(arguments)


def show(result: Result) -> None:
    """A line for a round, and one for each problem."""
    account, workers = result.account, result.workers
    ended = {**workers.ended, **{f"{k} at start": n for k, n in workers.not_started.items()}}
    print(
        f"{result.kind:18} {result.layout:6} {result.driver:13} {result.seconds:5.1f} s"
        f"  {account.enqueued} jobs = {account.finished} + {account.held} held"
        f" + {account.queued} queued, {account.reruns} reruns,"
        f" {account.fenced} fenced, {account.unknown_calls} calls unknown,"
        f" survived {workers.survived}, ended {ended or 'none'}",
        flush=True,
    )
    for problem in result.problems[:20]:
        print(f"    PROBLEM: {problem}", flush=True)


def planned(options: argparse.Namespace, seed: str) -> Iterator[tuple[str, str, str, str]]:
    """Kind, layout, driver and seed of each round."""
    chance = random.Random(seed)
    for number in range(options.rounds) if options.minutes is None else itertools.count():
        rounds = list(itertools.product(options.drivers, options.kinds, options.layouts))
        if options.minutes is not None:
            chance.shuffle(rounds)
        for driver, kind, layout in rounds:
            yield kind, layout, driver, f"{seed}+{number}" if number else seed


async def run(options: argparse.Namespace, seed: str) -> list[Result]:
    """All rounds, one after the other."""
    results: list[Result] = []
    rounds: list[dict[str, Any]] = []
    began = time.monotonic()
    with Grounds() as grounds:
        for name, layout, driver, own_seed in planned(options, seed):
            if options.minutes is not None and time.monotonic() > began + 60 * options.minutes:
                break
            result, folder = await play(
                grounds, KINDS[name], Layout(layout), driver, own_seed, brief=options.brief
            )
            show(result)
            if result.problems:
                print(f"    seed {own_seed}, journals and logs: {folder}", flush=True)
            results.append(result)
            rounds.append({**result.as_json(), "seed": own_seed})
            if options.json is not None:
                # Each time, so that an end before the end loses nothing.
                minutes = round((time.monotonic() - began) / 60, 1)
                found = {"seed": seed, "brief": options.brief, "minutes": minutes}
                write(options.json, {**facts(), **found, "rounds": rounds})
    return results


def overview(results: Sequence[Result]) -> str:
    """A table with a line for each kind, layout and driver."""
    heads = ("kind", "layout", "driver", "rounds", "faults", "jobs", "run again", "fenced", "wrong")
    lines: dict[tuple[str, str, str], list[int]] = {}
    for one in results:
        account = one.account
        figures = (
            1, one.blows, account.enqueued, account.reruns, account.fenced, len(one.problems),
        )  # fmt: skip
        line = lines.setdefault((one.kind, one.layout, one.driver), [0] * len(figures))
        line[:] = map(operator.add, line, figures)
    return tabulate([(*names, *line) for names, line in sorted(lines.items())], headers=heads)


def write(path: Path, report: dict[str, Any]) -> None:
    """As the page reads it."""
    path.write_text(json.dumps(report, indent=1) + "\n")


def main() -> int:
    """Run, print, write; the exit code."""
    options = parse()
    seed = options.seed or secrets.token_hex(4)
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    with sigterm_as_exit():
        results = asyncio.run(run(options, seed))
    failed = [result for result in results if result.problems]
    print(overview(results))
    print(
        f"{len(results)} rounds, {len(failed)} with problems, seed {seed},"
        f" {(time.monotonic() - began) / 60:.1f} minutes"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
