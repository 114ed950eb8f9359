"""A data folder of the version before: this version opens it, and everything is there.

The archive was made at commit d951841 with `make_folder.py`.
"""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from artcafe.sdk.agent import Agent
from tests import ssh_keygen
from tests.platform import Platform, running
from tests.upgrades.make_folder import SECRET, call, owner_of

HERE = Path(__file__).parent
ARCHIVE = HERE / "data-of-the-version-before.tar.xz"
PLANS = HERE.parents[1] / "src" / "artcafe" / "plans.toml"


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Return this version on a copy of the folder. The plan keeps messages for ever: those of the folder become old."""
    folder = tmp_path_factory.mktemp("upgraded")
    data = folder / "data"
    data.mkdir(mode=0o700)
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(data, filter="data")
    secret = data / "secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET)
    plans = folder / "plans.toml"
    plans.write_text(PLANS.read_text().replace("retention_s = 2_592_000", 'retention_s = "unlimited"'))
    with running(folder, ["--plans-file", str(plans)]) as platform:
        yield platform


@pytest.fixture(scope="module")
def owner(upgraded: Platform) -> Iterator[httpx2.Client]:
    """Return a REST client of the owner."""
    with owner_of(upgraded) as rest:
        yield rest


@pytest.fixture(scope="module")
def path(owner: httpx2.Client) -> str:
    """Return the path of the only tenant."""
    (tenant,) = call(owner, "GET", "/v1/me")["tenants"]
    assert (tenant["name"], tenant["role"]) == ("Upgraded", "owner")
    return f"/v1/tenants/{tenant['tenant_id']}"


def items(owner: httpx2.Client, path: str) -> list[dict[str, Any]]:
    """Return the records of a page."""
    found = call(owner, "GET", path)["items"]
    assert isinstance(found, list)
    return found


def test_archive_is_small_and_contains_no_secret() -> None:
    assert ARCHIVE.stat().st_size < 200_000
    with tarfile.open(ARCHIVE) as archive:
        assert not [name for name in archive.getnames() if "secret" in name or name.endswith((".conf", ".key", ".pem"))]


def test_agents_channels_subscriptions_and_audit_of_the_version_before_are_read(owner: httpx2.Client, path: str) -> None:
    assert sorted(each["handle"] for each in items(owner, f"{path}/agents")) == ["reader", "writer"]
    channels = {each["handle"]: each for each in items(owner, f"{path}/channels")}
    assert {name: each["type"] for name, each in channels.items()} == {
        "news": "broadcast",
        "tasks": "queue",
        "tasks.dead": "broadcast",
    }
    assert channels["tasks"]["max_deliveries"] == 5
    assert call(owner, "GET", f"{path}/channels/news/subscriptions/reader")["cursor"]["seq"] == 3
    actions = {each["action"] for each in items(owner, f"{path}/audit")}
    assert {"tenant.create", "agent.create", "channel.create", "agent.login"} <= actions


def test_messages_of_the_version_before_are_read_and_new_ones_follow(owner: httpx2.Client, path: str) -> None:
    found = items(owner, f"{path}/channels/news/messages")
    assert sorted((each["seq"], each["data"]["n"]) for each in found if each["seq"] <= 5) == [(n, n) for n in range(1, 6)]
    assert call(owner, "POST", f"{path}/channels/news/messages", data={"n": 6})["seq"] > 5


def test_agent_of_the_version_before_receives_what_it_had_not_acknowledged(
    upgraded: Platform, owner: httpx2.Client, path: str, tmp_path: Path
) -> None:
    # The archive has no private key, so the agent gets a new one.
    key = ssh_keygen.make_key(tmp_path / "reader", "ed25519")
    call(owner, "POST", f"{path}/agents/reader/keys", public_key=key.with_suffix(".pub").read_text())

    async def receive() -> dict[str, list[Any]]:
        received: dict[str, list[Any]] = {"news": [], "tasks": []}
        agent = Agent(upgraded.url, tenant=path.rpartition("/")[2], agent="reader", key=key)
        async with asyncio.timeout(30), agent:
            async for message in agent.messages():
                received[message.channel].append(message.data)
                await message.ack()
                if len(received["news"]) >= 2 and len(received["tasks"]) == 2:
                    break
        return received

    received = asyncio.run(receive())
    assert received["news"][:2] == [{"n": 4}, {"n": 5}]
    assert received["tasks"] == [{"task": 2}, {"task": 3}]
