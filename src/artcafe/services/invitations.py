"""Invitations: how a person joins a tenant. ArtCafe sends no mail: the inviting admin passes the token on.

An invitation is a row among the tenant's members. Its token is derived from its id (decision record 14), and is valid for 72
hours, for one role and one address, once.
"""

from __future__ import annotations

from datetime import datetime

from artcafe.errors import (
    AddressUnproven,
    Conflict,
    Forbidden,
    InvitationLimit,
    InvitationNotFound,
    InvitationRefused,
    LimitReached,
    TenantNotFound,
)
from artcafe.model import USER_PREFIX, Invitation, InvitationId, Member, Principal, Role, Tenant, UserId, UserPrincipal
from artcafe.observe.clock import Clock
from artcafe.rules import access, fields, ids
from artcafe.rules import invitations as rules
from artcafe.rules.access import Action
from artcafe.rules.idempotency import KeyedRequest, check_repeat, repeat_of_deleted
from artcafe.rules.pages import FIRST, Page, PageRequest
from artcafe.rules.plans import Limit, Plans
from artcafe.services.audit import Audit
from artcafe.services.changes import Changes
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.store import Store
from artcafe.tables.tenant_store import RecordCount


class Invitations:
    """Operations of admins on invitations to their tenant, and their acceptance by the invited person."""

    def __init__(self, store: Store, changes: Changes, audit: Audit, clock: Clock, key: bytes, plans: Plans) -> None:
        """`key` signs tokens: 32 bytes, the same on every server of a fleet."""
        self._store, self._changes, self._audit, self._clock, self._key = store, changes, audit, clock, key
        self._plans = plans

    async def create(
        self, principal: Principal, *, address: str, role: Role, idempotency_key: str | None = None
    ) -> tuple[Invitation, str]:
        """Create an invitation, and return it with its token. With a key the request may be repeated while it is open.

        Raises Forbidden (only owners invite owners), Invalid, InvitationLimit, IdempotencyMismatch if the key belongs to another
        request, and Conflict if the invitation of this request was used or revoked.
        """
        _check_may_grant(principal, role)
        address = fields.address(address)
        request = KeyedRequest(idempotency_key, principal.tenant_id, principal.sender, "invitations")
        now = self._clock()
        invitation = Invitation(
            tenant_id=principal.tenant_id,
            id=InvitationId(request.new_id("inv")),
            address=address,
            role=role,
            invited_by=principal.sender,
            created_at=now,
            expires_at=now + rules.LIFETIME,
            request_hash=request.hash(address, role.value),
        )
        async with self._audit.action(principal, "invitation.create", invitation.id, address=address, role=role.value):
            stored = await self._insert(invitation, now)
        return stored, rules.token(self._key, stored.tenant_id, stored.id)

    async def list(self, principal: Principal, page_request: PageRequest = FIRST) -> Page[Invitation]:
        """Return a page of the tenant's open invitations in order of creation. Raises Forbidden."""
        access.check(principal, Action.READ_MEMBERS)
        now = self._clock()
        return await self._store.people(principal.tenant_id).invitations(page_request, lambda each: each.expires_at > now)

    async def revoke(self, principal: Principal, invitation_id: str) -> None:
        """Revoke an invitation. Raises Forbidden, and InvitationNotFound for an unknown or used one."""
        access.check(principal, Action.CHANGE_MEMBERS)
        if not ids.is_possible(invitation_id):
            raise InvitationNotFound(invitation_id)
        tenant, people = self._store.tenant(principal.tenant_id), self._store.people(principal.tenant_id)
        async with self._audit.action(principal, "invitation.revoke", invitation_id):
            try:
                tombstone = tenant.tombstones.put(invitation_id, self._clock())
                await self._changes.commit(tenant, tenant.touch(), people.delete_invitation(invitation_id), tombstone)
            except ConditionFailed as failed:
                raise InvitationNotFound(invitation_id) from failed

    async def accept(self, user_id: UserId, proven_address: str, token: str) -> tuple[Tenant, Member]:
        """Make the user a member by an invitation to their verified address. May be repeated.

        Raises InvitationRefused, AddressUnproven, LimitReached, and Conflict if the user is a member already.
        """
        fields.user_id(user_id)
        tenant_id, invitation_id = rules.parse_token(self._key, token)
        tenant, people = self._store.tenant(tenant_id), self._store.people(tenant_id)
        row, invitation, now = await tenant.tenant(), await people.invitation(invitation_id), self._clock()
        if row is None:
            raise InvitationRefused
        existing = await people.member(user_id)
        if existing is not None and existing.invitation_id == invitation_id:
            return row, existing
        if invitation is None or invitation.expires_at <= now or not await self._may_invite(invitation):
            raise InvitationRefused
        if not fields.is_same_address(proven_address, invitation.address):
            raise AddressUnproven("this invitation is for another address than the one verified by your identity provider")
        if existing is not None:
            raise Conflict("you are a member of this tenant already; the invitation stays open")
        member = Member(
            user_id=user_id,
            tenant_id=tenant_id,
            role=invitation.role,
            joined_at=now,
            address=invitation.address,
            invitation_id=invitation_id,
        )
        limit = self._plans.limit_of(row, Limit.MEMBERS)
        tombstone = tenant.tombstones.put(invitation_id, now)
        writes = [people.take_invitation(invitation, now), *people.insert_member(member), tombstone]
        joining = UserPrincipal(user_id=user_id, tenant_id=tenant_id, role=member.role)
        try:
            async with self._audit.action(joining, "member.join", user_id, role=member.role.value, invitation=invitation_id):
                await self._changes.commit(tenant, tenant.count(RecordCount.MEMBERS, 1, limit), *writes)
        except TenantNotFound as gone:
            raise InvitationRefused from gone
        except ConditionFailed as failed:
            if 0 in failed.failed:
                raise LimitReached(Limit.MEMBERS.value, limit, tenant.count_in(failed.failed[0], RecordCount.MEMBERS)) from failed
            return row, await self._accepted_meanwhile(user_id, member, failed)
        return row, member

    async def _may_invite(self, invitation: Invitation) -> bool:
        """Return whether the inviting admin may still invite: else a removed admin could return by an invitation."""
        user_id = UserId(invitation.invited_by.removeprefix(USER_PREFIX))
        member = await self._store.people(invitation.tenant_id).member(user_id)
        if member is None:
            return False
        principal = UserPrincipal(user_id=user_id, tenant_id=invitation.tenant_id, role=member.role)
        try:
            _check_may_grant(principal, invitation.role)
        except Forbidden:
            return False
        return True

    async def _accepted_meanwhile(self, user_id: UserId, member: Member, failed: ConditionFailed) -> Member:
        """Return the membership if a concurrent repeat created it. Raises InvitationRefused if another person did."""
        existing = await self._store.people(member.tenant_id).member(user_id)
        if existing is None or existing.invitation_id != member.invitation_id:
            raise InvitationRefused from failed
        return existing

    async def _insert(self, invitation: Invitation, now: datetime) -> Invitation:
        tenant, people = self._store.tenant(invitation.tenant_id), self._store.people(invitation.tenant_id)
        known = await people.all_invitations()
        await people.remove_expired(known, now)
        if len([each for each in known if each.expires_at > now]) >= rules.MAX_OPEN:
            raise InvitationLimit(rules.MAX_OPEN)
        try:
            not_used = tenant.tombstones.check_absent(invitation.id, now)
            await self._changes.commit(tenant, tenant.touch(), people.insert_invitation(invitation), not_used)
        except ConditionFailed as failed:
            existing = await people.invitation(invitation.id)
            if existing is None:
                raise repeat_of_deleted("an invitation that was used or revoked") from failed
            check_repeat(existing.request_hash, invitation.request_hash)
            return existing
        return invitation


def _check_may_grant(principal: Principal, role: Role) -> None:
    """Raise Forbidden unless the principal may give the role."""
    access.check(principal, Action.CHANGE_MEMBERS)
    if role is Role.OWNER:
        access.check(principal, Action.CHANGE_OWNERS)
