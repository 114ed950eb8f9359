"""The least work of a gateway in Python for a stored publish, to compare `artcafe up` with.

    python -m bench.least_gateway NATS_URL DATA_FOLDER TENANT

It has the same WebSocket library, JSON library and log writer, and does for a publish what no gateway can leave out: it reads
a frame and its JSON, makes the envelope, stores it, and replies with the sequence, all replies of a loop turn in one write. It
checks nothing: no login, tenant, channel, permission, limit, rate, size or key. It counts and traces nothing, and assigns no
ids. It prints its port, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from artcafe.data_dir import read_secret
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.log_writer import LogWriter
from artcafe.model import ChannelId, TenantId
from artcafe.observe.logs import configure
from artcafe.rules import subjects
from artcafe.rules.secrets import derive
from artcafe.wire import envelopes, frames, replies

UP_S: Final = 10.0
MESSAGE_ID: Final = "msg_01KARTC0000000000000000000"
SENDER: Final = "agt_01KARTC0000000000000000000"
TIME: Final = "2026-11-22T17:00:00.000Z"


class Command(msgspec.Struct):
    """A frame with a publish. Other commands are answered, and do nothing."""

    id: int
    publish: frames.Publish | None = None


_command = msgspec.json.Decoder(Command)


class LeastGateway(WSListener):
    """One socket."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._transport: WSTransport

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is not WSMsgType.TEXT:
            return
        command = _command.decode(frame.get_payload_as_bytes())
        publish = command.publish
        if publish is None:
            self._send(b'{"id":%d}' % command.id)
            return
        text = envelopes.envelope(publish, message_id=MESSAGE_ID, sender=SENDER, time=TIME)
        stored = self._writer.submit(subjects.stored(ChannelId(publish.channel)), text, MESSAGE_ID, None)
        stored.add_done_callback(partial(self._on_stored, command.id))

    def _on_stored(self, id: int, stored: asyncio.Future[replies.PublishReply]) -> None:
        self._send(replies.reply(id, "publish", stored.result()))

    def _send(self, text: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        size = len(text)
        self._out += (b"\x81" + (bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")), text)

    def _flush(self) -> None:
        out, self._out = self._out, []
        self._transport.underlying_transport.write(b"".join(out))


def _accept(writer: LogWriter, request: WSUpgradeRequest) -> LeastGateway:
    return LeastGateway(writer)


async def serve(nats_url: str, data: Path, tenant: TenantId) -> None:
    """Serve until standard input ends."""
    fabric = Fabric([nats_url], Accounts(derive(read_secret(data / "secret"), "nats"), "prod"))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(fabric.run())
        await fabric.wait_up(UP_S)
        tenant_fabric = fabric.tenant(tenant)
        await tenant_fabric.connection.wait_up(UP_S)
        server = await ws_create_server(partial(_accept, tenant_fabric.writer), "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)
        server.close()
        fabric.close()
        running.cancel()


if __name__ == "__main__":
    configure("error")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1], Path(sys.argv[2]), TenantId(sys.argv[3])))
