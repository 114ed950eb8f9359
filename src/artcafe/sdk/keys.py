"""Signers of login challenges: with a key file, or by ssh-agent.

`ssh-keygen` creates keys, and the server verifies signatures (`wire.sshsig`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, assert_never

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from artcafe.errors import BadKey, KeyLocked, KeyUnusable, SignatureInvalid
from artcafe.sdk import ssh_agent_connection
from artcafe.wire import sshsig
from artcafe.wire.ssh_bytes import SshReader, mpint, string
from artcafe.wire.sshkeys import PublicKey, parse_public_key

log = logging.getLogger("artcafe")

PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey

# A security key waits for a touch, so a person needs this time.
SSH_AGENT_TIMEOUT_S = 60.0
# An RSA key of 16384 bits is a file of 13 KB. The limit ends the reading of a wrong path, such as a device.
MAX_FILE_BYTES = 65_536
# The maximum message size of OpenSSH's agent and its clients (AGENT_MAX_LEN).
MAX_REPLY_BYTES = 262_144

# The message numbers and the flag of draft-ietf-sshm-ssh-agent, section 6.
_REQUEST_IDENTITIES, _IDENTITIES_ANSWER, _SIGN_REQUEST, _SIGN_RESPONSE = 11, 12, 13, 14
_RSA_SHA2_512 = 4


class Signer(Protocol):
    """An object that can sign with an agent's private key."""

    @property
    def public_key(self) -> str:
        """The public key line to register: type and base64, without a comment."""

    async def sign(self, challenge: str) -> str:
        """Return an armored SSHSIG of the challenge's UTF-8 text under the namespace `artcafe`. Raises `KeyUnusable`."""


def load_signer(path: str | Path, passphrase: str | None = None) -> Signer:
    """Load a signer from a key file in OpenSSH or PEM format, or for a `.pub` file from the ssh-agent that holds the private
    half.

    Blocks while it reads a small file, and for about 0.1 s with a passphrase. Raises `KeyUnusable` with advice; its subclass
    `KeyLocked` if a passphrase is missing.
    """
    data = _read(path)
    if b"PRIVATE KEY-----" not in data:
        return agent_signer(_public_line(path, data))
    _warn_if_open(Path(path).expanduser())
    private = _load_private(path, data, passphrase)
    try:
        line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        return FileSigner(parse_public_key(line), private)
    except ValueError as exc:
        raise KeyUnusable(f"{path} has a key of a kind unknown to SSH") from exc
    except BadKey as exc:
        raise KeyUnusable(f"{path}: {exc.problem}") from exc


def agent_signer(public_key: str | Path, timeout_s: float = SSH_AGENT_TIMEOUT_S) -> Signer:
    """Return a signer for the ssh-agent at `$SSH_AUTH_SOCK`, or on Windows of the service `ssh-agent`.

    `public_key` is a public key's line, or the path of its file.

    The ssh-agent is contacted only to sign, so it may start or receive the key later. Raises `KeyUnusable`.
    """
    # Every SSH blob begins with AAAA. The text of a private key counts as a line, so that its refusal does not show it as a path.
    is_line = isinstance(public_key, str) and re.search(r"\s(AAAA|PRIVATE KEY)", public_key)
    line = str(public_key) if is_line else _public_line(public_key, _read(public_key))
    try:
        key = parse_public_key(line)
    except BadKey as exc:
        raise KeyUnusable(exc.problem) from exc
    address = ssh_agent_connection.address(sys.platform, os.environ)
    if address is None:
        raise KeyUnusable(
            f"ssh-agent must hold its private half ({key.fingerprint}), but SSH_AUTH_SOCK is not set: start one with"
            ' eval "$(ssh-agent)" and ssh-add the key, or name the private key file'
        )
    return SshAgentSigner(key, address, timeout_s)


# --- a key file --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileSigner:
    """Signs in this process, on the event loop: the slowest key, RSA of 8192 bits, takes tens of milliseconds."""

    key: PublicKey
    private: PrivateKey = field(repr=False)

    @property
    def public_key(self) -> str:
        """The line to register."""
        return self.key.line

    async def sign(self, challenge: str) -> str:
        """Return the armored signature of `challenge`."""
        data = sshsig.signed_data(challenge.encode(), sshsig.NAMESPACE, "sha512")
        return sshsig.armor(self.key.blob, _sign(self.private, self.key.type, data), sshsig.NAMESPACE, "sha512")


def _sign(private: PrivateKey, key_type: str, data: bytes) -> bytes:
    """Return the signature blob in SSH's format (RFC 8709 section 6, RFC 8332 section 3, RFC 5656 section 3.1.2)."""
    match private:
        case Ed25519PrivateKey():
            return string(key_type.encode()) + string(private.sign(data))
        case EllipticCurvePrivateKey():
            r, s = decode_dss_signature(private.sign(data, ECDSA(sshsig.HASHES[key_type])))
            return string(key_type.encode()) + string(mpint(r) + mpint(s))
        case RSAPrivateKey():
            algorithm = "rsa-sha2-512"
            return string(algorithm.encode()) + string(private.sign(data, PKCS1v15(), sshsig.HASHES[algorithm]))
        case _:
            assert_never(private)


def _read(path: str | Path) -> bytes:
    if "-----BEGIN" in str(path):
        raise KeyUnusable("this is the text of a key; pass the path of its file")
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:
        raise KeyUnusable(f"{path} cannot be read: {exc.strerror if isinstance(exc, OSError) else exc}") from exc
    if len(data) > MAX_FILE_BYTES:
        raise KeyUnusable(f"{path} is too large for a key")
    return data


def _warn_if_open(path: Path) -> None:
    """Log a warning for a private key that other users of this machine can read. Files of other owners are skipped, as in ssh."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        found = path.stat()
        if found.st_uid == os.getuid() and found.st_mode & 0o077:
            mode = found.st_mode & 0o777
            log.warning("%s is a private key that others on this machine can read (mode %04o): chmod 600 %s", path, mode, path)


def _public_line(path: str | Path, data: bytes) -> str:
    """Parse the public key line in a file. Raises `KeyUnusable` with the file's path."""
    try:
        return parse_public_key(data.decode()).line
    except UnicodeDecodeError as exc:
        raise KeyUnusable(f"{path} contains no SSH key") from exc
    except BadKey as exc:
        raise KeyUnusable(f"{path} contains no private key, and no accepted public key: {exc.problem}") from exc


def _load_private(path: str | Path, data: bytes, passphrase: str | None) -> PrivateKey:
    load = load_ssh_private_key if b"BEGIN OPENSSH PRIVATE KEY" in data else load_pem_private_key
    try:
        private = load(data, passphrase.encode() if passphrase else None)
    except TypeError as exc:
        # The library raises TypeError for a missing passphrase and for a superfluous one.
        if passphrase:
            raise KeyUnusable(f"{path} has no passphrase, but one was given") from exc
        raise KeyLocked(
            f"{path} has a passphrase: commands prompt for it at a terminal, load_signer has an argument, or {_USE_SSH_AGENT}"
        ) from exc
    except UnsupportedAlgorithm as exc:
        # For example the key of a hardware token.
        raise KeyUnusable(f"{path} cannot be loaded ({exc}); {_USE_SSH_AGENT}") from exc
    except ValueError as exc:
        raise KeyUnusable(f"{path} is damaged{', or the passphrase is wrong' if passphrase else ''}") from exc
    if not isinstance(private, PrivateKey):
        raise KeyUnusable(f"{path} is not a key of Ed25519, ECDSA or RSA")
    return private


_USE_SSH_AGENT = "ssh-add it and name its .pub file, so that ssh-agent signs"


# --- ssh-agent -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SshAgentSigner:
    """Signs by ssh-agent, with a new connection for each signature; the private key may be in a hardware token."""

    key: PublicKey
    address: str
    timeout_s: float

    @property
    def public_key(self) -> str:
        """The line to register."""
        return self.key.line

    async def sign(self, challenge: str) -> str:
        """Return the armored signature of `challenge` within `timeout_s` seconds. Raises `KeyUnusable`; its subclass
        `SignatureInvalid` if a retry with another challenge can succeed."""
        message = challenge.encode()
        try:
            async with asyncio.timeout(self.timeout_s):
                answer = await self._request(sshsig.signed_data(message, sshsig.NAMESPACE, "sha512"))
            signature = sshsig.whole_signature(answer, self.key)
        except TimeoutError as exc:
            raise KeyUnusable(f"ssh-agent did not sign within {self.timeout_s:g} s; does a token wait for a touch?") from exc
        except (OSError, EOFError, ValueError) as exc:
            raise KeyUnusable(f"no valid answer from ssh-agent at {self.address}: {exc}") from exc
        armored = sshsig.armor(self.key.blob, signature, sshsig.NAMESPACE, "sha512")
        if sshsig.verify(armored, message, self.key):
            return armored
        # Raise it here: the server would only refuse the login.
        if signature.startswith(string(b"ssh-rsa")):
            raise KeyUnusable("this ssh-agent is too old: it signs RSA with SHA-1, which is not secure")
        raise SignatureInvalid("ssh-agent returned an invalid signature for this key")

    async def _request(self, data: bytes) -> bytes:
        """Request the signature blob for `data`. Raises `KeyUnusable` if the ssh-agent does not hold the key or refuses."""
        reader, writer = await ssh_agent_connection.connect(self.address)
        try:
            await self._require_key(reader, writer)
            flags = _RSA_SHA2_512 if self.key.type == "ssh-rsa" else 0
            request = bytes([_SIGN_REQUEST]) + string(self.key.blob) + string(data) + flags.to_bytes(4, "big")
            kind, answer = await _request_once(reader, writer, request)
            if kind != _SIGN_RESPONSE:
                raise KeyUnusable("ssh-agent refused to sign: the hardware token is missing, or the user declined")
            return answer.string()
        finally:
            writer.close()

    async def _require_key(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind, answer = await _request_once(reader, writer, bytes([_REQUEST_IDENTITIES]))
        if kind != _IDENTITIES_ANSWER:
            raise KeyUnusable("ssh-agent does not list its keys")
        for _ in range(answer.uint32()):
            blob, _comment = answer.string(), answer.string()
            if blob == self.key.blob:
                return
        raise KeyUnusable(f"ssh-agent does not hold {self.key.fingerprint}: ssh-add it, or ssh-add -X if the agent is locked")


async def _request_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, SshReader]:
    """Send a request, and return the message number of the response and a reader of its content."""
    writer.write(string(request))
    await writer.drain()
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > MAX_REPLY_BYTES:
        raise ValueError("its answer is too long")
    answer = SshReader(await reader.readexactly(size))
    return answer.take(1)[0], answer
