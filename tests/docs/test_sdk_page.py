"""The program on docs/sdk.md, run and stopped as the page describes."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import textwrap
from pathlib import Path

from tests.platform import Platform

PAGE = (Path(__file__).parents[2] / "docs" / "sdk.md").read_text()
(PROGRAM,) = re.findall(r"(?:^    .*\n|^\n(?=    ))+", PAGE[PAGE.index("## Stopping") :].split("\n## ")[0], re.MULTILINE)


async def test_program_of_the_page_sends_its_acks_before_sigterm_ends_it(platform_on_a_file: Platform, tmp_path: Path) -> None:
    cast = await platform_on_a_file.tenant_with()
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    given = {"URL": cast.url, "TENANT": cast.tenant, "AGENT": cast.agents[0], "KEY": str(cast.keys[0])}
    environ = {**os.environ, **{f"ARTCAFE_{name}": value for name, value in given.items()}}
    async with asyncio.timeout(30), cast.agent() as agent:
        for number in range(3):
            await agent.publish(cast.channels[0], number)
        program = await asyncio.create_subprocess_exec(sys.executable, path, stdout=asyncio.subprocess.PIPE, env=environ)
        assert program.stdout is not None
        assert [await program.stdout.readline() for _ in range(3)] == [b"0\n", b"1\n", b"2\n"]
        program.terminate()
        await program.communicate()
    async with asyncio.timeout(10), cast.agent() as agent:
        await agent.publish(cast.channels[0], "the end")
        assert (await anext(agent.messages())).data == "the end"
