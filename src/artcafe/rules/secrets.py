"""Derive keys from an installation's single secret. Other modules store the secret and choose the labels."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derive(secret: bytes, label: str, length: int = 32) -> bytes:
    """Derive `length` bytes for the purpose `label` by HKDF-SHA256 (RFC 5869); keys of different labels are independent.

    The same secret and label always return the same bytes, so a label is part of the format of the data its key protects.
    """
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=b"artcafe/" + label.encode()).derive(secret)
