"""The services used by a connection's deliveries, and the result of beginning one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from artcafe.delivery.hub import Hub
from artcafe.delivery.queue_hub import QueueHub
from artcafe.model import ChannelId, Epoch, Seq
from artcafe.services.cursors import Cursors
from artcafe.services.record_cache import RecordCache
from artcafe.services.subscriptions import Subscriptions
from artcafe.wire.replies import Gap

NOT_PERMITTED: Final = "receive this channel: its subscription lacks the permission 'receive', which a member can give it"
"""The action refused to an agent without this permission."""


class DeliveryServices(Protocol):
    """The services for beginning and acknowledging deliveries."""

    @property
    def subscriptions(self) -> Subscriptions: ...

    @property
    def record_cache(self) -> RecordCache: ...

    @property
    def cursors(self) -> Cursors: ...

    @property
    def hub(self) -> Hub: ...

    @property
    def queue_hub(self) -> QueueHub: ...


@dataclass(frozen=True, slots=True)
class Opened:
    """The result of `subscribe`: messages above `seq` follow. `last` is the channel's newest sequence, `gap` what is missing.

    They are None for a channel without a log and for a queue; `epoch` is None before the log's first message.
    """

    channel: ChannelId
    epoch: Epoch | None = None
    seq: Seq | None = None
    last: Seq | None = None
    gap: Gap | None = None
