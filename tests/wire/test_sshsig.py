"""Signatures of `ssh-keygen -Y sign`, modified signatures, and ssh-keygen's check of signatures made here."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from artcafe.wire import sshsig
from artcafe.wire.ssh_bytes import mpint, string
from artcafe.wire.sshkeys import PublicKey, parse_public_key
from tests import ssh_keygen
from tests.ssh_keygen import FidoKey, fido_key

MESSAGE = "artcafe login to https://example.test für ten_1/agt_1 until 2026-11-22T12:00:00Z".encode()
DATA = sshsig.signed_data(MESSAGE, "artcafe", "sha512")
GROUP_ORDER = 2**252 + 27_742_317_777_372_353_535_851_937_790_883_648_493
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(b"a" * 32)
OTHER = ed25519.Ed25519PrivateKey.from_private_bytes(b"b" * 32)
P256 = ec.derive_private_key(12_345, ec.SECP256R1())


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, 2048)


def public(private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> PublicKey:
    return parse_public_key(private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


@dataclass(frozen=True)
class Envelope:
    """The fields of an SSHSIG, valid until a test replaces one."""

    key: bytes
    signature: bytes
    magic: bytes = b"SSHSIG"
    version: int = 1
    namespace: bytes = b"artcafe"
    reserved: bytes = b""
    hash_name: bytes = b"sha512"
    behind: bytes = b""

    @property
    def blob(self) -> bytes:
        fields = (self.key, self.namespace, self.reserved, self.hash_name, self.signature)
        return self.magic + self.version.to_bytes(4, "big") + b"".join(map(string, fields)) + self.behind

    @property
    def armored(self) -> str:
        return in_armor(base64.b64encode(self.blob).decode())


def in_armor(text: str) -> str:
    return f"-----BEGIN SSH SIGNATURE-----\n{text}\n-----END SSH SIGNATURE-----\n"


def named(algorithm: str, raw: bytes, tail: bytes = b"") -> bytes:
    return string(algorithm.encode()) + string(raw) + tail


def ecdsa(hash_algorithm: HashAlgorithm) -> tuple[int, int]:
    return decode_dss_signature(P256.sign(DATA, ec.ECDSA(hash_algorithm)))


def on_p256(r: int, s: int) -> Envelope:
    return Envelope(public(P256).blob, named("ecdsa-sha2-nistp256", mpint(r) + mpint(s)))


def by_rsa(algorithm: str, raw: bytes) -> Envelope:
    return Envelope(public(rsa_key()).blob, named(algorithm, raw))


def by_rsa_with(algorithm: str, hash_algorithm: HashAlgorithm) -> Envelope:
    return by_rsa(algorithm, rsa_key().sign(DATA, PKCS1v15(), hash_algorithm))


def by_fido(curve: str, signature: bytes) -> Envelope:
    return Envelope(fido(curve).blob, signature)


RAW = ED25519.sign(DATA)
GOOD = Envelope(public(ED25519).blob, named("ssh-ed25519", RAW))
GOOD_TEXT = base64.b64encode(GOOD.blob).decode()
R, S = ecdsa(SHA256())
TOUCHED = b"\1\0\0\0\7"


def sign_as(field_of_data: bytes) -> bytes:
    """Return a real signature of data with one modified field."""
    return named("ssh-ed25519", ED25519.sign(field_of_data))


def data_with(
    namespace: bytes = b"artcafe", reserved: bytes = b"", hash_name: bytes = b"sha512", digest: bytes | None = None
) -> bytes:
    made = hashlib.sha512(MESSAGE).digest() if digest is None else digest
    return b"SSHSIG" + string(namespace) + string(reserved) + string(hash_name) + string(made)


def fido(curve: str) -> PublicKey:
    return parse_public_key(fido_key(curve).line)


# In the first group the signed data is right, so the modified field alone causes the refusal.
BAD_ENVELOPES: dict[str, Envelope] = {
    "another magic": replace(GOOD, magic=b"SSHSIH"),
    "no magic": replace(GOOD, magic=b""),
    "version 0": replace(GOOD, version=0),
    "version 2": replace(GOOD, version=2),
    "version 1 of another byte order": replace(GOOD, version=0x01000000),
    "another key inside": replace(GOOD, key=public(OTHER).blob),
    "no key inside": replace(GOOD, key=b""),
    "the key with more behind": replace(GOOD, key=GOOD.key + b"\0"),
    "another namespace, truly signed": replace(GOOD, namespace=b"git", signature=sign_as(data_with(namespace=b"git"))),
    "another namespace, not signed": replace(GOOD, namespace=b"git"),
    "a namespace with a zero byte": replace(GOOD, namespace=b"artcafe\0", signature=sign_as(data_with(namespace=b"artcafe\0"))),
    "no namespace": replace(GOOD, namespace=b"", signature=sign_as(data_with(namespace=b""))),
    "a reserved field, truly signed": replace(GOOD, reserved=b"x", signature=sign_as(data_with(reserved=b"x"))),
    "a reserved field, not signed": replace(GOOD, reserved=b"x"),
    "SHA-1 of the message": replace(
        GOOD,
        hash_name=b"sha1",
        signature=sign_as(data_with(hash_name=b"sha1", digest=hashlib.sha1(MESSAGE).digest())),  # noqa: S324 - An attack that must fail.
    ),
    "SHA-384 of the message": replace(
        GOOD, hash_name=b"sha384", signature=sign_as(data_with(hash_name=b"sha384", digest=hashlib.sha384(MESSAGE).digest()))
    ),
    "an unknown hash, signed as SHA-512": replace(GOOD, hash_name=b"md5"),
    "a hash in capitals": replace(GOOD, hash_name=b"SHA512", signature=sign_as(data_with(hash_name=b"SHA512"))),
    "no hash": replace(GOOD, hash_name=b"", signature=sign_as(data_with(hash_name=b"", digest=MESSAGE))),
    "the other hash, not signed": replace(GOOD, hash_name=b"sha256"),
    "trailing bytes": replace(GOOD, behind=b"\0"),
    "a second signature behind": replace(GOOD, behind=string(GOOD.signature)),
    "no signature": replace(GOOD, signature=b""),
    "an algorithm alone": replace(GOOD, signature=string(b"ssh-ed25519")),
    "trailing bytes in the signature": replace(GOOD, signature=GOOD.signature + b"\0"),
    "an algorithm beyond ASCII": replace(GOOD, signature=string(b"\xff\xfe") + string(RAW)),
    "another kind's algorithm": replace(GOOD, signature=named("rsa-sha2-512", RAW)),
    "a FIDO algorithm on a plain key": replace(GOOD, signature=named("sk-ssh-ed25519@openssh.com", RAW, TOUCHED)),
    "a flag and a counter on a plain key": replace(GOOD, signature=named("ssh-ed25519", RAW, TOUCHED)),
    "the message signed without its frame": replace(GOOD, signature=sign_as(MESSAGE)),
    "the hash signed without its frame": replace(GOOD, signature=sign_as(hashlib.sha512(MESSAGE).digest())),
    "the other key's signature": replace(GOOD, signature=named("ssh-ed25519", OTHER.sign(DATA))),
    "Ed25519 of 63 bytes": replace(GOOD, signature=named("ssh-ed25519", RAW[:-1])),
    "Ed25519 of 65 bytes": replace(GOOD, signature=named("ssh-ed25519", RAW + b"\0")),
    "Ed25519 with zeros in front": replace(GOOD, signature=named("ssh-ed25519", b"\0" + RAW)),
    "Ed25519 all zero": replace(GOOD, signature=named("ssh-ed25519", bytes(64))),
    "Ed25519 with S + L": replace(
        GOOD,
        signature=named("ssh-ed25519", RAW[:32] + (int.from_bytes(RAW[32:], "little") + GROUP_ORDER).to_bytes(32, "little")),
    ),
    "ECDSA with r = 0": replace(on_p256(R, S), signature=named("ecdsa-sha2-nistp256", string(b"") + mpint(S))),
    "ECDSA with s = 0": replace(on_p256(R, S), signature=named("ecdsa-sha2-nistp256", mpint(R) + string(b"\0"))),
    "ECDSA with r + n": on_p256(R + P256_ORDER, S),
    "ECDSA with s + n": on_p256(R, S + P256_ORDER),
    "ECDSA with r = s = n": on_p256(P256_ORDER, P256_ORDER),
    "ECDSA with r = s = 1": on_p256(1, 1),
    "ECDSA with a huge r": on_p256(1 << 60_000, S),
    "ECDSA with a negative s": replace(
        on_p256(R, S), signature=named("ecdsa-sha2-nistp256", mpint(R) + string(b"\x80" + bytes(31)))
    ),
    "ECDSA with an s that lacks its sign byte": replace(
        on_p256(R, S),
        signature=named("ecdsa-sha2-nistp256", mpint(R) + string(max(S, P256_ORDER - S).to_bytes(32, "big"))),
    ),
    "ECDSA with zeros before r": replace(
        on_p256(R, S), signature=named("ecdsa-sha2-nistp256", string(b"\0" * 40 + R.to_bytes(32, "big")) + mpint(S))
    ),
    "ECDSA swapped": on_p256(S, R),
    "ECDSA with more behind s": replace(on_p256(R, S), signature=named("ecdsa-sha2-nistp256", mpint(R) + mpint(S) + b"\0")),
    "ECDSA in DER": replace(on_p256(R, S), signature=named("ecdsa-sha2-nistp256", P256.sign(DATA, ec.ECDSA(SHA256())))),
    "ECDSA with another hash": on_p256(*ecdsa(SHA512())),
    "ECDSA under another curve's name": replace(
        on_p256(R, S), signature=named("ecdsa-sha2-nistp384", b"".join(map(mpint, ecdsa(SHA384()))))
    ),
    "ECDSA under Ed25519's name": replace(on_p256(R, S), signature=named("ssh-ed25519", mpint(R) + mpint(S))),
}

# Generating an RSA key is slow, so these cases are built when the test runs.
BAD_RSA: dict[str, Callable[[], Envelope]] = {
    "SHA-1": lambda: by_rsa_with("ssh-rsa", SHA1()),  # noqa: S303 - An attack that must fail.
    "SHA-1 under another name": lambda: by_rsa_with("rsa-sha2-256", SHA1()),  # noqa: S303 - As above.
    "SHA-2 under the old name": lambda: by_rsa_with("ssh-rsa", SHA512()),
    "the other hash": lambda: by_rsa_with("rsa-sha2-256", SHA512()),
    "SHA-384": lambda: by_rsa_with("rsa-sha2-384", SHA384()),
    "PSS": lambda: by_rsa("rsa-sha2-512", rsa_key().sign(DATA, PSS(MGF1(SHA512()), PSS.DIGEST_LENGTH), SHA512())),
    "a zero in front": lambda: by_rsa("rsa-sha2-512", b"\0" + rsa_key().sign(DATA, PKCS1v15(), SHA512())),
    "a byte cut off": lambda: by_rsa("rsa-sha2-512", rsa_key().sign(DATA, PKCS1v15(), SHA512())[:-1]),
    "all ones": lambda: by_rsa("rsa-sha2-512", b"\xff" * 256),
    "all zero": lambda: by_rsa("rsa-sha2-512", bytes(256)),
    "the number 1": lambda: by_rsa("rsa-sha2-512", bytes(255) + b"\1"),
    "no bytes": lambda: by_rsa("rsa-sha2-512", b""),
}

# Signatures of a FIDO key of either curve, and modifications of them.
BAD_FIDO: dict[str, Callable[[FidoKey], bytes]] = {
    "without a touch": lambda key: key.sign(MESSAGE, flags=0),
    "with a PIN but no touch": lambda key: key.sign(MESSAGE, flags=4),
    "with the touch put in later": lambda key: key.sign(MESSAGE, flags=0)[:-5] + TOUCHED,
    "with another counter": lambda key: key.sign(MESSAGE)[:-1] + b"\x08",
    "without its counter": lambda key: key.sign(MESSAGE)[:-4],
    "without flag and counter": lambda key: key.sign(MESSAGE)[:-5],
    "with more behind": lambda key: key.sign(MESSAGE) + b"\0",
    "for a web site": lambda key: key.sign(MESSAGE, application=b"https://example.com"),
    "for another application": lambda key: key.sign(MESSAGE, application=b"ssh:other"),
    "for another message": lambda key: key.sign(MESSAGE + b"!"),
    "under the plain kind's name": lambda key: key.sign(MESSAGE).replace(string(key.type.encode()), string(b"ssh-ed25519"), 1),
}

GOOD_ENDS = ("-----BEGIN SSH SIGNATURE-----\n", "\n-----END SSH SIGNATURE-----\n")
BAD_ARMOR = {
    "nothing": "",
    "base64 alone": GOOD_TEXT,
    "no beginning": GOOD.armored.removeprefix(GOOD_ENDS[0]),
    "no end": GOOD.armored.removesuffix(GOOD_ENDS[1]),
    "no lines": GOOD.armored.replace("\n", " "),
    "no base64": in_armor(""),
    "blank lines inside": in_armor(GOOD_TEXT[:70] + "\n\n" + GOOD_TEXT[70:]),
    "spaces inside": in_armor(GOOD_TEXT[:70] + " " + GOOD_TEXT[70:]),
    "text in front": "hello\n" + GOOD.armored,
    "text behind": GOOD.armored + "hello",
    "twice": GOOD.armored * 2,
    "another armor": GOOD.armored.replace("SSH SIGNATURE", "PGP SIGNATURE"),
    "a private key's armor": GOOD.armored.replace("SSH SIGNATURE", "OPENSSH PRIVATE KEY"),
    "a header inside": GOOD.armored.replace("-----\n", "-----\nComment: hi\n", 1),
    "URL base64": in_armor(base64.urlsafe_b64encode(GOOD.blob + b"\xfb\xef\xbe").decode()),
    "padding in the middle": in_armor(GOOD_TEXT[:8] + "====" + GOOD_TEXT[8:]),
    "one character less": in_armor(GOOD_TEXT[:-1]),
    "letters of full width": in_armor("\uff21" + GOOD_TEXT[1:]),
    "a lone surrogate": in_armor("\ud800" + GOOD_TEXT[1:]),
    "a zero character": in_armor(GOOD_TEXT + "\0"),
    "too long by its white space": GOOD.armored + "\n" * 16_384,
    "too long": in_armor("A" * 20_000),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str, bool], None]) -> Path:
    require("ssh-keygen", ssh_keygen.PRESENT)
    return tmp_path_factory.mktemp("signatures")


@pytest.fixture(scope="module", params=ssh_keygen.KINDS)
def key_file(request: pytest.FixtureRequest, folder: Path) -> Path:
    return ssh_keygen.made_key(folder, request.param)


# --- ssh-keygen's signatures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hash_name", ["sha256", "sha512"])
def test_signature_of_ssh_keygen_is_valid_only_for_its_message_key_and_namespace(key_file: Path, hash_name: str) -> None:
    key = parse_public_key(ssh_keygen.public_line(key_file))
    armored = ssh_keygen.sign(key_file, MESSAGE, hash_name=hash_name)
    assert sshsig.verify(armored, MESSAGE, key)
    assert not sshsig.verify(armored, MESSAGE + b"\n", key)
    assert not sshsig.verify(armored, b"", key)
    assert not sshsig.verify(armored, MESSAGE, key, "git")
    assert not sshsig.verify(armored, MESSAGE, public(OTHER))


def test_signature_for_another_purpose_is_refused(key_file: Path) -> None:
    armored = ssh_keygen.sign(key_file, MESSAGE, namespace="file")
    key = parse_public_key(ssh_keygen.public_line(key_file))
    assert not sshsig.verify(armored, MESSAGE, key)
    assert sshsig.verify(armored, MESSAGE, key, "file")


def test_armor_equals_that_of_ssh_keygen(folder: Path) -> None:
    path = ssh_keygen.make_key(folder / "letter")
    armored = ssh_keygen.sign(path, MESSAGE)
    blob = base64.b64decode("".join(armored.splitlines()[1:-1]))
    signature = blob[-(4 + len("ssh-ed25519") + 4 + 64) :]
    key = parse_public_key(ssh_keygen.public_line(path))
    assert sshsig.armor(key.blob, signature, "artcafe", "sha512") == armored


# --- crafted signatures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hash_name", ["sha256", "sha512"])
def test_signature_made_here_is_valid_for_ssh_keygen_and_verify(hash_name: sshsig.HashName, folder: Path) -> None:
    signature = sign_as(sshsig.signed_data(MESSAGE, "artcafe", hash_name))
    armored = sshsig.armor(public(ED25519).blob, signature, "artcafe", hash_name)
    assert sshsig.verify(armored, MESSAGE, public(ED25519))
    assert ssh_keygen.accepts(folder, armored, MESSAGE, public(ED25519).line)


@pytest.mark.parametrize("curve", ["ed25519", "nistp256"])
@pytest.mark.parametrize("flags", [0x01, 0x05, 0x1D])
def test_signature_of_a_touched_fido_key_is_valid_for_ssh_keygen_and_verify(curve: str, flags: int, folder: Path) -> None:
    made = fido_key(curve)
    armored = by_fido(curve, made.sign(MESSAGE, flags=flags, counter=2**32 - 1)).armored
    assert sshsig.verify(armored, MESSAGE, parse_public_key(made.line))
    assert ssh_keygen.accepts(folder, armored, MESSAGE, made.line)


@pytest.mark.parametrize(("algorithm", "hash_algorithm"), [("rsa-sha2-256", SHA256()), ("rsa-sha2-512", SHA512())])
def test_rsa_signature_is_valid_with_sha256_and_sha512(algorithm: str, hash_algorithm: HashAlgorithm, folder: Path) -> None:
    armored = by_rsa_with(algorithm, hash_algorithm).armored
    assert sshsig.verify(armored, MESSAGE, public(rsa_key()))
    assert ssh_keygen.accepts(folder, armored, MESSAGE, public(rsa_key()).line)


def test_rsa_signature_is_valid_without_its_leading_zeros(folder: Path) -> None:
    # gpg-agent 2.2 omits them. RFC 8332, section 3, allows a verifier to add them, as OpenSSH does.
    message = next(text for number in count() if (text := b"%d" % number) and rsa_signature(text)[0] == 0)
    short = by_rsa("rsa-sha2-512", rsa_signature(message).lstrip(b"\0"))
    assert len(rsa_signature(message).lstrip(b"\0")) < 256
    assert sshsig.verify(short.armored, message, public(rsa_key()))
    assert sshsig.signer(short.armored, message) == public(rsa_key())
    assert ssh_keygen.accepts(folder, short.armored, message, public(rsa_key()).line)
    assert not sshsig.verify(short.armored, message + b"!", public(rsa_key()))
    whole = sshsig.whole_signature(short.signature, public(rsa_key()))
    assert whole == by_rsa("rsa-sha2-512", rsa_signature(message)).signature
    assert sshsig.whole_signature(whole, public(rsa_key())) == whole
    assert sshsig.whole_signature(GOOD.signature, public(ED25519)) == GOOD.signature


def rsa_signature(message: bytes) -> bytes:
    return rsa_key().sign(sshsig.signed_data(message, "artcafe", "sha512"), PKCS1v15(), SHA512())


def test_unmodified_crafted_signatures_are_valid() -> None:
    # Otherwise the cases of the tables below could be refused for another reason than theirs.
    assert sshsig.verify(GOOD.armored, MESSAGE, public(ED25519))
    assert sshsig.verify(on_p256(R, S).armored, MESSAGE, public(P256))
    assert sshsig.verify(in_armor(GOOD_TEXT[:70] + "\n" + GOOD_TEXT[70:]), MESSAGE, public(ED25519))


@pytest.mark.parametrize("envelope", BAD_ENVELOPES.values(), ids=BAD_ENVELOPES)
def test_modified_envelope_is_refused(envelope: Envelope) -> None:
    key = public(P256) if envelope.key == public(P256).blob else public(ED25519)
    assert not sshsig.verify(envelope.armored, MESSAGE, key)


@pytest.mark.parametrize("spoiled", BAD_RSA.values(), ids=BAD_RSA)
def test_modified_rsa_signature_is_refused(spoiled: Callable[[], Envelope]) -> None:
    assert not sshsig.verify(spoiled().armored, MESSAGE, public(rsa_key()))


@pytest.mark.parametrize("curve", ["ed25519", "nistp256"])
@pytest.mark.parametrize("spoiled", BAD_FIDO.values(), ids=BAD_FIDO)
def test_modified_fido_signature_is_refused(spoiled: Callable[[FidoKey], bytes], curve: str) -> None:
    assert not sshsig.verify(by_fido(curve, spoiled(fido_key(curve))).armored, MESSAGE, fido(curve))


@pytest.mark.parametrize("armored", BAD_ARMOR.values(), ids=BAD_ARMOR)
def test_modified_armor_is_refused(armored: str) -> None:
    assert not sshsig.verify(armored, MESSAGE, public(ED25519))


def test_fido_key_and_plain_key_with_the_same_point_do_not_replace_each_other() -> None:
    plain = public(ED25519)
    point = ED25519.public_key().public_bytes_raw()
    fido_of_it = parse_public_key(ssh_keygen.as_line("sk-ssh-ed25519@openssh.com", string(point), string(b"ssh:")))
    assert not sshsig.verify(replace(GOOD, key=fido_of_it.blob).armored, MESSAGE, fido_of_it)
    as_fido = named("sk-ssh-ed25519@openssh.com", RAW, TOUCHED)
    assert not sshsig.verify(replace(GOOD, key=fido_of_it.blob, signature=as_fido).armored, MESSAGE, fido_of_it)
    assert not sshsig.verify(replace(GOOD, signature=as_fido).armored, MESSAGE, plain)


def test_ecdsa_signature_has_a_second_valid_form_so_it_cannot_be_an_id() -> None:
    assert sshsig.verify(on_p256(R, P256_ORDER - S).armored, MESSAGE, public(P256))


@pytest.mark.parametrize("change", [str.strip, lambda text: text.replace("\n", "\r\n"), lambda text: f"\n {text}\t\n"])
def test_white_space_around_the_armor_is_accepted(change: Callable[[str], str]) -> None:
    assert sshsig.verify(change(GOOD.armored), MESSAGE, public(ED25519))


# --- whatever comes --------------------------------------------------------------------------------------------------


@given(
    at=st.integers(min_value=0),
    change=st.integers(min_value=1, max_value=255),
    curve=st.sampled_from(["plain", "p256", "ed25519", "nistp256"]),
)
def test_no_byte_of_a_signature_may_change(at: int, change: int, curve: str) -> None:
    envelope, key = crafted(curve)
    blob = bytearray(envelope.blob)
    blob[at % len(blob)] ^= change
    assert not sshsig.verify(in_armor(base64.b64encode(blob).decode()), MESSAGE, key)


@cache
def crafted(curve: str) -> tuple[Envelope, PublicKey]:
    """One valid signature of each kind, the same for every example."""
    if curve == "plain":
        return GOOD, public(ED25519)
    if curve == "p256":
        return on_p256(R, S), public(P256)
    return by_fido(curve, fido_key(curve).sign(MESSAGE)), fido(curve)


@given(at=st.integers(min_value=0), character=st.characters())
def test_no_character_of_the_armored_text_may_change(at: int, character: str) -> None:
    text = GOOD.armored.strip()
    at %= len(text)
    changed = text[:at] + character + text[at + 1 :]
    assert sshsig.verify(changed, MESSAGE, public(ED25519)) == (changed == text)


@given(size=st.integers(min_value=0, max_value=len(GOOD.blob) - 1))
def test_part_of_a_signature_is_refused(size: int) -> None:
    assert not sshsig.verify(in_armor(base64.b64encode(GOOD.blob[:size]).decode()), MESSAGE, public(ED25519))


@given(text=st.text() | st.text().map(in_armor), message=st.binary())
def test_random_text_is_not_a_signature(text: str, message: bytes) -> None:
    assert not sshsig.verify(text, message, public(ED25519))


@given(signature=st.binary(max_size=200) | st.binary(max_size=200).map(lambda raw: named("ecdsa-sha2-nistp256", raw)))
def test_random_bytes_in_a_good_envelope_are_not_a_signature(signature: bytes) -> None:
    assert not sshsig.verify(replace(on_p256(R, S), signature=signature).armored, MESSAGE, public(P256))


@given(r=st.integers(min_value=1, max_value=2**600), s=st.integers(min_value=1, max_value=2**600))
def test_random_numbers_are_not_an_ecdsa_signature(r: int, s: int) -> None:
    assert not sshsig.verify(on_p256(r, s).armored, MESSAGE, public(P256))


@given(
    message=st.binary(), namespace=st.text(alphabet="abcdefghij-@.", min_size=1), hash_name=st.sampled_from(["sha256", "sha512"])
)
def test_armored_signature_is_valid(message: bytes, namespace: str, hash_name: sshsig.HashName) -> None:
    signature = sign_as(sshsig.signed_data(message, namespace, hash_name))
    armored = sshsig.armor(public(ED25519).blob, signature, namespace, hash_name)
    assert sshsig.verify(armored, message, public(ED25519), namespace)
    assert not sshsig.verify(armored, message, public(ED25519), namespace + "x")


@given(point=st.binary(min_size=32, max_size=32), raw=st.binary(min_size=64, max_size=64))
def test_signature_by_a_key_off_the_curve_is_refused(point: bytes, raw: bytes) -> None:
    # About half of the points are off the curve. The library refuses them when it verifies, not when it loads the key.
    envelope = Envelope(string(b"ssh-ed25519") + string(point), named("ssh-ed25519", raw))
    assert sshsig.signer(envelope.armored, MESSAGE) is None
