"""Byte encoding of SSH: the data types of RFC 4251, section 5, and strict base64, used by public keys and signatures."""

from __future__ import annotations

import base64
import binascii


class SshReader:
    """Read the data types of RFC 4251, section 5, in order. Malformed bytes raise `ValueError`."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise ValueError("it ends too early")
        return self._data[start : self._at]

    def uint32(self) -> int:
        """Return the next four bytes as an unsigned integer."""
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        """Return the next length-prefixed bytes."""
        return self.take(self.uint32())

    def natural(self) -> int:
        """Return the next mpint. It must be above zero and in its shortest form, so that a number has one encoding."""
        digits = self.string()
        number = int.from_bytes(digits, "big", signed=True)
        if number <= 0 or mpint(number)[4:] != digits:
            raise ValueError("a number in it is negative, zero or not in its shortest form")
        return number

    def end(self) -> None:
        """Require that every byte has been read."""
        if self._at != len(self._data):
            raise ValueError("more bytes follow its end")


def string(data: bytes) -> bytes:
    """Return `data` with its length in front (RFC 4251, section 5)."""
    return len(data).to_bytes(4, "big") + data


def mpint(number: int) -> bytes:
    """Encode a number above zero as RFC 4251, section 5, does: its length, then the shortest two's complement."""
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


def decode_base64(text: str) -> bytes:
    """Decode padded base64 without white space. Raises `ValueError` for any other text, also with stray bits at the end."""
    data = binascii.a2b_base64(text, strict_mode=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("its base64 has stray bits at the end")
    return data
