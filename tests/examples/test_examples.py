"""The programs of `examples/`, each run against a real server as its text says."""

from __future__ import annotations

import json
import re
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx2
from standardwebhooks import Webhook

from artcafe.fabric.embedded.process import some_free_port
from tests.conftest import Require
from tests.examples.programs import BOUND_S, EXAMPLES, environ_of, program, register
from tests.platform import Platform


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
