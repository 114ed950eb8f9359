"""Blocking sockets with the handshake of each protocol. After the handshake they are handed to the load generator."""

from __future__ import annotations

import base64
import json
import socket
import time
from typing import Final

from artcafe.fabric.accounts import UserCredentials
from bench.fanout.load import NUMBER, SocketGroup
from bench.raw_client import masked

OPEN_S: Final = 15.0
ROUND_S: Final = 0.3
_UPGRADE: Final = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{protocol}\r\n"
)
PONG: Final = b"\x8a\x80" + bytes(4)
"""An unsolicited pong of a WebSocket client, which keeps its connection alive (RFC 6455, section 5.5.3)."""


def dial(port: int) -> socket.socket:
    """Connect a socket without delayed sends. Retry while the server is starting."""
    until = time.monotonic() + OPEN_S
    while True:
        try:
            connected = socket.create_connection(("127.0.0.1", port), OPEN_S)
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            continue
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected


def until(connected: socket.socket, wanted: bytes) -> bytes:
    """Receive until `wanted`, and return all bytes. Raises `ConnectionError` at the end of the stream, and `TimeoutError`."""
    found = b""
    while wanted not in found:
        more = connected.recv(65536)
        if not more:
            raise ConnectionError(f"the server hung up instead of saying {wanted!r}: {found[-300:]!r}")
        found += more
    return found


def web_socket(port: int, path: str, protocol: str = "") -> tuple[socket.socket, bytes]:
    """Return an upgraded socket, and the bytes received after the upgrade."""
    connected = dial(port)
    offer = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    connected.sendall(_UPGRADE.format(path=path, host=f"127.0.0.1:{port}", protocol=offer).encode())
    head, _, rest = until(connected, b"\r\n\r\n").partition(b"\r\n\r\n")
    if b" 101 " not in head:
        raise ConnectionError(head.decode())
    return connected, rest


def binary(payload: bytes) -> bytes:
    """Return a masked binary frame."""
    return b"\x82" + masked(payload)[1:]


def nats(port: int, user: UserCredentials | None = None) -> socket.socket:
    """Open a NATS connection, authenticated as `user` by a signature of the nonce (docs.nats.io, client protocol)."""
    connected = dial(port)
    info = json.loads(until(connected, b"\r\n").split(b" ", 1)[1].split(b"\r\n")[0])
    proof: dict[str, object] = {"verbose": False, "pedantic": False, "lang": "bench", "version": "1", "protocol": 1}
    if user is not None:
        signature = base64.b64decode(user.signature_cb(info["nonce"]))
        proof |= {"jwt": user.user_jwt_cb().decode(), "sig": base64.urlsafe_b64encode(signature).decode().rstrip("=")}
    connected.sendall(b"CONNECT %b\r\nPING\r\n" % json.dumps(proof).encode())
    until(connected, b"PONG\r\n")
    return connected


def settle(line: SocketGroup) -> None:
    """Wait until every reader receives every channel, then read all of them empty. Raises `TimeoutError`.

    A mark replaces the load generator's number. Marks are published repeatedly until each reader has received one of every
    channel, since a subscription may begin after its reply.
    """
    first, last = ([_marked(each, b"%c%d" % (kind, at)) for at, each in enumerate(line.messages)] for kind in b"<>")
    wanted = {at: {mark for mark, _ in first} for at in range(len(line.readers))}
    received = [b""] * len(line.readers)
    deadline = time.monotonic() + OPEN_S
    while wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(wanted)} of {len(line.readers)} readers do not get every channel")
        line.publisher.sendall(b"".join(message for _, message in first))
        at_once_until = time.monotonic() + ROUND_S
        for at in list(wanted):
            line.readers[at].settimeout(max(at_once_until - time.monotonic(), 0.001))
            if wanted[at] and _has_received(line.readers[at], received, at, wanted[at]):
                del wanted[at]
    line.publisher.sendall(b"".join(message for _, message in last))
    for at, reader in enumerate(line.readers):
        reader.settimeout(OPEN_S)
        left = {mark for mark, _ in last}
        while not _has_received(reader, received, at, left):
            if time.monotonic() > deadline + OPEN_S:
                raise TimeoutError("a reader does not get what was published last")
    line.keep_alive()


def _marked(message: bytes, mark: bytes) -> tuple[bytes, bytes]:
    text = mark.ljust(len(NUMBER), b"_")
    return text, message.replace(NUMBER, text)


def _has_received(reader: socket.socket, received: list[bytes], at: int, wanted: set[bytes]) -> bool:
    """Read available bytes, and return whether every wanted mark was received."""
    try:
        received[at] += reader.recv(1 << 20)
    except (TimeoutError, BlockingIOError):
        return not wanted
    wanted -= {mark for mark in wanted if mark in received[at]}
    received[at] = received[at][-len(NUMBER) :]
    return not wanted
