"""`artcafe member …`, `artcafe invitation …` and `artcafe terms …`: the people of a tenant, and what each person accepts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any, Final

import click

from artcafe.cli.manage.caller import Caller, as_user, in_tenant
from artcafe.cli.terminal.confirm import confirm
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import idempotency_key_option, limit_option, show_all, show_deleted, show_one, yes_option

ROLES = click.Choice(["owner", "admin", "member", "viewer"])
HELP = {"help_option_names": ["-h", "--help"]}
MAX_TOKEN_BYTES: Final = 4096
"""An invitation's token has some 120 characters, whatever the tenant's id at most 300."""


class InvitationToken(click.ParamType[str]):
    """The token of an invitation: `-` for standard input, the path of a file, or the token itself.

    Other users of the machine see the arguments of a command, and a shell keeps them, so the token need not be one.
    """

    name = "token"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == "-" and sys.stdin.isatty():
            return str(click.prompt("Token of the invitation", hide_input=True, err=True))
        if value == "-":
            return self._read(sys.stdin.buffer, "standard input", param, ctx)
        try:
            with Path(value).open("rb") as file:
                return self._read(file, repr(value), param, ctx)
        except FileNotFoundError:
            return str(value)
        except OSError as exc:
            self.fail(f"{value!r} cannot be read: {(exc.strerror or str(exc)).lower()}", param, ctx)

    def _read(self, file: IO[bytes], name: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        data = file.read(MAX_TOKEN_BYTES + 1)
        token = data.decode("ascii", "replace").strip()
        if not token or len(data) > MAX_TOKEN_BYTES or not token.isprintable():
            self.fail(f"{name} has no token of an invitation in it", param, ctx)
        return token


@click.group(context_settings=HELP)
def member() -> None:
    """The people of a tenant.

    \b
    Example:
      artcafe member invite bob@example.com --role viewer
    """


@member.command("list", cls=ArtcafeCommand)
@limit_option
@in_tenant
async def list_members(caller: Caller, limit: int | None) -> None:
    """Lists the members; for owners and admins.

    \b
    Example:
      artcafe member list
    """
    columns = {
        "USER": lambda each: each.user_id,
        "ROLE": lambda each: each.role,
        "ADDRESS": lambda each: each.address,
        "JOINED": lambda each: each.joined_at,
    }
    await show_all(caller, caller.rest.people.members(caller.tenant, limit=limit), columns, none="there are no members")


@member.command(cls=ArtcafeCommand)
@click.argument("address")
@click.option("--role", type=ROLES, default="member", show_default=True, help="As what they come in.")
@idempotency_key_option
@in_tenant
async def invite(caller: Caller, address: str, role: str, idempotency_key: str | None) -> None:
    """Invites an e-mail address, and prints the token to hand over: good for 72 hours, once. No mail is sent.

    \b
    Example:
      artcafe member invite bob@example.com --role viewer
    """
    show_one(caller, await caller.rest.people.invite(caller.tenant, address, role=role, key=idempotency_key))


@member.command("role", cls=ArtcafeCommand)
@click.argument("member_id", metavar="USER")
@click.argument("role", type=ROLES, metavar="ROLE")
@in_tenant
async def set_role(caller: Caller, member_id: str, role: str) -> None:
    """Gives a member another role; only owners make and unmake owners. Their connections end, and come back with the new one.

    \b
    Example:
      artcafe member list
      artcafe member role 5d0e1c1e-… admin
    """
    show_one(caller, await caller.rest.people.set_role(caller.tenant, member_id, role))


@member.command(cls=ArtcafeCommand)
@click.argument("member_id", metavar="USER")
@yes_option
@in_tenant
async def remove(caller: Caller, member_id: str, yes: bool) -> None:
    """Removes a member, who is out at their next request, and off their connections within 5 seconds.

    \b
    Example:
      artcafe member list
      artcafe member remove 5d0e1c1e-… --yes
    """
    confirm(f"Delete the membership of {member_id}", yes=yes)
    await caller.rest.people.remove(caller.tenant, member_id)
    show_deleted(caller, f"the membership of {member_id}", member_id)


@member.command(cls=ArtcafeCommand)
@yes_option
@in_tenant
async def leave(caller: Caller, yes: bool) -> None:
    """Ends your own membership; the last owner stays.

    \b
    Example:
      artcafe member leave --tenant ten_… --yes
    """
    me = await caller.rest.me()
    if me.user_id is None:
        raise click.UsageError("the access token is an agent's, and agents are no members")
    confirm(f"Delete your membership in {caller.tenant}", yes=yes)
    await caller.rest.people.remove(caller.tenant, me.user_id)
    show_deleted(caller, f"your membership in {caller.tenant}", caller.tenant)


@click.group(context_settings=HELP)
def invitation() -> None:
    """Invitations into a tenant. 'artcafe member invite' makes one.

    \b
    Example:
      artcafe invitation accept <invitation.txt
    """


@invitation.command("list", cls=ArtcafeCommand)
@limit_option
@in_tenant
async def list_invitations(caller: Caller, limit: int | None) -> None:
    """Lists the open invitations; for owners and admins.

    \b
    Example:
      artcafe invitation list
    """
    columns = {
        "ID": lambda each: each.id,
        "ADDRESS": lambda each: each.address,
        "ROLE": lambda each: each.role,
        "EXPIRES": lambda each: each.expires_at,
    }
    found = caller.rest.people.invitations(caller.tenant, limit=limit)
    await show_all(caller, found, columns, none="there are no open invitations; make one: artcafe member invite ADDRESS")


@invitation.command(cls=ArtcafeCommand)
@click.argument("invitation")
@in_tenant
async def revoke(caller: Caller, invitation: str) -> None:
    """Takes an invitation back.

    \b
    Example:
      artcafe invitation revoke inv_…
    """
    await caller.rest.people.revoke(caller.tenant, invitation)
    show_deleted(caller, f"invitation {invitation}", invitation)


@invitation.command(cls=ArtcafeCommand)
@click.argument("invitation", metavar="[TOKEN]", type=InvitationToken(), default="-")
@click.option(
    "--id-token",
    envvar="ARTCAFE_ID_TOKEN",
    metavar="TOKEN",
    help="Your identity provider's ID token, which proves your address; not needed with the local identity. Better as"
    " ARTCAFE_ID_TOKEN.",
)
@as_user
async def accept(caller: Caller, invitation: str, id_token: str | None) -> None:
    """Comes into the tenant of an invitation that was handed over to you.

    TOKEN may be the path of a file that has it. Left out, it is read from standard input, or asked for at a terminal, so that
    other users of the machine do not see it among the arguments.

    \b
    Example:
      artcafe invitation accept <invitation.txt
    """
    show_one(caller, await caller.rest.people.accept(invitation, id_token=id_token))


@click.group(context_settings=HELP)
def terms() -> None:
    """The terms of the service. People accept them before anything else.

    \b
    Example:
      artcafe terms show
    """


@terms.command("show", cls=ArtcafeCommand)
@as_user
async def show_terms(caller: Caller) -> None:
    """Shows the current version, and its text.

    \b
    Example:
      artcafe terms show
    """
    current = await caller.rest.people.terms()
    if current.version is None:
        caller.note("this service has no terms to accept")
    show_one(caller, current)


@terms.command("accept", cls=ArtcafeCommand)
@click.argument("version")
@as_user
async def accept_terms(caller: Caller, version: str) -> None:
    """Accepts a version, which must be the current one. Time and address are noted.

    \b
    Example:
      artcafe terms accept 2026-11
    """
    show_one(caller, await caller.rest.people.accept_terms(version))
