"""`artcafe member …`, `artcafe invitation …` and `artcafe terms …`: manage members and invitations, and accept terms."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any, Final

import click

from artcafe.cli.manage.command_context import CommandContext, as_user, in_tenant
from artcafe.cli.terminal.confirm import confirm
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import idempotency_key_option, limit_option, show_all, show_deleted, show_one, yes_option

ROLES = click.Choice(["owner", "admin", "member", "viewer"])
HELP = {"help_option_names": ["-h", "--help"]}
MAX_TOKEN_BYTES: Final = 4096
"""An invitation token has about 120 characters, at most 300 with the longest tenant id."""


class InvitationToken(click.ParamType[str]):
    """An invitation token: `-` for standard input, the path of a file, or the token itself.

    Input and file keep the token out of the arguments, which other users of the machine can see and the shell's history keeps.
    """

    name = "token"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == "-" and sys.stdin.isatty():
            return str(click.prompt("Invitation token", hide_input=True, err=True))
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
            self.fail(f"{name} contains no invitation token", param, ctx)
        return token


@click.group(context_settings=HELP)
def member() -> None:
    """Manage the members of a tenant.

    \b
    Example:
      artcafe member invite bob@example.com --role viewer
    """


@member.command("list", cls=ArtcafeCommand)
@limit_option
@in_tenant
async def list_members(context: CommandContext, limit: int | None) -> None:
    """List the members; for owners and admins.

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
    await show_all(context, context.scope.members.list(limit=limit), columns, none="no members")


@member.command(cls=ArtcafeCommand)
@click.argument("address")
@click.option("--role", type=ROLES, default="member", show_default=True, help="The role of the new member.")
@idempotency_key_option
@in_tenant
async def invite(context: CommandContext, address: str, role: str, idempotency_key: str | None) -> None:
    """Invite an e-mail address, and print the token.

    The token is valid once within 72 hours. Pass it to the invited person yourself: no e-mail is sent.

    \b
    Example:
      artcafe member invite bob@example.com --role viewer
    """
    show_one(context, await context.scope.members.invite(address, role=role, key=idempotency_key))


@member.command("role", cls=ArtcafeCommand)
@click.argument("member_id", metavar="USER")
@click.argument("role", type=ROLES, metavar="ROLE")
@in_tenant
async def set_role(context: CommandContext, member_id: str, role: str) -> None:
    """Change the role of a member. Only owners can grant or revoke the role of owner. The member's connections end, and reconnect
    with the new role.

    \b
    Example:
      artcafe member list
      artcafe member role 5d0e1c1e-… admin
    """
    show_one(context, await context.scope.members.set_role(member_id, role))


@member.command(cls=ArtcafeCommand)
@click.argument("member_id", metavar="USER")
@yes_option
@in_tenant
async def remove(context: CommandContext, member_id: str, yes: bool) -> None:
    """Remove a member. Their next request is refused, and their connections end within 5 seconds.

    \b
    Example:
      artcafe member list
      artcafe member remove 5d0e1c1e-… --yes
    """
    confirm(f"Delete the membership of {member_id}", yes=yes)
    await context.scope.members.remove(member_id)
    show_deleted(context, f"the membership of {member_id}", member_id)


@member.command(cls=ArtcafeCommand)
@yes_option
@in_tenant
async def leave(context: CommandContext, yes: bool) -> None:
    """End your own membership. The last owner of a tenant cannot leave.

    \b
    Example:
      artcafe member leave --tenant ten_… --yes
    """
    me = await context.rest.me()
    if me.user_id is None:
        raise click.UsageError("the access token belongs to an agent, and agents are not members")
    confirm(f"Delete your membership in {context.tenant}", yes=yes)
    await context.scope.members.remove(me.user_id)
    show_deleted(context, f"your membership in {context.tenant}", context.tenant)


@click.group(context_settings=HELP)
def invitation() -> None:
    """Manage and accept invitations into a tenant. 'artcafe member invite' creates one.

    \b
    Example:
      artcafe invitation accept <invitation.txt
    """


@invitation.command("list", cls=ArtcafeCommand)
@limit_option
@in_tenant
async def list_invitations(context: CommandContext, limit: int | None) -> None:
    """List the open invitations; for owners and admins.

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
    found = context.scope.invitations.list(limit=limit)
    await show_all(context, found, columns, none="no open invitations; create one: artcafe member invite ADDRESS")


@invitation.command(cls=ArtcafeCommand)
@click.argument("invitation")
@in_tenant
async def revoke(context: CommandContext, invitation: str) -> None:
    """Revoke an invitation.

    \b
    Example:
      artcafe invitation revoke inv_…
    """
    await context.scope.invitations.revoke(invitation)
    show_deleted(context, f"invitation {invitation}", invitation)


@invitation.command(cls=ArtcafeCommand)
@click.argument("invitation", metavar="[TOKEN]", type=InvitationToken(), default="-")
@click.option(
    "--id-token",
    envvar="ARTCAFE_ID_TOKEN",
    metavar="TOKEN",
    help="An ID token of your identity provider, as proof of your e-mail address; not needed with the local identity. Prefer"
    " ARTCAFE_ID_TOKEN.",
)
@as_user
async def accept(context: CommandContext, invitation: str, id_token: str | None) -> None:
    """Accept an invitation, and become a member of its tenant.

    TOKEN may be the path of a file with the token. If omitted, it is read from standard input or a prompt, so that other users
    of the machine do not see it among the arguments.

    \b
    Example:
      artcafe invitation accept <invitation.txt
    """
    show_one(context, await context.rest.accept_invitation(invitation, id_token=id_token))


@click.group(context_settings=HELP)
def terms() -> None:
    """Show and accept the terms of the service. Users must accept them before anything else.

    \b
    Example:
      artcafe terms show
    """


@terms.command("show", cls=ArtcafeCommand)
@as_user
async def show_terms(context: CommandContext) -> None:
    """Show the current version and its text.

    \b
    Example:
      artcafe terms show
    """
    current = await context.rest.terms()
    if current.version is None:
        context.note("this service has no terms to accept")
    show_one(context, current)


@terms.command("accept", cls=ArtcafeCommand)
@click.argument("version")
@as_user
async def accept_terms(context: CommandContext, version: str) -> None:
    """Accept VERSION, which must be the current one. The server records time and IP address.

    \b
    Example:
      artcafe terms accept 2026-11
    """
    show_one(context, await context.rest.accept_terms(version))
