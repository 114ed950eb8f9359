"""Presence and status of connected agents."""

from __future__ import annotations

from pathlib import Path

from artcafe.services.presence import Seen, View
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import open_client


async def seen(it: GatewayApp) -> View:
    """Return the presence of the fixture's tenant."""
    view = await it.services.presence.view(it.owner.tenant_id)
    assert view is not None
    return view


async def test_agent_is_present_from_the_connect_reply_until_its_last_socket_closes(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        view = await seen(it)
        assert view.of(it.agent.id) == Seen(connected=False)
        async with it.connected() as first:
            assert view.of(it.agent.id).connected
            async with it.connected():
                assert len(it.gateway.connections()) == 2
            await until(lambda: len(it.gateway.connections()) == 1)
            assert view.of(it.agent.id).connected
            assert "session_id" in await first.ask("connect", access_token=it.token())
        await until(lambda: not it.gateway.connections())
        assert not view.of(it.agent.id).connected


async def test_unauthenticated_socket_shows_no_presence(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, open_client(it.url) as raw:
        posed = await raw.ask("challenge", tenant_id=it.owner.tenant_id, agent_id=it.agent.id)
        refused = await raw.ask("connect", challenge_id=posed["challenge_id"], signature="x")
        assert refused["code"] == "bad_credentials"
        assert not (await seen(it)).of(it.agent.id).connected


async def test_revoked_agent_is_absent_before_its_peer_answers_the_close(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected_socket() as mute:
        view = await seen(it)
        assert view.of(it.agent.id).connected
        await it.services.agents.delete(it.owner, it.agent.id)
        assert await mute.closed() == 4503
        assert not view.of(it.agent.id).connected


async def test_status_is_shown_until_the_last_socket_closes(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected():
        view = await seen(it)
        async with it.connected() as raw:
            assert await raw.ask("status", status="busy") == {"status": "busy"}
            assert view.of(it.agent.id).status == "busy"
            assert await raw.ask("status", status=None) == {"status": None}
            assert view.of(it.agent.id).status is None
            assert await raw.ask("status", status="idle") == {"status": "idle"}
        await until(lambda: len(it.gateway.connections()) == 1)
        assert view.of(it.agent.id).status == "idle"


async def test_invalid_status_is_refused_and_the_socket_stays_open(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        for wrong in ("", "x" * 65, "two\nlines"):
            assert (await raw.ask("status", status=wrong))["code"] == "invalid"
        for no_text in (7, ["busy"]):
            assert (await raw.ask("status", status=no_text))["code"] == "bad_command"
        assert (await raw.ask("status"))["code"] == "bad_command"
        assert (await raw.ask("status", status="busy", until="noon"))["code"] == "bad_command"
        assert (await seen(it)).of(it.agent.id).status is None
        assert await raw.ask("status", status="x" * 64) == {"status": "x" * 64}


async def test_status_is_out_of_turn_before_connect_and_queued_after_it(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        async with open_client(it.url) as early:
            await early.say("status", status="busy")
            assert await early.closed() == 4501
        async with open_client(it.url) as raw:
            await raw.say("connect", access_token=it.token())
            assert await raw.ask("status", status="busy") == {"status": "busy"}
            assert (await seen(it)).of(it.agent.id).status == "busy"
