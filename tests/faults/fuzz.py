"""`python -m tests.faults.fuzz PARSER [libFuzzer's options] [CORPUS]`: run libFuzzer on a parser.

Each parser may raise certain errors; any other exception, and any violated property, is a crash that libFuzzer reports with the
input that caused it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

import atheris  # type: ignore[import-untyped]  # it has no types

with atheris.instrument_imports(include=["artcafe"]):
    from artcafe.errors import ArtcafeError, BadCursor, BadKey
    from artcafe.rules import audit_chain, pages
    from artcafe.wire import frames, sshkeys, sshsig
    from artcafe.wire.frames import RefusedCommand
    from artcafe.wire.session import ServerSession

KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJkLKM6rbiRrNTC7aCk5pVAqxzYZpXvVPlVTMoBZqYqQ"
"""A public key whose private half does not exist, so that no text is its signature."""
SECRET: Final = bytes(32)


def signature(data: bytes) -> None:
    """An armored SSHSIG never verifies, and never raises."""
    assert not sshsig.verify(data.decode(errors="replace"), b"a message", sshkeys.parse_public_key(KEY))


def public_key(data: bytes) -> None:
    """A key that is accepted is accepted again in its canonical form."""
    try:
        key = sshkeys.parse_public_key(data.decode(errors="replace"))
    except BadKey:
        return
    assert sshkeys.parse_public_key(key.line) == key


def blob(data: bytes) -> None:
    """A key named in a signature can be registered, or its point is off the curve."""
    try:
        key = sshkeys.read_signing_key(data)
    except (BadKey, ValueError):
        return
    try:
        assert sshkeys.parse_public_key(key.line) == key
    except BadKey as refused:
        assert "not on the Ed25519 curve" in refused.problem  # noqa: PT017 - which keys are refused is the property


def frame(data: bytes) -> None:
    """A command is parsed or refused."""
    try:
        id, kind, body = frames.parse(data)
    except (RefusedCommand, ArtcafeError):
        return
    assert id is None or id >= 0
    assert kind
    assert body is not None


def conversation(data: bytes) -> None:
    """Several commands, one per line, are parsed or refused in one session."""
    session = ServerSession()
    for line in data.split(b"\n"):
        try:
            session.receive(line)
        except RefusedCommand:
            continue
        except ArtcafeError:
            return


def cursor(data: bytes) -> None:
    """Only a sealed cursor is accepted as a page's cursor."""
    try:
        pages.open(SECRET, "ten_1", "agents", data.decode(errors="replace"))
    except BadCursor:
        return
    raise AssertionError("a cursor was opened that nobody sealed")


def entry(data: bytes) -> None:
    """An audit entry is parsed, or raises ValueError."""
    try:
        found = audit_chain.read(data)
    except ValueError:
        return
    audit_chain.canonical(found)


PARSERS: Final[dict[str, Callable[[bytes], None]]] = {
    each.__name__: each for each in (signature, public_key, blob, frame, conversation, cursor, entry)
}


def planted(data: bytes) -> None:
    """A parser with a fault behind three branches, to prove that the fuzzer finds it."""
    if data[:1] == b"s" and data[1:2] == b"s" and data[2:3] == b"h" and data[3:4] == b"!":
        raise AssertionError("planted")


def main() -> None:
    """Fuzz until the time in the options is over."""
    parser = PARSERS.get(sys.argv[1], planted)
    atheris.instrument_func(parser)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], parser)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
