from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from artcafe.delivery.frame_batch import write_to_all

FRAMES = bytes(range(256)) * 400


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(6)]
        for ours, theirs in made:
            stack.enter_context(ours)
            stack.enter_context(theirs)
            ours.setblocking(False)
            theirs.setblocking(False)
        yield made


def fill(ours: socket.socket) -> int:
    """Fill the socket's buffer, and return the number of bytes sent."""
    sent = 0
    while True:
        try:
            sent += ours.send(b"." * 1024)
        except BlockingIOError:
            return sent


def received(theirs: socket.socket) -> bytes:
    """Return all available bytes."""
    found = b""
    try:
        while more := theirs.recv(1 << 20):
            found += more
    except (BlockingIOError, ConnectionResetError):
        pass
    return found


def test_full_and_closed_descriptors_are_returned_with_their_written_bytes(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    full, gone, small = 1, 3, 4
    before = {full: fill(pairs[full][0])}
    pairs[gone][1].close()
    pairs[small][0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(FRAMES) // 4)

    short = dict(write_to_all([ours.fileno() for ours, _ in pairs], FRAMES))

    assert set(short) == {full, gone, small}
    assert short[full] == short[gone] == 0
    assert 0 < short[small] < len(FRAMES)
    for at, (_, theirs) in enumerate(pairs):
        if at != gone:
            assert received(theirs)[before.get(at, 0) :] == FRAMES[: short.get(at)]


def test_short_writes_at_both_ends_are_returned(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    for at in (0, 1, 5):
        pairs[at][1].close()

    assert write_to_all([ours.fileno() for ours, _ in pairs], FRAMES) == [(0, 0), (1, 0), (5, 0)]
    assert all(received(theirs) == FRAMES for _, theirs in pairs[2:5])


def test_complete_writes_return_an_empty_list(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    assert write_to_all([ours.fileno() for ours, _ in pairs], FRAMES) == []
    assert write_to_all([], FRAMES) == []
