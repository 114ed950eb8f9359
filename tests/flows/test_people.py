"""People of a Cognito user pool, from the first refusal to the last: terms, tenant, colleague, agent, and the colleague's
removal."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from mcp.shared.auth import ProtectedResourceMetadata

from tests import ssh_keygen
from tests.aws import Aws
from tests.cognito import Pool, Session
from tests.gateway.raw_client import RawClient, open_client
from tests.mcp.http_client import http_client
from tests.mcp.stdio_client import call
from tests.platform import Platform, running

TERMS = "2026-11"


@pytest.fixture(scope="module")
def pool(aws: Aws) -> Pool:
    return Pool(aws)


@pytest.fixture(scope="module")
def server(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("people")
    (folder / "terms.txt").write_text("Be kind.\n")
    terms = ["--terms-version", TERMS, "--terms-file", str(folder / "terms.txt")]
    with running(folder, [*pool.flags, *terms]) as platform:
        yield platform


@asynccontextmanager
async def at(server: Platform, access_token: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Return a REST client with this token."""
    bearer = {"Authorization": f"Bearer {access_token}"}
    async with httpx2.AsyncClient(base_url=server.url, headers=bearer, trust_env=False) as client:
        yield client


async def accepted_terms(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/v1/terms/acceptances", json={"version": TERMS})).status_code == 201


async def tenant_of(owner: httpx2.AsyncClient) -> str:
    """Accept the terms, and return a new tenant."""
    await accepted_terms(owner)
    made = await owner.post("/v1/tenants", json={"name": "Acme"})
    assert (made.status_code, made.json()["role"]) == (201, "owner")
    return str(made.json()["id"])


async def enter(raw: RawClient, session: Session, tenant: str) -> None:
    reply = await raw.ask("connect", access_token=session.access_token, tenant_id=tenant)
    assert (reply["user_id"], reply["tenant_id"]) == (session.user_id, tenant)


def status_and_code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_colleague_joins_by_address_and_loses_access_when_removed(server: Platform, pool: Pool, tmp_path: Path) -> None:
    alice, bob = pool.person(), pool.person()
    async with at(server, alice.access_token) as owner, at(server, bob.access_token) as colleague:
        # Refused until the terms are accepted.
        home = (await owner.get("/v1")).json()
        assert (home["issuer"], home["terms_version"]) == (pool.issuer, TERMS)
        assert status_and_code(await owner.post("/v1/tenants", json={"name": "Acme"})) == (403, "terms_required")
        assert (await owner.get("/v1/terms")).json()["text"] == "Be kind.\n"
        tenant = await tenant_of(owner)

        # Invited, and admitted by an address that Cognito has verified.
        invited = await owner.post(f"/v1/tenants/{tenant}/members", json={"address": bob.email, "role": "member"})
        assert invited.status_code == 201
        acceptance = {"token": invited.json()["token"], "id_token": bob.id_token}
        assert status_and_code(await colleague.post("/v1/invitations/acceptances", json=acceptance)) == (403, "terms_required")
        await accepted_terms(colleague)
        assert status_and_code(await colleague.get(f"/v1/tenants/{tenant}")) == (404, "tenant_not_found")
        joined = await colleague.post("/v1/invitations/acceptances", json=acceptance)
        assert (joined.status_code, joined.json()["id"], joined.json()["role"]) == (201, tenant, "member")

        # The colleague registers an agent, which both see.
        key = ssh_keygen.make_key(tmp_path / "key")
        new_agent = {"name": "scout", "public_key": ssh_keygen.public_line(key)}
        made = await colleague.post(f"/v1/tenants/{tenant}/agents", json=new_agent)
        assert made.status_code == 201
        agent = made.json()["id"]
        assert (await owner.get(f"/v1/tenants/{tenant}/agents/{agent}")).json()["name"] == "scout"

        async with (
            open_client(server.gateway_url) as watching,
            open_client(server.gateway_url) as bystander,
            open_client(server.gateway_url) as scout,
        ):
            for raw, session in ((watching, bob), (bystander, alice)):
                await enter(raw, session, tenant)
                assert await raw.ask("watch", presence=True) == {"presence": True}
            await scout.login(tenant, agent, key)
            for raw in (watching, bystander):
                seen = (await raw.next())["presence"]
                assert (seen["agent"], seen["connected"]) == (agent, True)

            # Removed: off the socket within the 5 s that `closed` waits, and refused everywhere else.
            assert (await owner.delete(f"/v1/tenants/{tenant}/members/{bob.user_id}")).status_code == 204
            assert status_and_code(await colleague.get(f"/v1/tenants/{tenant}/agents")) == (404, "tenant_not_found")
            assert await watching.closed() == 4503
            assert watching.socket.close_reason == "this person was removed from the tenant"
            async with open_client(server.gateway_url) as again:
                await again.say("connect", access_token=bob.access_token, tenant_id=tenant)
                assert await again.closed() == 4500
                assert again.pushes[-1]["error"]["code"] == "no_member"
            # The colleague's agent stays, and so do the other members.
            assert await scout.ask("status", status="busy") == {"status": "busy"}
            assert (await bystander.next())["presence"]["status"] == "busy"
        assert (await colleague.get("/v1/me")).json()["tenants"] == []
        assert status_and_code(await colleague.post("/v1/invitations/acceptances", json=acceptance)) == (
            403,
            "invitation_refused",
        )


async def test_invitation_is_only_for_the_address_that_cognito_has_verified(server: Platform, pool: Pool) -> None:
    alice, invited = pool.person(), f"{uuid.uuid4()}@example.com"
    unverified, mallory = pool.person(invited, is_verified=False), pool.person()
    async with at(server, alice.access_token) as owner:
        tenant = await tenant_of(owner)
        token = (await owner.post(f"/v1/tenants/{tenant}/members", json={"address": invited})).json()["token"]
    for session, id_token in (
        (unverified, unverified.id_token),
        (mallory, mallory.id_token),
        (mallory, unverified.id_token),
        (mallory, mallory.access_token),
    ):
        async with at(server, session.access_token) as client:
            await accepted_terms(client)
            refused = await client.post("/v1/invitations/acceptances", json={"token": token, "id_token": id_token})
            assert status_and_code(refused) == (403, "address_unproven")
            assert (await client.get("/v1/me")).json()["tenants"] == []


async def test_person_who_refreshes_their_token_keeps_their_socket(server: Platform, pool: Pool) -> None:
    alice = pool.person()
    async with at(server, alice.access_token) as owner:
        tenant = await tenant_of(owner)
    fresh = await asyncio.to_thread(pool.refresh, alice)
    assert fresh.access_token != alice.access_token
    async with at(server, fresh.access_token) as owner, open_client(server.gateway_url) as raw:
        assert (await owner.get(f"/v1/tenants/{tenant}")).json()["role"] == "owner"
        await enter(raw, alice, tenant)
        await enter(raw, fresh, tenant)
        assert await raw.ask("watch", presence=True) == {"presence": True}


async def test_person_uses_mcp_with_a_token_of_the_issuer_that_the_metadata_names(server: Platform, pool: Pool) -> None:
    alice, ping = pool.person(), {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    async with at(server, alice.access_token) as owner, at(server, "none") as nobody:
        assert status_and_code(await owner.post("/v1/tenants/ten_none/mcp", json=ping)) == (403, "terms_required")
        tenant = await tenant_of(owner)
        refused = await nobody.post(f"/v1/tenants/{tenant}/mcp", json=ping)
        metadata = (await nobody.get(refused.headers["www-authenticate"].split('"')[1])).json()
        assert str(ProtectedResourceMetadata.model_validate(metadata).resource) == metadata["resource"]
        assert metadata["authorization_servers"] == [pool.issuer]
        assert metadata["resource"] == f"{server.url}/v1/tenants/{tenant}/mcp"
        async with http_client(server.url, tenant, alice.access_token) as client:
            assert await call(client, "whoami") == {"user_id": alice.user_id, "tenant_id": tenant, "role": "owner"}


async def test_token_with_a_changed_subject_is_refused_on_both_listeners(server: Platform, pool: Pool) -> None:
    alice, mallory = pool.person(), pool.person()
    async with at(server, alice.access_token) as owner:
        tenant = await tenant_of(owner)
    head, _, signature = mallory.access_token.split(".")
    forged = ".".join((head, alice.access_token.split(".")[1], signature))
    claims = json.loads(base64.urlsafe_b64decode(forged.split(".")[1] + "=="))
    assert claims["sub"] == alice.user_id, "it says that it is Alice's"
    async with at(server, forged) as client, open_client(server.gateway_url) as raw:
        assert status_and_code(await client.get(f"/v1/tenants/{tenant}")) == (401, "unauthenticated")
        await raw.say("connect", access_token=forged, tenant_id=tenant)
        assert await raw.closed() == 4500
        assert raw.pushes[-1]["error"]["code"] == "unauthenticated"
