"""People of a Cognito user pool: tokens signed by the emulator, sent to a running server."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from artcafe.errors import Unauthenticated
from artcafe.identity.oidc import OidcIdentity
from artcafe.observe.clock import now
from tests.aws import Aws
from tests.cognito import Pool
from tests.plain_http import NO_AUTHORITIES
from tests.platform import Platform, running


@pytest.fixture(scope="module")
def pool(aws: Aws) -> Pool:
    return Pool(aws)


@pytest.fixture(scope="module")
def server(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("cognito"), pool.flags) as platform:
        yield platform


def ask(server: Platform, token: str) -> tuple[int, str]:
    answer = httpx2.get(
        f"{server.url}/v1/me", headers={"Authorization": f"Bearer {token}"}, trust_env=False, verify=NO_AUTHORITIES
    )
    return answer.status_code, answer.json().get("code") or answer.json()["user_id"]


def test_logged_in_person_is_identified_by_their_sub(server: Platform, pool: Pool) -> None:
    session = pool.person()
    assert ask(server, session.access_token) == (200, session.user_id)


def test_refreshed_token_is_accepted(server: Platform, pool: Pool) -> None:
    session = pool.person()
    fresh = pool.refresh(session)
    assert fresh.access_token != session.access_token
    assert ask(server, fresh.access_token) == (200, session.user_id)


def test_other_tokens_of_a_login_are_refused(server: Platform, pool: Pool) -> None:
    session = pool.person()
    assert ask(server, session.id_token) == (401, "unauthenticated")
    assert ask(server, session.refresh_token) == (401, "unauthenticated")


def test_token_for_another_app_of_the_pool_is_refused(server: Platform, pool: Pool) -> None:
    session = pool.login(pool.person().email, pool.new_client())
    assert ask(server, session.access_token) == (401, "unauthenticated")


def test_people_of_another_pool_are_refused(server: Platform, aws: Aws) -> None:
    assert ask(server, Pool(aws).person().access_token) == (401, "unauthenticated")


@pytest.mark.parametrize("is_verified", [True, False])
async def test_id_token_proves_an_address_once_cognito_has_verified_it(pool: Pool, is_verified: bool) -> None:
    identity = await OidcIdentity.open(pool.issuer, [pool.client_id], pool.jwks_url)
    session = pool.person(is_verified=is_verified)
    address = await identity.verify_id_token(session.id_token, now())
    assert (address.user_id, address.email, address.is_verified) == (session.user_id, session.email, is_verified)
    with pytest.raises(Unauthenticated):
        await identity.verify_id_token(session.access_token, now())


def test_person_of_the_pool_creates_a_tenant_and_is_its_owner(server: Platform, pool: Pool) -> None:
    owner, stranger = pool.person(), pool.person()
    with httpx2.Client(base_url=server.url, trust_env=False, verify=NO_AUTHORITIES) as client:
        client.headers["Authorization"] = f"Bearer {owner.access_token}"
        made = client.post("/v1/tenants", json={"name": "Example Ltd"})
        assert (made.status_code, made.json()["role"]) == (201, "owner")
        client.headers["Authorization"] = f"Bearer {stranger.access_token}"
        assert client.get(f"/v1/tenants/{made.json()['id']}").json()["code"] == "tenant_not_found"
