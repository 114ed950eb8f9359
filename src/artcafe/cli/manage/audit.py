"""`artcafe audit …`: who did what in a tenant: read, exported, and checked to be as it was written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import click
import msgspec

from artcafe.cli.manage.caller import Caller, in_tenant
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import Columns, as_json, limit_option, show_all
from artcafe.cli.terminal.time_params import TimeParam
from artcafe.errors import ChainBroken
from artcafe.model import Entry
from artcafe.rules import chain
from artcafe.rules.chain import ChainBreak
from artcafe.sdk.records import AuditEntry

SHOWN: Final = 20
"""Entries that nobody asked for in numbers: they fit a screen."""

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
    """The audit of a tenant, for its admins. It records logins and changes of who may do what.

    \b
    Example:
      artcafe audit list
    """


@audit.command("list", cls=ArtcafeCommand)
@limit_option
@click.option("--agent", metavar="AGENT|usr:SUB", help="Only what this agent or person did, or had done to it.")
@click.option("--action", help="Only this action, such as agent.login, or all that begin with it and a dot: agent.")
@click.option("--since", type=TimeParam(), metavar="TIME", help="Only from this time on, such as 1h or '2026-11-28 10:00'.")
@click.option("--until", type=TimeParam(), metavar="TIME", help="Only before this time.")
@in_tenant
async def list_entries(
    caller: Caller, limit: int | None, agent: str | None, action: str | None, since: datetime | None, until: datetime | None
) -> None:
    """Lists what was done, newest first; 20 entries unless --limit says otherwise.

    A refused login has its reason among the facts.

    \b
    Examples:
      artcafe audit list --limit 100
      artcafe audit list --action agent.login --since 1d
      artcafe audit list --agent agt_01K…
    """
    entries = caller.rest.audit(caller.tenant, agent=agent, action=action, since=since, until=until, limit=limit or SHOWN)
    is_filtered = any(each is not None for each in (agent, action, since, until))
    await show_all(caller, entries, COLUMNS, none="no entry is like that" if is_filtered else "nothing is in the audit yet")


@audit.command(cls=ArtcafeCommand)
@in_tenant
async def export(caller: Caller) -> None:
    """Prints the whole audit as JSON lines, oldest first. 'artcafe audit check' checks such a file without a server.

    \b
    Example:
      artcafe audit export >audit.jsonl
    """
    async for entry in caller.rest.audit(caller.tenant, oldest_first=True):
        click.echo(as_json(entry).encode())


until_option = click.option(
    "--until", metavar="NUMBER:DIGEST", help="What an earlier check printed: that entry must still be there, and the same."
)


@audit.command(cls=ArtcafeCommand)
@until_option
@in_tenant
async def verify(caller: Caller, until: str | None) -> None:
    """Checks that nothing in the audit was changed, removed or added, and prints the last entry's number and digest.

    Nothing in a chain shows that its end was cut off. Keep what this prints in another place, and give it to --until next time.

    \b
    Examples:
      artcafe audit verify
      artcafe audit verify --until 41:9f86d081884c7d65…
    """
    entries = [entry async for entry in caller.rest.audit(caller.tenant, oldest_first=True)]
    check_chain(entries, until, json=caller.as_json)
    warn_of_late_beginning(entries)


@audit.command(cls=ArtcafeCommand)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@until_option
@click.option("--json", "as_json", is_flag=True, help="Prints a JSON object.")
def check(file: Path, until: str | None, as_json: bool) -> None:
    """Checks a FILE that 'artcafe audit export' printed, as 'artcafe audit verify' does. No server is asked.

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
            raise click.UsageError(f"line {number} of {file} is no entry of an audit: {exc}") from exc
    return found


def check_chain(lines: Sequence[AuditEntry], until: str | None, *, json: bool) -> None:
    """Says that the chain holds, and its last entry. Raises ChainBroken."""
    entries = [msgspec.convert(msgspec.to_builtins(line), Entry) for line in lines]
    broken = chain.first_break(entries) or _misnamed(lines, entries)
    if broken is None and until is not None:
        broken = _not_there(lines, until)
    if broken is not None:
        raise ChainBroken(broken.number, broken.problem)
    last = f"{lines[-1].number}:{lines[-1].digest}" if lines else "0:"
    told = f"{len(lines):,} entries, each as it was written. The last one is {last}"
    click.echo(as_json({"entries": len(lines), "until": last}) if json else told)


def warn_of_late_beginning(lines: Sequence[AuditEntry]) -> None:
    """Say on standard error that a tenant's audit begins without the tenant's creation: one that was begun anew holds, too."""
    first = lines[0].action if lines else "nothing"
    if first != chain.BEGINNING:
        click.echo(
            f"artcafe: it begins with {first}, and not with the tenant's creation: the tenant came from an older system,"
            " or its audit was lost and begun anew",
            err=True,
        )


def _misnamed(lines: Iterable[AuditEntry], entries: Iterable[Entry]) -> ChainBreak | None:
    for line, entry in zip(lines, entries, strict=True):
        if line.digest != chain.digest(chain.canonical(entry)):
            return ChainBreak(line.number, "is not what its digest was made of")
    return None


def _not_there(lines: Iterable[AuditEntry], until: str) -> ChainBreak | None:
    number, _, digest = until.partition(":")
    if not number.isdigit():
        raise click.UsageError("--until takes what 'artcafe audit verify' printed: NUMBER:DIGEST")
    if number == "0" or any((line.number, line.digest) == (int(number), digest) for line in lines):
        return None
    return ChainBreak(int(number), "is not there as it was when it was checked before")
