from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from artcafe.model import ChannelType, Role, TenantStatus, UserId
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import RawClient, open_client

VIEWER = UserId("viewer@example.com")


def token(it: GatewayApp, user: str = VIEWER) -> str:
    return it.identity.issue(user, it.clock())


async def presence(raw: RawClient) -> tuple[str, bool, str | None]:
    """Return the next push, and fail unless it is about presence."""
    frame = raw.pushes.pop(0) if raw.pushes else await raw.next()
    assert list(frame) == ["presence"], frame
    assert list(frame["presence"]) == ["agent", "connected", "status", "since"]
    assert (frame["presence"]["since"] is not None) is frame["presence"]["connected"]
    return frame["presence"]["agent"], frame["presence"]["connected"], frame["presence"]["status"]


# --- connect ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
async def test_member_of_any_role_connects_with_a_token_and_the_tenant(tmp_path: Path, role: Role) -> None:
    async with gateway_app(tmp_path) as it:
        user = UserId("bob@example.com")
        await it.add_member(user, role)
        async with open_client(it.url) as raw:
            reply = await raw.ask("connect", access_token=token(it, user), tenant_id=it.owner.tenant_id)
            assert list(reply) == ["session_id", "user_id", "role", "tenant_id", "ping_s", "limits"]
            assert (reply["user_id"], reply["role"], reply["tenant_id"]) == (user, role, it.owner.tenant_id)
            assert await raw.ask("watch", channel=it.channel.id) == {"channel": it.channel.id}
            assert await raw.ask("watch", presence=True) == {"presence": True}


async def test_missing_unknown_and_foreign_tenants_are_refused_with_the_same_answer(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        found = []
        for tenant in (
            {},
            {"tenant_id": "ten_00000000000000000000000000"},
            {"tenant_id": "\0"},
            {"tenant_id": it.owner.tenant_id},
        ):
            async with open_client(it.url) as raw:
                await raw.say("connect", access_token=token(it, "mallory"), **tenant)
                assert await raw.closed() == 4500
                found.append(raw.pushes)
        assert found == [found[0]] * 4
        assert found[0][0]["error"]["code"] == "no_member"


async def test_expired_or_invalid_token_of_a_person_closes(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        await it.add_member(VIEWER, Role.VIEWER)
        expired = it.identity.issue(VIEWER, it.clock() - timedelta(days=1))
        for given, code in ((expired, 4001), (token(it)[:-3], 4500)):
            async with open_client(it.url) as raw:
                await raw.say("connect", access_token=given, tenant_id=it.owner.tenant_id)
                assert await raw.closed() == code


# --- channels --------------------------------------------------------------------------------------------------------


async def test_watched_channel_is_shown_from_watch_until_unwatch(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected_person() as raw:
        await it.publish(b'"before"')
        await raw.ask("watch", channel=it.channel.id)
        assert await raw.ask("watch", channel=it.channel.id) == {"channel": it.channel.id}
        seq = await it.publish(b'{"n":1}')
        message = await raw.message()
        assert (message["channel"], message["seq"], message["data"]) == (it.channel.id, seq, {"n": 1})
        assert message["from"] == "usr:alice"
        assert await raw.ask("unwatch", channel=it.channel.id) == {"channel": it.channel.id}
        await it.publish(b"2")
        assert (await raw.ask("unwatch", channel=it.channel.id))["code"] == "not_subscribed"
        assert raw.pushes == []


async def test_watch_creates_no_subscription_and_moves_no_cursor(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected_person() as raw:
        await raw.ask("watch", channel=it.channel.id)
        await it.publish(b"1")
        assert await raw.messages(1) == [1]
        rows = await it.services.subscriptions.for_connect(it.agent.tenant_id, it.agent.id)
        assert [row.cursor.seq for row in rows if row.channel_id == it.channel.id] == [0]
        async with it.connected() as agent:
            assert await agent.messages(1) == [1]


async def test_live_channel_can_be_watched(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected_person() as raw:
        live = await it.services.channels.create(it.owner, name="live", type=ChannelType.LIVE)
        await raw.ask("watch", channel=live.id)
        async with it.connected() as agent:
            assert (await agent.ask("publish", channel=live.id, data=7))["seq"] is None
        assert (await raw.message())["data"] == 7


async def test_deleted_channel_pushes_an_error_and_the_connection_stays_open(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected_person() as raw:
        await raw.ask("watch", channel=it.channel.id)
        await it.services.channels.delete(it.owner, it.channel.id)
        assert (await raw.next())["error"]["code"] == "channel_not_found"
        assert await raw.ask("watch", presence=True) == {"presence": True}


async def test_person_that_reads_nothing_delays_nobody_and_skips_messages(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected_person() as raw:
        await raw.ask("watch", channel=it.channel.id)
        (connection,) = it.gateway.connections()
        connection.pause()
        (delivery,) = connection.deliveries.values()
        missed = await it.publish(b'"missed"')
        await until(lambda: delivery.feed.flushed == missed)
        connection.resume_writing()
        await until(lambda: all(each.is_member for each in connection.deliveries.values()))
        await it.publish(b'"seen"')
        assert await raw.messages(1) == ["seen"]


# --- presence --------------------------------------------------------------------------------------------------------


async def test_presence_is_shown_at_watch_and_on_every_change(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as agent:
        await agent.ask("status", status="idle")
        async with it.connected_person() as raw:
            assert await raw.ask("watch", presence=True) == {"presence": True}
            assert await presence(raw) == (it.agent.id, True, "idle")
            await agent.ask("status", status="busy")
            assert await presence(raw) == (it.agent.id, True, "busy")
            await agent.socket.close()
            assert await presence(raw) == (it.agent.id, False, None)
            async with it.connected():
                assert await presence(raw) == (it.agent.id, True, None)
            assert await presence(raw) == (it.agent.id, False, None)
            assert await raw.ask("unwatch", presence=True) == {"presence": True}
            async with it.connected():
                assert (await raw.ask("unwatch", presence=True))["code"] == "not_subscribed"
            assert raw.pushes == []


async def test_presence_changes_during_a_pause_are_shown_afterwards_in_their_last_state(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected_person() as raw:
        await raw.ask("watch", presence=True)
        (connection,) = it.gateway.connections()
        connection.pause()
        async with it.connected() as agent:
            for status in ("one", "two"):
                await agent.ask("status", status=status)
            connection.resume_writing()
            assert await presence(raw) == (it.agent.id, True, "two")


# --- commands of the other kind of principal -------------------------------------------------------------------------


async def test_commands_of_agents_are_refused_to_people_and_the_connection_stays_open(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected_person(Role.OWNER) as raw:
        channel = it.channel.id
        for kind, body in (
            ("publish", {"channel": channel, "data": 1}),
            ("subscribe", {"channel": channel}),
            ("status", {"status": "busy"}),
            ("history", {"channel": channel}),
        ):
            refused = await raw.ask(kind, **body)
            assert (refused["code"], kind in refused["message"]) == ("forbidden", True)
        await raw.ack(channel, 1)
        refused = (await raw.next())["error"]
        assert (refused["code"], refused["message"].startswith("a person may not ack")) == ("forbidden", True)
        assert (await raw.ask("watch"))["code"] == "bad_command"
        assert (await raw.ask("watch", channel=channel, presence=True))["code"] == "bad_command"
        assert (await raw.ask("watch", channel="chn_00000000000000000000000000"))["code"] == "channel_not_found"
        assert await it.publish(b"1") == 1, "nothing was stored before"


async def test_watch_is_refused_to_agents(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        assert (await raw.ask("watch", presence=True))["code"] == "forbidden"
        assert (await raw.ask("unwatch", channel=it.channel.id))["code"] == "forbidden"


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_removed_member_is_closed_with_4503_and_a_changed_role_with_4001(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected_person() as raw, it.connected_person(Role.ADMIN) as bystander:
        await it.remove_member(VIEWER)
        assert await raw.closed() == 4503
        async with open_client(it.url) as again:
            await again.say("connect", access_token=token(it), tenant_id=it.owner.tenant_id)
            assert await again.closed() == 4500
        assert await bystander.ask("watch", presence=True) == {"presence": True}
        await it.set_role(UserId("admin@example.com"), Role.VIEWER)
        assert await bystander.closed() == 4001


async def test_connection_of_a_person_closes_with_its_token_unless_the_same_person_renews_it(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected_person() as renewed, it.connected_person(Role.MEMBER) as other:
        await renewed.ask("watch", channel=it.channel.id)
        it.clock.ahead = timedelta(hours=11)
        reply = await renewed.ask("connect", access_token=token(it), tenant_id=it.owner.tenant_id)
        assert reply["user_id"] == VIEWER
        it.clock.ahead = timedelta(hours=13)
        assert await other.closed() == 4001
        await it.publish(b"1")
        assert await renewed.messages(1) == [1]
        await renewed.say("connect", access_token=it.identity.issue("alice", it.clock()), tenant_id=it.owner.tenant_id)
        assert await renewed.closed() == 4500


async def test_suspended_tenant_closes_every_socket_with_4506_and_refuses_new_ones(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected_person() as person, it.connected() as agent:
        await it.suspend()
        assert (await person.closed(), await agent.closed()) == (4506, 4506)
        for credentials in ({"access_token": token(it), "tenant_id": it.owner.tenant_id}, {"access_token": it.token()}):
            async with open_client(it.url) as again:
                await again.say("connect", **credentials)
                assert await again.closed() == 4506
        await it.suspend(TenantStatus.ACTIVE)
        async with it.connected() as back:
            assert await back.ask("status", status="back") == {"status": "back"}


async def test_connects_and_refusals_of_people_are_in_the_audit(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        async with it.connected_person():
            pass
        await it.suspend()
        async with open_client(it.url) as again:
            await again.say("connect", access_token=token(it), tenant_id=it.owner.tenant_id)
            assert await again.closed() == 4506
        async with open_client(it.url) as outsider:
            stranger = it.identity.issue("mallory", it.clock())
            await outsider.say("connect", access_token=stranger, tenant_id=it.owner.tenant_id)
            assert await outsider.closed() == 4500
        audit = it.services.audit
        await audit.counters.flush()
        found = [
            (line.entry.action, line.entry.actor, line.entry.outcome.value)
            for line in (await audit.list_any(it.owner.tenant_id)).items
        ]
        assert {
            ("member.connect", "usr:viewer@example.com", "done"),
            ("member.connect", f"usr:{VIEWER}", "refused"),
            ("tenant.trespass", "outsider", "refused"),
        } <= set(found)
        ours = [(line.entry.action, line.entry.actor) for line in (await audit.list_any(None)).items]
        assert ("tenant.trespass", "usr:mallory") in ours
