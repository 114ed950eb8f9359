from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b32decode, b64decode, urlsafe_b64decode
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.js.api import DiscardPolicy
from nats.js.errors import APIError

from artcafe.fabric.accounts import Accounts, KeyPair, NkeyKind
from artcafe.fabric.embedded.server import EmbeddedNats
from artcafe.model import TenantId
from tests.fabric.nats_clients import BOUND_S, connected, is_admitted, push, until

SECRET = bytes(range(32))
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
A, B = TenantId("ten_a"), TenantId("ten_b")


@pytest.fixture
def accounts() -> Accounts:
    return Accounts(SECRET, "dev")


@pytest.fixture
async def url(tmp_path: Path, accounts: Accounts) -> AsyncIterator[str]:
    nats = EmbeddedNats(tmp_path / "nats", accounts)
    await nats.start()
    try:
        yield nats.url
    finally:
        await nats.stop()


@pytest.fixture
async def system(url: str, accounts: Accounts) -> AsyncIterator[Client]:
    async with connected(url, accounts.system_user()) as client:
        yield client


def claims(jwt: str) -> dict[str, Any]:
    body = jwt.split(".")[1]
    decoded: dict[str, Any] = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return decoded


# --- keys and tokens, without a server ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "public"),
    [
        # README.md of github.com/nats-io/nkeys.
        (
            "SUAKYRHVIOREXV7EUZTBHUHL7NUMHPMAS7QMDU3GTIUWEI5LDNOXD43IZY",
            "UD466L6EBCM3YY5HEGHJANNTN4LSKTSUXTH7RILHCKEQMQHTBNLHJJXT",
        ),
        # docs.nats.io, "NKeys", running NATS service.
        (
            "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY",
            "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4",
        ),
    ],
)
def test_public_key_has_the_format_of_nkeys(seed: str, public: str) -> None:
    raw = b32decode(seed + "=" * (-len(seed) % 8))[2:34]  # Two bytes of prefix, the key, two of checksum.

    assert KeyPair.of(NkeyKind.USER, Ed25519PrivateKey.from_private_bytes(raw)).public == public


def test_nonce_is_signed_with_the_users_own_key(accounts: Accounts) -> None:
    user = accounts.user(A)
    raw = b32decode(user.public + "=" * (-len(user.public) % 8))[1:33]

    Ed25519PublicKey.from_public_bytes(raw).verify(b64decode(user.signature_cb("a nonce")), b"a nonce")
    assert claims(user.user_jwt_cb().decode())["sub"] == user.public


def test_another_process_derives_the_same_identities(accounts: Accounts) -> None:
    script = (
        "from artcafe.fabric.accounts import Accounts\n"
        f"a = Accounts({SECRET!r}, 'dev')\n"
        f"print(a.operator_key, a.system_key, a.platform_key, a.account_key({str(A)!r}))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    there = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True, timeout=30)

    here = [accounts.operator_key, accounts.system_key, accounts.platform_key, accounts.account_key(A)]
    assert there.stdout.split() == here


def test_identities_differ_by_secret_environment_and_tenant(accounts: Accounts) -> None:
    others = [Accounts(SECRET, "prod"), Accounts(SECRET[::-1], "dev")]

    keys = {each.account_key(tenant) for each in [accounts, *others] for tenant in (A, B)}
    keys |= {key for each in [accounts, *others] for key in (each.operator_key, each.system_key, each.platform_key)}
    assert len(keys) == 6 + 9


@given(st.text())
@example(f"{A}/signing/1")
@example("system")
@example("../platform")
def test_no_tenant_id_derives_the_key_of_another_identity(text: str) -> None:
    accounts = Accounts(SECRET, "dev")
    signing = [
        claims(jwt)["nats"]["signing_keys"][0]
        for jwt in (accounts.account_jwt(A), accounts.system_jwt(), accounts.platform_jwt())
    ]

    assert accounts.account_key(TenantId(text)) not in {accounts.system_key, accounts.platform_key, *signing}


@given(st.integers(-1, 2**60), st.integers(1, 9))
def test_account_jwt_depends_on_its_arguments_and_the_clock_only(storage_bytes: int, generation: int) -> None:
    first, second = (
        Accounts(SECRET, "dev", clock=lambda: NOON).account_jwt(A, storage_bytes=storage_bytes, generation=generation)
        for _ in range(2)
    )

    assert first == second
    assert claims(first)["iat"] == int(NOON.timestamp())
    assert claims(first)["sub"] == Accounts(SECRET, "dev").account_key(A)


def test_default_generation_applies_to_calls_without_one() -> None:
    first, second = Accounts(SECRET, "dev"), Accounts(SECRET, "dev", generation=2)

    assert (
        claims(second.account_jwt(A))["nats"]["signing_keys"]
        == claims(first.account_jwt(A, generation=2))["nats"]["signing_keys"]
    )
    assert second.account_key(A) == first.account_key(A)
    assert second.system_key == first.system_key


def test_repr_shows_no_secret(accounts: Accounts) -> None:
    user = accounts.user(A)

    assert repr(accounts) == "Accounts(environment='dev', generation=1)"
    assert repr(user) == f"UserCredentials(public={user.public!r})"
    assert "Ed25519" not in repr(KeyPair.of(NkeyKind.USER, Ed25519PrivateKey.generate()))


def test_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        Accounts(SECRET[:31], "dev")


def test_account_name_is_a_plain_id_or_else_its_hash(accounts: Accounts) -> None:
    assert accounts.account_name(A) == "ten_a"
    assert accounts.account_name(TenantId("a > b")).startswith("sha256-")


# --- with a real nats-server ------------------------------------------------------------------------------------------------


async def test_wildcard_subscriber_receives_nothing_of_another_account(url: str, system: Client, accounts: Accounts) -> None:
    for tenant in (A, B):
        await push(system, accounts.account_jwt(tenant))
    async with connected(url, accounts.user(A)) as a, connected(url, accounts.user(B)) as b:
        everything = await b.subscribe(">")
        await b.flush()
        for subject in ("ch.one", "live.ch.one", "$SYS.one"):
            await a.publish(subject, b"of tenant A")
        await a.flush()

        await b.publish("ch.one", b"of tenant B")
        seen = await everything.next_msg(timeout=BOUND_S)

    assert seen.data == b"of tenant B"
    assert everything.pending_msgs == 0


async def test_account_admits_its_users_once_it_is_pushed(url: str, system: Client, accounts: Accounts) -> None:
    before = await is_admitted(url, accounts.user(A))
    await push(system, accounts.account_jwt(A))

    assert (before, await is_admitted(url, accounts.user(A))) == (False, True)


@pytest.mark.parametrize("tenant", ["", "a b", "Ünï/códe\n", '">.*"', "x" * 3000, "a/signing/1"])
async def test_tenant_with_any_id_has_an_account(url: str, system: Client, accounts: Accounts, tenant: str) -> None:
    await push(system, accounts.account_jwt(TenantId(tenant)))

    assert await is_admitted(url, accounts.user(TenantId(tenant)))


async def test_users_of_another_secret_are_refused(url: str, system: Client, accounts: Accounts) -> None:
    await push(system, accounts.account_jwt(A))
    stranger = Accounts(SECRET[::-1], "dev")

    assert not await is_admitted(url, stranger.user(A))
    assert await is_admitted(url, accounts.user(A))


async def test_new_generation_disconnects_users_of_the_old_one_and_keeps_the_streams(
    url: str, system: Client, accounts: Accounts
) -> None:
    await push(system, accounts.account_jwt(A, generation=1))
    async with connected(url, accounts.user(A, generation=1)) as a:
        await a.jetstream().add_stream(name="log", subjects=["ch.>"])
        await a.jetstream().publish("ch.one", b"kept")
        await push(system, accounts.account_jwt(A, generation=2))
        await until(a.was_closed)
    assert not await is_admitted(url, accounts.user(A, generation=1))

    async with connected(url, accounts.user(A, generation=2)) as a:
        assert (await a.jetstream().get_last_msg("log", "ch.one")).data == b"kept"


async def test_last_push_wins_with_any_issue_time(url: str, system: Client, accounts: Accounts) -> None:
    behind = Accounts(SECRET, "dev", clock=lambda: NOON.replace(year=2020))
    await push(system, accounts.account_jwt(A, generation=2))

    await push(system, behind.account_jwt(A))

    assert await is_admitted(url, accounts.user(A))


@pytest.mark.parametrize("bound", [0, 1, 1000])
async def test_storage_limit_below_the_stored_size_refuses_publishes_and_removes_nothing(
    url: str, system: Client, accounts: Accounts, bound: int
) -> None:
    await push(system, accounts.account_jwt(A))
    async with connected(url, accounts.user(A)) as a:
        await a.jetstream().add_stream(name="log", subjects=["ch.>"], discard=DiscardPolicy.NEW)
        for _ in range(3):
            await a.jetstream().publish("ch.one", bytes(1000))

        await push(system, accounts.account_jwt(A, storage_bytes=bound))

        with pytest.raises(APIError, match="resource limits exceeded"):
            await a.jetstream().publish("ch.one", bytes(1000))
        assert (await a.jetstream().stream_info("log")).state.messages == 3


async def test_deleted_account_refuses_its_users(url: str, system: Client, accounts: Accounts) -> None:
    await push(system, accounts.account_jwt(A))
    await push(system, accounts.account_jwt(B))

    answer = await system.request("$SYS.REQ.CLAIMS.DELETE", accounts.deletion_jwt(A).encode(), timeout=BOUND_S)

    assert json.loads(answer.data)["data"]["code"] == 200
    assert (await is_admitted(url, accounts.user(A)), await is_admitted(url, accounts.user(B))) == (False, True)


async def test_platform_account_exists_from_the_start_and_stores(url: str, accounts: Accounts) -> None:
    async with connected(url, accounts.platform_user()) as platform:
        await platform.jetstream().add_stream(name="audit", subjects=["audit.>"])

        assert (await platform.jetstream().publish("audit.ten_a", b"{}")).seq == 1
