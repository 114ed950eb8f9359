"""The signatures, texts and checks of tools. Subclasses carry them out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

from artcafe.errors import Invalid
from artcafe.toolset import results
from artcafe.wire import frames

MAX_LIMIT: Final = 200
MAX_WAIT_S: Final = 25.0
"""The limits of one pull (contract, section 3)."""
TIMEOUT_S: Final = 25.0
"""How long a tool tries: many clients of tools give up after 30 s."""
ASK_S: Final = f"{frames.MIN_TIMEOUT_S} to {frames.MAX_TIMEOUT_S}"

Tool = Callable[..., Awaitable[Any]]
"""A tool, bound to whom it acts for."""

Outcome = Literal["done", "retry", "reject", "extend"]
Limit = Annotated[int, f"The most items to return, 1 to {MAX_LIMIT}."]
Data = Annotated[Any, "Any JSON value: an object, a list, text, a number, a boolean or null."]
Key = Annotated[str | None, "An idempotency key: a repeat with the same key within 10 minutes stores nothing."]
CausedBy = Annotated[str | None, "The `message_id` of the message that this one answers."]
PulledChannel = Annotated[str | None, "Only messages of this channel: its handle or id. Null: of all subscriptions."]


class NewMessage(NamedTuple):
    """The arguments of a publish."""

    data: Any
    key: str | None = None
    caused_by: str | None = None
    reply_to: str | None = None


class Settling(NamedTuple):
    """The arguments of an `ack`. `receipt` is present unless `outcome` is `done`."""

    channel: str
    seq: int
    receipt: str | None
    epoch: str | None
    outcome: Outcome
    delay_s: float | None


class Extension(NamedTuple):
    """The new receipt and deadline of an extended message."""

    receipt: str | None
    held_until: datetime | None


class TenantTools(ABC):
    """The tools that agents and people have. They raise `ArtcafeError`; `results.fault_of` describes it for a model."""

    names: ClassVar[tuple[str, ...]]
    """The names of all tools, in the order in which they are listed."""

    @property
    def tools(self) -> dict[str, Tool]:
        """All tools, by name."""
        return {name: getattr(self, name) for name in self.names}

    async def agents_find(
        self,
        capability: Annotated[str | None, "Only agents with this capability."] = None,
        connected: Annotated[bool | None, "True: only agents that are connected now, and can answer an `ask`."] = None,
        limit: Limit = 50,
    ) -> results.FoundAgents:
        """Find the agents of the tenant: those that you can `send` messages to, or `ask`."""
        check_limit(limit)
        return await self._agents(capability, connected, limit)

    async def channels_list(self, limit: Limit = 50) -> results.FoundChannels:
        """List the channels that you may use. An agent gets the messages of those that it is subscribed to."""
        check_limit(limit)
        return await self._channels(limit)

    async def publish(
        self,
        channel: Annotated[str, "The channel's handle or id."],
        data: Data,
        key: Key = None,
        caused_by: CausedBy = None,
        reply_to: Annotated[str | None, "Where answers should go: a channel, or `@` and an agent's handle."] = None,
    ) -> results.Published:
        """Publish a message to a channel, for its subscribers; in a queue, for one of them. It is on disk when this returns.

        After an error that says the outcome is unknown, publish again with the same `key`.
        """
        return await self._publish(channel, NewMessage(data, key, caused_by, reply_to))

    async def send(
        self,
        agent: Annotated[str, "The agent's handle or id."],
        data: Data,
        key: Key = None,
        caused_by: CausedBy = None,
    ) -> results.Published:
        """Send a message to one agent, which gets it now or when it connects. It is on disk when this returns.

        To wait for an answer, use `ask`. After an error that says the outcome is unknown, send again with the same `key`.
        """
        inbox = frames.INBOX_PREFIX + agent.removeprefix(frames.INBOX_PREFIX)
        return await self._publish(inbox, NewMessage(data, key, caused_by))

    async def ask(
        self,
        agent: Annotated[str, "The agent's handle or id."],
        data: Data,
        timeout_s: Annotated[float, f"Seconds to wait for the answer, {ASK_S}."] = TIMEOUT_S,
    ) -> results.Answer:
        """Ask a connected agent, and return its answer. Nothing is stored, and nothing is sent twice: repeat it only if
        `was_delivered` is false, or if the other agent may act on it twice.
        """
        if not frames.MIN_TIMEOUT_S <= timeout_s <= frames.MAX_TIMEOUT_S:
            raise Invalid("timeout_s", f"must be {ASK_S} seconds, not {timeout_s:g}")
        return {"about_data": results.DATA_NOTE, "agent": agent, "data": await self._ask(agent, data, timeout_s)}

    async def limits(self) -> results.TenantLimits:
        """Return the tenant's plan and limits, and what is used of them."""
        return await self._limits()

    @abstractmethod
    async def _agents(self, capability: str | None, connected: bool | None, limit: int) -> results.FoundAgents: ...

    @abstractmethod
    async def _channels(self, limit: int) -> results.FoundChannels: ...

    @abstractmethod
    async def _publish(self, channel: str, message: NewMessage) -> results.Published: ...

    @abstractmethod
    async def _ask(self, agent: str, data: Any, timeout_s: float) -> Any: ...

    @abstractmethod
    async def _limits(self) -> results.TenantLimits: ...


class OwnTools(TenantTools):
    """The further tools of an agent, about itself and its messages."""

    async def whoami(self) -> results.Identity:
        """Return who this agent is: its handle, under which others know it, and what it is registered for."""
        return await self._whoami()

    async def ack(
        self,
        channel: Annotated[str, "The message's `channel`."],
        seq: Annotated[int, "The message's `seq`."],
        receipt: Annotated[str | None, "The message's `receipt`; required in a queue."] = None,
        epoch: Annotated[str | None, "The `epoch` of the pull."] = None,
        outcome: Annotated[
            Outcome,
            "`done`: processed. In a queue also `retry`: give it back; `reject`: nobody can process it, move it to the dead"
            " letters; `extend`: you need more time.",
        ] = "done",
        delay_s: Annotated[float | None, "With `retry`: the seconds until it is delivered again."] = None,
    ) -> results.Acknowledged:
        """Acknowledge a message after you have processed it, so that it does not come again.

        In a queue this is about that one message. In any other channel it covers all messages of the channel up to `seq`.
        """
        if outcome != "done" and receipt is None:
            raise Invalid("receipt", f"is required for the outcome {outcome!r}, which only messages of a queue have")
        if delay_s is not None and outcome != "retry":
            raise Invalid("delay_s", "is only for the outcome 'retry'")
        extension = await self._settle(Settling(channel, seq, receipt, epoch, outcome, delay_s))
        done: results.Acknowledged = {"channel": channel, "seq": seq, "outcome": outcome}
        if extension.receipt is not None:
            done["receipt"] = extension.receipt
        if extension.held_until is not None:
            done["held_until"] = time_text(extension.held_until)
        return done

    @abstractmethod
    async def _whoami(self) -> results.Identity: ...

    @abstractmethod
    async def _settle(self, settling: Settling) -> Extension:
        """Acknowledge, give back, reject or extend a message, and return the extension; an empty one otherwise."""


NOT_EXTENDED: Final = Extension(None, None)


def check_limit(limit: int) -> None:
    """Raise `Invalid` for a number of items outside its range."""
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid("limit", f"must be 1 to {MAX_LIMIT}, not {limit}")


def check_wait(wait_s: float) -> None:
    """Raise `Invalid` for a wait outside its range."""
    if not 0 <= wait_s <= MAX_WAIT_S:
        raise Invalid("wait_s", f"must be 0 to {MAX_WAIT_S:g} seconds, not {wait_s:g}")


def time_text(time: datetime) -> str:
    """Return a time as RFC 3339, in UTC."""
    return time.isoformat().replace("+00:00", "Z")
