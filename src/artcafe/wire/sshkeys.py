"""SSH public keys: parsing, the kinds that an agent may register, and the reason for refusing another. `sshsig` verifies
signatures.

`cryptography` parses more than is safe to accept (Ed25519 points of small order or off the curve, RSA with a small exponent,
`sk-` keys as plain keys). So this module reads the blob field by field, and leaves only the arithmetic to the library.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from artcafe.errors import BadKey
from artcafe.wire.ssh_bytes import SshReader, decode_base64

Material = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey

# An RSA key of 8192 bits takes 1,400 characters; the rest is room for a comment.
MAX_LINE_CHARS = 16_384
MIN_RSA_BITS = 2048
# OpenSSH allows up to 16384, but each login would then cost the server milliseconds, and the caller nothing.
MAX_RSA_BITS = 8192
# FIPS 186-5, section 5.1, requires more than 2^16, and ssh-keygen has used this exponent since 2010. A longer one costs more:
# verifying a signature of 8192 bits takes 0.3 ms with this exponent, and 1.1 ms with one of 64 bits.
RSA_EXPONENT = 65_537


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A parsed public key. Equal keys have equal blobs, since each field has exactly one encoding.

    `application` is the application of a FIDO key (`ssh:…`), and empty for other kinds.
    """

    type: str
    blob: bytes = field(repr=False)
    material: Material = field(repr=False, compare=False)
    application: bytes = b""

    @property
    def line(self) -> str:
        """The canonical line of the key: type and base64, without a comment."""
        return f"{self.type} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """The fingerprint (`SHA256:…`) as `ssh-keygen -lf` prints it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


# --- admission -------------------------------------------------------------------------------------------------------


def parse_public_key(line: str) -> PublicKey:
    """Parse one line of a `.pub` file: type, base64 and an optional comment, which is dropped.

    Raises `BadKey` with a reason for the sender. The reason never repeats the input, since that may be a secret.
    """
    line = line.strip(" \t\r\n")
    if mistake := _mistake(line):
        raise BadKey(mistake)
    kind, *rest = re.split(r"[ \t]+", line, maxsplit=2)
    if kind not in _READERS:
        raise BadKey(_unknown_type(kind, rest))
    if not rest:
        raise BadKey("the base64 after the key's type is missing")
    try:
        key = _read_key(kind, decode_base64(rest[0]))
    except ValueError as exc:
        raise BadKey(f"its base64 is not a complete {kind} key ({exc}); was it truncated or changed in copying?") from exc
    if isinstance(key.material, Ed25519PublicKey) and not is_on_curve(key.material.public_bytes_raw()):
        raise BadKey(_NO_POINT)
    return key


def read_signing_key(blob: bytes) -> PublicKey:
    """Return the key that a signature names, for verifying that signature. Raises `BadKey` or `ValueError`.

    Every check of `parse_public_key` but one: an Ed25519 point may be off the curve. Verifying decompresses the point and fails
    for such a key, so doing it here too would only cost each login another 80 µs (decision record 35).
    """
    kind = SshReader(blob).string().decode("ascii")
    if kind not in _READERS:
        raise BadKey(_unknown_type(kind, []))
    return _read_key(kind, blob)


_MISTAKES = (
    (
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY|\APuTTY-User-Key-File|\bb3BlbnNzaC1rZXktdjE",
        "this is a private key, which must never leave its machine: create a new pair, since this one is exposed",
    ),
    (r"\A---- BEGIN SSH2 PUBLIC KEY", "this is the format of RFC 4716; ssh-keygen -i -f FILE prints it as one line"),
    (r"\A-----BEGIN PUBLIC KEY", "this is a PEM file; ssh-keygen -i -m PKCS8 -f FILE prints it as one line"),
    (r"\A-----BEGIN RSA PUBLIC KEY", "this is a PEM file; ssh-keygen -i -m PEM -f FILE prints it as one line"),
    (r"\A(\d+ )?(SHA256|MD5):", "this is the fingerprint of a key, not the key"),
    (r"[\r\n]", "this is several lines, and an agent has one key"),
)


def _mistake(line: str) -> str | None:
    """Return the reason for refusing a line, if its text shows it before decoding; otherwise None."""
    if not line:
        return "it is empty"
    if len(line) > MAX_LINE_CHARS:
        return f"it is longer than {MAX_LINE_CHARS} characters"
    return next((problem for pattern, problem in _MISTAKES if re.search(pattern, line)), None)


def _unknown_type(kind: str, rest: list[str]) -> str:
    """Return the reason for refusing a line with this unknown type."""
    if kind.endswith(("-cert-v01@openssh.com", "-cert-v00@openssh.com")):
        return "this is a certificate; only plain keys are accepted"
    if kind == "ssh-dss":
        return "DSA is too weak, and OpenSSH has removed it"
    if any(word in _READERS for part in rest for word in part.split()):
        return "there is text before the key's type; remove the options"
    if kind.startswith("AAAA"):
        return "the key's type is missing before the base64"
    return f"its type is not one of {', '.join(_READERS)}"


def _read_key(kind: str, blob: bytes) -> PublicKey:
    fields = SshReader(blob)
    if fields.string() != kind.encode():
        raise BadKey("the type before the base64 differs from the type inside it")
    material = _READERS[kind](fields)
    application = _read_application(fields) if kind.startswith("sk-") else b""
    fields.end()
    return PublicKey(kind, blob, material, application)


def _read_application(fields: SshReader) -> bytes:
    """Read the application of a FIDO key (OpenSSH's PROTOCOL.u2f). Another prefix than `ssh:` would be a key of a web site."""
    application = fields.string()
    if not re.fullmatch(rb"ssh:[\x20-\x7e]*", application):
        raise BadKey("its FIDO application does not begin with 'ssh:'")
    return application


def _read_rsa(fields: SshReader) -> RSAPublicKey:
    exponent, modulus = fields.natural(), fields.natural()
    bits = modulus.bit_length()
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise BadKey(f"RSA of {bits} bits; it needs {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    if exponent != RSA_EXPONENT:
        raise BadKey(f"its RSA exponent is not {RSA_EXPONENT}, the exponent of ssh-keygen's keys")
    if modulus % 2 == 0:
        raise BadKey("its RSA modulus is even")
    return RSAPublicNumbers(exponent, modulus).public_key()


def _read_ecdsa(name: bytes, curve: EllipticCurve, fields: SshReader) -> EllipticCurvePublicKey:
    if fields.string() != name:
        raise BadKey("the curve inside its base64 differs from that of its type")
    point = fields.string()
    # RFC 5656, section 3.1, allows compressed points; OpenSSH does not, and a key would then have two encodings.
    if len(point) != 1 + 2 * ((curve.key_size + 7) // 8) or point[0] != 4:
        raise BadKey("its point is not in uncompressed form, as in OpenSSH")
    try:
        return EllipticCurvePublicKey.from_encoded_point(curve, point)
    except ValueError as exc:
        raise BadKey("its point is not on the curve") from exc


def _read_ed25519(fields: SshReader) -> Ed25519PublicKey:
    encoded = fields.string()
    y = int.from_bytes(encoded, "little") & _Y_BITS
    if len(encoded) != 32 or y >= _P:
        raise BadKey(_NO_POINT)
    if y in _SMALL_ORDER_Y:
        raise BadKey("its point has a small order, so anyone could sign for it" if is_on_curve(encoded) else _NO_POINT)
    return Ed25519PublicKey.from_public_bytes(encoded)


_READERS: dict[str, Callable[[SshReader], Material]] = {
    "ssh-ed25519": _read_ed25519,
    "ecdsa-sha2-nistp256": partial(_read_ecdsa, b"nistp256", SECP256R1()),
    "ecdsa-sha2-nistp384": partial(_read_ecdsa, b"nistp384", SECP384R1()),
    "ecdsa-sha2-nistp521": partial(_read_ecdsa, b"nistp521", SECP521R1()),
    "ssh-rsa": _read_rsa,
    "sk-ssh-ed25519@openssh.com": _read_ed25519,
    "sk-ecdsa-sha2-nistp256@openssh.com": partial(_read_ecdsa, b"nistp256", SECP256R1()),
}


# --- Ed25519 points (RFC 8032, section 5.1); public ones only: this is not constant in time ------------------------------

_NO_POINT: Final = "its point is not on the Ed25519 curve, or not in canonical form"
_P: Final = 2**255 - 19
_D: Final = -121_665 * pow(121_666, -1, _P) % _P
_Y_BITS: Final = 2**255 - 1
_ORDER_8_Y: Final = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
_SMALL_ORDER_Y: Final = frozenset({1, _P - 1, 0, _ORDER_8_Y, _P - _ORDER_8_Y})
"""The y of the eight points whose order divides 8: of order 1, 2, 4 (two points) and 8 (four). libsodium refuses the same points
by their encodings (`ge25519_has_small_order`)."""


def is_on_curve(encoded: bytes) -> bool:
    """Return whether 32 bytes encode a point by RFC 8032, section 5.1.3. Takes about 80 µs."""
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, number & _Y_BITS
    x_squared = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if x_squared == 0:
        return not sign
    return pow(x_squared, (_P - 1) // 2, _P) == 1  # Euler's criterion: x_squared has a root.
