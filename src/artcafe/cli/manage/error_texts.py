"""Error texts for users of the command line, with the id that was not found and the fitting command."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

from artcafe import errors
from artcafe.cli.manage.credentials import AccessCredentials
from artcafe.errors import ArtcafeError, Unavailable

ERROR_TEXTS: Final[Mapping[type[ArtcafeError], str]] = {
    errors.TenantNotFound: "no tenant {tenant!r} among yours; list them with 'artcafe tenant list'",
    errors.AgentNotFound: "no agent {agent!r} in this tenant; list them with 'artcafe agent list'",
    errors.ChannelNotFound: "no channel {channel!r} in this tenant; use its handle or id from 'artcafe channel list'",
    errors.MemberNotFound: "no such member in this tenant; use the USER id from 'artcafe member list'",
    errors.InvitationNotFound: "no such open invitation in this tenant; list them with 'artcafe invitation list'",
    errors.TermsRequired: (
        "you have not accepted the terms yet: read them with 'artcafe terms show', and accept them with 'artcafe terms accept"
        " VERSION'"
    ),
    errors.TermsChanged: "nothing was accepted: this is not the current version of the terms; see 'artcafe terms show'",
    errors.SubscriptionNotFound: (
        "agent {agent!r} is not subscribed to channel {channel!r}; subscribe it with 'artcafe subscription create'"
    ),
}
"""Texts with the id and the fitting command: the server does not repeat an unknown id, and does not know the command line."""


def reword(error: ArtcafeError, given: Mapping[str, Any], credentials: AccessCredentials) -> ArtcafeError:
    """Return the error with the text for a command's user; `given` are the command's arguments by name."""
    words = ERROR_TEXTS.get(type(error))
    if isinstance(error, errors.TenantNotFound) and credentials.user:
        words = f"{words}\n  you are {credentials.user}; {credentials.others}"
    if isinstance(error, errors.ChannelNotFound) and given.get("dead_letter") is not None:
        either = " or no channel ".join(repr(given[name]) for name in ("channel", "dead_letter") if name in given)
        return errors.ChannelNotFound.from_text(
            f"no channel {either} in this tenant; use handles or ids from 'artcafe channel list'"
        )
    if words is not None:
        with contextlib.suppress(KeyError):  # The command names the record otherwise: the server's text must do.
            return type(error).from_text(words.format_map(given))
    if isinstance(error, Unavailable) and credentials.url in str(error):
        return Unavailable.from_text(f"{error}\n  is a server running there? Set another address with --url or ARTCAFE_URL")
    return error
