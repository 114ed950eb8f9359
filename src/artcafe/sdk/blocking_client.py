"""`artcafe.sync.Client`: the REST client for programs without asyncio.

Each class has the methods of the asynchronous class of the same name, made of them, so that parameters, types and documentation
are those. A test finds missing ones.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from artcafe.sdk import (
    agent_calls,
    channel_calls,
    client,
    dead_letter_calls,
    member_calls,
    message_calls,
    pull,
    subscription_calls,
    tenant_client,
    usage_calls,
    wake_calls,
)
from artcafe.sdk.blocking import Blocking, blocking, blocking_items, call
from artcafe.sdk.blocking_messages import MessageStream, Pulled
from artcafe.sdk.http import TIMEOUT_S, TokenSource
from artcafe.sdk.outbox import MAX_RATE_WAIT_S
from artcafe.sdk.retries import MAX_RETRY_S


class AgentCalls(Blocking[agent_calls.AgentCalls]):
    create = blocking(agent_calls.AgentCalls.create)
    list = blocking_items(agent_calls.AgentCalls.list)
    get = blocking(agent_calls.AgentCalls.get)
    update = blocking(agent_calls.AgentCalls.update)
    delete = blocking(agent_calls.AgentCalls.delete)
    ask = blocking(agent_calls.AgentCalls.ask)


class KeyCalls(Blocking[agent_calls.KeyCalls]):
    add = blocking(agent_calls.KeyCalls.add)
    list = blocking_items(agent_calls.KeyCalls.list)
    get = blocking(agent_calls.KeyCalls.get)
    update = blocking(agent_calls.KeyCalls.update)
    revoke = blocking(agent_calls.KeyCalls.revoke)


class ChannelCalls(Blocking[channel_calls.ChannelCalls]):
    create = blocking(channel_calls.ChannelCalls.create)
    list = blocking_items(channel_calls.ChannelCalls.list)
    get = blocking(channel_calls.ChannelCalls.get)
    update = blocking(channel_calls.ChannelCalls.update)
    delete = blocking(channel_calls.ChannelCalls.delete)


class MessageCalls(Blocking[message_calls.MessageCalls]):
    publish = blocking(message_calls.MessageCalls.publish)
    list = blocking_items(message_calls.MessageCalls.list)
    receipts = blocking_items(message_calls.MessageCalls.receipts)

    def follow(self, channel: str, *, after: int | None = None, last_id: str | None = None) -> MessageStream:
        """Iterate over a channel's messages as they come, as the asynchronous `follow` does. `MessageStream.next` takes a
        timeout."""
        return MessageStream(self._inner.follow(channel, after=after, last_id=last_id))


class ScheduledCalls(Blocking[message_calls.ScheduledCalls]):
    list = blocking_items(message_calls.ScheduledCalls.list)
    cancel = blocking(message_calls.ScheduledCalls.cancel)


class DeadLetterCalls(Blocking[dead_letter_calls.DeadLetterCalls]):
    redrive = blocking(dead_letter_calls.DeadLetterCalls.redrive)
    redrive_all = blocking_items(dead_letter_calls.DeadLetterCalls.redrive_all)


class SubscriptionCalls(Blocking[subscription_calls.SubscriptionCalls]):
    create = blocking(subscription_calls.SubscriptionCalls.create)
    list = blocking_items(subscription_calls.SubscriptionCalls.list)
    list_of_agent = blocking_items(subscription_calls.SubscriptionCalls.list_of_agent)
    get = blocking(subscription_calls.SubscriptionCalls.get)
    update = blocking(subscription_calls.SubscriptionCalls.update)
    delete = blocking(subscription_calls.SubscriptionCalls.delete)


class MemberCalls(Blocking[member_calls.MemberCalls]):
    list = blocking_items(member_calls.MemberCalls.list)
    invite = blocking(member_calls.MemberCalls.invite)
    set_role = blocking(member_calls.MemberCalls.set_role)
    remove = blocking(member_calls.MemberCalls.remove)


class InvitationCalls(Blocking[member_calls.InvitationCalls]):
    list = blocking_items(member_calls.InvitationCalls.list)
    revoke = blocking(member_calls.InvitationCalls.revoke)


class UsageCalls(Blocking[usage_calls.UsageCalls]):
    get = blocking(usage_calls.UsageCalls.get)
    recount = blocking(usage_calls.UsageCalls.recount)


class WakeCalls(Blocking[wake_calls.WakeCalls]):
    get = blocking(wake_calls.WakeCalls.get)
    set = blocking(wake_calls.WakeCalls.set)
    remove = blocking(wake_calls.WakeCalls.remove)


class ChainCalls(Blocking[tenant_client.ChainCalls]):
    get = blocking(tenant_client.ChainCalls.get)
    release = blocking(tenant_client.ChainCalls.release)


class AuditCalls(Blocking[tenant_client.AuditCalls]):
    list = blocking_items(tenant_client.AuditCalls.list)


class PullInbox(Blocking[pull.PullInbox]):
    ack = blocking(pull.PullInbox.ack)
    nak = blocking(pull.PullInbox.nak)
    extend = blocking(pull.PullInbox.extend)

    def pull(self, *, limit: int = 50, wait_s: float = 0, channel: str | None = None) -> Pulled:
        """Return messages as `artcafe.Agent.pull` does."""
        return Pulled(call(self._inner.pull(limit=limit, wait_s=wait_s, channel=channel)))

    def follow(self, *, last_id: str | None = None) -> MessageStream:
        """Iterate over the agent's messages as they come. `MessageStream.next` takes a timeout."""
        return MessageStream(self._inner.follow(last_id=last_id))


class TenantClient(Blocking[tenant_client.TenantClient]):
    """The calls inside one tenant: `artcafe.TenantClient` for synchronous programs."""

    def __init__(self, inner: tenant_client.TenantClient) -> None:
        super().__init__(inner)
        self.members, self.invitations = MemberCalls(inner.members), InvitationCalls(inner.invitations)
        self.agents, self.keys = AgentCalls(inner.agents), KeyCalls(inner.keys)
        self.wake = WakeCalls(inner.wake)
        self.channels, self.subscriptions = ChannelCalls(inner.channels), SubscriptionCalls(inner.subscriptions)
        self.messages, self.scheduled = MessageCalls(inner.messages), ScheduledCalls(inner.scheduled)
        self.dead_letters, self.chains = DeadLetterCalls(inner.dead_letters), ChainCalls(inner.chains)
        self.usage, self.audit = UsageCalls(inner.usage), AuditCalls(inner.audit)

    get = blocking(tenant_client.TenantClient.get)
    update = blocking(tenant_client.TenantClient.update)
    delete = blocking(tenant_client.TenantClient.delete)
    limits = blocking(tenant_client.TenantClient.limits)

    def inbox(self, agent: str) -> PullInbox:
        """Pull and acknowledge messages of the agent of the client's token."""
        return PullInbox(self._inner.inbox(agent))


class Client(Blocking[client.Client]):
    """`artcafe.Client` for synchronous programs: the same arguments and methods, without `await`. Lists are iterators.

        with Client("https://artcafe.example.com", fetch_token) as client:
            acme = client.tenant("ten_…")
            acme.channels.create("news")
            for agent in acme.agents.list(connected=True):
                print(agent.handle)

    It may be used by several threads. A function for the token is called in a thread, so it may block.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        token: str | Callable[[], str] | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        max_retry_s: float = MAX_RETRY_S,
        max_rate_wait_s: float = MAX_RATE_WAIT_S,
    ) -> None:
        bounds = {"timeout_s": timeout_s, "max_retry_s": max_retry_s, "max_rate_wait_s": max_rate_wait_s}
        super().__init__(client.Client(url, _in_a_thread(token) if callable(token) else token, **bounds))

    @classmethod
    def of(cls, inner: client.Client) -> Self:
        """Return the synchronous form of a client that is open already."""
        found = cls.__new__(cls)
        Blocking.__init__(found, inner)
        return found

    def __enter__(self) -> Self:
        call(self._inner.__aenter__())
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        call(self._inner.__aexit__(kind, exc, traceback))

    @property
    def url(self) -> str:
        """The address of the server that responded last."""
        return self._inner.url

    @property
    def token(self) -> str | None:
        """The access token of every request; None before the first. Setting it ends the renewal."""
        return self._inner.token

    @token.setter
    def token(self, token: str | None) -> None:
        self._inner.token = token

    home = blocking(client.Client.home)
    me = blocking(client.Client.me)
    login = blocking(client.Client.login)
    create_console_code = blocking(client.Client.create_console_code)
    create_tenant = blocking(client.Client.create_tenant)
    tenants = blocking_items(client.Client.tenants)
    accept_invitation = blocking(client.Client.accept_invitation)
    terms = blocking(client.Client.terms)
    accept_terms = blocking(client.Client.accept_terms)
    acceptances = blocking_items(client.Client.acceptances)
    platform_state = blocking(client.Client.platform_state)
    suspended_tenants = blocking_items(client.Client.suspended_tenants)
    live = blocking(client.Client.live)
    ready = blocking(client.Client.ready)

    def tenant(self, tenant: str) -> TenantClient:
        """Return the calls inside a tenant, by its id. Sends nothing."""
        return TenantClient(self._inner.tenant(tenant))


def _in_a_thread(source: Callable[[], str]) -> TokenSource:
    if inspect.iscoroutinefunction(source):
        raise TypeError(f"{source!r} is no plain function: artcafe.sync calls plain functions, artcafe.Client coroutines")

    async def fetch() -> str:
        return await asyncio.to_thread(source)

    return fetch
