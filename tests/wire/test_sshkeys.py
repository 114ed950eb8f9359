"""Public keys: accepted kinds, refusals, and comparisons with ssh-keygen."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st

from artcafe.errors import BadKey
from artcafe.wire.ssh_bytes import SshReader, mpint, string
from artcafe.wire.sshkeys import PublicKey, parse_public_key, read_signing_key
from tests import ssh_keygen
from tests.ssh_keygen import as_line

P = 2**255 - 19
D = -121_665 * pow(121_666, -1, P) % P
MODULUS = 2**2047 + 1  # Odd and of 2048 bits; the code does not test for factors.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str, bool], None]) -> Path:
    require("ssh-keygen", ssh_keygen.PRESENT)
    return tmp_path_factory.mktemp("keys")


def refusal(line: str) -> str:
    with pytest.raises(BadKey) as caught:
        parse_public_key(line)
    return caught.value.problem


def ed25519_line(point: bytes) -> str:
    return as_line("ssh-ed25519", string(point))


def rsa_line(exponent: int, modulus: int) -> str:
    return as_line("ssh-rsa", mpint(exponent), mpint(modulus))


def ecdsa_line(point: bytes, curve: bytes = b"nistp256", kind: str = "ecdsa-sha2-nistp256") -> str:
    return as_line(kind, string(curve), string(point))


def nist_point(curve: ec.EllipticCurve, form: PublicFormat = PublicFormat.UncompressedPoint) -> bytes:
    return ec.derive_private_key(12_345, curve).public_key().public_bytes(Encoding.X962, form)


GOOD_POINT = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
GOOD_LINE = ed25519_line(GOOD_POINT)
GOOD_BASE64 = GOOD_LINE.split()[1]
P256 = nist_point(ec.SECP256R1())
SK_ED25519, SK_ECDSA = "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"

# Every point of an order dividing 8, and encodings forbidden by RFC 8032, section 5.1.3.
SMALL_ORDER = {
    "order 1": (1).to_bytes(32, "little"),
    "order 2": (P - 1).to_bytes(32, "little"),
    "order 4": bytes(32),
    "order 4, negative": bytes(31) + b"\x80",
    "order 8": bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    "order 8, negative": bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
    "order 8, other": bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    "order 8, other, negative": bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
}
NOT_CANONICAL = {
    "y is p": P.to_bytes(32, "little"),
    "y is p + 1": (P + 1).to_bytes(32, "little"),
    "y is p + 3, a point of full order else": (P + 3).to_bytes(32, "little"),
    "y is 2^255 - 1": b"\xff" * 31 + b"\x7f",
    "y is 2^255 - 1, negative": b"\xff" * 32,
    "x is 0, negative": (1 | 1 << 255).to_bytes(32, "little"),
    "x is 0 and y is -1, negative": (P - 1 | 1 << 255).to_bytes(32, "little"),
    "not on the curve": (2).to_bytes(32, "little"),
    "31 bytes": GOOD_POINT[:31],
    "33 bytes": GOOD_POINT + b"\0",
    "no bytes": b"",
}

BAD = {
    "nothing": ("", "it is empty"),
    "white space": (" \t\r\n", "it is empty"),
    "no end": (GOOD_LINE + " " + "x" * 16_384, "longer than 16384 characters"),
    "a type alone": ("ssh-ed25519", "the base64 after"),
    "base64 alone": (GOOD_BASE64, "the key's type is missing"),
    "prose": ("my key, please", "its type is not one of ssh-ed25519,"),
    "a no-break space": (GOOD_LINE.replace(" ", "\u00a0"), "its type is not one of"),
    "capitals": (GOOD_LINE.replace("ssh-", "SSH-"), "its type is not one of"),
    "options": (f'from="10.0.0.1",no-pty {GOOD_LINE}', "there is text before"),
    "options with spaces": (f'command="echo hi" {GOOD_LINE}', "there is text before"),
    "a known_hosts line": (f"host.example {GOOD_LINE}", "there is text before"),
    "two lines": (f"{GOOD_LINE}\n{GOOD_LINE}", "several lines"),
    "two lines of another system": (f"{GOOD_LINE} me\r{GOOD_LINE}", "several lines"),
    "a fingerprint": ("SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU", "fingerprint"),
    "a fingerprint with its size": ("256 SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU me (ED25519)", "fingerprint"),
    "a PuTTY file": ("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none", "this is a private key"),
    "a private key's base64": ("b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ", "this is a private key"),
    "a PEM private key": ("-----BEGIN RSA PRIVATE KEY-----\nMIIE", "this is a private key"),
    "a private key on one line": ("-----BEGIN OPENSSH PRIVATE KEY----- b3BlbnNzaC1rZXktdjEA", "this is a private key"),
    "an SSH2 file": (f"---- BEGIN SSH2 PUBLIC KEY ----\n{GOOD_BASE64}", "ssh-keygen -i -f FILE"),
    "a PEM public key": ("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2Vw", "-m PKCS8"),
    "a PEM RSA public key": ("-----BEGIN RSA PUBLIC KEY-----\nMIIB", "-m PEM"),
    "DSA": (as_line("ssh-dss", *[mpint(2**159 + 1)] * 4), "DSA is too weak"),
    "a certificate": (as_line("ssh-ed25519-cert-v01@openssh.com", string(bytes(32))), "certificate"),
    "a FIDO certificate": (as_line("sk-ssh-ed25519-cert-v01@openssh.com", string(bytes(32))), "certificate"),
    "an algorithm that is no key": (as_line("rsa-sha2-512", mpint(65_537), mpint(MODULUS)), "its type is not one of"),
    "a WebAuthn signature's type": (as_line("webauthn-sk-ecdsa-sha2-nistp256@openssh.com"), "its type is not one of"),
    "no base64": ("ssh-ed25519 &&&&", "not a complete ssh-ed25519 key"),
    "base64 beyond ASCII": (f"ssh-ed25519 {GOOD_BASE64}é", "not a complete"),
    "base64 cut off": (GOOD_LINE[:-8], "it ends too early"),
    "base64 without its padding": (ecdsa_line(P256).rstrip("="), "not a complete"),
    "base64 with stray bits": ("ssh-ed25519 AB==", "stray bits"),
    "an empty blob": ("ssh-ed25519 ====", "not a complete"),
    "a length beyond the end": ("ssh-ed25519 " + base64.b64encode(b"\xff\xff\xff\xffssh").decode(), "it ends too early"),
    "trailing bytes": (as_line("ssh-ed25519", string(GOOD_POINT), b"\0"), "more bytes follow"),
    "another type inside": (as_line("ssh-ed25519", string(GOOD_POINT), inside=SK_ED25519), "differs from the type inside"),
    "a FIDO key as a plain one": (as_line("ssh-ed25519", string(GOOD_POINT), string(b"ssh:")), "more bytes follow"),
    "RSA of 1024 bits": (rsa_line(65_537, 2**1023 + 1), "RSA of 1024 bits"),
    "RSA of 2047 bits": (rsa_line(65_537, 2**2046 + 1), "RSA of 2047 bits"),
    "RSA of 8193 bits": (rsa_line(65_537, 2**8192 + 1), "RSA of 8193 bits"),
    "RSA with exponent 1": (rsa_line(1, MODULUS), "exponent"),
    "RSA with exponent 3": (rsa_line(3, MODULUS), "exponent"),
    "RSA with exponent 35": (rsa_line(35, MODULUS), "exponent"),
    "RSA with an even exponent": (rsa_line(65_538, MODULUS), "exponent"),
    "RSA with a longer exponent": (rsa_line(2**63 + 1, MODULUS), "its RSA exponent is not 65537"),
    "RSA with a long exponent": (rsa_line(2**64 + 1, MODULUS), "exponent"),
    "RSA with an even modulus": (rsa_line(65_537, MODULUS + 1), "even"),
    "RSA the wrong way round": (rsa_line(MODULUS, 65_537), "RSA of 17 bits"),
    "RSA with a negative modulus": (as_line("ssh-rsa", mpint(65_537), string(b"\x80" + bytes(255))), "negative"),
    "RSA with a modulus of zero": (as_line("ssh-rsa", mpint(65_537), string(b"")), "zero"),
    "RSA with zeros in front": (as_line("ssh-rsa", mpint(65_537), string(b"\0\0" + mpint(MODULUS)[5:])), "shortest form"),
    "RSA without its modulus": (as_line("ssh-rsa", mpint(65_537)), "it ends too early"),
    "RSA with more behind": (as_line("ssh-rsa", mpint(65_537), mpint(MODULUS), mpint(5)), "more bytes follow"),
    "ECDSA off the curve": (ecdsa_line(P256[:-1] + bytes([P256[-1] ^ 1])), "not on the curve"),
    "ECDSA at zero": (ecdsa_line(b"\4" + bytes(64)), "not on the curve"),
    "ECDSA beyond the field": (ecdsa_line(b"\4" + b"\xff" * 64), "not on the curve"),
    "ECDSA at infinity": (ecdsa_line(b"\0"), "uncompressed"),
    "ECDSA compressed": (ecdsa_line(nist_point(ec.SECP256R1(), PublicFormat.CompressedPoint)), "uncompressed"),
    "ECDSA hybrid": (ecdsa_line(bytes([6 + P256[-1] % 2]) + P256[1:]), "uncompressed"),
    "ECDSA one byte short": (ecdsa_line(P256[:-1]), "uncompressed"),
    "ECDSA of another curve's point": (ecdsa_line(nist_point(ec.SECP384R1())), "uncompressed"),
    "ECDSA of another curve's name": (ecdsa_line(P256, curve=b"nistp384"), "the curve inside"),
    "ECDSA on a curve of Bitcoin's": (ecdsa_line(nist_point(ec.SECP256K1())), "not on the curve"),
    "ECDSA with more behind": (as_line("ecdsa-sha2-nistp256", string(b"nistp256"), string(P256), b"x"), "more bytes follow"),
    "FIDO for a web site": (as_line(SK_ED25519, string(GOOD_POINT), string(b"https://example.com")), "FIDO application"),
    "FIDO for nothing": (as_line(SK_ED25519, string(GOOD_POINT), string(b"")), "FIDO application"),
    "FIDO with a zero byte": (as_line(SK_ED25519, string(GOOD_POINT), string(b"ssh:\0")), "FIDO application"),
    "FIDO without an application": (as_line(SK_ED25519, string(GOOD_POINT)), "it ends too early"),
    "FIDO with more behind": (as_line(SK_ED25519, string(GOOD_POINT), string(b"ssh:"), b"\1"), "more bytes follow"),
    "FIDO of small order": (as_line(SK_ED25519, string(bytes(32)), string(b"ssh:")), "small order"),
    "FIDO on P-384": (as_line(SK_ECDSA, string(b"nistp384"), string(nist_point(ec.SECP384R1())), string(b"ssh:")), "the curve"),
    **{f"Ed25519 of {name}": (ed25519_line(point), "small order") for name, point in SMALL_ORDER.items()},
    **{f"Ed25519 where {name}": (ed25519_line(point), "not on the Ed25519 curve") for name, point in NOT_CANONICAL.items()},
}


@pytest.mark.parametrize(("line", "phrase"), BAD.values(), ids=BAD)
def test_bad_key_is_refused_with_its_problem(line: str, phrase: str) -> None:
    assert phrase in refusal(line)


@pytest.mark.parametrize("line", [line for line, _ in BAD.values()], ids=BAD)
def test_refusal_repeats_no_part_of_the_input(line: str) -> None:
    # The error text has names of types and commands; a secret is a long word without a hyphen.
    words = [word for word in line.split() if len(word) > 12 and "-" not in word]
    assert not [word for word in words if word[:12] in refusal(line)]


@pytest.mark.parametrize("kind", ssh_keygen.KINDS)
def test_key_of_ssh_keygen_is_accepted_with_its_fingerprint(kind: str, folder: Path) -> None:
    line = ssh_keygen.public_line(ssh_keygen.make_key(folder / kind, kind))
    key = parse_public_key(line)
    assert key.line == " ".join(line.split()[:2])
    assert key.type == line.split()[0]
    assert key.fingerprint == ssh_keygen.fingerprint(line)
    assert key.application == b""


@pytest.mark.parametrize("curve", ["ed25519", "nistp256"])
@pytest.mark.parametrize("application", [b"ssh:", b"ssh:artcafe agents"])
def test_fido_key_is_accepted_with_its_application(curve: str, application: bytes, folder: Path) -> None:
    line = ssh_keygen.FidoKey(curve, application).line
    key = parse_public_key(line)
    assert (key.line, key.application) == (line, application)
    assert key.fingerprint == ssh_keygen.fingerprint(line)


@pytest.mark.parametrize("bits", [2048, 3072, 4096, 8192])
def test_rsa_key_is_accepted_at_every_usual_size(bits: int) -> None:
    assert parse_public_key(rsa_line(65_537, 2 ** (bits - 1) + 1)).type == "ssh-rsa"


@pytest.mark.parametrize("around", ["{} me@host", "{}\n", "  {}\r\n", "{} several words, even ssh-rsa, \t é ", "{}\t-----BEGIN"])
def test_every_form_of_a_line_is_the_same_key(around: str) -> None:
    key = parse_public_key(around.format(GOOD_LINE))
    assert key == parse_public_key(GOOD_LINE.replace(" ", " \t "))
    assert key.line == GOOD_LINE
    assert parse_public_key(key.line) == key


def test_repr_is_short_and_shows_no_key_material() -> None:
    assert repr(parse_public_key(GOOD_LINE)) == "PublicKey(type='ssh-ed25519', application=b'')"


def test_a_real_private_key_and_a_real_certificate_are_refused(folder: Path) -> None:
    authority = ssh_keygen.make_key(folder / "authority")
    ssh_keygen.run("-q", "-s", str(authority), "-I", "name", str(authority) + ".pub")
    assert "certificate" in refusal((folder / "authority-cert.pub").read_text())
    problem = refusal(authority.read_text())
    assert "private key" in problem
    assert "create a new pair" in problem


def test_key_of_small_order_would_accept_a_signature_made_without_a_secret() -> None:
    # The reason for the check: the library accepts this key, and a signature made without any secret.
    forged = SMALL_ORDER["order 1"] + bytes(32)
    ed25519.Ed25519PublicKey.from_public_bytes(SMALL_ORDER["order 1"]).verify(forged, b"any message")
    assert "small order" in refusal(ed25519_line(SMALL_ORDER["order 1"]))


@given(secret=st.binary(min_size=32, max_size=32))
def test_every_ed25519_key_with_a_private_half_is_accepted(secret: bytes) -> None:
    point = ed25519.Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    assert parse_public_key(ed25519_line(point)).line == ed25519_line(point)


@given(y=st.integers(min_value=2, max_value=P - 2), negative=st.booleans())
@example(y=2, negative=False)
@example(y=3, negative=True)
def test_ed25519_point_is_accepted_exactly_if_it_is_on_the_curve(y: int, negative: bool) -> None:
    line = ed25519_line((y | negative << 255).to_bytes(32, "little"))
    assert is_admitted(line) == (x_of(y) is not None)


def test_points_of_small_order_are_those_that_doubling_three_times_makes_neutral() -> None:
    for encoded in SMALL_ORDER.values():
        y = int.from_bytes(encoded, "little") & (2**255 - 1)
        x = x_of(y)
        assert x is not None
        assert double(double(double((x, y)))) == (0, 1)
    assert len(set(SMALL_ORDER.values())) == 8  # The cofactor of the curve: there are no others.


@pytest.mark.parametrize("point", [*SMALL_ORDER.values(), P.to_bytes(32, "little"), (P + 3).to_bytes(32, "little")])
def test_signature_cannot_name_a_point_of_small_order_or_in_another_spelling(point: bytes) -> None:
    with pytest.raises(BadKey):
        read_signing_key(string(b"ssh-ed25519") + string(point))


def x_of(y: int) -> int | None:
    """Return an x with (x, y) on Ed25519, or None: the root by RFC 8032, section 5.1.3 (the package uses another method)."""
    x_squared = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    candidates = (x := pow(x_squared, (P + 3) // 8, P), x * pow(2, (P - 1) // 4, P) % P)
    return next((each for each in candidates if each * each % P == x_squared), None)


def double(point: tuple[int, int]) -> tuple[int, int]:
    """Return the double of a point, by the addition law of RFC 8032, section 5.1.4."""
    x, y = point
    product = D * x * x * y * y
    return 2 * x * y * pow(1 + product, -1, P) % P, (y * y + x * x) * pow(1 - product, -1, P) % P


@settings(max_examples=40)
@given(
    at=st.integers(min_value=0), change=st.integers(min_value=1, max_value=255), which=st.sampled_from(["ed25519", "ecdsa", "sk"])
)
def test_accepted_key_is_a_key_for_ssh_keygen_too(at: int, change: int, which: str, folder: Path) -> None:
    line = {"ed25519": GOOD_LINE, "ecdsa": ecdsa_line(P256), "sk": ssh_keygen.fido_key("ed25519").line}[which]
    kind, text = line.split()
    blob = bytearray(base64.b64decode(text))
    blob[at % len(blob)] ^= change
    changed = f"{kind} {base64.b64encode(blob).decode()}"
    if is_admitted(changed):
        assert parse_public_key(changed).fingerprint == ssh_keygen.fingerprint(changed)


def is_admitted(line: str) -> bool:
    try:
        return isinstance(parse_public_key(line), PublicKey)
    except BadKey:
        return False


@given(line=st.text() | st.builds("ssh-ed25519 {}".format, st.text()) | st.binary().map(lambda blob: as_line("ssh-rsa", blob)))
def test_random_text_is_refused_with_bad_key(line: str) -> None:
    assert not is_admitted(line)


@given(number=st.integers(min_value=1, max_value=2**4096), data=st.binary())
def test_encoded_fields_decode_to_the_same_values(number: int, data: bytes) -> None:
    fields = SshReader(mpint(number) + string(data))
    assert (fields.natural(), fields.string()) == (number, data)
    fields.end()
