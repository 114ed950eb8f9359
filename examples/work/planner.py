"""A planner shares 200 tasks among three workers. One worker is killed while it works, one is slow, and one task always fails."""

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

from artcafe import Agent

TASKS, POISON, WORKERS = 200, 13, ("worker-1", "worker-2", "worker-3")


async def work(name: str) -> None:
    """Do tasks of the queue, and send each result to the planner."""
    async with Agent(agent=name, key=name, max_unacked=4) as agent:
        async for task in agent.messages("tasks"):
            if name == "worker-1" and task.data > 40:
                os.kill(os.getpid(), signal.SIGKILL)  # it has received this task, and not acknowledged it
            await asyncio.sleep(0.05 if name == "worker-2" else 0)
            if task.data == POISON:
                await task.nak(delay_s=0)
                continue
            await task.reply([task.data, name])
            await task.ack()
            await agent.flush()


async def plan(done: list[Any], dead: list[Any]) -> None:
    """Publish the tasks, and collect the results from the inbox and the failures from the dead-letter channel."""
    async with Agent(agent="planner", key="planner") as agent, asyncio.TaskGroup() as group:
        _ = [group.create_task(agent.publish("tasks", number, reply_to="@planner")) for number in range(TASKS)]
        async for message in agent.messages(auto_ack=True):
            (done if message.is_direct else dead).append(message.data)
            if len({number for number, _ in done}) + len(dead) == TASKS:
                break


if len(sys.argv) == 2:
    asyncio.run(work(sys.argv[1]))
else:
    workers = [subprocess.Popen([sys.executable, __file__, name]) for name in WORKERS]
    done, dead = list[Any](), list[Any]()
    asyncio.run(plan(done, dead))
    print(f"{len(done)} results of {len({number for number, _ in done})} tasks; dead letters: {dead}")
    for name, worker in zip(WORKERS, workers, strict=True):
        worker.terminate()
        print(f"{name}: {sum(by == name for _, by in done)} results, ended by {signal.Signals(-worker.wait()).name}")
