"""Loops over messages with a scripted gateway: cancelled steps, and the number of `subscribe` commands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from artcafe.errors import ChannelNotFound
from artcafe.sdk.keys import Signer, load_signer
from tests import ssh_keygen
from tests.sdk.scripted import CHANNEL, agent_at, gateway, let_in, message, say


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str, bool], None]) -> Signer:
    require("ssh-keygen", ssh_keygen.PRESENT)
    return load_signer(ssh_keygen.make_key(tmp_path_factory.mktemp("iteration") / "key"))


class Gateway:
    """Records each `subscribe`, and replies when the test allows it."""

    def __init__(self) -> None:
        self.subscribes: list[dict[str, Any]] = []
        self.asked = asyncio.Condition()
        self.answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def __call__(self, socket: ServerConnection) -> None:
        await let_in(socket)
        async for frame in socket:
            command = json.loads(frame)
            if "subscribe" in command:
                async with self.asked:
                    self.subscribes.append(command["subscribe"])
                    self.asked.notify_all()
                answer = await self.answers.get()
                await say(socket, id=command["id"], **answer)
                if "subscribe" in answer:
                    await say(socket, message=message(answer["subscribe"]["cursor"] + 1))

    async def times(self, count: int) -> None:
        """Return when this many have arrived."""
        async with self.asked:
            await self.asked.wait_for(lambda: len(self.subscribes) == count)

    def accept(self, cursor: int = 0) -> None:
        self.answers.put_nowait({"subscribe": {"epoch": "E1", "cursor": cursor, "last": 9, "gap": None}})

    def refuse(self) -> None:
        error = {"code": "channel_not_found", "message": "no channel", "temporary": False}
        self.answers.put_nowait({"error": error})


@pytest.mark.parametrize("start", ["first", "new", "cursor"])
async def test_cancelled_step_subscribes_once_and_the_next_step_continues(signer: Signer, start: str) -> None:
    script = Gateway()
    async with gateway(script) as url, asyncio.timeout(20), agent_at(url, signer) as agent, asyncio.TaskGroup() as group:
        messages = agent.messages(CHANNEL, start=start)  # type: ignore[call-overload]  # it is one of the words
        for _ in range(3):
            step = group.create_task(anext(messages))
            await script.times(1)
            step.cancel()
            await asyncio.wait([step])
            assert step.cancelled()
        script.accept()
        assert (await anext(messages)).seq == 1
    assert [each["channel"] for each in script.subscribes] == [CHANNEL]


async def test_cancelled_subscribe_takes_effect_when_its_reply_arrives(signer: Signer) -> None:
    script = Gateway()
    async with gateway(script) as url, asyncio.timeout(20), agent_at(url, signer) as agent, asyncio.TaskGroup() as group:
        subscribing = group.create_task(agent.subscribe(CHANNEL, 5))
        await script.times(1)
        subscribing.cancel()
        script.accept(cursor=4)
        assert (await anext(agent.messages())).seq == 5
        script.accept(cursor=5)
        assert (await anext(agent.messages(CHANNEL))).seq == 6
    assert [each["from"] for each in script.subscribes] == [5, 5]


async def test_each_loop_subscribes_and_raises_for_a_deleted_channel(signer: Signer) -> None:
    script = Gateway()
    async with gateway(script) as url, asyncio.timeout(20), agent_at(url, signer) as agent:
        script.accept()
        assert (await anext(agent.messages(CHANNEL))).seq == 1
        script.refuse()
        messages = agent.messages(CHANNEL)
        with pytest.raises(ChannelNotFound):
            await anext(messages)
        script.accept(cursor=1)  # A step after an error subscribes again.
        assert (await anext(messages)).seq == 2
    assert len(script.subscribes) == 3
