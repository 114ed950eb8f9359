"""Convert memberships and invitations to items and back; the index of a tenant's people holds both (decision record 14).

`people_store` decides when an item is read or written; `attributes` defines how unexpected attributes are read.
"""

from __future__ import annotations

from typing import Final

from artcafe.model import Invitation, InvitationId, Member, Role, TenantId, UserId
from artcafe.rules import times
from artcafe.tables.attributes import expiry, hash_attribute, is_number, known, text, time, time_attribute
from artcafe.tables.engine.conditions import Absent, And, Condition, Equals, NotEquals, OfKind, Or
from artcafe.tables.engine.values import Item, ValueKind

INVITATION_PREFIX: Final = "~invitation#"
"""The sort key of an invitation in the members' index is this prefix and its id (decision record 14). No user id begins so."""


IS_IN_FORCE: Final[Condition] = Or(
    Absent("active"), Equals("active", True), And(OfKind("active", ValueKind.NUMBER), NotEquals("active", 0))
)
"""The opposite of `is_withdrawn`, as a condition of a write."""


def is_withdrawn(item: Item) -> bool:
    """Return whether the person of the row was removed.

    The older system removed people by setting `active` to 0 and keeping the row, and checked it in every request. Any value
    except true or a number other than 0 counts as a removal too: an unreadable value grants nothing.
    """
    active = item.get("active", True)
    return not (active is True or (is_number(active) and active != 0))


def is_invitation(item: Item) -> bool:
    """Return whether a row of the index is an invitation."""
    return text(item, "user_id").startswith(INVITATION_PREFIX)


def member_of(item: Item) -> Member | None:
    """Return the membership in a row of either table; None for a removed person, or an invitation in the index."""
    if is_withdrawn(item) or is_invitation(item):
        return None
    return stated_member_of(item)


def stated_member_of(item: Item) -> Member:
    """Return the membership in a row, in force or not.

    An unknown role reads as viewer, with no permission to change anything. The older system named the time of joining
    `created_at` and the address `user_email`.
    """
    return Member(
        user_id=UserId(text(item, "user_id")),
        tenant_id=TenantId(text(item, "tenant_id")),
        role=known(Role, text(item, "role"), Role.VIEWER),
        joined_at=time(item, "joined_at") or time(item, "created_at"),
        address=text(item, "address") or text(item, "user_email") or None,
        invitation_id=InvitationId(text(item, "invitation_id")) if text(item, "invitation_id") else None,
    )


def invitation_of(item: Item) -> Invitation:
    """Return an invitation. Without a readable expiry it is expired."""
    return Invitation(
        tenant_id=TenantId(text(item, "tenant_id")),
        id=InvitationId(text(item, "user_id").removeprefix(INVITATION_PREFIX)),
        address=text(item, "address"),
        role=known(Role, text(item, "role"), Role.VIEWER),
        invited_by=text(item, "invited_by"),
        created_at=time(item, "created_at"),
        expires_at=expiry(item, "expires_at"),
        request_hash=text(item, "request_hash") or None,
    )


def member_item(member: Member) -> Item:
    """Return the item of a membership, the same for both tables."""
    return {
        "user_id": member.user_id,
        "tenant_id": member.tenant_id,
        "role": member.role.value,
        **time_attribute("joined_at", member.joined_at),
        **({} if member.address is None else {"address": member.address}),
        **({} if member.invitation_id is None else {"invitation_id": member.invitation_id}),
    }


def invitation_item(invitation: Invitation) -> Item:
    """Return the item of a new invitation."""
    return {
        "tenant_id": invitation.tenant_id,
        "user_id": INVITATION_PREFIX + invitation.id,
        "address": invitation.address,
        "role": invitation.role.value,
        "invited_by": invitation.invited_by,
        **time_attribute("created_at", invitation.created_at),
        "expires_at": times.to_text(invitation.expires_at),
        **hash_attribute(invitation.request_hash),
    }
