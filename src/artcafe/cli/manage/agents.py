"""`artcafe agent …`: manage the agents of a tenant, together with the commands of an agent itself (`agent_commands`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from artcafe.cli.manage import keys, pull_commands, request_commands, wake
from artcafe.cli.manage.agent_commands import agent as agent_group
from artcafe.cli.manage.agent_listen import listen
from artcafe.cli.manage.agent_send import send
from artcafe.cli.manage.command_context import CommandContext, in_tenant
from artcafe.cli.manage.keys import PublicKeyFolderParam, PublicKeyParam
from artcafe.cli.terminal.confirm import confirm
from artcafe.cli.terminal.exit_codes import REFUSED, ArtcafeCommand
from artcafe.cli.terminal.output import (
    id_and_handle,
    idempotency_key_option,
    limit_option,
    show_all,
    show_deleted,
    show_done,
    show_one,
    show_rows,
    yes_option,
)
from artcafe.errors import CallerFault, KeyTaken
from artcafe.model import AgentStatus
from artcafe.sdk.records import PresenceInfo


class _AgentGroup(click.Group):
    """A group whose help lists the commands of members and of the agent separately."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [(name, each.get_short_help_str(90)) for name, each in self.commands.items() if name in agent_group.commands]
        others = [(name, each.get_short_help_str(90)) for name, each in self.commands.items() if name not in agent_group.commands]
        for title, rows in (("As a member of its tenant", others), ("As the agent itself, with its SSH key", own)):
            with formatter.section(title):
                formatter.write_dl(rows)


@click.group(cls=_AgentGroup, context_settings={"help_option_names": ["-h", "--help"]})
def agent() -> None:
    """Manage the agents of a tenant, or connect as one of them.

    \b
    Examples:
      ssh-keygen -q -t ed25519 -N '' -f scout
      artcafe agent create scout --public-key scout.pub
      ARTCAFE_TENANT=ten_… ARTCAFE_AGENT=scout ARTCAFE_KEY=scout artcafe agent listen
    """


agent.add_command(keys.key)
agent.add_command(wake.wake)
for _own_command in (send, listen, *pull_commands.COMMANDS, request_commands.ask):
    agent_group.add_command(_own_command)
for _name, _command in agent_group.commands.items():
    agent.add_command(_command, _name)


handle_option = click.option("--handle", metavar="HANDLE", help="Its handle, which may stand for its id in every command.")
description_option = click.option("--description", metavar="TEXT", help="A description.")
capability_option = click.option(
    "--capability", "capabilities", multiple=True, metavar="WORD", help="A capability; may be repeated."
)


@agent.command("list", cls=ArtcafeCommand)
@click.option("--status", type=click.Choice([each.value for each in AgentStatus]), help="Only agents with this status.")
@click.option("--capability", metavar="WORD", help="Only agents with this capability.")
@click.option("--connected/--away", default=None, help="Only agents that are, or are not, connected now.")
@limit_option
@in_tenant
async def list_agents(
    context: CommandContext, status: str | None, capability: str | None, connected: bool | None, limit: int | None
) -> None:
    """List the agents.

    \b
    Example:
      artcafe agent list --capability summarise
    """
    columns = {
        "HANDLE": lambda each: each.handle,
        "ID": lambda each: each.id,
        "NAME": lambda each: each.name,
        "STATUS": lambda each: each.status,
        "PRESENCE": lambda each: _presence(each.presence),
        "CAPABILITIES": lambda each: each.capabilities,
        "CREATED": lambda each: each.created_at,
    }
    found = context.scope.agents.list(status=status, capability=capability, connected=connected, limit=limit)
    is_all = status is None and capability is None and connected is None
    none = "no agents yet; register one: artcafe agent create NAME --public-key FILE" if is_all else "no agent matches"
    await show_all(context, found, columns, none=none)


def _presence(presence: PresenceInfo | None) -> str:
    if presence is None:
        return "unknown"
    if not presence.connected:
        return "away"
    return "connected" if presence.status is None else f"connected ({presence.status})"


@agent.command(cls=ArtcafeCommand)
@click.argument("name")
@click.option("--public-key", required=True, type=PublicKeyParam(), metavar="FILE", help="The agent's .pub file, or its content.")
@handle_option
@description_option
@capability_option
@idempotency_key_option
@in_tenant
async def create(
    context: CommandContext,
    name: str,
    public_key: str,
    handle: str | None,
    description: str | None,
    capabilities: tuple[str, ...],
    idempotency_key: str | None,
) -> None:
    """Register an agent by its public key. The private key stays with the agent. Without --handle it gets one made from its name.

    \b
    Example:
      ssh-keygen -q -t ed25519 -N '' -f scout
      artcafe agent create scout --public-key scout.pub --capability search
    """
    made = await context.scope.agents.create(
        name,
        public_key,
        handle=handle,
        description=description or "",
        capabilities=capabilities,
        key=idempotency_key,
    )
    show_one(context, made)


@agent.command("import", cls=ArtcafeCommand)
@click.argument("folder", type=PublicKeyFolderParam())
@capability_option
@in_tenant
async def import_folder(context: CommandContext, folder: Mapping[str, str], capabilities: tuple[str, ...]) -> None:
    """Register an agent for each .pub file in FOLDER, named after the file. It may be repeated: keys that an agent of the tenant
    has already are skipped.

    \b
    Example:
      artcafe agent import keys/ --capability search
    """
    rows, failed = [], False
    for name, public_key in folder.items():
        row = {"name": name, "id": "", "handle": "", "outcome": "registered"}
        try:
            made = await context.scope.agents.create(name, public_key, capabilities=capabilities)
            row |= {"id": made.id, "handle": made.handle or ""}
        except KeyTaken as exc:
            row["outcome"] = f"skipped: {exc}"
        except CallerFault as exc:
            row["outcome"], failed = f"refused: {exc}", True
        rows.append(row)
    show_rows(context, rows)
    if failed:
        click.get_current_context().exit(REFUSED)


@agent.command(cls=ArtcafeCommand)
@click.argument("agent")
@in_tenant
async def show(context: CommandContext, agent: str) -> None:
    """Show an agent.

    \b
    Example:
      artcafe agent show scout
    """
    show_one(context, await context.scope.agents.get(agent))


@agent.command(cls=ArtcafeCommand)
@click.argument("agent")
@click.option("--name", metavar="TEXT", help="The new name.")
@handle_option
@click.option(
    "--public-key",
    type=PublicKeyParam(),
    metavar="FILE",
    help="Replace the first key; tokens and connections of the old one end.",
)
@description_option
@capability_option
@click.option("--no-capabilities", is_flag=True, help="Remove all capabilities.")
@in_tenant
async def update(
    context: CommandContext,
    agent: str,
    name: str | None,
    handle: str | None,
    public_key: str | None,
    description: str | None,
    capabilities: tuple[str, ...],
    no_capabilities: bool,
) -> None:
    """Change an agent. Omitted options stay unchanged; given capabilities replace all earlier ones.

    \b
    Example:
      artcafe agent update scout --name "Scout 2" --capability search --capability summarise
    """
    if no_capabilities and capabilities:
        raise click.UsageError("--capability and --no-capabilities exclude each other")
    changes: dict[str, Any] = {"name": name, "handle": handle, "public_key": public_key, "description": description}
    changes["capabilities"] = capabilities if capabilities or no_capabilities else None
    if all(value is None for value in changes.values()):
        options = "--name, --handle, --public-key, --description, --capability or --no-capabilities"
        raise click.UsageError(f"nothing to change: give {options}")
    show_one(context, await context.scope.agents.update(agent, **changes))


@agent.command(cls=ArtcafeCommand)
@click.argument("agent")
@yes_option
@in_tenant
async def delete(context: CommandContext, agent: str, yes: bool) -> None:
    """Delete an agent with its subscriptions. Its tokens and connections end within 5 seconds.

    \b
    Example:
      artcafe agent delete scout --yes
    """
    found = await context.scope.agents.get(agent)
    confirm(f"Delete agent {id_and_handle(found)} with its subscriptions", yes=yes)
    await context.scope.agents.delete(found.id)
    show_deleted(context, f"agent {id_and_handle(found)}", found.id)


@agent.command(cls=ArtcafeCommand)
@click.argument("agent")
@in_tenant
async def disable(context: CommandContext, agent: str) -> None:
    """Disable an agent. Its tokens and connections end within 5 seconds; its subscriptions stay.

    \b
    Example:
      artcafe agent disable scout
    """
    changed = await context.scope.agents.update(agent, status=AgentStatus.DISABLED.value)
    show_done(context, changed, f"Agent {id_and_handle(changed)} is disabled; its connections end within 5 seconds.")


@agent.command(cls=ArtcafeCommand)
@click.argument("agent")
@in_tenant
async def enable(context: CommandContext, agent: str) -> None:
    """Enable a disabled agent.

    \b
    Example:
      artcafe agent enable scout
    """
    changed = await context.scope.agents.update(agent, status=AgentStatus.ACTIVE.value)
    show_done(context, changed, f"Agent {id_and_handle(changed)} is active; it can log in again.")
