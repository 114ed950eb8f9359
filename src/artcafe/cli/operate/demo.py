"""The demo: three agents of one tenant exchange messages on a running server. It uses only the SDK, and prints every step."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from artcafe.sdk.agent import Agent
from artcafe.sdk.client import Client
from artcafe.sdk.messages import Message

AGENTS: Final = {
    "planner": ("Ed25519", "hands out work"),
    "researcher": ("ECDSA", "finds things out"),
    "writer": ("RSA", "writes them down"),
}
"""Agents with key type and description. They are part of an idempotent request: a change would make a repeated run fail."""
MISSED: Final = 5
TIMEOUT_S: Final = 20


@dataclass(frozen=True, slots=True)
class DemoRun:
    """One run of the demo: the tenant, and the handles of its channels and agents by name; ids for the rows of an older
    version."""

    url: str
    folder: Path
    tenant: str
    channels: dict[str, str]
    agents: dict[str, str]
    id: str
    shown: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """Events by message id, set once the publish is printed, so that no delivery is printed before it."""

    def agent(self, name: str) -> Agent:
        return Agent(self.url, tenant=self.tenant, agent=self.agents[name], key=self.folder / name)

    def name_of(self, agent: str) -> str:
        return next((name for name, each in self.agents.items() if each == agent), agent)


async def run_demo(url: str, token: str, folder: Path) -> None:
    """Run the demo once. It can be repeated on the same data: idempotency keys find tenant, agents and channels again."""
    _title("ArtCafe demo: three agents in one tenant")
    async with Client(url, token) as rest:
        run = await _set_up(rest, url, folder)
    await _converse(run)
    await _reconnect(run)


async def _set_up(rest: Client, url: str, folder: Path) -> DemoRun:
    with _step("A user creates a tenant") as shown:
        tenant = await rest.create_tenant("Demo", key="demo-tenant")
        scope = rest.tenant(tenant.id)
        shown.append(tenant.id)
    agents, channels = {}, {}
    for name, (kind, purpose) in AGENTS.items():
        with _step(f"Register an agent with its {kind} key") as shown:
            public_key = await asyncio.to_thread(_make_key, folder / name, kind)
            card = await scope.agents.create(name, public_key, description=purpose, key=f"demo-{name}")
            agents[name] = card.handle or card.id
            shown.append(f"{name:10} {card.id}  {card.fingerprint or ''}")
    for name in ("work", "results"):
        with _step("Create a channel") as shown:
            made = await scope.channels.create(name, key=f"demo-{name}")
            channels[name] = made.handle or made.id
            shown.append(f"{name:10} {made.id}")
    with _step("Subscribe the agents") as shown:
        for agent, channel in (("researcher", "work"), ("writer", "work"), ("planner", "results"), ("writer", "results")):
            await scope.subscriptions.create(channels[channel], agents[agent])
        shown.append("work → researcher, writer    results → planner, writer")
    return DemoRun(url, folder, tenant.id, channels, agents, os.urandom(4).hex())


async def _converse(run: DemoRun) -> None:
    """The planner asks, the researcher answers, and the writer receives both."""
    _title("All three agents log in by signing a challenge with their SSH key, and exchange messages")
    async with (
        asyncio.timeout(TIMEOUT_S),
        run.agent("planner") as planner,
        run.agent("researcher") as researcher,
        run.agent("writer") as writer,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(_answer(run, researcher))
        group.create_task(_receive(run, writer, "writer", 4))
        for question in ("How tall is the Eiffel Tower?", "Who built it?"):
            await _publish(run, planner, "planner", "work", question)
        await _receive(run, planner, "planner", 2)


async def _answer(run: DemoRun, researcher: Agent) -> None:
    for answer in ("330 metres, antennas included.", "The company of Gustave Eiffel, from 1887 to 1889."):
        await _receive(run, researcher, "researcher", 1)
        await _publish(run, researcher, "researcher", "results", answer)


async def _receive(run: DemoRun, agent: Agent, name: str, count: int) -> list[Message]:
    """Print and acknowledge the next `count` messages of this run; only acknowledge those of an earlier, interrupted run."""
    received: list[Message] = []
    async for message in agent.messages():
        if _is_of_run(run, message):
            await run.shown[message.message_id].wait()
            _print_received(run, name, message)
            received.append(message)
        await message.ack()
        if len(received) == count:
            break
    return received


async def _reconnect(run: DemoRun) -> None:
    """The writer disconnects, reconnects, and receives the messages published in between."""
    _title(f"The writer disconnects. {MISSED} messages are published in the meantime")
    async with run.agent("planner") as planner:
        for number in range(1, MISSED + 1):
            await _publish(run, planner, "planner", "work", f"Question {number} of {MISSED}")
    _title("The writer reconnects")
    began = time.monotonic()
    async with run.agent("writer") as writer, asyncio.timeout(TIMEOUT_S):
        received = await _receive(run, writer, "writer", MISSED)
    in_order = [message.data for message in received] == [f"Question {number} of {MISSED}" for number in range(1, MISSED + 1)]
    how = "in order, without duplicates" if in_order else "NOT in order"
    click.echo(f"\n  It received {len(received)} of {MISSED}, {how}, {_ms(began)} after it began to connect.")


async def _publish(run: DemoRun, agent: Agent, name: str, channel: str, text: str) -> None:
    began = time.monotonic()
    receipt = await agent.publish(run.channels[channel], text, headers={"demo-run": run.id})
    _print_line(f"{name} →", f"{channel:8} #{receipt.seq:<5} {text:52} on disk after {_ms(began)}")
    run.shown[receipt.message_id or ""].set()


def _print_received(run: DemoRun, name: str, message: Message) -> None:
    channel = next(name for name, each in run.channels.items() if each == message.channel)
    _print_line(f"{name} ←", f"{channel:8} #{message.seq:<5} {message.data!s:52} from {run.name_of(message.sender)}")


def _is_of_run(run: DemoRun, message: Message) -> bool:
    return message.headers.get("demo-run") == run.id


def _make_key(path: Path, kind: str) -> str:
    """Return the public key line of the key pair at `path`, generated in ssh-keygen's format if missing."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
        match kind:
            case "Ed25519":
                key = ed25519.Ed25519PrivateKey.generate()
            case "ECDSA":
                key = ec.generate_private_key(ec.SECP256R1())
            case _:
                key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        path.with_suffix(".pub").write_bytes(public + b"\n")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return path.with_suffix(".pub").read_text().strip()


# --- output ----------------------------------------------------------------------------------------------------------


@contextmanager
def _step(text: str) -> Iterator[list[str]]:
    began, shown = time.monotonic(), list[str]()
    yield shown
    click.echo(f"  {text:46} {' '.join(shown)}  ({_ms(began)})")


def _title(text: str) -> None:
    click.echo(f"\n{text}")


def _print_line(agent: str, text: str) -> None:
    click.echo(f"  {agent:14} {text}".rstrip())


def _ms(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:.0f} ms"
