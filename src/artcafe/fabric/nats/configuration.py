"""What the nats-servers of an installation are told: one source for the child of `artcafe up` and for the servers of a fleet.

Written as JSON, which NATS's own format includes. Which keys there are: nats-server 2.15, `server/opts.go`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from artcafe.fabric.accounts import Accounts

MAX_PAYLOAD_BYTES: Final = 1024 * 1024
LONE_LOOKUP: Final = "1ms"
"""For an account it doesn't know, NATS asks the other servers, of which there are none, and waits so long for their answers: at
the default of 1.9 s that was each new tenant's first login, and 79 s of a start with 40 lost JWTs."""
FLEET_LOOKUP: Final = "500ms"
"""With other servers an account may be known to one that this one has not heard from yet. They say at once that they don't know
it, so it waits for all of this only while one of them hangs; and our clients give up a connection after 2 s."""
ROUTES_USER: Final = "artcafe"

Configuration = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Node:
    """One NATS server of a fleet: where our servers reach it, and (`route_port`) where the other NATS servers do."""

    name: str
    host: str
    port: int = 4222
    route_port: int = 6222

    @property
    def url(self) -> str:
        """For `nats_urls`."""
        return f"nats://{_authority(self.host, self.port)}"


@dataclass(frozen=True, slots=True)
class NodeTls:
    """Files on the NATS server's machine: its certificate with its key, and the authority that the others' are checked by."""

    certificate: Path
    key: Path
    authority: Path


def server_configuration(accounts: Accounts, *, name: str, host: str, port: int, folder: Path, lookup: str) -> Configuration:
    """What every nats-server is told, alone or not; holds no secret. `folder` is for its files alone."""
    return {
        "server_name": name,
        "host": host,
        "port": port,
        "operator": accounts.operator_jwt(),
        "system_account": accounts.system_key,
        "resolver": {
            "type": "full",
            "dir": str(folder / "jwt"),
            "allow_delete": True,
            "hard_delete": True,
            "timeout": lookup,
        },
        "resolver_preload": {accounts.system_key: accounts.system_jwt(), accounts.platform_key: accounts.platform_jwt()},
        "jetstream": {
            "store_dir": str(folder / "jetstream"),
            # Flushed before it is acknowledged (decision 3): at the default, a power cut lost everything of the last minutes.
            "sync_interval": "always",
            # Nothing is kept in memory; the account's limits say so too.
            "max_mem": 64 * 1024 * 1024,
            # Accounts' limits are reservations against this one (decision 1), so it is as good as infinite: 2**60 is 1 EiB.
            "max_file": 2**60,
        },
        "max_payload": MAX_PAYLOAD_BYTES,
        "write_deadline": "10s",
    }


def fleet_configuration(
    accounts: Accounts, nodes: Sequence[Node], node: Node, *, folder: Path, bind: str, tls: NodeTls | None
) -> Configuration:
    """What `node` of the fleet's `nodes` is told; of several, with the password of their routes. `bind`: where it listens."""
    is_alone = len(nodes) == 1
    lookup = LONE_LOOKUP if is_alone else FLEET_LOOKUP
    told = server_configuration(accounts, name=node.name, host=bind, port=node.port, folder=folder, lookup=lookup)
    if tls is not None:
        told["tls"] = {"cert_file": str(tls.certificate), "key_file": str(tls.key), "ca_file": str(tls.authority)}
    if not is_alone:
        told["cluster"] = _cluster(accounts, nodes, node, bind, tls)
    return told


def _cluster(accounts: Accounts, nodes: Sequence[Node], node: Node, bind: str, tls: NodeTls | None) -> Configuration:
    password = accounts.route_password()
    user = f"{ROUTES_USER}:{quote(password, safe='')}"
    cluster: Configuration = {
        "name": f"artcafe-{accounts.environment}",
        "host": bind,
        "port": node.route_port,
        # A route carries every account, so nobody else may open one.
        "authorization": {"user": ROUTES_USER, "password": password, "timeout": 5},
        "routes": [f"nats-route://{user}@{_authority(each.host, each.route_port)}" for each in nodes if each is not node],
        # Clients are told all servers by `nats_urls`; what a server believes its own address to be may lead nowhere.
        "no_advertise": True,
    }
    if tls is not None:
        files = {"cert_file": str(tls.certificate), "key_file": str(tls.key), "ca_file": str(tls.authority)}
        cluster["tls"] = {**files, "verify": True}
    return cluster


def to_text(told: Configuration) -> str:
    """The file that a nats-server reads."""
    return json.dumps(told, indent=2, ensure_ascii=False)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
