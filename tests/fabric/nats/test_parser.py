from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from artcafe.fabric.nats.parser import FastParser

Seen = list[tuple[object, ...]]

word = st.text("abc.$_1", min_size=1, max_size=8).map(str.encode)
body = st.binary(max_size=40)
head = st.sampled_from([b"NATS/1.0\r\n\r\n", b"NATS/1.0 404\r\n\r\n", b"NATS/1.0\r\nA: b\r\n\r\n"])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    subject, sid, data = draw(word), draw(st.integers(0, 99)), draw(body)
    reply = draw(st.sampled_from([b"", b"_INBOX.1 "]))
    headers = draw(st.none() | head)
    if headers is None:
        return b"MSG %b %d %b%d\r\n%b\r\n" % (subject, sid, reply, len(data), data)
    return b"HMSG %b %d %b%d %d\r\n%b%b\r\n" % (subject, sid, reply, len(headers), len(headers) + len(data), headers, data)


other = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b'INFO {"a":1}\r\n', b"-ERR 'Slow Consumer'\r\n"])


class Client:
    """Records a parser's calls. It handles messages with an even sid."""

    def __init__(self) -> None:
        self.seen: Seen = []

    def handle(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> bool:
        if sid % 2 == 0:
            self.seen.append((sid, subject, data, headers))
        return sid % 2 == 0

    async def fall_back(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.seen.append((sid, subject, reply, data, headers))

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if not self.handle(sid, subject, reply, data, headers):
            await self.fall_back(sid, subject, reply, data, headers)

    async def _process_ping(self) -> None:
        self.seen.append(("ping",))

    async def _process_pong(self) -> None:
        self.seen.append(("pong",))

    async def _process_info(self, info: dict[str, object]) -> None:
        self.seen.append(("info", str(info)))

    async def _process_err(self, text: str) -> None:
        self.seen.append(("err", text))


@given(st.lists(messages() | other, max_size=12), st.lists(st.integers(0, 600), max_size=12))
async def test_fast_parser_passes_on_what_nats_py_does_for_any_split_of_the_bytes(protocol: list[bytes], cuts: list[int]) -> None:
    data = b"".join(protocol)
    theirs, ours = Client(), Client()
    await Parser(theirs).parse(data)
    parser = FastParser(ours, ours)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        await parser.parse(data[start:end])

    assert ours.seen == theirs.seen
    assert not parser.buf


class Choosy(Client):
    """Raises on a bad message."""

    def handle(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> bool:
        if data == b"bad":
            raise ValueError(data)
        return super().handle(sid, subject, reply, data, headers)


@pytest.mark.parametrize("first", [b"", b"PING\r\n"], ids=["short way", "nats-py's way"])
async def test_exception_in_a_handler_drops_one_message_only(first: bytes) -> None:
    client = Choosy()
    parser = FastParser(client, client)
    await parser.parse(first + b"MSG a 2 3\r\none\r\nMSG a 2 3\r\nbad\r\nMSG a 2 3\r\ntwo\r\nMSG a 2 3\r\nbad\r\nMSG a 2 5\r\nth")
    await parser.parse(b"ree\r\n")
    assert [each for each in client.seen if each != ("ping",)] == [(2, b"a", data, None) for data in (b"one", b"two", b"three")]
    assert parser.supervisor.failures == 2


async def test_malformed_bytes_raise_protocol_error_as_in_nats_py() -> None:
    client = Client()
    with pytest.raises(ProtocolError):
        await FastParser(client, client).parse(b"MSG a 2 three\r\none\r\n")
