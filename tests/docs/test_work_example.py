"""The program of README.md with a planner and three workers: each task is done once, or dead-lettered."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

from tests.docs.test_readme import BIN, ROOT, blocks, substituted
from tests.platform import Platform

PROGRAM = ROOT / "examples" / "work" / "planner.py"


def test_program_has_at_most_forty_lines_of_code() -> None:
    assert len([line for line in PROGRAM.read_text().splitlines() if line.strip()]) <= 40


async def test_each_task_is_done_once_or_dead_lettered(platform: Platform, tmp_path: Path) -> None:
    cast = await platform.tenant_with(agents=0, channels=0)
    (script,) = blocks("Agents that share work")
    script = substituted(script, **{"http://127.0.0.1:8080": cast.url})
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    known = {name: value for name, value in os.environ.items() if not name.startswith("ARTCAFE_")}
    path = f"{BIN}{os.pathsep}{known.get('PATH', '')}"
    environ = known | {"PATH": path, "TOKEN": cast.token, "TENANT": cast.tenant, "NO_PROXY": "127.0.0.1"}
    running = await asyncio.create_subprocess_exec(
        "bash", "-c", f"set -euo pipefail\n{script}", cwd=tmp_path, env=environ, stdout=subprocess.PIPE
    )
    async with asyncio.timeout(110):
        out, _ = await running.communicate()
    first, killed, *others = out.decode().splitlines()[-4:]
    assert first == script.strip().rpartition("# ")[2] == "199 results of 199 tasks; dead letters: [13]"
    assert killed.endswith("ended by SIGKILL")
    assert [line.endswith("ended by SIGTERM") for line in others] == [True, True]
