"""Login of agents: challenges posed, signatures proven, tokens given and believed. A person's identity is `identity`'s.

Every way to fail is one error, BadCredentials, after the same work: one read of the agent's row and one verification.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from artcafe.errors import AgentNotFound, BadCredentials, BadKey, Revoked
from artcafe.model import Agent, AgentId, AgentPrincipal, AgentStatus, Challenge, ChallengeId, Outcome, TenantId
from artcafe.observe import Clock
from artcafe.rules import ids, times, tokens
from artcafe.services.audit import Audit
from artcafe.services.directory import Directory
from artcafe.tables.store import Store
from artcafe.wire.sshkeys import PublicKey, parse_public_key
from artcafe.wire.sshsig import verify

CHALLENGE_S: Final = 300
_NONCE_BYTES: Final = 32

_NOBODY: Final = "nobody"
"""Stands for an id that cannot be one, so that it is read and refused like any unknown id. No id that the server makes is it."""


class Login:
    """Proves agents. `service_name` stands in each challenge, so that its signature is worth nothing to another service."""

    def __init__(
        self, store: Store, directory: Directory, tokens: tokens.Tokens, clock: Clock, service_name: str, audit: Audit
    ) -> None:
        self._audit = audit
        self._store, self._directory, self._tokens, self._clock = store, directory, tokens, clock
        self._service = service_name
        # Nobody has its private half: it is not kept.
        public = Ed25519PrivateKey.generate().public_key()
        self._dummy_line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    # --- over REST ---

    async def begin(self, tenant_id: str, agent_id: str) -> Challenge:
        """A challenge that is kept for 5 minutes, on whatever server; the same for agents that do not exist."""
        challenge = self.pose(tenant_id, agent_id)
        await self._store.put_challenge(challenge)
        return challenge

    async def redeem(self, challenge_id: str, signature: str) -> tuple[str, int]:
        """A token and the seconds it lives, for the armored signature of a challenge. Raises BadCredentials.

        The challenge is spent before anything is verified: one challenge, one attempt. A failure needs a new one.
        """
        attempt = ids.new_id("att")
        challenge_id = challenge_id if ids.is_possible(challenge_id) else _NOBODY
        taken = await self._store.take_challenge(challenge_id, attempt, self._clock())
        principal = await self.prove(taken or self.pose(_NOBODY, _NOBODY), signature)
        return self._tokens.mint(principal, self._clock()), tokens.LIFETIME_S

    # --- on the socket ---

    def pose(self, tenant_id: str, agent_id: str) -> Challenge:
        """A challenge that only its caller keeps, and must offer to `prove` once."""
        now = self._clock()
        challenge_id = ids.new_id("chl")
        # Whole seconds, as the table's TTL has them.
        expires_at = now.replace(microsecond=0) + timedelta(seconds=CHALLENGE_S)
        return Challenge(
            id=ChallengeId(challenge_id),
            text=self._text(tenant_id, agent_id, challenge_id, expires_at),
            tenant_id=TenantId(_claimed(tenant_id)),
            agent_id=AgentId(_claimed(agent_id)),
            expires_at=expires_at,
        )

    async def prove(self, challenge: Challenge, signature: str) -> AgentPrincipal:
        """The agent that signed the challenge with its current key. Raises BadCredentials; fails closed."""
        agent = await self._store.tenant(challenge.tenant_id).agent(challenge.agent_id)
        key = self._key_of(agent)
        is_signed = verify(signature, challenge.text.encode(), key)
        is_current = self._clock() < challenge.expires_at
        if agent is None or agent.status is not AgentStatus.ACTIVE or not (is_signed and is_current):
            self._audit.note(challenge.tenant_id, challenge.agent_id, "agent.login", Outcome.REFUSED)
            raise BadCredentials
        self._audit.note(agent.tenant_id, agent.id, "agent.login", key=key.fingerprint)
        return AgentPrincipal(agent_id=agent.id, tenant_id=agent.tenant_id, epoch=agent.epoch)

    # --- with a token ---

    async def agent_of(self, token: str) -> AgentPrincipal:
        """The agent whose token it is. Raises Unauthenticated for what is none of ours, CredentialsExpired, and Revoked once the
        agent was deleted, disabled or given another key. Fails closed."""
        principal = self._tokens.read(token, self._clock()).principal
        if not await self.is_current(principal):
            raise Revoked
        return principal

    async def is_current(self, principal: AgentPrincipal) -> bool:
        """Whether a proof once given still holds: the agent is there, active, and has the key it had."""
        agent = await self._known(principal)
        return agent is not None and agent.status is AgentStatus.ACTIVE and agent.epoch == principal.epoch

    def expiry_of(self, token: str) -> datetime:
        """When the token ends. Raises Unauthenticated or CredentialsExpired."""
        return self._tokens.read(token, self._clock()).expires_at

    async def _known(self, principal: AgentPrincipal) -> Agent | None:
        try:
            agent = await self._directory.agent(principal.tenant_id, principal.agent_id)
            if agent.epoch < principal.epoch:
                # The proof is newer than what is in memory: another server changed the agent a moment ago.
                self._directory.forget(principal.tenant_id)
                agent = await self._directory.agent(principal.tenant_id, principal.agent_id)
        except AgentNotFound:
            return None
        return agent

    def _key_of(self, agent: Agent | None) -> PublicKey:
        """The agent's key, or one that nothing verifies against where there is none or an older system kept no such key."""
        try:
            return parse_public_key(self._dummy_line if agent is None else agent.public_key)
        except BadKey:
            return parse_public_key(self._dummy_line)

    def _text(self, tenant_id: str, agent_id: str, challenge_id: str, expires_at: datetime) -> str:
        """The text to sign: one line of printable ASCII, which `printf %s` leaves as it is."""
        return (
            f"artcafe login 1 service={_shown(self._service)} tenant={_shown(tenant_id)} agent={_shown(agent_id)}"
            f" challenge={challenge_id} nonce={secrets.token_hex(_NONCE_BYTES)} expires={times.to_text(expires_at)}"
        )


def _claimed(id: str) -> str:
    return id if ids.is_possible(id) else _NOBODY


def _shown(text: str) -> str:
    """Percent-encoded, so that no claimed id can end the line or look like another field."""
    return quote(text[: ids.MAX_BYTES], safe=":@", errors="replace")
