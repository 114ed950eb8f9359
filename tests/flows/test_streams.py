"""Streams over HTTP against a whole server: a kill in the middle, an orderly stop, and the server's metrics."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import pytest

from artcafe.errors import ChannelNotFound
from artcafe.sdk.event_streams import MessageStream
from artcafe.sdk.messages import Gap
from tests.plain_http import NO_AUTHORITIES
from tests.platform import Cast, Platform, running
from tests.rest.event_reader import READ_S, EventReader, reading, wait_for


def caller_of(cast: Cast) -> httpx2.Client:
    return httpx2.Client(
        base_url=cast.url, headers={"Authorization": f"Bearer {cast.token}"}, timeout=READ_S, verify=NO_AUTHORITIES
    )


def publish(caller: httpx2.Client, path: str, *data: int) -> None:
    for one in data:
        answer = caller.post(path, json={"data": one})
        assert answer.status_code == 201, answer.text


def read_until_it_breaks(reader: EventReader) -> None:
    while True:  # what the dead server had written comes first
        reader.next()


def streams_open(platform: Platform) -> float:
    """Return the open streams, by the server's metrics."""
    assert platform.metrics_url is not None
    lines = httpx2.get(platform.metrics_url, verify=NO_AUTHORITIES).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("artcafe_streams{"))


@pytest.mark.promise("t4", "t10")
def test_stream_survives_a_killed_server_and_says_why_a_stopped_one_ends_it(tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        cast = asyncio.run(platform.tenant_with(agents=0, channels=1))
        path = f"/v1/tenants/{cast.tenant}/channels/{cast.channels[0]}/messages"
        with caller_of(cast) as caller:
            with reading(caller, f"{path}/stream") as reader:
                publish(caller, path, 1, 2, 3)
                assert reader.messages(2) == [1, 2]
                seen = reader.last_id
                platform.kill()
                with pytest.raises(httpx2.RemoteProtocolError):
                    read_until_it_breaks(reader)
            platform.start()
            publish(caller, path, 4)
            with reading(caller, f"{path}/stream", seen) as reader:
                assert reader.messages(2) == [3, 4]
                publish(caller, path, 5)
                assert reader.messages(1) == [5]
                wait_for(lambda: streams_open(platform) == 1)  # a gauge, set every two seconds
                seen = reader.last_id
                assert platform.stop() == 0
                assert reader.end()["code"] == "shutting_down"
        platform.start()
        with caller_of(cast) as caller:
            publish(caller, path, 6)
            with reading(caller, f"{path}/stream", seen) as reader:
                assert reader.messages(1) == [6]


async def data_of(stream: MessageStream, count: int) -> list[object]:
    """Return the data of the next messages."""
    async with asyncio.timeout(READ_S):
        items = [await anext(stream) for _ in range(count)]
    return [item if isinstance(item, Gap) else item.data for item in items]


async def test_followed_messages_continue_after_kills_stops_and_cancelled_steps(tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        cast = await platform.tenant_with(agents=1, channels=1)
        (channel,), agent = cast.channels, cast.agent()
        async with cast.rest() as rest:
            messages = rest.tenant(cast.tenant).messages
            for data in (1, 2, 3):
                await messages.publish(channel, data)
            inbox = (await agent.client()).tenant(cast.tenant).inbox(cast.agents[0])
            news, mine = messages.follow(channel, after=0), inbox.follow()
            assert (await data_of(news, 2), await data_of(mine, 3)) == ([1, 2], [1, 2, 3])
            platform.kill()
            platform.start()
            await messages.publish(channel, 4)
            assert (await data_of(news, 2), await data_of(mine, 1)) == ([3, 4], [4])
            assert platform.stop() == 0
            platform.start()
            await messages.publish(f"@{cast.agents[0]}", "direct")
            assert await data_of(mine, 1) == ["direct"]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(news)
            await messages.publish(channel, 5)
            assert await data_of(news, 1) == await data_of(messages.follow(channel, last_id=before(news)), 1) == [5]
            assert await data_of(inbox.follow(last_id=mine.last_id), 1) == [5]
            item = await anext(messages.follow(channel, after=0))
            assert not isinstance(item, Gap)
            with pytest.raises(RuntimeError, match="acknowledges nothing"):
                await item.ack()
            await rest.tenant(cast.tenant).channels.delete(channel)
            with pytest.raises(ChannelNotFound):
                await data_of(news, 1)
            await mine.aclose()
        await agent.aclose()


def before(stream: MessageStream) -> str:
    """Return the id of the message before the last one of a channel's stream."""
    assert stream.last_id is not None
    epoch, _, seq = stream.last_id.rpartition(":")
    return f"{epoch}:{int(seq) - 1}"
