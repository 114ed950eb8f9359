"""`artcafe agent key …`: manage the SSH keys of an agent; and parameter types for public keys."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from artcafe.cli.manage.command_context import CommandContext, in_tenant
from artcafe.cli.terminal.confirm import confirm
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import (
    idempotency_key_option,
    limit_option,
    show_all,
    show_deleted,
    show_done,
    show_one,
    yes_option,
)
from artcafe.cli.terminal.time_params import TimeParam
from artcafe.sdk.records import AgentKeyInfo

MAX_KEY_BYTES: Final = 16 * 1024
"""An RSA key of 16,384 bits is a line of 3 KB; the limit prevents endless reads from a wrong path such as a device."""


class PublicKeyParam(click.ParamType[str]):
    """A public key: the path of a .pub file, or its content."""

    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if " " in value and value.lstrip().startswith(("ssh-", "ecdsa-", "sk-")):
            return str(value).strip()
        try:
            with Path(value).open("rb") as file:
                text = file.read(MAX_KEY_BYTES + 1).decode("ascii").strip()
        except OSError as exc:
            self.fail(f"{value!r} cannot be read: {(exc.strerror or str(exc)).lower()}", param, ctx)
        except UnicodeDecodeError:
            self.fail(f"{value!r} is not a public key; give the .pub file written by ssh-keygen", param, ctx)
        if "PRIVATE KEY" in text:
            self.fail(f"{value!r} is a private key, which must stay with the agent; give {value}.pub", param, ctx)
        if not text or len(text) > MAX_KEY_BYTES:
            self.fail(f"{value!r} is not a public key; give the .pub file written by ssh-keygen", param, ctx)
        return text


class PublicKeyFolderParam(click.ParamType[dict[str, str]]):
    """A folder of .pub files, converted to public keys by file stem. All files are read before any key is used."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        files = sorted(Path(value).glob("*.pub"))
        if not files:
            self.fail(f"{str(value)!r} contains no .pub files", param, ctx)
        return {file.stem: PublicKeyParam().convert(str(file), param, ctx) for file in files}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def key() -> None:
    """Manage the SSH keys of an agent: the first key, and up to five more.

    \b
    Rotate a key without downtime:
      artcafe agent key add scout --public-key new.pub
      (switch the agent to the new key)
      artcafe agent key list scout
      artcafe agent key revoke scout key_…
    """


@key.command("list", cls=ArtcafeCommand)
@click.argument("agent")
@limit_option
@in_tenant
async def list_keys(context: CommandContext, agent: str, limit: int | None) -> None:
    """List the keys of an agent.

    \b
    Example:
      artcafe agent key list scout
    """
    columns = {
        "ID": lambda each: each.id,
        "FINGERPRINT": lambda each: each.fingerprint,
        "STATUS": lambda each: f"{each.status} (first)" if each.first else each.status,
        "ADDED": lambda each: each.added_at,
        "UNTIL": lambda each: each.not_after,
    }
    await show_all(context, context.scope.keys.list(agent, limit=limit), columns, none="this agent has no keys")


@key.command("add", cls=ArtcafeCommand)
@click.argument("agent")
@click.option("--public-key", required=True, type=PublicKeyParam(), metavar="FILE", help="The .pub file, or its content.")
@click.option("--until", type=TimeParam(ahead=True), metavar="TIME", help="When the key expires, such as 30d or 2026-12-24.")
@idempotency_key_option
@in_tenant
async def add_key(
    context: CommandContext, agent: str, public_key: str, until: datetime | None, idempotency_key: str | None
) -> None:
    """Add a key to an agent. Its other keys stay valid.

    \b
    Example:
      ssh-keygen -q -t ed25519 -N '' -f scout-2
      artcafe agent key add scout --public-key scout-2.pub
    """
    show_one(context, await context.scope.keys.add(agent, public_key, not_after=until, key=idempotency_key))


@key.command("disable", cls=ArtcafeCommand)
@click.argument("agent")
@click.argument("key")
@in_tenant
async def disable_key(context: CommandContext, agent: str, key: str) -> None:
    """Disable a key. Its tokens and connections end within 5 seconds; the agent's other keys stay valid.

    \b
    Example:
      artcafe agent key disable scout key_…
    """
    changed = await context.scope.keys.update(agent, key, status="disabled")
    show_done(context, changed, f"{_named(changed)} is disabled; its tokens and connections end within 5 seconds.")


@key.command("enable", cls=ArtcafeCommand)
@click.argument("agent")
@click.argument("key")
@in_tenant
async def enable_key(context: CommandContext, agent: str, key: str) -> None:
    """Enable a disabled key.

    \b
    Example:
      artcafe agent key enable scout key_…
    """
    changed = await context.scope.keys.update(agent, key, status="active")
    show_done(context, changed, f"{_named(changed)} is active; the agent can log in with it again.")


@key.command("revoke", cls=ArtcafeCommand)
@click.argument("agent")
@click.argument("key")
@yes_option
@in_tenant
async def revoke_key(context: CommandContext, agent: str, key: str, yes: bool) -> None:
    """Revoke a key of an agent. Its tokens and connections end within 5 seconds; the agent's other keys stay valid.

    \b
    Example:
      artcafe agent key revoke scout key_… --yes
    """
    confirm(f"Delete key {key} of agent {agent}", yes=yes)
    await context.scope.keys.revoke(agent, key)
    show_deleted(context, f"key {key} of agent {agent}", key)


def _named(key: AgentKeyInfo) -> str:
    return f"Key {key.id} of agent {key.agent_id}"
