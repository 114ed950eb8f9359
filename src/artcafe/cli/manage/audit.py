"""`artcafe audit …`: list, export and verify the audit of a tenant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import click
import msgspec

from artcafe.cli.manage.command_context import CommandContext, in_tenant
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import Columns, as_json, limit_option, show_all
from artcafe.cli.terminal.time_params import TimeParam
from artcafe.errors import ChainBroken
from artcafe.model import Entry
from artcafe.rules import audit_chain
from artcafe.rules.audit_chain import ChainBreak
from artcafe.sdk.records import AuditEntry

SHOWN: Final = 20
"""Default number of entries, which fits a screen."""

COLUMNS: Final[Columns[AuditEntry]] = {
    "NUMBER": lambda entry: entry.number,
    "TIME": lambda entry: entry.time,
    "ACTION": lambda entry: entry.action,
    "ACTOR": lambda entry: entry.actor,
    "OUTCOME": lambda entry: entry.outcome,
    "TARGET": lambda entry: entry.target,
    "FACTS": lambda entry: entry.facts,
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def audit() -> None:
    """Read the audit of a tenant, as one of its admins. It records logins, refused attempts and changes of access.

    \b
    Example:
      artcafe audit list
    """


@audit.command("list", cls=ArtcafeCommand)
@limit_option
@click.option("--agent", metavar="AGENT|usr:SUB", help="Only entries with this agent or user as actor or target.")
@click.option("--action", help="Only this action, such as agent.login, or all actions of a group: agent.")
@click.option(
    "--since", type=TimeParam(), metavar="TIME", help="Only entries from this time on, such as 1h or '2026-11-28 10:00'."
)
@click.option("--until", type=TimeParam(), metavar="TIME", help="Only entries before this time.")
@in_tenant
async def list_entries(
    context: CommandContext,
    limit: int | None,
    agent: str | None,
    action: str | None,
    since: datetime | None,
    until: datetime | None,
) -> None:
    """List entries, newest first: 20, or as many as --limit.

    The FACTS of a refused login include the reason.

    \b
    Examples:
      artcafe audit list --limit 100
      artcafe audit list --action agent.login --since 1d
      artcafe audit list --agent agt_01K…
    """
    entries = context.scope.audit.list(agent=agent, action=action, since=since, until=until, limit=limit or SHOWN)
    is_filtered = any(each is not None for each in (agent, action, since, until))
    await show_all(context, entries, COLUMNS, none="no entry matches" if is_filtered else "the audit is empty")


@audit.command(cls=ArtcafeCommand)
@in_tenant
async def export(context: CommandContext) -> None:
    """Print the whole audit as JSON lines, oldest first. 'artcafe audit check' verifies such a file without a server.

    \b
    Example:
      artcafe audit export >audit.jsonl
    """
    async for entry in context.scope.audit.list(oldest_first=True):
        click.echo(as_json(entry).encode())


until_option = click.option(
    "--until", metavar="NUMBER:DIGEST", help="The result of an earlier check: that entry must still exist unchanged."
)


@audit.command(cls=ArtcafeCommand)
@until_option
@in_tenant
async def verify(context: CommandContext, until: str | None) -> None:
    """Verify that no entry was changed, removed or added.

    The chain of digests cannot reveal a truncated end. Keep the printed number and digest of the last entry elsewhere, and pass
    them to --until next time.

    \b
    Examples:
      artcafe audit verify
      artcafe audit verify --until 41:9f86d081884c7d65…
    """
    entries = [entry async for entry in context.scope.audit.list(oldest_first=True)]
    check_chain(entries, until, json=context.as_json)
    warn_if_incomplete(entries)


@audit.command(cls=ArtcafeCommand)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@until_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def check(file: Path, until: str | None, as_json: bool) -> None:
    """Verify an exported audit without a server.

    FILE is the output of 'artcafe audit export' or 'artcafe platform audit export'.

    \b
    Example:
      artcafe audit check audit.jsonl
    """
    check_chain(_read(file), until, json=as_json)


def _read(file: Path) -> list[AuditEntry]:
    found = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            found.append(msgspec.json.decode(line, type=AuditEntry))
        except msgspec.DecodeError as exc:
            raise click.UsageError(f"line {number} of {file} is not an audit entry: {exc}") from exc
    return found


def check_chain(lines: Sequence[AuditEntry], until: str | None, *, json: bool) -> None:
    """Verify the chain, and print the number of entries and the last one. Raises ChainBroken."""
    entries = [msgspec.convert(msgspec.to_builtins(line), Entry) for line in lines]
    broken = audit_chain.first_break(entries) or _wrong_digest(lines, entries)
    if broken is None and until is not None:
        broken = _missing_entry(lines, until)
    if broken is not None:
        raise ChainBroken(broken.number, broken.problem)
    last = f"{lines[-1].number}:{lines[-1].digest}" if lines else "0:"
    text = f"{len(lines):,} entries, all unchanged. The last one is {last}"
    click.echo(as_json({"entries": len(lines), "until": last}) if json else text)


def warn_if_incomplete(lines: Sequence[AuditEntry]) -> None:
    """Warn if a tenant's audit does not begin with the tenant's creation: a chain that was started again is valid too."""
    first = lines[0].action if lines else "nothing"
    if first != audit_chain.BEGINNING:
        click.echo(
            f"artcafe: the audit begins with {first} instead of the tenant's creation: the tenant comes from an older system,"
            " or its audit was lost and started again",
            err=True,
        )


def _wrong_digest(lines: Iterable[AuditEntry], entries: Iterable[Entry]) -> ChainBreak | None:
    for line, entry in zip(lines, entries, strict=True):
        if line.digest != audit_chain.digest(audit_chain.canonical(entry)):
            return ChainBreak(line.number, "does not match its digest")
    return None


def _missing_entry(lines: Iterable[AuditEntry], until: str) -> ChainBreak | None:
    number, _, digest = until.partition(":")
    if not number.isdigit():
        raise click.UsageError("--until requires NUMBER:DIGEST, as printed by 'artcafe audit verify'")
    if number == "0" or any((line.number, line.digest) == (int(number), digest) for line in lines):
        return None
    return ChainBreak(int(number), "is missing or differs from the earlier check")
