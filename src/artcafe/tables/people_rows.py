"""Memberships and invitations as items, and back; both stand in the index of a tenant's people (decision 14).

Which item is read or written, and when, is `people_store`'s; how odd attributes are read, `attributes`'.
"""

from __future__ import annotations

from typing import Final

from artcafe.model import Invitation, InvitationId, Member, Role, TenantId, UserId
from artcafe.rules import times
from artcafe.tables.attributes import hash_attribute, known, text, time
from artcafe.tables.values import Item

INVITATION_PREFIX: Final = "~invitation#"
"""The sort key of an invitation in the index of members is this and its id (decision 14). No user's id may begin so."""


def member_of(item: Item) -> Member:
    """A membership, from either table. A role that ArtCafe doesn't know may read and change nothing: a viewer's."""
    return Member(
        user_id=UserId(text(item, "user_id")),
        tenant_id=TenantId(text(item, "tenant_id")),
        role=known(Role, text(item, "role"), Role.VIEWER),
        joined_at=time(item, "joined_at"),
        address=text(item, "address") or None,
        invitation_id=InvitationId(text(item, "invitation_id")) if text(item, "invitation_id") else None,
    )


def indexed_member_of(item: Item) -> Member | None:
    """A membership from the index; None for an invitation, which stands in the same table."""
    return None if text(item, "user_id").startswith(INVITATION_PREFIX) else member_of(item)


def invitation_of(item: Item) -> Invitation:
    """An invitation's record. Without a readable expiry it has expired."""
    return Invitation(
        tenant_id=TenantId(text(item, "tenant_id")),
        id=InvitationId(text(item, "user_id").removeprefix(INVITATION_PREFIX)),
        address=text(item, "address"),
        role=known(Role, text(item, "role"), Role.VIEWER),
        invited_by=text(item, "invited_by"),
        created_at=time(item, "created_at"),
        expires_at=time(item, "expires_at"),
        request_hash=text(item, "request_hash") or None,
    )


def member_item(member: Member) -> Item:
    """The item of a membership, the same in both tables."""
    return {
        "user_id": member.user_id,
        "tenant_id": member.tenant_id,
        "role": member.role.value,
        "joined_at": times.to_text(member.joined_at),
        **({} if member.address is None else {"address": member.address}),
        **({} if member.invitation_id is None else {"invitation_id": member.invitation_id}),
    }


def invitation_item(invitation: Invitation) -> Item:
    """The item of a new invitation."""
    return {
        "tenant_id": invitation.tenant_id,
        "user_id": INVITATION_PREFIX + invitation.id,
        "address": invitation.address,
        "role": invitation.role.value,
        "invited_by": invitation.invited_by,
        "created_at": times.to_text(invitation.created_at),
        "expires_at": times.to_text(invitation.expires_at),
        **hash_attribute(invitation.request_hash),
    }
