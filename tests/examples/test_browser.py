"""The page of `examples/browser/`, in a real browser."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

import httpx2
import pytest

from artcafe.fabric.embedded.process import some_free_port
from tests import node
from tests.children import plain_environ
from tests.conftest import Require
from tests.examples.programs import BOUND_S, EXAMPLES, environ_of, program
from tests.flows.test_typescript import CLIENT
from tests.platform import running

BUILD_S: Final = 120.0


def build_client(folder: Path) -> Path:
    """Build the TypeScript client in a copy, since its own tests build it in place, and return the built files."""
    folder.mkdir()
    shutil.copytree(CLIENT / "src", folder / "src")
    for name in ("package.json", "tsconfig.json"):
        shutil.copy(CLIENT / name, folder)
    (folder / "node_modules").symlink_to(CLIENT / "node_modules")
    node.run(folder, ("npx", "tsc", "-p", "tsconfig.json"), BUILD_S, plain_environ())
    return folder / "dist"


@pytest.mark.timeout(300)
async def test_page_in_a_browser_receives_and_answers_as_an_agent(tmp_path: Path, require: Require) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    require("chromium", chromium is not None)
    require(node.NAME, node.is_there())
    assert chromium is not None
    node.install(CLIENT, plain_environ())
    library = build_client(tmp_path / "client")
    origin = f"http://127.0.0.1:{some_free_port()}"
    with running(tmp_path / "platform", ["--allowed-origins", origin]) as platform:
        cast = await platform.tenant_with(agents=2, channels=0)
        given = environ_of(cast, ARTCAFE_AGENT=cast.agents[0], ARTCAFE_KEY=str(cast.keys[0]))
        command = (sys.executable, EXAMPLES / "browser" / "server.py", origin.rpartition(":")[2], library)
        browser = (chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", origin)
        async with program(tmp_path, given, *command), cast.agent(1) as asker:
            async with httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(retries=30), timeout=BOUND_S) as visitor:
                assert (await visitor.get(origin)).status_code == 200
                assert (await visitor.post(f"{origin}/login", headers={"origin": "http://127.0.0.1"})).status_code == 403
                assert (await visitor.get(f"{origin}/server.py")).status_code == 404
            async with program(tmp_path, plain_environ(), *browser):
                await asker.send(cast.agents[0], {"question": "Are you there?"})
                answer = await anext(asker.messages())
    assert (answer.data, answer.sender_id) == ("Yes, in a browser.", cast.agents[0])
