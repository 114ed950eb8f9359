"""docs/streams.md: its commands, run in one shell against a real server, print what it shows."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.conftest import Require
from tests.docs.typed_page import type_page
from tests.platform import Platform


async def test_streams_page_works_by_curl_alone(platform: Platform, tmp_path: Path, require: Require) -> None:
    require("curl", shutil.which("curl") is not None)
    cast = await platform.tenant_with(agents=1, channels=0)
    async with cast.rest() as rest:
        tenant = rest.tenant(cast.tenant)
        await tenant.messages.publish((await tenant.channels.create("news")).id, {"n": 1})
    names = {"URL": cast.url, "TENANT": cast.tenant, "TOKEN": cast.token, "NO_PROXY": "127.0.0.1"}
    await type_page("streams.md", names, tmp_path)
