"""The services used by streams."""

from __future__ import annotations

from typing import Protocol

from artcafe.delivery.delivery_services import DeliveryServices
from artcafe.fabric.fabric import Fabric
from artcafe.observe.clock import Clock
from artcafe.services.connections import Connections
from artcafe.services.history import MessageHistory
from artcafe.services.login import Login
from artcafe.services.member_login import MemberLogin
from artcafe.services.shares import Shares
from artcafe.services.usage_counters import UsageCounters


class StreamServices(DeliveryServices, Protocol):
    """The services for streams."""

    @property
    def fabric(self) -> Fabric: ...

    @property
    def history(self) -> MessageHistory: ...

    @property
    def connections(self) -> Connections: ...

    @property
    def usage_counters(self) -> UsageCounters: ...

    @property
    def login(self) -> Login: ...

    @property
    def member_login(self) -> MemberLogin: ...

    @property
    def shares(self) -> Shares: ...

    @property
    def clock(self) -> Clock: ...
