"""docs/streams.md: its commands, run in one shell against a real server, print what it shows."""

from __future__ import annotations

import shutil
from pathlib import Path

from artcafe.sdk.keys import load_signer
from tests.conftest import Require
from tests.docs.typed_page import type_page
from tests.platform import Platform


async def test_streams_page_works_by_curl_alone(platform: Platform, tmp_path: Path, require: Require) -> None:
    require("curl", shutil.which("curl") is not None)
    cast = await platform.tenant_with(agents=1, channels=0)
    async with cast.rest() as rest:
        tenant, agent = rest.tenant(cast.tenant), cast.agents[0]
        channel = (await tenant.channels.create("news")).id
        await tenant.subscriptions.create(channel, agent)
        await tenant.messages.publish(channel, {"n": 1})
        token = (await rest.login(cast.tenant, agent, load_signer(cast.keys[0]))).access_token
    names = {"URL": cast.url, "TENANT": cast.tenant, "TOKEN": cast.token, "AGENT": agent, "AGENT_TOKEN": token}
    await type_page("streams.md", names | {"NO_PROXY": "127.0.0.1"}, tmp_path)
