"""The real ssh-keygen for tests, and a FIDO key in software, because no test machine has a token to touch."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from artcafe.wire.ssh_bytes import mpint, string
from artcafe.wire.sshsig import signed_data

PRESENT = shutil.which("ssh-keygen") is not None

KINDS = {
    "ed25519": ("-t", "ed25519"),
    "ecdsa-256": ("-t", "ecdsa", "-b", "256"),
    "ecdsa-384": ("-t", "ecdsa", "-b", "384"),
    "ecdsa-521": ("-t", "ecdsa", "-b", "521"),
    "rsa-2048": ("-t", "rsa", "-b", "2048"),
    "rsa-3072": ("-t", "rsa", "-b", "3072"),
}


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "", form: str = "RFC4716") -> Path:
    """Create a key pair at `path` and `path.pub`; RFC4716 is ssh-keygen's name for OpenSSH's own format."""
    run("-q", *KINDS[kind], "-m", form, "-N", passphrase, "-C", "a comment, of words", "-f", str(path))
    return path


def made_key(folder: Path, kind: str) -> Path:
    """Return a key pair of this kind in `folder`, created the first time: a parametrized fixture may return to a kind."""
    path = folder / kind
    return path if path.exists() else make_key(path, kind)


def public_line(path: Path) -> str:
    """Return the contents of the `.pub` file next to a private key."""
    return path.with_name(path.name + ".pub").read_text()


def sign(path: Path, message: bytes, namespace: str = "artcafe", hash_name: str = "sha512") -> str:
    """Return the armored signature, made as the contract describes."""
    return run("-q", "-Y", "sign", "-O", f"hashalg={hash_name}", "-n", namespace, "-f", str(path), stdin=message).stdout.decode()


def accepts(folder: Path, armored: str, message: bytes, line: str, namespace: str = "artcafe") -> bool:
    """Return whether `ssh-keygen -Y verify` accepts the signature for that key."""
    allowed, signature = folder / "allowed_signers", folder / "signature"
    allowed.write_text(f"agent {line.strip()}\n")
    signature.write_text(armored)
    arguments = ("-Y", "verify", "-f", str(allowed), "-I", "agent", "-n", namespace, "-s", str(signature))
    return run(*arguments, stdin=message, check=False).returncode == 0


def fingerprint(line: str) -> str | None:
    """Return the fingerprint that `ssh-keygen -lf` prints for a public key line, or None if it refuses the line."""
    done = run("-l", "-f", "-", stdin=line.encode() + b"\n", check=False)
    return done.stdout.decode().split()[1] if done.returncode == 0 else None


def run(*arguments: str, stdin: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run ssh-keygen once, with a timeout."""
    return subprocess.run(("ssh-keygen", *arguments), input=stdin, capture_output=True, timeout=30, check=check)


def as_line(kind: str, *fields: bytes, inside: str | None = None) -> str:
    """Return a public key line built from its fields, each as in the blob."""
    blob = string((inside or kind).encode()) + b"".join(fields)
    return f"{kind} {base64.b64encode(blob).decode()}"


@dataclass(frozen=True)
class FidoKey:
    """A security key by PROTOCOL.u2f, with its private half in memory; `curve` is `ed25519` or `nistp256`."""

    curve: str
    application: bytes = b"ssh:"
    _private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey = field(init=False, repr=False)

    def __post_init__(self) -> None:
        made = ed25519.Ed25519PrivateKey.generate() if self.curve == "ed25519" else ec.generate_private_key(ec.SECP256R1())
        object.__setattr__(self, "_private", made)

    @property
    def type(self) -> str:
        """The name of the kind."""
        return "sk-ssh-ed25519@openssh.com" if self.curve == "ed25519" else "sk-ecdsa-sha2-nistp256@openssh.com"

    @cached_property
    def point(self) -> bytes:
        """The public point as encoded in the blob."""
        public = self._private.public_key()
        if isinstance(public, ed25519.Ed25519PublicKey):
            return public.public_bytes_raw()
        return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    @property
    def line(self) -> str:
        """The public key line."""
        curve = () if self.curve == "ed25519" else (string(b"nistp256"),)
        return as_line(self.type, *curve, string(self.point), string(self.application))

    def sign(self, message: bytes, flags: int = 1, counter: int = 7, application: bytes | None = None) -> bytes:
        """Return the signature blob of a message's SSHSIG under the namespace artcafe and SHA-512."""
        tail = bytes([flags]) + counter.to_bytes(4, "big")
        origin = hashlib.sha256(self.application if application is None else application).digest()
        data = origin + tail + hashlib.sha256(signed_data(message, "artcafe", "sha512")).digest()
        if isinstance(self._private, ed25519.Ed25519PrivateKey):
            raw = self._private.sign(data)
        else:
            r, s = decode_dss_signature(self._private.sign(data, ec.ECDSA(SHA256())))
            raw = mpint(r) + mpint(s)
        return string(self.type.encode()) + string(raw) + tail


@cache
def fido_key(curve: str) -> FidoKey:
    """Return one FIDO key of each kind for the whole run."""
    return FidoKey(curve)
