"""Messages and gaps as server-sent events, with ids that their stream gives them."""

from __future__ import annotations

from artcafe.fabric.channel_kinds import LIVE, LOGGED
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import ChannelId, Epoch, Seq
from artcafe.rest.event_encoding import ServerSentEvents
from artcafe.wire.replies import Gap

CHANNEL = ChannelId("a b: c")
"""An id of an older system may have spaces."""
EPOCH = Epoch("01J8")


def stored(seq: Seq, data: bytes) -> StoredMessage:
    return StoredMessage(seq, None, b'{"data":%b}' % data, None, 0)


def test_ids_are_given_in_the_order_of_the_written_events() -> None:
    encoding, asked = ServerSentEvents(), list[tuple[ChannelId, Epoch | None, int]]()
    first, last = encoding.messages(CHANNEL, "news", LOGGED, EPOCH, [stored(7, b"1"), stored(9, b"[\n\n2]")])
    gap = encoding.gap(CHANNEL, Gap(8, 8, "expired"), EPOCH)
    (live,) = encoding.messages(CHANNEL, None, LIVE, None, [stored(0, b"3")])

    def id_of(channel_id: ChannelId, epoch: Epoch | None, seq: int) -> str:
        asked.append((channel_id, epoch, seq))
        return f"id-{len(asked)}"

    written = encoding.with_ids(b"".join([first, gap, live, last]), id_of).decode()
    assert asked == [(CHANNEL, EPOCH, 7), (CHANNEL, EPOCH, 8), (CHANNEL, EPOCH, 9)]
    assert written == (
        'event: message\ndata: {"channel":"a b: c","channel_handle":"news","seq":7,"prev":null,"data":1}\nid: id-1\n\n'
        'event: gap\ndata: {"channel":"a b: c","from":8,"to":8,"reason":"expired"}\nid: id-2\n\n'
        'event: message\ndata: {"channel":"a b: c","seq":null,"prev":null,"data":3}\n\n'
        'event: message\ndata: {"channel":"a b: c","channel_handle":"news","seq":9,"prev":null,"data":[\ndata: \ndata: 2]}\n'
        "id: id-3\n\n"
    )
