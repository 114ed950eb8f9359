"""Work of a failed login: the same reads and the same verification for every agent, so that its time reveals nothing.

`python -m bench failures` measures the time itself: a test that asserted it would fail under load.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import FrameType

import pytest

from artcafe.errors import BadCredentials
from artcafe.model import Agent, AgentStatus
from tests import ssh_keygen
from tests.conftest import Require
from tests.services.service_env import Server, running

WORK = {
    "artcafe.wire.sshsig": {"signer", "_open", "_check", "signed_data"},
    "artcafe.wire.sshkeys": {"read_signing_key"},
    "artcafe.tables.sqlite.engine": {"get", "query", "put", "update", "delete", "transact"},
}
"""What takes time in a login: the parts of a verification, and the table engine's verbs."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as server:
        yield server


async def work_of(redeem: Callable[[], asyncio.Task[object]]) -> Counter[str]:
    """Count the calls of each part."""
    begun: Counter[str] = Counter()
    seen: set[int] = set()
    frames: list[FrameType] = []  # Kept alive, so that no id is reused.

    def note(frame: FrameType, event: str, _: object) -> None:
        module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        if (
            event == "call" and name in WORK.get(module, ()) and id(frame) not in seen
        ):  # A resumed coroutine is reported as another call.
            seen.add(id(frame))
            frames.append(frame)
            begun[f"{module}.{name}"] += 1

    sys.setprofile(note)
    try:
        await redeem()
    finally:
        sys.setprofile(None)
    return begun


async def test_every_login_failure_does_the_same_work(server: Server, tmp_path: Path, require: Require) -> None:
    require("ssh-keygen", ssh_keygen.PRESENT)
    own, foreign, large = (ssh_keygen.make_key(tmp_path / name, kind) for name, kind in
                           (("own", "ed25519"), ("foreign", "ed25519"), ("large", "rsa-2048")))  # fmt: skip
    owner = await server.tenant()
    agent = await server.agent(owner, "Agent", ssh_keygen.public_line(own))
    of_rsa = await server.agent(owner, "RSA", ssh_keygen.public_line(large))
    disabled = await server.agent(owner, "Disabled")
    await server.agents.update(owner, disabled.id, status=AgentStatus.DISABLED)

    async def failed(tenant_id: str, agent_id: str, key: Path) -> Counter[str]:
        challenge = await server.login.begin(tenant_id, agent_id)
        signature = ssh_keygen.sign(key, challenge.text.encode())

        async def redeem() -> None:
            with pytest.raises(BadCredentials):
                await server.login.redeem(challenge.id, signature)

        async with asyncio.TaskGroup() as group:
            return await work_of(lambda: group.create_task(redeem()))

    def at(who: Agent) -> tuple[str, str]:
        return who.tenant_id, who.id

    wrong = await failed(*at(agent), foreign)
    assert wrong["artcafe.wire.sshsig._check"] == 1
    assert wrong["artcafe.tables.sqlite.engine.get"] >= 1
    assert await failed(*at(of_rsa), foreign) == wrong
    assert await failed(*at(disabled), foreign) == wrong
    assert await failed(agent.tenant_id, "agt_00000000000000000000000000", foreign) == wrong
    assert await failed("ten_00000000000000000000000000", agent.id, foreign) == wrong
    assert await failed("", "\n", foreign) == wrong
    by_handle = await failed(agent.tenant_id, "agent", foreign)
    assert by_handle["artcafe.wire.sshsig._check"] == 1
    assert await failed(agent.tenant_id, "disabled", foreign) == by_handle
    assert await failed(agent.tenant_id, "unknown", foreign) == by_handle
    assert await failed("ten_00000000000000000000000000", "agent", foreign) == by_handle
