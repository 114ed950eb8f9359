"""docs/pull.md: its commands, run in one shell against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from artcafe.sdk.keys import load_signer
from tests.conftest import Require
from tests.platform import Platform

PAGE = (Path(__file__).parents[2] / "docs" / "pull.md").read_text()
COMMANDS = re.findall(r"^    (.*)$", PAGE, re.MULTILINE)
SHELL_S = 50.0


async def test_pull_page_works_by_curl_alone(platform: Platform, tmp_path: Path, require: Require) -> None:
    require("curl", shutil.which("curl") is not None)
    cast = await platform.tenant_with(agents=1, channels=0)
    async with cast.rest() as rest:
        for handle, type in (("tasks", "queue"), ("news", "broadcast")):
            channel = (await rest.create_channel(cast.tenant, handle, type=type)).id
            await rest.subscribe(cast.tenant, channel, cast.agents[0])
            await rest.publish(cast.tenant, channel, {"of": handle})
        token = (await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[0]))).access_token

    environ = {
        **os.environ,
        "URL": cast.url,
        "TENANT": cast.tenant,
        "AGENT": cast.agents[0],
        "TOKEN": token,
        "NO_PROXY": "127.0.0.1",
    }
    script = "set -e -o pipefail\n" + "\n".join(COMMANDS)
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=tmp_path, env=environ, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(SHELL_S):
        _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()

    def answer(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((tmp_path / f"{name}.json").read_text())
        return found

    def codes(name: str, kind: str) -> list[str | None]:
        return [entry["error"] and entry["error"]["code"] for entry in answer(name)[kind]]

    (task,), (again,) = answer("task")["items"], answer("again")["items"]
    assert (task["data"], task["deliveries"], again["deliveries"]) == ({"of": "tasks"}, 1, 2)
    assert codes("extended", "extends") == codes("given-back", "naks") == codes("done", "acks") == codes("read", "acks") == [None]
    assert codes("not-held", "acks") == ["not_held"]
    assert [item["data"] for item in answer("news")["items"]] == [{"of": "news"}]
    assert answer("empty")["items"] == []
