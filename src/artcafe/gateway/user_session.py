"""An authenticated person on one socket: watching channels and the presence of agents. It has no cursor and no backlog."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Final

from artcafe.assembly import Services
from artcafe.delivery.delivery import Delivery
from artcafe.delivery.peer import PING_S
from artcafe.delivery.watcher import Watcher
from artcafe.errors import ArtcafeError, BadCommand, Forbidden, NotSubscribed
from artcafe.gateway.client_socket import LIMITS, ClientSocket
from artcafe.model import AgentId, ChannelId, Principal, UserPrincipal
from artcafe.observe.logs import log
from artcafe.rules import ids, times
from artcafe.services.presence import PresenceWatch, Seen
from artcafe.wire import frames, replies


class UserSession:
    """The state of a person's connection above its socket: in one tenant, with one role."""

    is_slowed: Final = False
    is_busy: Final = False
    """Whether a publish or a request has no reply yet: people send both over REST."""

    def __init__(
        self, services: Services, socket: ClientSocket, principal: UserPrincipal, deliveries: dict[ChannelId, Delivery]
    ) -> None:
        """`deliveries`: the connection's."""
        self._services, self._socket = services, socket
        self.principal = principal
        self.token_until: datetime | None = None
        """The expiry of the token of the last `connect`."""
        self._watcher = Watcher(services, socket, deliveries)
        self._presence: PresenceWatch | None = None
        self._is_over = False

    # --- the connection's life ---------------------------------------------------------------------------------------

    def renew(self, principal: Principal, _max_unacked: int | None) -> None:
        """Replace the principal after another `connect`: the same person, with the same or another role."""
        assert isinstance(principal, UserPrincipal), "a connection belongs to one principal"
        self.principal = principal

    def greeting(self) -> replies.ConnectReply:
        """Return the reply to `connect`."""
        person = self.principal
        session_id = ids.new_id("ses")
        log.info("person.connected", tenant=person.tenant_id, user=person.user_id, session=session_id)
        return replies.ConnectReply(
            session_id=session_id,
            user_id=person.user_id,
            role=person.role.value,
            tenant_id=person.tenant_id,
            ping_s=PING_S,
            limits=LIMITS,
        )

    def close(self, reason: ArtcafeError) -> None:
        """Close the socket for this reason."""
        self._socket.close(reason)

    def end(self) -> None:
        """Stop watching: the socket is closed. May be repeated."""
        self._is_over = True
        if self._presence is not None:
            self._presence.stop()
            self._presence = None
        self._watcher.end()

    async def check_channels(self) -> None:
        """End deleted channels, each with an error push. Raises `Unavailable`."""
        await self._watcher.end_deleted(self.principal)

    # --- commands ----------------------------------------------------------------------------------------------------

    async def handle(self, id: int, kind: str, body: frames.Body, _size: int) -> None:
        """Do a command and send its reply. Raises its error reply: Forbidden for a command of agents."""
        match body:
            case frames.Unwatch():  # before Watch, its base class
                self._unwatch(body)
                self._socket.send(replies.reply(id, kind, replies.UnwatchReply(body.channel, body.presence)))
            case frames.Watch():
                _check_one(body)
                if body.channel is not None:
                    await self._watcher.watch(self.principal, body.channel)
                else:
                    await self._watch_presence()
                self._socket.send(replies.reply(id, kind, replies.WatchReply(body.channel, body.presence)))
                self._resume()
            case frames.Unsubscribe():
                self._watcher.unwatch(body.channel)
                self._socket.send(replies.reply(id, kind, replies.UnsubscribeReply(body.channel)))
            case _:
                raise _for_agents(kind)

    def acknowledge(self, _ack: frames.Ack) -> None:
        """Push an error: people have no cursors."""
        self._socket.send_error(_for_agents("ack"))

    def cancel(self, _id: int) -> None:
        """Push an error: people send requests over REST."""
        self._socket.send_error(_for_agents("cancel"))

    def do_nowait(self, _id: int | None, _body: frames.Body, _size: int) -> bool:
        """Return False: people publish over REST, and `handle` refuses it here."""
        return False

    # --- watching ----------------------------------------------------------------------------------------------------

    def feed_soon(self) -> None:
        """Resume in the next turn of the event loop."""
        asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        """Show new messages, and the changes of presence since the pause."""
        if self._is_over or self._socket.is_paused:
            return
        self._watcher.resume()
        if self._presence is not None:
            self._presence.notify_of_all()

    async def _watch_presence(self) -> None:
        if self._presence is None:
            watch = await self._services.presence.watch(self.principal, self._push_presence, lambda: self._socket.is_paused)
            if self._is_over:
                watch.stop()
            else:
                self._presence = watch

    def _push_presence(self, agent_id: AgentId, seen: Seen) -> None:
        since = None if seen.since is None else times.to_text(seen.since)
        push = replies.PresencePush(agent=agent_id, connected=seen.connected, status=seen.status, since=since)
        self._socket.send(replies.presence(push))

    def _unwatch(self, body: frames.Unwatch) -> None:
        _check_one(body)
        if body.channel is not None:
            self._watcher.unwatch(body.channel)
        elif self._presence is None:
            raise NotSubscribed("presence")
        else:
            self._presence.stop()
            self._presence = None


def _for_agents(kind: str) -> Forbidden:
    return Forbidden(f"{kind} on the gateway, only watch: use REST for the rest", "a person")


def _check_one(body: frames.Watch) -> None:
    if (body.channel is not None) is body.presence:
        raise BadCommand('give exactly one of {"channel":"chn_…"} and {"presence":true}')
