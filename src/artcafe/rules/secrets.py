"""Keys from the one secret of an installation. Where the secret is kept, and who asks for which label, is decided elsewhere."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derive(secret: bytes, label: str, length: int = 32) -> bytes:
    """`length` bytes for the use that `label` names, by HKDF-SHA256 (RFC 5869): two labels' keys say nothing about each other.

    The same secret and label give the same bytes for ever, so a label is part of the format of what its key protects.
    """
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=b"artcafe/" + label.encode()).derive(secret)
