"""docs/pull.md: its commands, run in one shell against a real server, print what it shows."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path
from typing import Final

from artcafe.sdk.keys import load_signer
from tests.conftest import Require
from tests.platform import Platform

PAGE: Final = (Path(__file__).parents[2] / "docs" / "pull.md").read_text()
TYPED: Final = re.findall(r"^    \$ (.*)\n((?:    (?!\$ ).*\n)*)", PAGE, re.MULTILINE)
"""The commands on the page, and the lines that they print."""
END: Final = "--- end of the output ---"
SHELL_S: Final = 90.0


def matches(shown: str, printed: str) -> bool:
    """Return whether a command printed these lines, in which `…` is any text."""
    lines = "".join(line.removeprefix("    ") for line in shown.splitlines(keepends=True))
    return re.fullmatch(".*?".join(re.escape(part) for part in lines.split("…")), printed) is not None


async def test_pull_page_works_by_curl_alone(platform: Platform, tmp_path: Path, require: Require) -> None:
    require("curl", shutil.which("curl") is not None)
    cast = await platform.tenant_with(agents=1, channels=0)
    async with cast.rest() as rest:
        for handle, type in (("tasks", "queue"), ("news", "broadcast")):
            channel = (await rest.tenant(cast.tenant).channels.create(handle, type=type)).id
            await rest.tenant(cast.tenant).subscriptions.create(channel, cast.agents[0])
            await rest.tenant(cast.tenant).messages.publish(channel, {"of": handle})
        token = (await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[0]))).access_token

    names = {"URL": cast.url, "TENANT": cast.tenant, "AGENT": cast.agents[0], "TOKEN": token, "NO_PROXY": "127.0.0.1"}
    script = "set -e -o pipefail\n" + "".join(f"{command}\necho '{END}'\n" for command, _ in TYPED)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=tmp_path, env=os.environ | names, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(SHELL_S):
        output, errors = await process.communicate()
    printed = output.decode().split(f"{END}\n")
    assert process.returncode == 0, errors.decode() + printed[-1]
    for (command, shown), text in zip(TYPED, printed[:-1], strict=True):
        assert matches(shown, text), f"{command}\n{text}"
