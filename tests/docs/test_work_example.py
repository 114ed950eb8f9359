"""The program of README.md with a planner and three workers: each task is done once, or dead-lettered."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests import ssh_keygen
from tests.platform import Platform

PROGRAM = Path(__file__).parents[2] / "examples" / "work" / "planner.py"
LINES = 40


def test_program_has_at_most_forty_lines_of_code() -> None:
    assert len([line for line in PROGRAM.read_text().splitlines() if line.strip()]) <= LINES


async def test_each_task_is_done_once_or_dead_lettered(platform: Platform, tmp_path: Path) -> None:
    cast = await platform.tenant_with(agents=0, channels=0)
    async with cast.rest() as rest:
        for name in ("planner", "worker-1", "worker-2", "worker-3"):
            key = ssh_keygen.make_key(tmp_path / name)
            await rest.create_agent(cast.tenant, name, ssh_keygen.public_line(key))
        await rest.create_channel(cast.tenant, "tasks", type="queue", max_deliveries=3)
        await rest.subscribe(cast.tenant, "tasks.dead", "planner")
    environ = {**os.environ, "ARTCAFE_URL": cast.url, "ARTCAFE_TENANT": cast.tenant}
    program = await asyncio.create_subprocess_exec(
        sys.executable, PROGRAM, cwd=tmp_path, env=environ, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(100):
        out, _ = await program.communicate()
    first, killed, *others = out.decode().splitlines()
    assert first == "199 results of 199 tasks; dead letters: [13]"
    assert killed.endswith("ended by SIGKILL")
    assert [line.endswith("ended by SIGTERM") for line in others] == [True, True]
