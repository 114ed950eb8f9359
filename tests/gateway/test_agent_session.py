from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest

from artcafe.rules.keys import key_id
from tests import ssh_keygen
from tests.gateway.gateway_app import gateway_app
from tests.gateway.raw_client import BOUND_S, RawClient, open_client
from tests.plain_http import NO_AUTHORITIES
from tests.platform import Cast, Platform


@asynccontextmanager
async def connected(platform: Platform, cast: Cast, number: int = 0, **more: object) -> AsyncIterator[RawClient]:
    """Connect an agent of the tenant by a signature."""
    async with open_client(platform.gateway_url) as raw:
        assert "session_id" in await raw.login(cast.tenant, cast.agents[number], cast.keys[number], **more)
        yield raw


async def access_token(platform: Platform, cast: Cast, number: int = 0) -> str:
    """Return an access token, issued over REST."""
    async with httpx2.AsyncClient(base_url=platform.url, trust_env=False, verify=NO_AUTHORITIES) as rest:
        claim = {"tenant_id": cast.tenant, "agent_id": cast.agents[number]}
        posed = (await rest.post("/v1/auth/challenges", json=claim)).json()
        signature = ssh_keygen.sign(cast.keys[number], posed["challenge"].encode())
        answer = await rest.post("/v1/auth/tokens", json={"challenge_id": posed["challenge_id"], "signature": signature})
    token: str = answer.json()["access_token"]
    return token


async def rest(platform: Platform, cast: Cast, method: str, path: str, **body: object) -> int:
    """Send a request as the tenant's owner, and return its status."""
    headers = {"Authorization": f"Bearer {cast.token}"}
    async with httpx2.AsyncClient(base_url=platform.url, headers=headers, trust_env=False, verify=NO_AUTHORITIES) as client:
        answer = await client.request(method, f"/v1/tenants/{cast.tenant}{path}", json=body or None)
    return answer.status_code


def subscription(cast: Cast, number: int = 0, channel: int = 0) -> str:
    return f"/channels/{cast.channels[channel]}/subscriptions/{cast.agents[number]}"


# --- connect -------------------------------------------------------------------------------------------------------------


async def test_agent_connects_by_signing_the_challenge_of_its_socket(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1)
    async with open_client(platform.gateway_url) as raw:
        posed = await raw.ask("challenge", tenant_id=cast.tenant, agent_id=cast.agents[0])
        assert list(posed) == ["challenge_id", "challenge", "expires_at"]
        signature = ssh_keygen.sign(cast.keys[0], posed["challenge"].encode())
        reply = await raw.ask("connect", challenge_id=posed["challenge_id"], signature=signature)

        assert list(reply) == ["session_id", "agent_id", "tenant_id", "ping_s", "limits"]
        assert (reply["agent_id"], reply["tenant_id"], reply["ping_s"]) == (cast.agents[0], cast.tenant, 25)
        assert reply["limits"] == {"frame_bytes": 65536, "json_depth": 32, "subscriptions": 128}


async def test_agent_connects_with_a_token_and_renews_it_with_a_fresh_one(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2)
    token, fresh, other = [await access_token(platform, cast, number) for number in (0, 0, 1)]
    async with open_client(platform.gateway_url) as raw:
        first = await raw.ask("connect", access_token=token, tenant_id=cast.tenant)
        again = await raw.ask("connect", access_token=fresh)
        assert (first["agent_id"], again["agent_id"]) == (cast.agents[0], cast.agents[0])
        assert first["session_id"] != again["session_id"]
        assert (await raw.ask("publish", channel=cast.channels[0], data=1))["seq"] == 1
        assert await raw.messages(1) == [1]

        await raw.say("connect", access_token=other)
        assert await raw.closed() == 4500


PROOFS: tuple[dict[str, str], ...] = (
    {},
    {"access_token": "e30"},
    {"access_token": "TOKEN", "tenant_id": "ten_other"},
    {"access_token": "TOKEN", "challenge_id": "CHALLENGE", "signature": "SIGNATURE"},
    {"challenge_id": "CHALLENGE"},
    {"signature": "SIGNATURE"},
    {"challenge_id": "chl_none", "signature": "SIGNATURE"},
    {"challenge_id": "CHALLENGE", "signature": "none"},
    {"challenge_id": "OTHER CHALLENGE", "signature": "SIGNATURE"},
)


async def test_failed_login_is_answered_and_closed_with_4500_and_later_commands_are_dropped(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1, channels=0)
    token = await access_token(platform, cast)
    for proof in PROOFS:
        async with open_client(platform.gateway_url) as raw:
            posed, other = [await raw.ask("challenge", tenant_id=cast.tenant, agent_id=cast.agents[0]) for _ in range(2)]
            words = {
                "TOKEN": token,
                "CHALLENGE": posed["challenge_id"],
                "OTHER CHALLENGE": other["challenge_id"],
                "SIGNATURE": ssh_keygen.sign(cast.keys[0], posed["challenge"].encode()),
            }
            id = await raw.say("connect", **{field: words.get(word, word) for field, word in proof.items()})
            await raw.say("publish", channel="chn_1", data={})

            assert await raw.closed() == 4500
            assert [(frame["id"], frame["error"]["code"]) for frame in raw.pushes] in (
                [(id, "bad_credentials")],
                [(id, "unauthenticated")],
            )
    assert "connection.failed" not in platform.log()


async def test_challenge_is_valid_for_one_attempt_on_its_own_socket(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1, channels=0)
    async with open_client(platform.gateway_url) as here, open_client(platform.gateway_url) as there:
        posed = await here.ask("challenge", tenant_id=cast.tenant, agent_id=cast.agents[0])
        proof = {
            "challenge_id": posed["challenge_id"],
            "signature": ssh_keygen.sign(cast.keys[0], posed["challenge"].encode()),
        }
        await there.say("connect", **proof)
        assert await there.closed() == 4500
        assert "session_id" in await here.ask("connect", **proof)
        await here.say("connect", **proof)
        assert await here.closed() == 4500


async def test_unknown_agents_get_challenges_like_known_ones_up_to_the_limit(platform: Platform) -> None:
    async with open_client(platform.gateway_url) as raw:
        for tenant, agent in [("ten_none", "agt_none"), ("", ""), ("\u2603\r\n", "*" * 1000), ("ten_none", "agt_none")]:
            assert "challenge" in await raw.ask("challenge", tenant_id=tenant, agent_id=agent)
        assert (await raw.ask("challenge", tenant_id="t", agent_id="a"))["code"] == "bad_command"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("history", {"channel": "chn_1"}),
        ("status", {"status": "busy"}),
        ("publish", {"channel": "chn_1", "data": {}}),
        ("subscribe", {"channel": "chn_1"}),
        ("unsubscribe", {"channel": "chn_1"}),
        ("ack", {"channel": "chn_1", "seq": 1}),
    ],
)
async def test_every_command_but_challenge_is_refused_before_connect(
    platform: Platform, kind: str, body: dict[str, object]
) -> None:
    async with open_client(platform.gateway_url) as raw:
        await raw.say(kind, **body)
        assert await raw.closed() == 4501
        assert raw.socket.close_reason is not None
        assert kind in raw.socket.close_reason


# --- publish -------------------------------------------------------------------------------------------------------------


async def test_message_arrives_byte_for_byte_as_in_the_contract(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1)
    (channel,) = cast.channels
    async with connected(platform, cast) as raw:
        await raw.socket.send(
            f'{{"id":2,"publish":{{"channel":"{channel}","data":{{"b":1.0, "a":"\u2603\\u0041"}},"key":"order-42",'
            '"headers":{"h":"v"},"reply_to":"chn_x"}}'
        )
        async with asyncio.timeout(BOUND_S):
            reply, text = sorted([str(await raw.socket.recv()), str(await raw.socket.recv())])  # in either order
        message_id, time = (json.loads(text)["message"][field] for field in ("message_id", "time"))

        start = f'{{"id":2,"publish":{{"seq":1,"message_id":"{message_id}","duplicate":false,"subscribers":'
        assert reply.startswith(start)  # The counts may be known already.
        assert text == (
            f'{{"message":{{"channel":"{channel}","channel_handle":"channel-0","seq":1,"prev":null,"message_id":"{message_id}",'
            f'"from":"{cast.agents[0]}","time":"{time}","from_handle":"agent-0","headers":{{"h":"v"}},"reply_to":"chn_x",'
            '"data":{"b":1.0, "a":"\u2603\\u0041"}}}'
        )


@pytest.mark.promise("4b")
async def test_publishes_of_one_connection_keep_their_order_across_cached_and_uncached_channels(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1, channels=4)
    async with connected(platform, cast) as raw:
        ids = [await raw.say("publish", channel=cast.channels[number % 4], data=number) for number in range(400)]
        replies: dict[int, int] = {}
        got: list[int] = []
        while len(replies) < 400 or len(got) < 400:
            frame = await raw.next()
            if "message" in frame:
                got.append(frame["message"]["data"])
            else:
                replies[frame["id"]] = frame["publish"]["seq"]

        assert [replies[id] for id in ids] == list(range(1, 401))
        assert all([n for n in got if n % 4 == rest] == list(range(rest, 400, 4)) for rest in range(4))


@pytest.mark.promise("3a")
async def test_idempotency_key_stores_one_message_and_refuses_other_content(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1, subscribed=False)
    (channel,) = cast.channels
    async with connected(platform, cast) as raw:
        first = await raw.ask("publish", channel=channel, data={"n": 1}, key="k")

        assert await raw.ask("publish", channel=channel, data={"n": 1}, key="k") == first | {"duplicate": True}
        error = await raw.ask("publish", channel=channel, data={"n": 2}, key="k")
        assert (error["code"], error["temporary"]) == ("key_reused", False)


WRONG: tuple[tuple[dict[str, object], str], ...] = (
    ({"channel": "chn_none"}, "channel_not_found"),
    ({"channel": "ch.*"}, "channel_not_found"),
    ({"channel": ""}, "channel_not_found"),
    ({"key": ""}, "invalid"),
    ({"key": "x" * 256}, "invalid"),
    ({"reply_to": "x" * 256}, "invalid"),
    ({"headers": {"": "v"}}, "invalid"),
    ({"headers": {str(number): "" for number in range(33)}}, "invalid"),
    ({"data": json.loads("[" * 33 + "]" * 33)}, "invalid"),
)


async def test_invalid_publish_is_answered_with_an_error_and_the_connection_stays_open(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1, subscribed=False)
    async with connected(platform, cast) as raw:
        for fields, code in [*WRONG, *WRONG]:  # first with a lookup of the channel, then from memory
            error = await raw.ask("publish", **({"channel": cast.channels[0], "data": 1} | fields))
            assert (error["code"], list(error)) == (code, ["code", "message", "temporary"])
        assert (await raw.ask("publish", channel=cast.channels[0], data=1))["seq"] == 1


async def test_foreign_channel_id_is_answered_like_an_unknown_id(platform: Platform) -> None:
    mine, theirs = await platform.tenant_with(agents=1), await platform.tenant_with(agents=1)
    async with connected(platform, mine) as raw:
        for kind, more in (("publish", {"data": 1}), ("subscribe", {}), ("history", {}), ("history", {"after": 0})):
            assert (await raw.ask(kind, channel=theirs.channels[0], **more))["code"] == "channel_not_found"


# --- subscribe -----------------------------------------------------------------------------------------------------------


async def test_subscribe_creates_the_subscription_and_starts_after_the_newest_message(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2, subscribed=False)
    (channel,) = cast.channels
    async with connected(platform, cast) as sender, connected(platform, cast, 1) as raw:
        await sender.ask("publish", channel=channel, data="before")
        reply = await raw.ask("subscribe", channel=channel)
        assert reply == {"epoch": reply["epoch"], "cursor": 1, "last": 1, "gap": None, "channel": channel}
        await sender.ask("publish", channel=channel, data="after")
        message = await raw.message()
        assert (message["data"], message["seq"], message["prev"]) == ("after", 2, 1)

    async with connected(platform, cast, 1) as again:
        assert await again.messages(1) == ["after"]


async def test_subscribe_starts_at_the_requested_position(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1, channels=2)
    channel, other = cast.channels
    async with connected(platform, cast) as raw:
        for number in range(1, 6):
            await raw.ask("publish", channel=channel, data=number)
            await raw.ask("publish", channel=other, data=0)
        await raw.messages(10)
        await raw.ask("unsubscribe", channel=other)
        await raw.ack(channel, 5)

        for start, cursor, rest in [("first", 0, [1, 2, 3, 4, 5]), ("cursor", 5, [4, 5]), (7, 6, [4, 5]), ("new", 10, [])]:
            reply = await raw.ask("subscribe", channel=channel, **{"from": start})
            assert (reply["cursor"], reply["last"]) == (cursor, 9)
            assert await raw.messages(len(rest)) == rest
        await raw.ask("publish", channel=channel, data=6)
        message = await raw.message()
        assert (message["data"], message["seq"], message["prev"]) == (6, 11, 9)
        assert await raw.is_quiet()


async def test_prev_is_the_previous_sequence_of_the_channel_from_any_start_position(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1, channels=2)
    channel, other = cast.channels
    async with connected(platform, cast) as raw:
        for chosen in (other, channel, other, channel, other, channel):
            await raw.ask("publish", channel=chosen, data=0)
        await raw.messages(6)

        for start, expected in [("first", (2, None)), (1, (2, None)), (3, (4, 2)), (4, (4, 2)), (5, (6, 4))]:
            await raw.ask("subscribe", channel=channel, **{"from": start})
            message = await raw.message()
            assert (message["seq"], message["prev"]) == expected
            await raw.ask("unsubscribe", channel=channel)
            raw.pushes.clear()


async def test_full_window_pauses_delivery_until_acks_arrive(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2, channels=1, subscribed=False)
    (channel,) = cast.channels
    async with connected(platform, cast) as sender, connected(platform, cast, 1) as raw:
        await raw.ask("subscribe", channel=channel, max_unacked=3)
        for number in range(10):
            await sender.ask("publish", channel=channel, data=number)
        for first in (0, 3, 6):
            assert await raw.messages(3) == [first, first + 1, first + 2]
            assert await raw.is_quiet()
            await raw.ack(channel, first + 3)
        assert await raw.messages(1) == [9]
        await raw.ack(channel, 10)
        # It has caught up again: messages are delivered live, one by one, and several at once.
        await sender.ask("publish", channel=channel, data="live")
        assert await raw.messages(1) == ["live"]
        for number in range(5):
            await sender.say("publish", channel=channel, data=number)
        assert await raw.messages(2) == [0, 1]
        assert await raw.is_quiet()
        await raw.ack(channel, 13)
        assert await raw.messages(3) == [2, 3, 4]


async def test_window_of_connect_applies_to_subscriptions_begun_without_a_command(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2)
    (channel,) = cast.channels
    async with connected(platform, cast) as sender:
        for number in range(4):
            await sender.ask("publish", channel=channel, data=number)
    async with connected(platform, cast, 1, max_unacked=2) as raw:
        assert await raw.messages(2) == [0, 1]
        assert await raw.is_quiet()
        await raw.ack(channel, 1)
        assert await raw.messages(1) == [2]


async def test_unsubscribe_ends_delivery_on_its_own_socket_only(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1)
    (channel,) = cast.channels
    async with connected(platform, cast) as one, connected(platform, cast) as other:
        await other.ask("publish", channel=channel, data=0)
        assert await one.messages(1) == [0]
        assert await other.messages(1) == [0]
        assert await one.ask("unsubscribe", channel=channel) == {"channel": channel}
        assert (await one.ask("unsubscribe", channel=channel))["code"] == "not_subscribed"
        await other.ask("publish", channel=channel, data=1)
        assert await other.messages(1) == [1]
        assert await one.is_quiet()

        assert (await one.ask("subscribe", channel=channel))["cursor"] == 0
        assert await one.messages(2) == [0, 1]


async def test_subscribe_to_a_paused_subscription_is_refused(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1)
    assert await rest(platform, cast, "PATCH", subscription(cast), status="paused") == 200
    async with connected(platform, cast) as raw:
        assert (await raw.ask("subscribe", channel=cast.channels[0]))["code"] == "conflict"


# --- acks and cursors ----------------------------------------------------------------------------------------------------


@pytest.mark.promise("6a")
async def test_next_connection_gets_exactly_the_unacknowledged_messages_of_all_sockets(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1)
    (channel,) = cast.channels
    async with connected(platform, cast) as one, connected(platform, cast) as other:
        for number in range(1, 6):
            await one.ask("publish", channel=channel, data=number)
        assert await one.messages(5) == await other.messages(5) == [1, 2, 3, 4, 5]
        await one.ack(channel, 2)
        await other.ack(channel, 3)
        await one.ack(channel, 1)
        assert await one.is_quiet()
        assert await other.is_quiet()
    async with connected(platform, cast) as again:
        assert await again.messages(2) == [4, 5]


async def test_ack_beyond_the_last_sent_message_is_an_error_without_effect(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1, channels=2)
    channel, other = cast.channels
    async with connected(platform, cast) as raw:
        await raw.ask("publish", channel=channel, data=1)
        await raw.ask("publish", channel=other, data=2)
        while len(raw.pushes) < 2:
            raw.pushes.append(await raw.next())
        raw.pushes.clear()
        for wrong, seq, code in [
            (channel, 2, "ack_beyond_sent"),
            (channel, 2**53, "ack_beyond_sent"),
            ("chn_none", 1, "not_subscribed"),
        ]:
            await raw.ack(wrong, seq)
            error = await raw.next()
            assert (list(error), error["error"]["code"]) == (["error"], code)
        await raw.ack(channel, 0)
        assert await raw.is_quiet()
    async with connected(platform, cast) as again:
        assert sorted(await again.messages(2)) == [1, 2]


# --- revocations ---------------------------------------------------------------------------------------------------------


@pytest.mark.promise("12b")
async def test_deleting_a_subscription_ends_its_delivery_and_creating_one_begins_it(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2)
    (channel,) = cast.channels
    async with connected(platform, cast) as sender, connected(platform, cast, 1) as raw:
        await raw.is_quiet()
        assert await rest(platform, cast, "DELETE", subscription(cast, 1)) == 204
        await _ended(raw, channel)
        await sender.ask("publish", channel=channel, data=0)
        assert await rest(platform, cast, "PUT", subscription(cast, 1)) == 201
        await sender.ask("publish", channel=channel, data=1)
        assert await raw.messages(1) == [1]


async def _ended(raw: RawClient, channel: str) -> None:
    """Wait until the socket no longer receives the channel, at most 5 s."""
    async with asyncio.timeout(BOUND_S):
        while True:
            await raw.ack(channel, 2**53)
            if (await raw.next())["error"]["code"] == "not_subscribed":
                return


@pytest.mark.parametrize("change", ["delete", "disable", "re-key"])
@pytest.mark.promise("12c")
async def test_revoked_agent_is_closed_with_4503_on_all_its_sockets(platform: Platform, change: str, tmp_path: object) -> None:
    cast = await platform.tenant_with(agents=2)
    token = await access_token(platform, cast)
    path = f"/agents/{cast.agents[0]}"
    new_key = ssh_keygen.make_key(platform.folder / f"{cast.tenant}-{change}").with_suffix(".pub").read_text()
    async with (
        connected(platform, cast) as one,
        connected(platform, cast, 1) as bystander,
        open_client(platform.gateway_url) as other,
    ):
        await other.ask("connect", access_token=token)
        if change == "delete":
            assert await rest(platform, cast, "DELETE", path) == 204
        elif change == "disable":
            assert await rest(platform, cast, "PATCH", path, status="disabled") == 200
        else:
            assert await rest(platform, cast, "PATCH", path, public_key=new_key) == 200

        assert (await one.closed(), await other.closed()) == (4503, 4503)
        assert (await bystander.ask("publish", channel=cast.channels[0], data=1))["seq"] == 1
    async with open_client(platform.gateway_url) as again:
        await again.say("connect", access_token=token)
        assert await again.closed() == 4503


async def test_revoked_key_closes_only_the_sockets_opened_with_it(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1)
    second = ssh_keygen.make_key(platform.folder / f"{cast.tenant}-second")
    keys = f"/agents/{cast.agents[0]}/keys"
    assert await rest(platform, cast, "POST", keys, public_key=ssh_keygen.public_line(second)) == 201
    async with connected(platform, cast) as first, open_client(platform.gateway_url) as other:
        assert "session_id" in await other.login(cast.tenant, cast.agents[0], second)
        assert await rest(platform, cast, "DELETE", f"{keys}/{key_id(ssh_keygen.public_line(second))}") == 204

        assert await other.closed() == 4503
        assert (await first.ask("publish", channel=cast.channels[0], data=1))["seq"] == 1
    async with open_client(platform.gateway_url) as again:
        assert (await again.login(cast.tenant, cast.agents[0], second))["code"] == "bad_credentials"


async def test_expired_key_closes_its_sockets_with_4001(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        second = ssh_keygen.make_key(tmp_path / "second")
        line, end = ssh_keygen.public_line(second), it.clock() + timedelta(seconds=60)
        await it.services.keys.add(it.owner, it.agent.id, public_key=line, not_after=end)
        async with it.connected_socket() as first, open_client(it.url) as other:
            assert "session_id" in await other.login(it.owner.tenant_id, it.agent.id, second)
            it.clock.ahead = timedelta(seconds=61)
            assert await other.closed() == 4001
            first.send({"id": 2, "publish": {"channel": it.channel.id, "data": 1}})
            while "publish" not in (answer := await first.text()):
                continue
            assert answer["publish"]["seq"] == 1
