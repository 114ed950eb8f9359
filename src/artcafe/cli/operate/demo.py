"""The demo: the main job played with real agents against a running server, every step shown, with nothing but the SDK."""

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
AWAY: Final = 5
PATIENCE_S: Final = 20


@dataclass(frozen=True, slots=True)
class DemoRun:
    """What the play is played on: the tenant, its channels, and who of the cast is which agent."""

    url: str
    folder: Path
    tenant: str
    channels: dict[str, str]
    agents: dict[str, str]
    run: str
    shown: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """By message id: set once the audience has seen it published, so that nobody is seen to hear it before."""

    def agent(self, name: str) -> Agent:
        return Agent(self.url, tenant=self.tenant, agent=self.agents[name], key=self.folder / name)

    def name_of(self, agent_id: str) -> str:
        return next((name for name, each in self.agents.items() if each == agent_id), agent_id)


async def run_demo(url: str, token: str, folder: Path) -> None:
    """Plays it all once. May be played again on the same data: tenant, agents and channels are found again by their keys."""
    _title("ArtCafe demo: three agents of one tenant")
    async with Client(url, token) as rest:
        stage = await _set_up(rest, url, folder)
    await _converse(stage)
    await _come_back(stage)


async def _set_up(rest: Client, url: str, folder: Path) -> DemoRun:
    with _step("A person makes a tenant") as shown:
        tenant = await rest.create_tenant("Demo", key="demo-tenant")
        shown.append(tenant.id)
    agents, channels = {}, {}
    for name, (kind, purpose) in AGENTS.items():
        with _step(f"An agent is registered with its {kind} key") as shown:
            public_key = await asyncio.to_thread(_make_key, folder / name, kind)
            card = await rest.create_agent(tenant.id, name, public_key, description=purpose, key=f"demo-{name}")
            agents[name] = card.id
            shown.append(f"{name:10} {card.id}  {card.fingerprint or ''}")
    for name in ("work", "results"):
        with _step("A channel is made") as shown:
            channels[name] = (await rest.create_channel(tenant.id, name, key=f"demo-{name}")).id
            shown.append(f"{name:10} {channels[name]}")
    with _step("Agents are subscribed") as shown:
        for agent, channel in (("researcher", "work"), ("writer", "work"), ("planner", "results"), ("writer", "results")):
            await rest.subscribe(tenant.id, channels[channel], agents[agent])
        shown.append("work → researcher, writer    results → planner, writer")
    return DemoRun(url, folder, tenant.id, channels, agents, os.urandom(4).hex())


async def _converse(stage: DemoRun) -> None:
    """The planner asks, the researcher answers, and the writer hears both."""
    _title("All three log in by signing a challenge with their SSH key, and talk")
    async with (
        asyncio.timeout(PATIENCE_S),
        stage.agent("planner") as planner,
        stage.agent("researcher") as researcher,
        stage.agent("writer") as writer,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(_answer(stage, researcher))
        group.create_task(_hear(stage, writer, "writer", 4))
        for question in ("How tall is the Eiffel Tower?", "Who built it?"):
            await _publish(stage, planner, "planner", "work", question)
        await _hear(stage, planner, "planner", 2)


async def _answer(stage: DemoRun, researcher: Agent) -> None:
    for answer in ("330 metres, antennas included.", "The company of Gustave Eiffel, from 1887 to 1889."):
        await _hear(stage, researcher, "researcher", 1)
        await _publish(stage, researcher, "researcher", "results", answer)


async def _hear(stage: DemoRun, agent: Agent, name: str, count: int) -> list[Message]:
    """Shows and acknowledges the next messages of this play; those of an earlier, interrupted one are only acknowledged."""
    heard: list[Message] = []
    async for message in agent.messages():
        if _is_ours(stage, message):
            await stage.shown[message.message_id].wait()
            _heard(stage, name, message)
            heard.append(message)
        await message.ack()
        if len(heard) == count:
            break
    return heard


async def _come_back(stage: DemoRun) -> None:
    """The writer is away while work goes on, and gets all of it when it is back."""
    _title(f"The writer has left. {AWAY} messages are published while it is away")
    async with stage.agent("planner") as planner:
        for number in range(1, AWAY + 1):
            await _publish(stage, planner, "planner", "work", f"Question {number} of {AWAY}")
    _title("The writer comes back")
    began = time.monotonic()
    async with stage.agent("writer") as writer, asyncio.timeout(PATIENCE_S):
        heard = await _hear(stage, writer, "writer", AWAY)
    in_order = [message.data for message in heard] == [f"Question {number} of {AWAY}" for number in range(1, AWAY + 1)]
    how = "in order, none twice" if in_order else "NOT in order"
    click.echo(f"\n  It got {len(heard)} of {AWAY}, {how}, {_ms(began)} after it set out.")


async def _publish(stage: DemoRun, agent: Agent, name: str, channel: str, text: str) -> None:
    began = time.monotonic()
    receipt = await agent.publish(stage.channels[channel], text, headers={"demo-run": stage.run})
    _say(f"{name} →", f"{channel:8} #{receipt.seq:<5} {text:52} on disk after {_ms(began)}")
    stage.shown[receipt.message_id or ""].set()


def _heard(stage: DemoRun, name: str, message: Message) -> None:
    channel = next(name for name, id in stage.channels.items() if id == message.channel)
    _say(f"{name} ←", f"{channel:8} #{message.seq:<5} {message.data!s:52} from {stage.name_of(message.sender)}")


def _is_ours(stage: DemoRun, message: Message) -> bool:
    return message.headers.get("demo-run") == stage.run


def _make_key(path: Path, kind: str) -> str:
    """The public line of the key at `path`, made if it is not there, as `ssh-keygen` would."""
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


# --- what is shown ---------------------------------------------------------------------------------------------------


@contextmanager
def _step(what: str) -> Iterator[list[str]]:
    began, shown = time.monotonic(), list[str]()
    yield shown
    click.echo(f"  {what:46} {' '.join(shown)}  ({_ms(began)})")


def _title(text: str) -> None:
    click.echo(f"\n{text}")


def _say(who: str, text: str) -> None:
    click.echo(f"  {who:14} {text}".rstrip())


def _ms(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:.0f} ms"
