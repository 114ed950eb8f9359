"""Key pairs of the older system's agents. It generated RSA keys on the server and returned the private key as PKCS#8 PEM."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

Private = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

BITS: Final = {"rsa": 2048, "rsa1024": 1024}


def fingerprint(line: str) -> str:
    """Return the fingerprint of a public key, as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


class KeyRing:
    """Generates key pairs and stores the private keys in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, label: str) -> Path:
        """Return the path of a private key."""
        return self.folder / f"{label}.pem"

    def make(self, label: str, kind: str = "ed25519") -> str:
        """Generate a pair and return the public key as an OpenSSH line without a comment."""
        private = self._private(label, kind)
        return private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    def make_pem(self, label: str, form: PublicFormat) -> str:
        """Generate an RSA pair and return the public key as PEM, as pasted by a user."""
        return self._private(label, "rsa").public_key().public_bytes(Encoding.PEM, form).decode()

    def _private(self, label: str, kind: str) -> Private:
        private: Private
        if kind in BITS:
            private = rsa.generate_private_key(65537, BITS[kind])
        elif kind == "ecdsa":
            private = ec.generate_private_key(ec.SECP256R1())
        else:
            private = ed25519.Ed25519PrivateKey.generate()
        form = PrivateFormat.PKCS8 if kind == "rsa" else PrivateFormat.OpenSSH
        self.path(label).touch(mode=0o600)
        self.path(label).write_bytes(private.private_bytes(Encoding.PEM, form, NoEncryption()))
        return private
