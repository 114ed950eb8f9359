"""Calls for a tenant's agents and their keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from artcafe import errors
from artcafe.sdk import encoding
from artcafe.sdk.http import given, place
from artcafe.sdk.records import AgentInfo, AgentKeyInfo
from artcafe.sdk.tenant_calls import TenantCalls
from artcafe.wire import frames


class _Answer(msgspec.Struct, frozen=True):
    data: msgspec.Raw


class AgentCalls(TenantCalls):
    """The agents of a tenant."""

    async def create(
        self,
        name: str,
        public_key: str,
        *,
        handle: str | None = None,
        description: str = "",
        capabilities: Sequence[str] = (),
        key: str | None = None,
    ) -> AgentInfo:
        """Register an agent. `public_key` is the line of its `.pub` file. Without a `handle` it gets one made from its name.

        Raises `HandleTaken` if another agent has the handle.
        """
        body = {"name": name, "public_key": public_key, "description": description, "capabilities": list(capabilities)}
        body |= given(handle=handle)
        return await self._http.send(AgentInfo, "POST", self._path("agents"), body, key=key)

    def list(
        self,
        *,
        status: str | None = None,
        capability: str | None = None,
        connected: bool | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[AgentInfo]:
        query = given(status=status, capability=capability, connected=connected)
        return self._http.all_of(AgentInfo, self._path("agents"), query, limit=limit)

    async def get(self, agent: str) -> AgentInfo:
        return await self._http.read(AgentInfo, self._path("agents", agent))

    async def update(
        self,
        agent: str,
        *,
        name: str | None = None,
        handle: str | None = None,
        public_key: str | None = None,
        description: str | None = None,
        capabilities: Sequence[str] | None = None,
        status: str | None = None,
    ) -> AgentInfo:
        """Change an agent. Another key or status (`active`, `disabled`) ends its tokens and connections."""
        body = given(name=name, handle=handle, public_key=public_key, description=description, status=status)
        body |= given(capabilities=capabilities)
        # After a change of the handle, `agent` may name nothing.
        return await self._http.send(AgentInfo, "PATCH", self._path("agents", agent), body, repeats=handle is None)

    async def delete(self, agent: str) -> None:
        """Delete an agent with its subscriptions; its tokens and connections end."""
        await self._http.remove(self._path("agents", agent))

    async def ask(
        self,
        agent: str,
        data: object,
        *,
        timeout_s: float = frames.DEFAULT_TIMEOUT_S,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send an agent a request, and return its answer, as `Agent.ask` does. Never repeated after it may have been sent.

        Raises as `Agent.ask` does; a `RequestFault` says whether the request was delivered.
        """
        body = {"data": encoding.data_text(data), "timeout_s": timeout_s, **given(headers=headers)}
        path = self._path("agents", agent, "requests")
        try:
            answered = await self._http.send(_Answer, "POST", path, body, wait_s=timeout_s)
        except errors.OutcomeUnknown as exc:
            raise errors.RequestLost(f"{self._http.url} sent no response") from exc
        return encoding.value_of(answered.data)


class KeyCalls(TenantCalls):
    """The SSH keys of a tenant's agents."""

    async def add(
        self, agent: str, public_key: str, *, not_after: datetime | None = None, key: str | None = None
    ) -> AgentKeyInfo:
        """Add a key for the agent's logins, optionally valid only until `not_after`. An agent may have five besides its first
        one."""
        body = {"public_key": public_key, **given(not_after=place(not_after))}
        return await self._http.send(AgentKeyInfo, "POST", self._path("agents", agent, "keys"), body, key=key)

    def list(self, agent: str, *, limit: int | None = None) -> AsyncIterator[AgentKeyInfo]:
        """List the agent's keys, including its first one."""
        return self._http.all_of(AgentKeyInfo, self._path("agents", agent, "keys"), limit=limit)

    async def get(self, agent: str, id: str) -> AgentKeyInfo:
        return await self._http.read(AgentKeyInfo, self._path("agents", agent, "keys", id))

    async def update(self, agent: str, id: str, *, status: str) -> AgentKeyInfo:
        """Change the status of a key. `disabled` ends only the tokens and connections opened by it; `active` allows logins
        again."""
        return await self._http.send(AgentKeyInfo, "PATCH", self._path("agents", agent, "keys", id), {"status": status})

    async def revoke(self, agent: str, id: str) -> None:
        """Remove a key from the agent. Only the tokens and connections opened by it end."""
        await self._http.remove(self._path("agents", agent, "keys", id))
