"""Bursts of scheduled messages: up to a tenant's most, all due at the same moment, and how late an agent receives them.

One agent of the SDK schedules them beforehand, 200 bytes each; another one receives and acknowledges them. How late a message is
includes the agent's own time, and both clocks are this machine's.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Final

from artcafe.sdk.agent import Agent
from bench.bench_env import bench_env
from bench.publish import DATA
from bench.report import Options, Sample, Table

BURSTS: Final = (100, 1_000, 3_000, 10_000)
"""10,000 is the most that a tenant may have scheduled."""
ROUNDS: Final = 3
TOGETHER: Final = 64
SCHEDULED_A_S: Final = 150
"""Messages are scheduled at least at this rate, before they are due."""
LEAD_S: Final = 3.0


async def run(options: Options) -> list[Table]:
    """Return the table."""
    taken: dict[int, list[Sample]] = defaultdict(list)
    rounds = min(options.rounds, ROUNDS)
    async with bench_env(options) as env:
        cast = await env.platform.tenant_with(agents=2, channels=1)
        async with cast.agent(0) as sender, cast.agent(1) as receiver:
            for _ in range(rounds):
                for burst in BURSTS:
                    taken[burst].append(await _burst(sender, receiver, cast.channels[0], burst))
    table = Table(
        "Scheduled messages, all due at the same moment",
        ["messages", "late: p50, ms", "the last, ms (lowest–highest)", "messages/s"],
        [f"Medians of {rounds} rounds. Late: from the moment at which a message is due until the agent has it."],
    )
    for burst, samples in taken.items():
        last = sorted(sample.seconds * 1000 for sample in samples)
        p50 = statistics.median(sample.quantile_ms(0.5) for sample in samples)
        rate = statistics.median(sample.rate for sample in samples)
        cells = f"{p50:,.0f}", f"{statistics.median(last):,.0f} ({last[0]:,.0f}–{last[-1]:,.0f})", f"{rate:,.0f}"
        table.rows.append((f"{burst:,}", *cells))
    return [table]


async def _burst(sender: Agent, receiver: Agent, channel: str, messages: int) -> Sample:
    """Schedule messages for one moment, and receive them. Raise `RuntimeError` if they were not all scheduled before it."""
    due = datetime.now(UTC) + timedelta(seconds=LEAD_S + messages / SCHEDULED_A_S)
    left = iter(range(messages))
    data = DATA.decode()[1:-1]

    async def schedule() -> None:
        for _ in left:
            await sender.publish(channel, data, deliver_at=due)

    async with asyncio.TaskGroup() as group:
        for _ in range(TOGETHER):
            group.create_task(schedule())
    if datetime.now(UTC) >= due:
        raise RuntimeError(f"{messages} messages were not scheduled within {LEAD_S + messages / SCHEDULED_A_S:.0f} s")
    late_s: list[float] = []
    async for message in receiver.messages():
        late_s.append(time.time() - due.timestamp())
        await message.ack()
        if len(late_s) == messages:
            break
    return Sample(messages, max(late_s), late_s)
