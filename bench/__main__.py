"""`python -m bench [NAME …]` runs benches and prints their tables; `--list` describes each."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

import uvloop

from artcafe.observe.logs import configure
from bench import (
    console,
    deliver,
    dynamodb,
    failures,
    limits,
    login,
    metering,
    neighbours,
    pairs,
    peers,
    processes,
    publish,
    pull,
    queue,
    requests,
    revoke,
    scale,
    scheduled,
    tables,
)
from bench.fanout import curve, idle, profile, stall, windows
from bench.report import Options, Table, machine

LIMIT_S: Final = 600.0
"""Timeout of a bench, and of each part of `scale`."""

Run = Callable[[Options], Awaitable[list[Table]]]

MODULES: Final[dict[str, ModuleType]] = {
    "publish": publish,
    "deliver": deliver,
    "tables": tables,
    "dynamodb": dynamodb,
    "fanout": windows,
    "curve": curve,
    "profile": profile,
    "stall": stall,
    "idle": idle,
    "login": login,
    "failures": failures,
    "revoke": revoke,
    "scale": scale,
    "peers": peers,
    "neighbours": neighbours,
    "limits": limits,
    "pairs": pairs,
    "processes": processes,
    "metering": metering,
    "queue": queue,
    "pull": pull,
    "requests": requests,
    "scheduled": scheduled,
    "console": console,
}
"""The benches: each module has a `run`, and a docstring that says what it measures and how."""


def main() -> int:
    """Run the requested benches, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODULES)}; none: all")
    parser.add_argument("--list", action="store_true", help="describe what each bench measures, and how")
    parser.add_argument("--rounds", type=int, default=5, help="rounds for the medians [5]")
    parser.add_argument("--seconds", type=float, default=0.6, help="duration of each sample [0.6]")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="for the data; must be on a disk [build/bench]")
    parser.add_argument("--against", type=Path, metavar="PYTHON", help="for pairs: the interpreter of another version's checkout")
    parser.add_argument(
        "--only",
        nargs="+",
        default=(),
        metavar="KIND",
        help="for pairs: of publish, fan-out, backlog, login; for scale: of agents, subscribers, tenants, capacity",
    )
    parser.add_argument("--divide", type=int, default=1, help="for scale: divide its agents, subscribers and tenants by this [1]")
    given = parser.parse_args()
    if unknown := set(given.names) - set(MODULES):
        parser.error(f"unknown bench {', '.join(sorted(unknown))}; the benches are {', '.join(MODULES)}")
    if given.list:
        for name, module in MODULES.items():
            print(f"{name}: {module.__doc__}")
        return 0
    configure("error")
    given.folder.mkdir(parents=True, exist_ok=True)
    options = Options(given.folder, given.rounds, given.seconds, given.against, given.only, given.divide)
    print(machine(given.folder), end="\n\n", flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for name in given.names or [name for name in MODULES if name != "pairs"]:
            runner.run(_bench(name, MODULES[name], options))
    return 0


async def _bench(name: str, module: ModuleType, options: Options) -> None:
    """Run a bench and print its tables; those of `scale` part by part."""
    print(f"## {name}\n", flush=True)
    runs: Sequence[Run] = scale.parts(options) if module is scale else [module.run]
    for run in runs:
        async with asyncio.timeout(LIMIT_S):
            for table in await run(options):
                print(table.markdown(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
