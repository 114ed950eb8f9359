"""SSHSIG, the signatures of `ssh-keygen -Y sign`: verifying and formatting them.

Source: OpenSSH's PROTOCOL.sshsig and PROTOCOL.u2f. `sshkeys` decides which keys are accepted. This module holds no private key.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Literal, assert_never

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from artcafe.errors import BadKey
from artcafe.wire.ssh_bytes import SshReader, decode_base64, string
from artcafe.wire.sshkeys import PublicKey, read_signing_key

HashName = Literal["sha256", "sha512"]

NAMESPACE = "artcafe"
# A signature by an RSA key of 8192 bits takes 3,100 characters.
MAX_ARMORED_CHARS = 16_384

_MAGIC = b"SSHSIG"
_VERSION = 1
_HASH_NAMES: dict[bytes, HashName] = {b"sha256": "sha256", b"sha512": "sha512"}
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_ARMOR = re.compile(rf"{_BEGIN}\r?\n((?:[A-Za-z0-9+/=]+\r?\n)+){_END}")

# The hash inside each signature algorithm (RFC 8332 section 3, RFC 5656 section 6.2.1); Ed25519 has its own.
HASHES: dict[str, HashAlgorithm] = {
    "rsa-sha2-256": SHA256(),
    "rsa-sha2-512": SHA512(),
    "ecdsa-sha2-nistp256": SHA256(),
    "ecdsa-sha2-nistp384": SHA384(),
    "ecdsa-sha2-nistp521": SHA512(),
    "sk-ecdsa-sha2-nistp256@openssh.com": SHA256(),
}
_RSA_ALGORITHMS = ("rsa-sha2-256", "rsa-sha2-512")
_USER_PRESENT = 0x01


def verify(armored: str, message: bytes, key: PublicKey, namespace: str = NAMESPACE) -> bool:
    """Return whether `armored` is a signature of `message` by `key` under `namespace`.

    Fails closed: return False for a malformed signature, another key, namespace, hash or version, and a used reserved field. No
    input of a peer raises. A FIDO key must have been touched. Signatures are not unique (ECDSA has two for each), so they cannot
    be ids.
    """
    try:
        blob, hash_name, signature = _open(armored, namespace)
        if blob != key.blob:
            return False
        _check(signature, signed_data(message, namespace, hash_name), key)
    except (ValueError, InvalidSignature):
        return False
    return True


def signer(armored: str, message: bytes, namespace: str = NAMESPACE) -> PublicKey | None:
    """Return the key that signed `message` under `namespace`. The caller looks up the owner of the key.

    As strict as `verify`, and fails closed: return None for a signature that `verify` refuses, and for a key that cannot be
    registered.
    """
    try:
        blob, hash_name, signature = _open(armored, namespace)
        key = read_signing_key(blob)
        _check(signature, signed_data(message, namespace, hash_name), key)
    except (ValueError, BadKey, InvalidSignature):
        return None
    return key


def signed_data(message: bytes, namespace: str, hash_algorithm: HashName) -> bytes:
    """Return the bytes for the private key to sign: SSHSIG signs a hash of the message (PROTOCOL.sshsig, section 3)."""
    digest = hashlib.new(hash_algorithm, message).digest()
    return _MAGIC + string(namespace.encode()) + string(b"") + string(hash_algorithm.encode()) + string(digest)


def whole_signature(signature_blob: bytes, key: PublicKey) -> bytes:
    """Return an ssh-agent's signature blob in full length, as older servers require it. Raises ValueError for a malformed one.

    gpg-agent 2.2 encodes an RSA signature as a number, without leading zeros: 1 of 256 signatures is a byte short.
    """
    if not isinstance(key.material, RSAPublicKey):
        return signature_blob
    fields = SshReader(signature_blob)
    algorithm, raw = fields.string(), fields.string()
    fields.end()
    return string(algorithm) + string(_whole(raw, key.material))


def armor(public_blob: bytes, signature_blob: bytes, namespace: str, hash_algorithm: HashName) -> str:
    """Return the text that `ssh-keygen -Y sign` prints for this signature of `signed_data`.

    `signature_blob` has SSH's format: the algorithm's name, then the signature, each with its length in front.
    """
    blob = _MAGIC + _VERSION.to_bytes(4, "big")
    blob += b"".join(map(string, (public_blob, namespace.encode(), b"", hash_algorithm.encode(), signature_blob)))
    text = base64.b64encode(blob).decode()
    lines = (text[at : at + 70] for at in range(0, len(text), 70))
    return "\n".join((_BEGIN, *lines, _END, ""))


def _open(armored: str, namespace: str) -> tuple[bytes, HashName, bytes]:
    """Return the key's blob, the hash name and the signature's blob. Raises ValueError if any other field is not as expected."""
    fields = SshReader(_dearmor(armored))
    if fields.take(len(_MAGIC)) != _MAGIC or fields.uint32() != _VERSION:
        raise ValueError("not an SSHSIG of version 1")
    blob = fields.string()
    if fields.string() != namespace.encode():
        raise ValueError("another namespace")
    if fields.string():
        # The format says to ignore this field. No implementation uses it yet, so refusing it is safer than guessing its meaning.
        raise ValueError("the reserved field is in use")
    hash_name = _HASH_NAMES.get(fields.string())
    if hash_name is None:
        raise ValueError("an unknown hash")
    signature = fields.string()
    fields.end()
    return blob, hash_name, signature


def _dearmor(armored: str) -> bytes:
    """Decode the blob between the two marker lines. White space around them is accepted, since shells and forms change it."""
    if len(armored) > MAX_ARMORED_CHARS:
        raise ValueError("too long")
    match = _ARMOR.fullmatch(armored.strip(" \t\r\n"))
    if not match:
        raise ValueError("not armored")
    return decode_base64(match[1].replace("\r", "").replace("\n", ""))


def _check(signature: bytes, data: bytes, key: PublicKey) -> None:
    """Verify a signature blob of `data` by `key`. Raises ValueError or InvalidSignature."""
    fields = SshReader(signature)
    # The algorithm is the key's type, except for RSA: its type as an algorithm means SHA-1.
    algorithm = fields.string().decode("ascii")
    if algorithm not in (_RSA_ALGORITHMS if key.type == "ssh-rsa" else (key.type,)):
        raise ValueError("another algorithm than the key's")
    raw = fields.string()
    if key.application:
        data = _authenticator_data(fields.take(5), key.application, data)
    fields.end()
    match key.material:
        case Ed25519PublicKey():
            key.material.verify(raw, data)
        case EllipticCurvePublicKey():
            key.material.verify(_der(raw), data, ECDSA(HASHES[algorithm]))
        case RSAPublicKey():
            key.material.verify(_whole(raw, key.material), data, PKCS1v15(), HASHES[algorithm])
        case _:
            assert_never(key.material)


def _whole(raw: bytes, material: RSAPublicKey) -> bytes:
    """Pad an RSA signature to the length of the modulus with leading zeros, since some ssh-agents omit them (decision record 28).

    Raises ValueError for a longer one. OpenSSL refuses it too, but the guarantee must not depend on a library's version.
    """
    size = (material.key_size + 7) // 8
    if len(raw) > size:
        raise ValueError("an RSA signature longer than its key")
    return raw.rjust(size, b"\0")


def _authenticator_data(flags_and_counter: bytes, application: bytes, data: bytes) -> bytes:
    """Return the bytes that a FIDO authenticator signs for `data` (PROTOCOL.u2f, "SSH U2F signatures").

    Raises ValueError for a signature without a touch of the user. The counter is not compared with an earlier one: that would
    need a table row for each login, and many authenticators keep the counter at zero.
    """
    if not flags_and_counter[0] & _USER_PRESENT:
        raise ValueError("signed without a touch")
    return hashlib.sha256(application).digest() + flags_and_counter + hashlib.sha256(data).digest()


def _der(raw: bytes) -> bytes:
    """Convert SSH's r and s (RFC 5656, section 3.1.2) to the DER encoding for `cryptography`."""
    fields = SshReader(raw)
    r, s = fields.natural(), fields.natural()
    fields.end()
    return encode_dss_signature(r, s)
