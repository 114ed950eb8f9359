"""Every crafted key and signature, checked by this package and by ssh-keygen.

The package accepts only keys and signatures accepted by ssh-keygen. Its stricter refusals are listed here with their reasons.
A newer ssh-keygen may refuse more of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA512

from artcafe.wire.ssh_bytes import mpint, string
from artcafe.wire.sshkeys import PublicKey
from artcafe.wire.sshsig import signer, verify
from tests import ssh_keygen
from tests.wire import test_sshkeys, test_sshsig
from tests.wire.test_sshsig import MESSAGE

WEAK: Final = "too weak, or anybody could sign for it"
SPELLING: Final = "a key, or a number in it, would have two spellings, and be another agent's too"
UNCHECKED: Final = "ssh-keygen -l does not look at the point"
ONE_LINE: Final = "a registration is one line with one key, nothing before it"
KIND: Final = "a kind of key that no agent may have"
SITE: Final = "a FIDO key of something else than SSH"
PRESENCE: Final = "nobody touched it; ssh-keygen asks for that only where allowed_signers does"
FORMAT: Final = "the format has no such thing, or keeps it for later"
MALLEABLE: Final = "another text for the same signature"

STRICTER_KEYS: Final[Mapping[str, str]] = {
    "no end": ONE_LINE,
    "options": ONE_LINE,
    "options with spaces": ONE_LINE,
    "a known_hosts line": ONE_LINE,
    "two lines": ONE_LINE,
    "two lines of another system": ONE_LINE,
    "DSA": KIND,
    "an algorithm that is no key": KIND,
    "a real certificate": KIND,
    "RSA of 1024 bits": WEAK,
    "RSA of 2047 bits": WEAK,
    "RSA of 8193 bits": "each login would cost us milliseconds that the caller does not pay",
    "RSA with exponent 1": WEAK,
    "RSA with exponent 3": WEAK,
    "RSA with exponent 35": WEAK,
    "RSA with an even exponent": WEAK,
    "RSA with a long exponent": "as above 8192 bits",
    "RSA with a longer exponent": "as above 8192 bits",
    "RSA with an even modulus": WEAK,
    "RSA with zeros in front": SPELLING,
    "FIDO for a web site": SITE,
    "FIDO for nothing": SITE,
    "FIDO with a zero byte": SITE,
    "FIDO of small order": WEAK,
    **{f"Ed25519 of {name}": WEAK for name in test_sshkeys.SMALL_ORDER},
    "Ed25519 where y is p": SPELLING,
    "Ed25519 where y is p + 1": SPELLING,
    "Ed25519 where y is p + 3, a point of full order else": SPELLING,
    "Ed25519 where y is 2^255 - 1": SPELLING,
    "Ed25519 where y is 2^255 - 1, negative": SPELLING,
    "Ed25519 where x is 0, negative": SPELLING,
    "Ed25519 where x is 0 and y is -1, negative": SPELLING,
    "Ed25519 where not on the curve": UNCHECKED,
}

STRICTER_SIGNATURES: Final[Mapping[str, str]] = {
    "version 0": FORMAT,
    "a reserved field, not signed": FORMAT,
    "Ed25519 with S + L": MALLEABLE,
    "ECDSA with zeros before r": MALLEABLE,
    "ed25519 without a touch": PRESENCE,
    "ed25519 with a PIN but no touch": PRESENCE,
    "nistp256 without a touch": PRESENCE,
    "nistp256 with a PIN but no touch": PRESENCE,
    "armor: blank lines inside": MALLEABLE,
    "armor: spaces inside": MALLEABLE,
    "armor: text behind": MALLEABLE,
    "armor: twice": MALLEABLE,
    "armor: a zero character": MALLEABLE,
    "armor: too long by its white space": "nobody may send us any length",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str, bool], None]) -> Path:
    require("ssh-keygen", ssh_keygen.PRESENT)
    return tmp_path_factory.mktemp("beside")


def key_lines(folder: Path) -> Iterator[tuple[str, str]]:
    """Return every crafted key, and valid ones of each kind."""
    for name, (line, _) in test_sshkeys.BAD.items():
        yield name, line
    authority = ssh_keygen.make_key(folder / "authority")
    ssh_keygen.run("-q", "-s", str(authority), "-I", "name", str(authority) + ".pub")
    yield "a real certificate", (folder / "authority-cert.pub").read_text()
    for kind in ssh_keygen.KINDS:
        yield f"a good {kind}", ssh_keygen.public_line(ssh_keygen.make_key(folder / kind, kind))
    for curve in ("ed25519", "nistp256"):
        yield f"a good FIDO {curve}", ssh_keygen.fido_key(curve).line


def signatures() -> Iterator[tuple[str, str, PublicKey]]:
    """Return every crafted signature with its claimed key, and valid ones."""
    plain, on_p256 = test_sshsig.public(test_sshsig.ED25519), test_sshsig.public(test_sshsig.P256)
    by_rsa = test_sshsig.public(test_sshsig.rsa_key())
    for name, envelope in test_sshsig.BAD_ENVELOPES.items():
        yield name, envelope.armored, on_p256 if envelope.key == on_p256.blob else plain
    for name, spoiled in test_sshsig.BAD_RSA.items():
        yield f"RSA: {name}", spoiled().armored, by_rsa
    for curve in ("ed25519", "nistp256"):
        key = ssh_keygen.fido_key(curve)
        for name, made in test_sshsig.BAD_FIDO.items():
            yield f"{curve} {name}", test_sshsig.by_fido(curve, made(key)).armored, test_sshsig.fido(curve)
        yield f"a good {curve}", test_sshsig.by_fido(curve, key.sign(MESSAGE)).armored, test_sshsig.fido(curve)
    for name, armored in test_sshsig.BAD_ARMOR.items():
        if name != "a lone surrogate":  # Such text cannot be written to a file.
            yield f"armor: {name}", armored, plain
    yield "a good Ed25519", test_sshsig.GOOD.armored, plain
    yield "a good ECDSA", test_sshsig.on_p256(test_sshsig.R, test_sshsig.S).armored, on_p256
    yield "a good RSA", test_sshsig.by_rsa_with("rsa-sha2-512", SHA512()).armored, by_rsa


def check(ours: Mapping[str, bool], theirs: Mapping[str, bool], stricter: Mapping[str, str]) -> None:
    """Compare the results, and require that both accept every valid case."""
    assert {name for name in ours if ours[name] and not theirs[name]} == set(), "we take what ssh-keygen refuses"
    assert {name for name in ours if theirs[name] and not ours[name]} <= set(stricter), "we are stricter than we say"
    assert set(stricter) <= set(ours), "the list names what is not tried"
    assert {name for name in ours if ours[name]} == {name for name in ours if name.startswith("a good ")}


def test_keys_refused_by_ssh_keygen_are_refused_and_stricter_refusals_are_listed(folder: Path) -> None:
    lines = dict(key_lines(folder))
    ours = {name: test_sshkeys.is_admitted(line) for name, line in lines.items()}
    theirs = {name: ssh_keygen.fingerprint(line.strip()) is not None for name, line in lines.items()}
    assert len(lines) >= 90
    check(ours, theirs, STRICTER_KEYS)


def test_signatures_refused_by_ssh_keygen_are_refused_and_stricter_refusals_are_listed(folder: Path) -> None:
    tried = list(signatures())
    ours = {name: verify(armored, MESSAGE, key) for name, armored, key in tried}
    theirs = {name: ssh_keygen.accepts(folder, armored, MESSAGE, key.line) for name, armored, key in tried}
    assert len(ours) == len(tried) >= 100
    check(ours, theirs, STRICTER_SIGNATURES)


def test_signer_returns_the_key_exactly_if_verify_accepts_the_signature() -> None:
    for name, armored, key in signatures():
        found = signer(armored, MESSAGE)
        assert (found == key) is verify(armored, MESSAGE, key), name


def test_signer_returns_none_for_a_key_that_cannot_be_registered() -> None:
    # A forged signature valid under a point of small order, and a real signature by RSA of 1,024 bits.
    forged = test_sshsig.Envelope(
        string(b"ssh-ed25519") + string(test_sshkeys.SMALL_ORDER["order 1"]),
        test_sshsig.named("ssh-ed25519", test_sshkeys.SMALL_ORDER["order 1"] + bytes(32)),
    )
    assert signer(forged.armored, MESSAGE) is None
    weak = rsa.generate_private_key(65_537, 1024)  # noqa: S505 (this key must be refused)
    blob = mpint(65_537) + mpint(weak.public_key().public_numbers().n)
    raw = weak.sign(test_sshsig.DATA, PKCS1v15(), SHA512())
    signed = test_sshsig.Envelope(string(b"ssh-rsa") + blob, test_sshsig.named("rsa-sha2-512", raw))
    assert signer(signed.armored, MESSAGE) is None
