"""The programs of `examples/`, each run against a real server as its text says."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx2
import pytest
from standardwebhooks import Webhook

from artcafe.fabric.embedded.process import some_free_port
from tests import node, ssh_keygen
from tests.children import plain_environ
from tests.conftest import Require
from tests.docs.executed_page import BIN
from tests.flows.test_typescript import CLIENT
from tests.platform import Cast, Platform, running

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
BOUND_S: Final = 60.0
BUILD_S: Final = 120.0


def environ_of(cast: Cast, **more: str) -> dict[str, str]:
    """Return the environment of a program in the cast's tenant."""
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    given = {"ARTCAFE_URL": cast.url, "ARTCAFE_TENANT": cast.tenant, "NO_PROXY": "127.0.0.1", "PYTHONUNBUFFERED": "1"}
    return plain_environ() | given | {"PATH": path} | more


async def register(cast: Cast, folder: Path, *handles: str) -> None:
    """Register agents with keys in the folder, named like them."""
    async with cast.rest() as client:
        for handle in handles:
            key = ssh_keygen.make_key(folder / handle)
            await client.tenant(cast.tenant).agents.create(handle, ssh_keygen.public_line(key))


@asynccontextmanager
async def program(folder: Path, environ: dict[str, str], *command: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program until this block is left."""
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environ, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(BOUND_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def test_index_names_every_example() -> None:
    index = (EXAMPLES / "README.md").read_text()
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert folders - {name.partition("/")[0] for name in re.findall(r"^\| \[[^\]]+\]\(([^)]+)\)", index, re.MULTILINE)} == set()


async def test_critic_sends_the_first_draft_back_and_accepts_the_second(platform: Platform, tmp_path: Path) -> None:
    cast = await platform.tenant_with(agents=0, channels=0)
    await register(cast, tmp_path, "editor", "researcher", "writer", "critic")
    async with cast.rest() as client:
        await client.tenant(cast.tenant).channels.create("topics", type="queue")
    async with program(tmp_path, environ_of(cast), sys.executable, EXAMPLES / "critics" / "team.py") as team:
        printed, _ = await team.communicate()
    assert sorted(printed.decode().splitlines()) == [
        "coffee, draft 2, after Ukers, Lu Yu",
        "tea, draft 2, after Ukers, Lu Yu",
    ]


async def test_cron_job_appends_each_message_once(platform: Platform, tmp_path: Path, require: Require) -> None:
    require("flock", shutil.which("flock") is not None)
    cast = await platform.tenant_with(agents=1, channels=0)
    settings = tmp_path / "scout.env"
    names = {"URL": cast.url, "TENANT": cast.tenant, "AGENT": cast.agents[0], "KEY": str(cast.keys[0])}
    settings.write_text("".join(f"ARTCAFE_{name}={value}\n" for name, value in names.items()))
    inbox, job = tmp_path / "inbox.jsonl", EXAMPLES / "cron" / "digest.sh"
    for number in range(2):
        async with cast.rest() as client:
            await client.tenant(cast.tenant).messages.publish(f"@{cast.agents[0]}", number)
        async with program(tmp_path, environ_of(cast, SCOUT_ENV=str(settings)), job, inbox) as run_of_cron:
            assert await run_of_cron.wait() == 0
    assert [json.loads(line)["data"] for line in inbox.read_text().splitlines()] == [0, 1]


async def test_webhook_receiver_refuses_a_wrong_signature_and_pulls_after_a_right_one(platform: Platform, tmp_path: Path) -> None:
    cast = await platform.tenant_with(agents=1, channels=0)
    async with cast.rest() as client:
        await client.tenant(cast.tenant).messages.publish(f"@{cast.agents[0]}", "work")
    secret, port = "whsec_" + "c2VjcmV0IG9mIGEgcmVjZWl2ZXI=", some_free_port()
    given = environ_of(cast, WEBHOOK_SECRET=secret, ARTCAFE_AGENT=cast.agents[0], ARTCAFE_KEY=str(cast.keys[0]))
    command = (sys.executable, EXAMPLES / "webhook" / "receiver.py", str(port))
    async with program(tmp_path, given, *command) as receiver:
        transport = httpx2.AsyncHTTPTransport(retries=30)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=BOUND_S) as sender:
            body = '{"type":"agent.messages_waiting"}'
            headers = signed(secret, body)
            assert (await sender.post("/", content=body + " ", headers=headers)).status_code == 401
            assert (await sender.post("/", content=body, headers=headers)).status_code == 204
        assert receiver.stdout is not None
        assert (await receiver.stdout.readline()).decode().endswith(" work\n")


def signed(secret: str, body: str) -> dict[str, str]:
    """Return the headers of a webhook with this body, sent now."""
    now = datetime.now(UTC)
    return {
        "webhook-id": "whk_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("whk_1", now, body),
    }


@pytest.mark.timeout(300)
def build_client(folder: Path) -> Path:
    """Build the TypeScript client in a copy, since its own tests build it in place, and return the built files."""
    folder.mkdir()
    shutil.copytree(CLIENT / "src", folder / "src")
    for name in ("package.json", "tsconfig.json"):
        shutil.copy(CLIENT / name, folder)
    (folder / "node_modules").symlink_to(CLIENT / "node_modules")
    node.run(folder, ("npx", "tsc", "-p", "tsconfig.json"), BUILD_S, plain_environ())
    return folder / "dist"


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
