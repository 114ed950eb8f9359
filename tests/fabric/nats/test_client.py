from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg
from nats.errors import NoServersError

from artcafe.fabric.embedded.process import some_free_port
from artcafe.fabric.nats.client import IncomingMessage, OutgoingMessage, VerifiedClient
from artcafe.rules.subjects import Subject
from tests.fabric.nats_clients import BOUND_S
from tests.fabric.nats_env import Nats, a_tenant, until, within

HERE = Subject("here")


@given(st.binary(), st.sampled_from(["", "A: b\r\n", "A: b\r\nNats-Msg-Id: c\r\n"]), st.sampled_from(["", "_INBOX.1"]))
def test_encoded_message_has_correct_sizes(body: bytes, headers: str, reply: str) -> None:
    line, _, rest = OutgoingMessage(HERE, headers, body).encoded(reply).partition(b"\r\n")
    head = f"NATS/1.0\r\n{headers}\r\n".encode() if headers else b""

    sizes = [len(head), len(head + body)] if headers else [len(body)]
    assert line.decode().split() == ["HPUB" if headers else "PUB", "here", *([reply] if reply else []), *map(str, sizes)]
    assert rest == head + body + b"\r\n"


def test_headers_are_found_by_their_full_names() -> None:
    came = IncomingMessage(
        b"data", b"NATS/1.0\r\nNats-Subject: ch.a\r\nX-Nats-Sequence: 1\r\nNats-Sequence: 42\r\nEmpty: \r\n\r\n"
    )

    assert (came.header(b"Nats-Subject"), came.number(b"Nats-Sequence"), came.status) == ("ch.a", 42, 0)
    assert (came.header(b"Empty"), came.header(b"Sequence"), came.number(b"Nats-Last-Sequence")) == ("", "", 0)


def test_status_is_distinguished_from_headers() -> None:
    end = IncomingMessage(b"", b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 3\r\n\r\n")

    assert (end.status, end.description, end.number(b"Nats-Num-Pending")) == (204, "EOB", 3)
    assert (IncomingMessage(b"", b"NATS/1.0 503\r\n\r\n").status, IncomingMessage(b"", b"NATS/1.0 503\r\n\r\n").description) == (
        503,
        "",
    )
    assert (IncomingMessage(b"", None).status, IncomingMessage(b"", None).header(b"A")) == (0, "")


async def test_sent_messages_are_readable_by_nats_py(nats: Nats) -> None:
    tenant = a_tenant()
    got: asyncio.Queue[Msg] = asyncio.Queue()
    async with nats.connection(tenant) as connection, nats.connection(tenant) as other:
        await other.subscribe(HERE, got.put)
        await connection.client().send(
            OutgoingMessage(HERE, "A: b\r\nC: d\r\n", b"one").encoded() + OutgoingMessage(HERE, "", b"two").encoded()
        )

        one, two = await within(got.get()), await within(got.get())
        assert (one.data, one.headers, two.data, two.headers) == (b"one", {"A": "b", "C": "d"}, b"two", None)


async def test_declined_messages_go_to_the_callback_and_none_after_unsubscribe(nats: Nats) -> None:
    tenant = a_tenant()
    taken: list[bytes] = []
    left: list[bytes] = []

    def take(came: IncomingMessage) -> bool:
        if came.header(b"Take"):
            taken.append(came.data)
        return bool(came.header(b"Take"))

    async def fall_back(msg: Msg) -> None:
        left.append(msg.data)

    async with nats.connection(tenant) as connection, nats.connection(tenant) as other:
        subscription = await other.subscribe(HERE, fall_back, take)
        for number in range(20):
            await connection.client().send(OutgoingMessage(HERE, "Take: it\r\n" if number % 3 else "", b"%d" % number).encoded())
        await until(lambda: len(taken) + len(left) == 20)

        assert taken == [b"%d" % number for number in range(20) if number % 3]
        assert left == [b"%d" % number for number in range(0, 20, 3)]
        await other.unsubscribe(subscription)
        await connection.client().send(OutgoingMessage(HERE, "Take: it\r\n", b"late").encoded())
        await connection.client().flush()
        await other.client().flush()
        assert b"late" not in taken


async def test_request_that_is_cancelled_as_its_reply_arrives_ends_cancelled(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.connection(tenant) as connection, nats.connection(tenant) as other:

        async def answer(asked: Msg) -> None:
            await asked.respond(b"yes")

        await other.subscribe(HERE, answer)
        client = connection.client()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(client.request(HERE, b"", timeout=BOUND_S))
            while not client._resp_map:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0)
            (reply,) = client._resp_map.values()
            while not reply.done():  # noqa: ASYNC110 (as above)
                await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(asking.cancel)
        assert asking.cancelled()


async def test_client_that_could_not_connect_is_closed() -> None:
    client = VerifiedClient()
    with pytest.raises(NoServersError):
        await client.connect(
            f"nats://127.0.0.1:{some_free_port()}", allow_reconnect=False, reconnect_time_wait=0, max_reconnect_attempts=1
        )
    await client.close()
    assert client.is_closed
