"""Lines of standard input."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from artcafe.cli.terminal.stdin import LONGEST_BYTES, split_lines


def chunks(text: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Yield the text in chunks of the given sizes, as from a pipe."""
    for size in sizes:
        yield text[:size]
        text = text[size:]
    yield text


@given(st.lists(st.binary(max_size=8).filter(lambda line: b"\n" not in line)), st.lists(st.integers(0, 9)), st.booleans())
def test_lines_are_independent_of_chunk_boundaries(lines: list[bytes], sizes: list[int], is_ended: bool) -> None:
    text = b"\n".join(lines) + (b"\n" if is_ended else b"")
    expected = text.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert list(split_lines(chunks(text, sizes))) == expected


def test_endless_line_is_split_to_bound_memory() -> None:
    chunk = b"x" * 65536
    found = list(split_lines(iter([chunk] * 64)))
    assert b"".join(found) == chunk * 64
    assert max(map(len, found)) <= LONGEST_BYTES + len(chunk)
