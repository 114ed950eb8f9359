"""Calls that send dead letters back to their queues, over as many requests as it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import msgspec

from artcafe.sdk.tenant_calls import TenantCalls


class RedrivenLetter(msgspec.Struct, frozen=True):
    """A dead letter that was handled by a redrive, and the message that was sent back to its queue.

    `status` is `redriven`; `redriven_before`: by an earlier command, and not again; `queue_deleted`: the letter stays; and with
    `until_failure` the outcome: `done` or `failed`.
    """

    seq: int
    channel: str
    """The queue."""
    status: str
    redriven_seq: int | None = None
    """The sequence of the message in the queue."""
    message_id: str | None = None


class _Redrive(msgspec.Struct, frozen=True):
    """One answer of the route."""

    items: tuple[RedrivenLetter, ...]
    after: int
    up_to: int
    more: bool


class DeadLetterCalls(TenantCalls):
    """The dead letters of a tenant's queues. They are read as the messages of their channel."""

    async def redrive(self, channel: str, seq: int) -> RedrivenLetter:
        """Send the dead letter at a sequence back to its queue, once. May be repeated.

        `channel` is the queue or its dead-letter channel. Raises `DeadLetterNotFound`, and `Conflict` if the queue was deleted.
        """
        return (await self._redrive(channel, {"seq": seq})).items[0]

    async def redrive_all(self, channel: str, *, until_failure: bool = False) -> AsyncIterator[RedrivenLetter]:
        """Send all dead letters back that exist now, each once, oldest first, and yield them. May be repeated.

        With `until_failure` each waits until the message before it is acknowledged, and one that is dead-lettered again, with the
        status `failed`, is the last.
        """
        body: dict[str, object] = {"all": True, "until_failure": until_failure}
        while True:
            found = await self._redrive(channel, body)
            for letter in found.items:
                if letter.status != "waiting":
                    yield letter
            if not found.more:
                return
            body |= {"after": found.after, "up_to": found.up_to}

    async def _redrive(self, channel: str, body: Mapping[str, object]) -> _Redrive:
        return await self._http.send(_Redrive, "POST", self._path("channels", channel, "redrives"), body, repeats=True)
