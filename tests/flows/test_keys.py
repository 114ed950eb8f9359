"""Every accepted kind of key, from registration to both ways of logging in; and the refused kinds."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from artcafe.errors import BadCredentials, BadKey, KeyTaken
from artcafe.sdk.agent import Agent
from artcafe.sdk.client import Client
from artcafe.sdk.keys import load_signer
from artcafe.wire import sshsig
from artcafe.wire.ssh_bytes import mpint
from artcafe.wire.sshkeys import parse_public_key
from tests import ssh_keygen
from tests.gateway.raw_client import open_client
from tests.platform import Cast, Platform


@pytest.fixture(scope="module")
def cast(platform: Platform) -> Cast:
    return asyncio.run(platform.tenant_with(agents=1, channels=1))


class SoftwareSecurityKey:
    """A signer with a FIDO key in software, with or without a touch."""

    def __init__(self, key: ssh_keygen.FidoKey, flags: int) -> None:
        self._key, self._flags = key, flags
        self.public_key = key.line

    async def sign(self, challenge: str) -> str:
        """Return the armored signature of the challenge."""
        blob = self._key.sign(challenge.encode(), flags=self._flags)
        return sshsig.armor(parse_public_key(self.public_key).blob, blob, sshsig.NAMESPACE, "sha512")


@pytest.mark.parametrize("kind", ssh_keygen.KINDS)
async def test_agent_with_an_ssh_keygen_key_logs_in_on_the_socket_and_over_rest(cast: Cast, kind: str, tmp_path: Path) -> None:
    key = ssh_keygen.make_key(tmp_path / "key", kind)
    async with cast.rest() as rest:
        agent = (await rest.tenant(cast.tenant).agents.create(kind, ssh_keygen.public_line(key))).id
        assert (await rest.login(cast.tenant, agent, load_signer(key))).expires_in == 900
    async with Agent(cast.url, tenant=cast.tenant, agent=agent, key=key) as connected:
        assert (await connected.publish(cast.channels[0], kind)).seq is not None


@pytest.mark.parametrize("curve", ["ed25519", "nistp256"])
@pytest.mark.parametrize("flags", [0x01, 0x05], ids=["touched", "touched, with a PIN"])
async def test_agent_with_a_security_key_logs_in_when_it_is_touched(cast: Cast, curve: str, flags: int) -> None:
    key = ssh_keygen.FidoKey(curve)
    async with cast.rest() as rest:
        agent = (await rest.tenant(cast.tenant).agents.create("Token", key.line)).id
        assert (await rest.login(cast.tenant, agent, SoftwareSecurityKey(key, flags))).expires_in == 900
        for refused in (
            SoftwareSecurityKey(key, 0x00),
            SoftwareSecurityKey(key, 0x04),
            SoftwareSecurityKey(ssh_keygen.FidoKey(curve), flags),
        ):
            with pytest.raises(BadCredentials):
                await rest.login(cast.tenant, agent, refused)
    async with Agent(cast.url, tenant=cast.tenant, agent=agent, key=SoftwareSecurityKey(key, flags)) as connected:
        assert (await connected.publish(cast.channels[0], curve)).seq is not None
    with pytest.raises(BadCredentials):
        async with Agent(cast.url, tenant=cast.tenant, agent=agent, key=SoftwareSecurityKey(key, 0x04)):
            pass


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-256", "rsa-2048"])
async def test_ssh_agent_logs_in_for_the_sdk_and_for_ssh_keygen_without_the_key_file(
    platform: Platform, cast: Cast, kind: str, tmp_path: Path, ssh_agent: Path
) -> None:
    key = ssh_keygen.make_key(tmp_path / "key", kind)
    public = tmp_path / "key.pub"
    subprocess.run(("ssh-add", "-q", str(key)), check=True, timeout=5, env=dict(os.environ))
    key.unlink()
    async with cast.rest() as rest:
        agent = (await rest.tenant(cast.tenant).agents.create("By ssh-agent", public.read_text())).id
    async with Agent(cast.url, tenant=cast.tenant, agent=agent, key=public) as connected:
        assert (await connected.publish(cast.channels[0], 1)).seq is not None
    # As in the contract: given a public key, ssh-keygen asks ssh-agent for the signature.
    async with open_client(platform.gateway_url) as raw:
        challenge = await raw.ask("challenge", tenant_id=cast.tenant, agent_id=agent)
        signature = ssh_keygen.sign(public, challenge["challenge"].encode())
        assert "session_id" in await raw.ask("connect", challenge_id=challenge["challenge_id"], signature=signature)


REFUSED = {
    "DSA": ssh_keygen.as_line("ssh-dss", *[mpint(2**159 + 1)] * 4),
    "RSA below 2048 bits": ssh_keygen.as_line("ssh-rsa", mpint(65_537), mpint(2**1023 + 1)),
    "RSA with a small exponent": ssh_keygen.as_line("ssh-rsa", mpint(3), mpint(2**2047 + 1)),
    "Ed25519 of small order": ssh_keygen.as_line("ssh-ed25519", b"\0\0\0\x20" + bytes(32)),
    "a certificate": ssh_keygen.as_line("ssh-ed25519-cert-v01@openssh.com", b"\0\0\0\x20" + bytes(32)),
}


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED)
async def test_unacceptable_key_is_refused_at_registration_and_at_change(cast: Cast, line: str) -> None:
    async with cast.rest() as rest:
        with pytest.raises(BadKey):
            await rest.tenant(cast.tenant).agents.create("Weak", line)
        with pytest.raises(BadKey):
            await rest.tenant(cast.tenant).agents.update(cast.agents[0], public_key=line)


async def test_key_of_another_agent_is_refused_within_the_tenant_and_accepted_in_another(platform: Platform, cast: Cast) -> None:
    line = ssh_keygen.public_line(cast.keys[0])
    async with cast.rest() as rest:
        with pytest.raises(KeyTaken):
            await rest.tenant(cast.tenant).agents.create("Twin", f"{line.split()[0]} {line.split()[1]} another comment")
    other = await platform.tenant_with(agents=0)
    async with Client(other.url, other.token) as rest:
        assert (await rest.tenant(other.tenant).agents.create("Twin", line)).id != cast.agents[0]
