"""The fan-out of `fanout`, with one processor for each server and the other for the load: what one core delivers.

A gateway process has one thread. Where a peer has several, `fanout` shows what both cores give it while the load is in its way;
this is the comparison that the design made.
"""

from __future__ import annotations

from bench.fanout import windows
from bench.report import Options, Table


async def run(options: Options) -> list[Table]:
    """The same tables as `fanout`."""
    return await windows.measured(options, on_one_core=True)
