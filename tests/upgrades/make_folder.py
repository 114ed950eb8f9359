"""Make the data folder that `test_upgrade.py` opens, with the version whose source is first on the path:

    PYTHONPATH=BEFORE/src:BEFORE python tests/upgrades/make_folder.py tests/upgrades/data-of-the-version-before.tar.xz

BEFORE is a checkout of that version. It uses only what both versions have, so that the next version can be recorded with it too.
"""

from __future__ import annotations

import asyncio
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import httpx2

from artcafe.identity.local import LocalIdentity
from artcafe.observe.clock import now
from artcafe.rules.secrets import derive
from artcafe.sdk.agent import Agent
from tests import ssh_keygen
from tests.platform import Platform, running

SECRET = "a-secret-of-no-value-for-the-data-folder-of-the-tests"
OWNER = "owner@example.com"
KEPT = ("nats/jetstream", "tables.sqlite")
"""The secret is above, and everything else is made by each start."""


def owner_of(platform: Platform) -> httpx2.Client:
    """Return a REST client of the owner of the folder's tenant."""
    token = LocalIdentity(derive(SECRET.encode(), "local-identity")).issue(OWNER, now())
    return httpx2.Client(base_url=platform.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)


def call(rest: httpx2.Client, verb: str, path: str, **body: Any) -> Any:
    """Return the answer to a request that must succeed."""
    answer = rest.request(verb, path, json=body or None)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


async def receive(platform: Platform, tenant: str, key: Path, channel: str, count: int) -> None:
    """Receive and acknowledge messages of a channel as the agent `reader`."""
    agent = Agent(platform.url, tenant=tenant, agent="reader", key=key)
    messages = list(await agent.pull(limit=count, wait_s=20, channel=channel))
    assert len(messages) == count
    for each in messages:
        await each.ack()
    await agent.aclose()


def fill(platform: Platform) -> None:
    """Make a tenant with two agents, a channel with three of five messages acknowledged, and a queue with one of three."""
    keys = {name: ssh_keygen.make_key(platform.folder / name, "ed25519") for name in ("reader", "writer")}
    with owner_of(platform) as rest:
        tenant = call(rest, "POST", "/v1/tenants", name="Upgraded")["id"]
        path = f"/v1/tenants/{tenant}"
        for name, key in keys.items():
            call(rest, "POST", f"{path}/agents", name=name, public_key=key.with_suffix(".pub").read_text())
        call(rest, "POST", f"{path}/channels", name="news")
        call(rest, "POST", f"{path}/channels", name="tasks", type="queue", max_deliveries=5)
        for channel in ("news", "tasks"):
            call(rest, "PUT", f"{path}/channels/{channel}/subscriptions/reader")
        for n in range(1, 6):
            call(rest, "POST", f"{path}/channels/news/messages", data={"n": n}, key=f"news-{n}")
        for n in range(1, 4):
            call(rest, "POST", f"{path}/channels/tasks/messages", data={"task": n})
        asyncio.run(receive(platform, tenant, keys["reader"], "news", 3))
        asyncio.run(receive(platform, tenant, keys["reader"], "tasks", 1))


def main() -> None:
    """Fill a new folder, and pack what must be kept of it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data").mkdir(mode=0o700)
        secret = Path(folder) / "data" / "secret"
        secret.touch(mode=0o600)
        secret.write_text(SECRET)
        with running(Path(folder), python=sys.executable) as platform:
            fill(platform)
            assert platform.stop() == 0
        with tarfile.open(sys.argv[1], "w:xz") as archive:
            for each in KEPT:
                archive.add(platform.data / each, each)


if __name__ == "__main__":
    main()
