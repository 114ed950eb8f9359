"""Login of agents: challenges, verification of signatures, and access tokens. People are authenticated by `identity`.

Every failure is the same error, BadCredentials, after the same work: one read, and one verification with the key in the
signature. Only then is that key compared, as text, with the agent's keys.
"""

from __future__ import annotations

import secrets
import time
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Final
from urllib.parse import quote

from artcafe.errors import AgentNotFound, BadCredentials, Revoked, TenantNotFound, TenantSuspended
from artcafe.model import (
    USER_PREFIX,
    Agent,
    AgentId,
    AgentPrincipal,
    AgentStatus,
    ChallengeId,
    HandleKind,
    LoginChallenge,
    Outcome,
    TenantChange,
    TenantId,
    TenantStatus,
)
from artcafe.observe import metrics
from artcafe.observe.clock import Clock
from artcafe.observe.metric_types import OTHER
from artcafe.rules import handles, ids, keys, times, tokens
from artcafe.services.audit import Audit
from artcafe.services.login_throttle import LoginThrottle
from artcafe.services.record_cache import RecordCache
from artcafe.tables.store import Store
from artcafe.wire.sshkeys import PublicKey
from artcafe.wire.sshsig import signer

CHALLENGE_S: Final = 300
_NONCE_BYTES: Final = 32

_NOBODY: Final = "~nobody"
"""Replaces an invalid id, which is then looked up and refused like any unknown id. The server never creates this id."""


class LoginRefusal(StrEnum):
    """Reason of a refused login, as the audit has it (`facts.reason`)."""

    UNKNOWN_AGENT = "unknown_agent"
    BAD_SIGNATURE = "bad_signature"
    UNKNOWN_KEY = "unknown_key"
    KEY_ENDED = "key_ended"
    AGENT_DISABLED = "agent_disabled"
    CHALLENGE_EXPIRED = "challenge_expired"
    TENANT_SUSPENDED = "tenant_suspended"


class Login:
    """Authenticates agents. Each challenge contains `service_name`, so its signature is invalid for other services."""

    def __init__(
        self,
        store: Store,
        record_cache: RecordCache,
        tokens: tokens.Tokens,
        clock: Clock,
        service_name: str,
        audit: Audit,
        throttle: LoginThrottle | None = None,
    ) -> None:
        """Without `throttle`, login attempts are unlimited."""
        self._audit, self._throttle = audit, throttle or LoginThrottle(0)
        self._store, self._record_cache, self._tokens, self._clock = store, record_cache, tokens, clock
        self._service = service_name

    # --- over REST ---

    async def begin(self, tenant_id: str, agent_id: str) -> LoginChallenge:
        """Store a challenge for 5 minutes, for every server, and return it. Unknown agents get one too. Raises RateLimited."""
        challenge = self.pose(tenant_id, agent_id)
        await self._store.put_challenge(challenge)
        return challenge

    async def redeem(self, challenge_id: str, signature: str) -> tuple[str, int]:
        """Verify the armored signature of a challenge, and return a token and its lifetime in seconds.

        The challenge is marked as used before the verification: each allows one attempt. Raises BadCredentials and
        TenantSuspended.
        """
        attempt = ids.new_id("att")
        challenge_id = challenge_id if ids.is_possible(challenge_id) else _NOBODY
        taken = await self._store.take_challenge(challenge_id, attempt, self._clock())
        principal = await self.prove(taken or self._posed(_NOBODY, _NOBODY), signature)
        now = self._clock()
        return self._tokens.mint(principal, now), tokens.lifetime_s(principal, now)

    # --- on the socket ---

    def pose(self, tenant_id: str, agent_id: str) -> LoginChallenge:
        """Return a challenge without storing it. The caller keeps it, and passes it to `prove` once. Raises RateLimited."""
        self._throttle.begin(TenantId(_claimed(tenant_id)), AgentId(_claimed(agent_id)))
        return self._posed(tenant_id, agent_id)

    def _posed(self, tenant_id: str, agent_id: str) -> LoginChallenge:
        now = self._clock()
        challenge_id = ids.new_id("chl")
        # Whole seconds, like the table's TTL.
        expires_at = now.replace(microsecond=0) + timedelta(seconds=CHALLENGE_S)
        return LoginChallenge(
            id=ChallengeId(challenge_id),
            text=self._text(tenant_id, agent_id, challenge_id, expires_at),
            tenant_id=TenantId(_claimed(tenant_id)),
            agent_id=AgentId(_claimed(agent_id)),
            expires_at=expires_at,
        )

    async def prove(self, challenge: LoginChallenge, signature: str) -> AgentPrincipal:
        """Return the agent that signed the challenge with one of its active keys. Fails closed.

        Raises BadCredentials and TenantSuspended.
        """
        began = time.monotonic()
        try:
            return await self._verify(challenge, signature)
        finally:
            metrics.LOGIN_SECONDS.of().observe(time.monotonic() - began)

    async def _verify(self, challenge: LoginChallenge, signature: str) -> AgentPrincipal:
        agent = await self._agent(challenge)
        by = signer(signature, challenge.text.encode())
        now = self._clock()
        is_welcome = agent is not None and _may_log_in(agent) and now < challenge.expires_at
        key = None if agent is None or by is None else keys.find_usable(agent, by.line, now)
        if agent is None or by is None or key is None or not is_welcome:
            self._throttle.failed(challenge.tenant_id, challenge.agent_id)
            self._note_refused(challenge, agent, by, now)
            raise BadCredentials
        # Read the tenant last, so that every failure above is the same work; the cache is at most seconds old.
        note = partial(self._audit.counters.count, agent.tenant_id, agent.id, "agent.login", key=by.fingerprint)
        try:
            tenant = await self._record_cache.tenant(agent.tenant_id)
        except TenantNotFound as exc:
            metrics.LOGINS.of(OTHER).add()
            raise BadCredentials from exc
        if tenant.is_deleting:
            metrics.LOGINS.of(OTHER).add()
            raise BadCredentials
        if tenant.status is TenantStatus.SUSPENDED:
            metrics.LOGINS.of(LoginRefusal.TENANT_SUSPENDED).add()
            note(Outcome.REFUSED, reason=LoginRefusal.TENANT_SUSPENDED)
            raise TenantSuspended  # Only the holder of the agent's key gets this error.
        note()
        metrics.LOGINS.of("accepted").add()
        return AgentPrincipal(
            agent_id=agent.id, tenant_id=agent.tenant_id, epoch=agent.epoch, key=key.serial, until=key.not_after
        )

    async def _agent(self, challenge: LoginChallenge) -> Agent | None:
        """Return the agent with the claimed id or handle."""
        tenant, text = self._store.tenant(challenge.tenant_id), challenge.agent_id
        agent = await tenant.agent(text)
        if agent is not None or not handles.is_handle(text):
            return agent
        owner = await tenant.handles.owner(HandleKind.AGENT, text)
        agent = await tenant.agent(owner or _NOBODY)  # Also without an owner: every refusal must take the same time.
        return agent if agent is not None and agent.handle == text else None

    def _note_refused(self, challenge: LoginChallenge, agent: Agent | None, by: PublicKey | None, now: datetime) -> None:
        """Count the refusal with its reason in the tenant's audit and the metrics. The caller does not get the reason."""
        counters, key = self._audit.counters, {} if by is None else {"key": by.fingerprint}
        reason = LoginRefusal.UNKNOWN_AGENT if agent is None else _why(challenge, agent, by, now)
        metrics.LOGINS.of(reason).add()
        if agent is None:
            counters.count_claim(challenge.tenant_id, challenge.agent_id, "agent.login", reason=reason, **key)
        else:
            counters.count(agent.tenant_id, agent.id, "agent.login", Outcome.REFUSED, reason=reason, **key)

    # --- with a token ---

    async def verify_token(self, token: str) -> tokens.AgentClaims:
        """Return the claims of an agent's token: the agent, and when the token expires. Fails closed.

        Raises Unauthenticated for a token of another issuer; CredentialsExpired; Revoked if the agent or its tenant was deleted,
        the agent disabled or its first key replaced, or if the key of its login was revoked or has expired; TenantSuspended if
        the tenant is suspended.
        """
        claims = self._tokens.read(token, self._clock())
        if not await self.is_current(claims.principal):
            raise Revoked
        return claims

    async def is_current(self, principal: AgentPrincipal) -> bool:
        """Return whether a login is still valid: the agent exists, is active, and has the key it logged in with.

        Raises TenantSuspended if its tenant is suspended.
        """
        if not await self._is_there(principal.tenant_id):
            return False
        agent = await self._known(principal)
        if agent is None or agent.status is not AgentStatus.ACTIVE or agent.epoch != principal.epoch:
            return False
        return keys.is_proof_valid(agent, principal.key, self._clock())

    async def _is_there(self, tenant_id: TenantId) -> bool:
        """Return whether the tenant exists and is not being deleted. Raises TenantSuspended."""
        try:
            tenant = await self._record_cache.tenant(tenant_id)
        except TenantNotFound:
            return False
        if tenant.status is TenantStatus.SUSPENDED:
            raise TenantSuspended
        return not tenant.is_deleting

    async def _known(self, principal: AgentPrincipal) -> Agent | None:
        try:
            agent = await self._record_cache.agent(principal.tenant_id, principal.agent_id)
            if agent.epoch < principal.epoch or agent.keys_version < principal.key:
                # The login is newer than the cached agent: another server has just changed the agent.
                self._record_cache.forget(TenantChange(tenant_id=principal.tenant_id, agents=(principal.agent_id,)))
                agent = await self._record_cache.agent(principal.tenant_id, principal.agent_id)
        except AgentNotFound:
            return None
        return agent

    def _text(self, tenant_id: str, agent_id: str, challenge_id: str, expires_at: datetime) -> str:
        """Return the text to sign: one line of printable ASCII, which `printf %s` prints unchanged."""
        return (
            f"artcafe login 1 service={_shown(self._service)} tenant={_shown(tenant_id)} agent={_shown(agent_id)}"
            f" challenge={challenge_id} nonce={secrets.token_hex(_NONCE_BYTES)} expires={times.to_text(expires_at)}"
        )


def _may_log_in(agent: Agent) -> bool:
    """Return whether the agent is active, and its id does not start with `usr:` (possible in rows of the first system)."""
    return agent.status is AgentStatus.ACTIVE and not agent.id.startswith(USER_PREFIX)


def _why(challenge: LoginChallenge, agent: Agent, by: PublicKey | None, now: datetime) -> LoginRefusal:
    """Return the reason for refusing a login of an existing agent."""
    if by is None:
        return LoginRefusal.BAD_SIGNATURE
    if not keys.has(agent, by.line):
        return LoginRefusal.UNKNOWN_KEY
    if keys.find_usable(agent, by.line, now) is None:
        return LoginRefusal.KEY_ENDED
    return LoginRefusal.CHALLENGE_EXPIRED if _may_log_in(agent) else LoginRefusal.AGENT_DISABLED


def _claimed(id: str) -> str:
    return id if ids.is_possible(id) else _NOBODY


def _shown(text: str) -> str:
    """Percent-encode a claimed id. Otherwise it could end the line or look like another field."""
    return quote(text[: ids.MAX_BYTES], safe=":@", errors="replace")
