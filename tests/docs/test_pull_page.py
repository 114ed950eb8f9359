"""docs/pull.md: its commands, run in one shell against a real server, print what it shows."""

from __future__ import annotations

import shutil
from pathlib import Path

from artcafe.sdk.keys import load_signer
from tests.conftest import Require
from tests.docs.typed_page import type_page
from tests.platform import Platform


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
    await type_page("pull.md", names, tmp_path)
