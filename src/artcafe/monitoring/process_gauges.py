"""The gauges of a process itself: its CPU time and memory. A server process and a supervisor of several have them."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Final

from artcafe.observe import metrics

if sys.platform != "win32":
    import resource

SAMPLE_S: Final = 5.0

_STATM: Final = Path("/proc/self/statm")


async def run_process_gauges() -> None:
    """Set the gauges every `SAMPLE_S`, until cancelled."""
    metrics.PROCESS_START.of().set(time.time())
    while sys.platform != "win32":
        use = resource.getrusage(resource.RUSAGE_SELF)
        metrics.PROCESS_CPU.of().set(use.ru_utime + use.ru_stime)
        if _STATM.exists():  # not on macOS
            metrics.PROCESS_BYTES.of().set(int(_STATM.read_text().split()[1]) * resource.getpagesize())
        await asyncio.sleep(SAMPLE_S)
