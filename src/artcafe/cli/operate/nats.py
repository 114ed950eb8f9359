"""`artcafe nats config`: print the configuration of a fleet's NATS servers, without starting or contacting any.

`cli.operate.nats_check` asks the running ones.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from artcafe import config
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.lazy_group import LazyCommand, LazyGroup
from artcafe.data_dir import read_secret, write_whole
from artcafe.errors import StartRefused
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.nats.configuration import Node, NodeTls, fleet_configuration, to_text
from artcafe.rules.secrets import derive

DEFAULT_NODE: Final = "nats-1=127.0.0.1"
NODE: Final = re.compile(r"(?P<name>[A-Za-z0-9_-]+)=(?P<host>\[[^]]+\]|[^:\[\]]+)(:(?P<port>\d+))?(:(?P<route_port>\d+))?")
SIZES: Final = (1, 3, 5)
LAZY: Final = {
    "check": LazyCommand("artcafe.cli.operate.nats_check", "check", "Check whether every NATS server has each stream completely.")
}

_PATH: Final = click.Path(path_type=Path)


class NodeType(click.ParamType[Node]):
    """A NATS server as NAME=HOST[:PORT[:ROUTE_PORT]]."""

    name = "node"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Node:
        """Parse a node; see click.ParamType.convert."""
        if isinstance(value, Node):
            return value
        found = NODE.fullmatch(value)
        ports = {name: int(found[name]) for name in ("port", "route_port") if found[name]} if found else {}
        if found is None or any(not 0 < port < 65536 for port in ports.values()):
            self.fail(f"{value!r} is not NAME=HOST[:PORT[:ROUTE_PORT]], such as nats-1=10.0.0.11:4222:6222", param, ctx)
        return Node(found["name"], found["host"].strip("[]"), **ports)


@click.group(cls=LazyGroup, lazy_commands=LAZY)
def nats() -> None:
    """Configure and check the NATS servers of a fleet."""


@nats.command("config", cls=ArtcafeCommand)
@click.option("--secret-file", type=_PATH, metavar="FILE", help="The fleet's secret, the same file as for its servers.")
@click.option("--environment", metavar="WORD", help="The same as the servers' setting: prod or dev.  [default: prod]")
@click.option(
    "--node",
    "nodes",
    type=NodeType(),
    metavar="NAME=HOST[:PORT[:ROUTE_PORT]]",
    multiple=True,
    default=[DEFAULT_NODE],
    show_default=True,
    help="Name and address of a NATS server; repeat the option for each of the one, three or five servers.",
)
@click.option("--name", metavar="NAME", help="The server to configure. Required with more than one node.")
@click.option(
    "--store",
    type=_PATH,
    metavar="DIR",
    default=Path("/var/lib/artcafe-nats"),
    show_default=True,
    help="The folder of its files.",
)
@click.option("--bind", metavar="HOST", help="The address to listen on, such as 0.0.0.0.  [default: the host of its node]")
@click.option(
    "--tls-cert", type=_PATH, metavar="FILE", help="Its certificate, for clients and routes. Requires --tls-key and --tls-ca."
)
@click.option("--tls-key", type=_PATH, metavar="FILE", help="The certificate's key.")
@click.option("--tls-ca", type=_PATH, metavar="FILE", help="The authority that signed the certificates of all nodes.")
@click.option(
    "--output", type=_PATH, metavar="FILE", help="Write the configuration to this file (mode 0600) instead of printing it."
)
@click.option("--json", "as_json", is_flag=True, help="Leave out the comments above the configuration.")
def show(
    secret_file: Path | None,
    environment: str | None,
    nodes: Sequence[Node],
    name: str | None,
    store: Path,
    bind: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Print the configuration of one NATS server of a fleet. Use the same nodes and the same secret for every server.

    \b
    Example:
      artcafe nats config --secret-file secret --name nats-1 \\
        --node nats-1=10.0.0.11 --node nats-2=10.0.0.12 --node nats-3=10.0.0.13 --output nats-1.conf
    """
    settings = config.load({"secret_file": secret_file, "environment": environment})
    node = _select(nodes, name)
    tls = _tls(tls_cert, tls_key, tls_ca)
    accounts = Accounts(derive(read_secret(settings.secret_path), "nats"), settings.environment)
    configuration = fleet_configuration(accounts, nodes, node, folder=store, bind=bind or node.host, tls=tls)
    written = (
        to_text(configuration) if as_json else f"{_comments(nodes, node, settings.environment, tls)}\n{to_text(configuration)}"
    )
    if output is None:
        click.echo(written)
        _warn_if_readable(is_secret=len(nodes) > 1)
    else:
        _write(output, written)


def _write(output: Path, written: str) -> None:
    try:
        write_whole(output, f"{written}\n")
    except OSError as exc:
        raise StartRefused(
            f"{output} cannot be written: {exc.strerror}", "name a file in an existing folder with write permission"
        ) from exc


def _warn_if_readable(*, is_secret: bool) -> None:
    """Warn if standard output is a file that others can read: a shell creates it by the umask."""
    mode = os.fstat(1).st_mode
    if is_secret and stat.S_ISREG(mode) and mode & 0o077:
        click.echo("artcafe: the file contains a password and others can read it: use --output FILE, or chmod 600", err=True)


def _select(nodes: Sequence[Node], name: str | None) -> Node:
    names = [node.name for node in nodes]
    if len(nodes) not in SIZES:
        raise click.UsageError(f"{len(nodes)} nodes survive no more failures than {len(nodes) - 1}; use one, three or five")
    if len(set(names)) < len(names):
        raise click.UsageError(f"two nodes have the same name: {', '.join(names)}")
    if name is None and len(nodes) > 1:
        raise click.UsageError(f"select the server to configure with --name: {', '.join(names)}")
    found = next((node for node in nodes if node.name == (name or names[0])), None)
    if found is None:
        raise click.UsageError(f"no --node has the name {name}; the names are {', '.join(names)}")
    return found


def _tls(certificate: Path | None, key: Path | None, authority: Path | None) -> NodeTls | None:
    match certificate, key, authority:
        case None, None, None:
            return None
        case Path(), Path(), Path():
            # Absolute paths, because the configuration may be moved to another folder.
            return NodeTls(certificate.absolute(), key.absolute(), authority.absolute())
        case _:
            raise click.UsageError("--tls-cert, --tls-key and --tls-ca must be used together")


def _comments(nodes: Sequence[Node], node: Node, environment: str, tls: NodeTls | None) -> str:
    """Return the comment lines above the configuration, for its reader."""
    scheme = "tls" if tls else "nats"
    urls = ",".join(each.url.replace("nats:", f"{scheme}:", 1) for each in nodes)
    lines = [f"{node.name}, a NATS server of ArtCafe ({environment}); nats-server 2.15.1 or later: nats-server -c FILE"]
    if len(nodes) > 1:
        lines.append("Contains the password of the cluster's routes: only nats-server's user may read it (mode 0600).")
    if tls is None:
        lines.append("Traffic is unencrypted without --tls-cert: use it only in a private network.")
    lines.append(f"Setting of ArtCafe's servers: --nats-urls {urls}")
    return "\n".join(f"# {line}" for line in lines)
