"""Plain blocking sockets and the little of each protocol that greets a server; what comes after that is the load's to read."""

from __future__ import annotations

import base64
import json
import socket
import time
from typing import Final

from artcafe.fabric.accounts import UserCredentials
from bench.fanout.load import NUMBER, Line
from bench.raw_client import masked

OPEN_S: Final = 15.0
ROUND_S: Final = 0.3
_UPGRADE: Final = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{protocol}\r\n"
)
PONG: Final = b"\x8a\x80" + bytes(4)
"""An unasked pong of a WebSocket client, which a server takes for a sign of life (RFC 6455, section 5.5.3)."""


def dial(port: int) -> socket.socket:
    """A connected socket that sends at once. Waits for a server that is just starting."""
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
    """What came up to and with `wanted` and whatever came behind it. Raises `ConnectionError` at the end, `TimeoutError`."""
    found = b""
    while wanted not in found:
        more = connected.recv(65536)
        if not more:
            raise ConnectionError(f"the server hung up instead of saying {wanted!r}: {found[-300:]!r}")
        found += more
    return found


def web_socket(port: int, path: str, protocol: str = "") -> tuple[socket.socket, bytes]:
    """An upgraded socket, and what the server has said on it already."""
    connected = dial(port)
    offer = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    connected.sendall(_UPGRADE.format(path=path, host=f"127.0.0.1:{port}", protocol=offer).encode())
    head, _, rest = until(connected, b"\r\n\r\n").partition(b"\r\n\r\n")
    if b" 101 " not in head:
        raise ConnectionError(head.decode())
    return connected, rest


def binary(payload: bytes) -> bytes:
    """As `masked`, but a binary frame."""
    return b"\x82" + masked(payload)[1:]


def nats(port: int, user: UserCredentials | None = None) -> socket.socket:
    """A NATS connection, as `user` where the server asks for one (docs.nats.io, client protocol; its nonce is signed)."""
    connected = dial(port)
    told = json.loads(until(connected, b"\r\n").split(b" ", 1)[1].split(b"\r\n")[0])
    proof: dict[str, object] = {"verbose": False, "pedantic": False, "lang": "bench", "version": "1", "protocol": 1}
    if user is not None:
        signature = base64.b64decode(user.signature_cb(told["nonce"]))
        proof |= {"jwt": user.user_jwt_cb().decode(), "sig": base64.urlsafe_b64encode(signature).decode().rstrip("=")}
    connected.sendall(b"CONNECT %b\r\nPING\r\n" % json.dumps(proof).encode())
    until(connected, b"PONG\r\n")
    return connected


def settle(line: Line) -> None:
    """Returns when every reader gets every channel's messages, and has been read empty. Raises `TimeoutError`.

    A mark stands where the load will write its number. Marks are published again and again until each reader has had one of
    every channel, since a subscription may begin later than it is answered.
    """
    first, last = ([_marked(each, b"%c%d" % (kind, at)) for at, each in enumerate(line.messages)] for kind in b"<>")
    wanted = {at: {mark for mark, _ in first} for at in range(len(line.readers))}
    heard = [b""] * len(line.readers)
    deadline = time.monotonic() + OPEN_S
    while wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(wanted)} of {len(line.readers)} readers do not get every channel")
        line.publisher.sendall(b"".join(message for _, message in first))
        at_once_until = time.monotonic() + ROUND_S
        for at in list(wanted):
            line.readers[at].settimeout(max(at_once_until - time.monotonic(), 0.001))
            if wanted[at] and _hears(line.readers[at], heard, at, wanted[at]):
                del wanted[at]
    line.publisher.sendall(b"".join(message for _, message in last))
    for at, reader in enumerate(line.readers):
        reader.settimeout(OPEN_S)
        left = {mark for mark, _ in last}
        while not _hears(reader, heard, at, left):
            if time.monotonic() > deadline + OPEN_S:
                raise TimeoutError("a reader does not get what was published last")
    line.keep_alive()


def _marked(message: bytes, mark: bytes) -> tuple[bytes, bytes]:
    text = mark.ljust(len(NUMBER), b"_")
    return text, message.replace(NUMBER, text)


def _hears(reader: socket.socket, heard: list[bytes], at: int, wanted: set[bytes]) -> bool:
    """Reads what is there; True when nothing is wanted any more."""
    try:
        heard[at] += reader.recv(1 << 20)
    except (TimeoutError, BlockingIOError):
        return not wanted
    wanted -= {mark for mark in wanted if mark in heard[at]}
    heard[at] = heard[at][-len(NUMBER) :]
    return not wanted
