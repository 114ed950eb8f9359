"""The kinds of channels. Their behaviour on a real NATS is tested with the fabric, the gateway and delivery."""

from __future__ import annotations

from artcafe.fabric.channel_kinds import KINDS, LoggedKind
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import ChannelType
from artcafe.wire.envelopes import channel_text


def test_every_channel_type_has_a_kind() -> None:
    assert set(KINDS) == set(ChannelType)


def test_only_kinds_with_a_log_queue_messages_without_waiting() -> None:
    assert {type for type, kind in KINDS.items() if kind.has_log} == {ChannelType.BROADCAST, ChannelType.QUEUE}
    assert all(isinstance(kind, LoggedKind) == kind.has_log for kind in KINDS.values())


def test_messages_without_a_log_have_no_sequence() -> None:
    message = StoredMessage(7, 6, b'{"data":1}')
    texts = {type: kind.texts(channel_text("chn_a", None), [message]) for type, kind in KINDS.items()}

    assert texts == {
        ChannelType.BROADCAST: [b'{"message":{"channel":"chn_a","seq":7,"prev":6,"data":1}}'],
        ChannelType.QUEUE: [b'{"message":{"channel":"chn_a","seq":7,"prev":6,"data":1}}'],
        ChannelType.LIVE: [b'{"message":{"channel":"chn_a","seq":null,"prev":null,"data":1}}'],
    }


def test_message_of_a_queue_says_to_its_holder_which_delivery_this_is() -> None:
    message = StoredMessage(7, None, b'{"data":1}', None, 2)

    assert KINDS[ChannelType.QUEUE].texts(channel_text("chn_a", None), [message]) == [
        b'{"message":{"channel":"chn_a","seq":7,"prev":null,"deliveries":2,"data":1}}'
    ]


def test_only_a_queue_is_shared() -> None:
    assert [type for type, kind in KINDS.items() if kind.is_shared] == [ChannelType.QUEUE]
