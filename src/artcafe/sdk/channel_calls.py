"""Calls for a tenant's channels."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, Unpack

from artcafe.sdk.http import given
from artcafe.sdk.records import ChannelInfo, QueueOptions
from artcafe.sdk.tenant_calls import TenantCalls


class ChannelCalls(TenantCalls):
    """The channels of a tenant."""

    async def create(
        self,
        name: str,
        *,
        handle: str | None = None,
        description: str = "",
        type: str = "broadcast",
        access: str = "open",
        retention_s: int | None = None,
        key: str | None = None,
        **queue: Unpack[QueueOptions],
    ) -> ChannelInfo:
        """Create a channel. Without a `handle` it gets one made from its name. `retention_s`: seconds to keep messages; None: the
        plan's maximum. `queue`: of a `queue` channel. Raises `HandleTaken` if another channel has the handle."""
        body = given(
            name=name, handle=handle, description=description, type=type, access=access, retention_s=retention_s, **queue
        )
        return await self._http.send(ChannelInfo, "POST", self._path("channels"), body, key=key)

    def list(self, *, limit: int | None = None) -> AsyncIterator[ChannelInfo]:
        return self._http.all_of(ChannelInfo, self._path("channels"), limit=limit)

    async def get(self, channel: str) -> ChannelInfo:
        return await self._http.read(ChannelInfo, self._path("channels", channel))

    async def update(
        self,
        channel: str,
        *,
        name: str | None = None,
        handle: str | None = None,
        description: str | None = None,
        access: str | None = None,
        retention_s: int | Literal["plan"] | None = None,
        **queue: Unpack[QueueOptions],
    ) -> ChannelInfo:
        """Change a channel. A `retention_s` of `plan` is the plan's maximum."""
        body = given(name=name, handle=handle, description=description, access=access, retention_s=retention_s, **queue)
        if retention_s == "plan":
            body["retention_s"] = None
        # After a change of the handle, `channel` may name nothing.
        return await self._http.send(ChannelInfo, "PATCH", self._path("channels", channel), body, repeats=handle is None)

    async def delete(self, channel: str) -> None:
        """Delete a channel with its subscriptions and messages; a queue also with the dead-letter channel made with it."""
        await self._http.remove(self._path("channels", channel))
