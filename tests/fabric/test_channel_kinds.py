"""The kinds of channels. Their behaviour on a real NATS is tested with the fabric, the gateway and delivery."""

from __future__ import annotations

from artcafe.fabric.channel_kinds import KINDS, LoggedKind
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import ChannelType
from artcafe.wire.envelopes import id_text


def test_every_channel_type_has_a_kind() -> None:
    assert set(KINDS) == set(ChannelType)


def test_only_kinds_with_a_log_queue_messages_without_waiting() -> None:
    assert {type for type, kind in KINDS.items() if kind.has_log} == {ChannelType.BROADCAST}
    assert all(isinstance(kind, LoggedKind) == kind.has_log for kind in KINDS.values())


def test_messages_without_a_log_have_no_sequence() -> None:
    message = StoredMessage(7, 6, b'{"data":1}')
    texts = {type: kind.texts(id_text("chn_a"), [message]) for type, kind in KINDS.items()}

    assert texts == {
        ChannelType.BROADCAST: [b'{"message":{"channel":"chn_a","seq":7,"prev":6,"data":1}}'],
        ChannelType.LIVE: [b'{"message":{"channel":"chn_a","seq":null,"prev":null,"data":1}}'],
    }
