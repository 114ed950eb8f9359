"""What MCP over HTTP offers to the principals of a tenant: the tools of people and agents, and the inbox of an agent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, ClassVar, Final

import msgspec
from fastapi import Request
from msgspec import Raw

from artcafe.assembly import Services
from artcafe.delivery.arrival_stream import ArrivalEncoding, ArrivalStream
from artcafe.delivery.event_stream import StreamTransport
from artcafe.errors import ArtcafeError, OurFault
from artcafe.model import AgentPrincipal, Principal, UserPrincipal
from artcafe.observe import metrics
from artcafe.observe.logs import log
from artcafe.rest import mcp_messages, mcp_tools
from artcafe.rest.mcp_messages import RpcError
from artcafe.rest.mcp_protocol import Changes, Offer
from artcafe.rest.mcp_tools import PersonTools, PrincipalTools, StatelessAgentTools
from artcafe.rules import inboxes
from artcafe.rules.pages import each_page
from artcafe.toolset import inbox
from artcafe.toolset.descriptions import escaped, json_text
from artcafe.toolset.inbox import WaitingIn
from artcafe.toolset.results import fault_of
from artcafe.wire.segments import tenant_path

ENCODING: Final = ArrivalEncoding()


class PrincipalOffer(Offer):
    """The tools of a principal."""

    def __init__(self, tools: PrincipalTools) -> None:
        self._tools = tools
        self.instructions = tools.instructions

    @property
    def tools(self) -> Raw:
        return mcp_tools.list_of(type(self._tools)).text

    async def call(self, name: str, arguments: Raw) -> Mapping[str, Any]:
        """Call a tool. An error of ArtCafe is a result, and counted as an answer of a route would be."""
        description = mcp_tools.list_of(type(self._tools)).by_name.get(name)
        if description is None:
            raise RpcError(mcp_messages.INVALID_PARAMS, f"there is no tool {name!r}; tools/list has all of them")
        try:
            found = msgspec.json.encode(await getattr(self._tools, name)(**description.parsed(arguments)))
        except ArtcafeError as exc:
            self._record(exc, name)
            # As text only: clients compare a structure with the tool's schema of results, even that of an error.
            return {"content": [_text(json_text({"error": fault_of(exc)}))], "isError": True}
        return {"content": [_text(escaped(found.decode()))], "structuredContent": Raw(found), "isError": False}

    def _record(self, error: ArtcafeError, tool: str) -> None:
        """Count and log an error of a tool, as an answer with its status would be."""
        metrics.count_error(error)
        if isinstance(error, OurFault):
            log.warning("request.unavailable", code=error.code, problem=str(error))
        principal, counters = self._tools.principal, self._tools.services.audit.counters
        counters.count_refusal(principal, error, request=f"POST {tenant_path(principal.tenant_id, 'mcp')} {tool}")


class AgentOffer(PrincipalOffer):
    """The tools of an agent, and its inbox as a resource."""

    resources: ClassVar = (inbox.LISTED,)
    notifies: ClassVar = True

    def __init__(self, tools: StatelessAgentTools, agent: AgentPrincipal, token: str, stack: AsyncExitStack) -> None:
        """`token` has authenticated the request, and `stack` ends with the answer."""
        super().__init__(tools)
        self._agent, self._token, self._stack = agent, token, stack

    async def read(self, uri: str) -> Mapping[str, str] | None:
        if uri != inbox.URI:
            return None
        services, agent = self._tools.services, self._agent
        found = [await services.subscriptions.get(agent, inboxes.inbox_of(agent.agent_id), agent.agent_id)]
        async for page in each_page(partial(services.subscriptions.list_of_agent, agent, agent.agent_id)):
            found[-1:-1] = page.items  # The inbox stays the last one.
        lags = await services.figures.lags(agent.tenant_id, found)
        waiting = (WaitingIn(each.channel_id, each.status, lag) for each, lag in zip(found, lags, strict=True))
        return {"mimeType": inbox.MIME_TYPE, "text": inbox.text_of(waiting)}

    async def changes(self) -> Changes:
        request, services = self._tools.request, self._tools.services
        socket = request.state.transport
        until = await services.authentication.expires_at(self._token)
        transport = StreamTransport(ENCODING, until, socket.get_write_buffer_size, socket.abort)
        return _changes(await self._stack.enter_async_context(services.streams.arrivals(self._agent, transport)))


async def _changes(stream: ArrivalStream) -> AsyncIterator[str | None]:
    async for has_arrived in stream.arrivals():
        yield inbox.URI if has_arrived else None


def offer_to(request: Request, services: Services, principal: Principal, token: str, stack: AsyncExitStack) -> Offer:
    """Return what the principal of a request is offered. `token` has authenticated it, and `stack` ends with the answer."""
    if isinstance(principal, AgentPrincipal):
        return AgentOffer(StatelessAgentTools(request, services, principal), principal, token, stack)
    assert isinstance(principal, UserPrincipal)
    return PrincipalOffer(PersonTools(request, services, principal))


def _text(text: str) -> Mapping[str, str]:
    return {"type": "text", "text": text}
