"""Signers of agents, with key files of the real ssh-keygen and a real ssh-agent."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from artcafe.errors import KeyLocked, KeyUnusable
from artcafe.sdk.keys import SshAgentSigner, agent_signer, load_signer
from artcafe.sdk.ssh_agent_connection import OPENSSH_PIPE, address
from artcafe.wire import sshsig
from artcafe.wire.ssh_bytes import string
from artcafe.wire.sshkeys import parse_public_key
from tests import ssh_keygen

CHALLENGE = "artcafe login, für agt_1"
FORMS = ["RFC4716", "PEM", "PKCS8"]
PASSPHRASE = "correct horse"

Answer = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str, bool], None]) -> Path:
    require("ssh-keygen", ssh_keygen.PRESENT)
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module", params=ssh_keygen.KINDS)
def key_file(request: pytest.FixtureRequest, folder: Path) -> Path:
    return ssh_keygen.made_key(folder, request.param)


@pytest.fixture(scope="module")
def plain_key(folder: Path) -> Path:
    return ssh_keygen.make_key(folder / "plain")


def add_to_agent(path: Path) -> None:
    subprocess.run(("ssh-add", "-q", str(path)), check=True, timeout=5)


async def refusal(signing: Awaitable[str]) -> str:
    with pytest.raises(KeyUnusable) as caught:
        await signing
    return str(caught.value)


def load_refusal(path: Path | str, passphrase: str | None = None) -> str:
    with pytest.raises(KeyUnusable) as caught:
        load_signer(path, passphrase)
    return str(caught.value)


# --- key files -------------------------------------------------------------------------------------------------------


async def test_signature_of_a_key_file_is_valid_for_ssh_keygen_and_the_server(key_file: Path, folder: Path) -> None:
    signer = load_signer(key_file)
    armored = await signer.sign(CHALLENGE)
    assert signer.public_key == " ".join(ssh_keygen.public_line(key_file).split()[:2])
    assert sshsig.verify(armored, CHALLENGE.encode(), parse_public_key(signer.public_key))
    assert ssh_keygen.accepts(folder, armored, CHALLENGE.encode(), signer.public_key)
    assert not ssh_keygen.accepts(folder, armored, b"another challenge", signer.public_key)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["ecdsa-256", "rsa-2048"])
async def test_every_file_format_of_ssh_keygen_is_loaded(form: str, kind: str, folder: Path) -> None:
    path = ssh_keygen.make_key(folder / f"{kind}-{form}", kind, form=form)
    signer = load_signer(str(path))
    assert sshsig.verify(await signer.sign(CHALLENGE), CHALLENGE.encode(), parse_public_key(signer.public_key))


@pytest.mark.parametrize(
    ("form", "kind"), [("RFC4716", "ed25519"), ("RFC4716", "rsa-2048"), ("PEM", "rsa-2048"), ("PKCS8", "rsa-2048")]
)
async def test_passphrase_decrypts_its_file(form: str, kind: str, folder: Path) -> None:
    path = ssh_keygen.make_key(folder / f"locked-{form}-{kind}", kind, PASSPHRASE, form)
    signer = load_signer(path, PASSPHRASE)
    assert sshsig.verify(await signer.sign(CHALLENGE), CHALLENGE.encode(), parse_public_key(signer.public_key))
    assert "passphrase is wrong" in load_refusal(path, "wrong")
    with pytest.raises(KeyLocked, match="ssh-add it"):
        load_signer(path)


def test_superfluous_passphrase_is_refused(plain_key: Path) -> None:
    assert "has no passphrase" in load_refusal(plain_key, PASSPHRASE)
    assert load_signer(plain_key, "").public_key in ssh_keygen.public_line(plain_key)


def test_tilde_in_a_path_is_expanded(plain_key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(plain_key.parent))
    assert load_signer("~/plain").public_key in ssh_keygen.public_line(plain_key)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "contains no private key, and no accepted public key: it is empty"),
        (b"hello", "contains no private key, and no accepted public key: its type is not one of"),
        (b"\xff\xfe\x00", "contains no SSH key"),
        (b"x" * 65_537, "too large"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", "is damaged"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "is damaged"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is damaged"),
        (b"ssh-rsa AAAAB3NzaC1yc2E=", "it ends too early"),
    ],
)
def test_file_without_a_key_is_refused_with_its_problem(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    assert str(path) in load_refusal(path)
    assert problem in load_refusal(path)


def test_missing_file_is_refused_with_its_path(tmp_path: Path) -> None:
    assert "No such file" in load_refusal(tmp_path / "absent")
    assert "Is a directory" in load_refusal(tmp_path)
    assert "null" in load_refusal("key\0")


def test_text_of_a_private_key_instead_of_a_path_is_not_repeated(plain_key: Path, ssh_agent: Path) -> None:
    text = plain_key.read_text()
    for load in (load_signer, agent_signer):
        with pytest.raises(KeyUnusable) as caught:
            load(text)
        assert text.splitlines()[1][:12] not in str(caught.value)


def test_key_that_cannot_be_registered_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short"
    private = rsa.generate_private_key(65_537, 1024)  # noqa: S505 - This key must be refused.
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    assert "RSA of 1024 bits" in load_refusal(path)


@pytest.mark.parametrize("curve", ["Ed448", "X25519", "secp256k1"])
def test_key_kind_unknown_to_ssh_is_refused(curve: str, tmp_path: Path) -> None:
    path = tmp_path / curve
    options = ("-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}") if curve == "secp256k1" else ("-algorithm", curve)
    subprocess.run(("openssl", "genpkey", *options, "-out", str(path)), check=True, timeout=5, capture_output=True)
    assert "unknown to SSH" in load_refusal(path) or "not a key of Ed25519, ECDSA or RSA" in load_refusal(path)


def test_key_file_of_a_hardware_token_points_to_ssh_agent(tmp_path: Path) -> None:
    # The file of ssh-keygen -t ed25519-sk: a public part with that type, and a handle as the private part.
    public = string(b"sk-ssh-ed25519@openssh.com") + string(ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    blob = (
        b"openssh-key-v1\0"
        + string(b"none") * 2
        + string(b"")
        + b"\0\0\0\1"
        + string(public + string(b"ssh:"))
        + string(bytes(8))
    )
    path = tmp_path / "token"
    path.write_bytes(armored_private(blob))
    assert "ssh-agent" in load_refusal(path)


def armored_private(blob: bytes) -> bytes:
    return b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + base64.encodebytes(blob) + b"-----END OPENSSH PRIVATE KEY-----\n"


def test_repr_shows_no_secret(key_file: Path) -> None:
    assert "private" not in repr(load_signer(key_file)).lower()


# --- ssh-agent ---------------------------------------------------------------------------------------------------------


async def test_ssh_agent_signs_for_a_pub_file(key_file: Path, folder: Path, ssh_agent: Path) -> None:
    add_to_agent(key_file)
    signer = load_signer(f"{key_file}.pub")
    armored = await signer.sign(CHALLENGE)
    assert sshsig.verify(armored, CHALLENGE.encode(), parse_public_key(signer.public_key))
    assert ssh_keygen.accepts(folder, armored, CHALLENGE.encode(), signer.public_key)


async def test_ssh_agent_signs_for_a_public_key_line_with_the_matching_key(
    folder: Path, plain_key: Path, ssh_agent: Path
) -> None:
    add_to_agent(ssh_keygen.make_key(folder / "first"))
    add_to_agent(plain_key)
    for named in (ssh_keygen.public_line(plain_key), plain_key.with_name("plain.pub"), str(plain_key) + ".pub"):
        signer = agent_signer(named)
        assert sshsig.verify(await signer.sign(CHALLENGE), CHALLENGE.encode(), parse_public_key(signer.public_key))


async def test_ssh_agent_may_receive_the_key_later(plain_key: Path, ssh_agent: Path) -> None:
    signer = agent_signer(ssh_keygen.public_line(plain_key))
    problem = await refusal(signer.sign(CHALLENGE))
    assert "does not hold SHA256:" in problem
    assert "ssh-add" in problem
    add_to_agent(plain_key)
    assert "SSH SIGNATURE" in await signer.sign(CHALLENGE)


async def test_locked_ssh_agent_holds_no_key(plain_key: Path, ssh_agent: Path) -> None:
    add_to_agent(plain_key)
    # SSH_AGENTC_LOCK; ssh-add -x would prompt on a terminal.
    reader, writer = await asyncio.open_unix_connection(ssh_agent)
    writer.write(string(bytes([22]) + string(b"locked")))
    assert await reader.readexactly(5) == b"\0\0\0\1\6"
    writer.close()
    assert "locked" in await refusal(agent_signer(ssh_keygen.public_line(plain_key)).sign(CHALLENGE))


async def test_missing_confirmation_is_a_refusal(plain_key: Path, ssh_agent: Path) -> None:
    subprocess.run(("ssh-add", "-q", "-c", str(plain_key)), check=True, timeout=5)
    assert "refused to sign" in await refusal(agent_signer(ssh_keygen.public_line(plain_key)).sign(CHALLENGE))


def test_ssh_agent_needs_its_variable(plain_key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert "SSH_AUTH_SOCK is not set" in load_refusal(f"{plain_key}.pub")


async def test_missing_ssh_agent_is_refused_with_its_path(
    plain_key: Path, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(short_folder / "gone"))
    problem = await refusal(load_signer(f"{plain_key}.pub").sign(CHALLENGE))
    assert str(short_folder / "gone") in problem


@pytest.mark.parametrize(
    ("platform", "named", "expected"),
    [
        ("linux", "/run/agent", "/run/agent"),
        ("darwin", "", None),
        ("win32", None, r"\\.\pipe\openssh-ssh-agent"),
        ("win32", r"\\.\pipe\gpg-agent", r"\\.\pipe\gpg-agent"),
        ("win32", "//./pipe/gpg-agent", "//./pipe/gpg-agent"),
    ],
)
def test_ssh_agent_is_a_unix_socket_or_on_windows_a_named_pipe(platform: str, named: str | None, expected: str | None) -> None:
    assert address(platform, {} if named is None else {"SSH_AUTH_SOCK": named}) == expected


def test_unix_socket_on_windows_is_refused_with_the_alternatives() -> None:
    with pytest.raises(KeyUnusable, match=r"unset it, to use the service ssh-agent at .*, or name the private key file"):
        address("win32", {"SSH_AUTH_SOCK": "/tmp/ssh-XX/agent.1"})


class LoopWithPipes(asyncio.SelectorEventLoop):
    """A loop with the method for named pipes of asyncio's loop for Windows, which opens a Unix socket here."""

    def __init__(self, socket: Path) -> None:
        super().__init__()
        self._socket = socket

    async def create_pipe_connection(self, make: Callable[[], asyncio.Protocol], at: str) -> tuple[asyncio.Transport, object]:
        """Connect to the socket."""
        assert at == OPENSSH_PIPE
        return await self.create_unix_connection(make, str(self._socket))


def test_ssh_agent_at_a_named_pipe_signs(plain_key: Path, ssh_agent: Path, short_folder: Path) -> None:
    add_to_agent(plain_key)
    key = parse_public_key(ssh_keygen.public_line(plain_key))
    signer = SshAgentSigner(key, OPENSSH_PIPE, 30)
    with asyncio.Runner(loop_factory=lambda: LoopWithPipes(ssh_agent)) as runner:
        assert sshsig.verify(runner.run(signer.sign(CHALLENGE)), CHALLENGE.encode(), key)
    with asyncio.Runner(loop_factory=lambda: LoopWithPipes(short_folder / "gone")) as runner:
        assert "Start-Service ssh-agent" in runner.run(refusal(signer.sign(CHALLENGE)))
    with asyncio.Runner() as runner:
        assert "opens no named pipe" in runner.run(refusal(signer.sign(CHALLENGE)))


def test_public_key_that_cannot_be_registered_needs_no_ssh_agent() -> None:
    with pytest.raises(KeyUnusable, match="it ends too early"):
        agent_signer("ssh-rsa AAAAB3NzaC1yc2E=")


# --- an ssh-agent that is none -----------------------------------------------------------------------------------------


@asynccontextmanager
async def stand_in(path: Path, answer: Answer) -> AsyncIterator[None]:
    """Run a server at the ssh-agent's socket that answers each request with `answer`, and closes after incomplete bytes."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while size := await reader.read(4):
                reply = answer(await reader.readexactly(int.from_bytes(size, "big")))
                writer.write(reply)
                if len(reply) < 4:
                    return
        finally:
            writer.close()

    async with await asyncio.start_unix_server(converse, path):
        yield


def listing(*blobs: bytes) -> bytes:
    return string(bytes([12]) + len(blobs).to_bytes(4, "big") + b"".join(string(blob) + string(b"comment") for blob in blobs))


PRIVATE = ed25519.Ed25519PrivateKey.from_private_bytes(b"a" * 32)
LINE = PRIVATE.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
BLOB = parse_public_key(LINE).blob


def then(reply: bytes) -> Answer:
    """Return an `answer` that lists the key first, and then gives this response."""
    return lambda request: listing(BLOB) if request[0] == 11 else reply


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda _: b"", "no valid answer from ssh-agent"),
        (lambda _: b"\0\0", "no valid answer from ssh-agent"),
        (lambda _: string(b""), "no valid answer from ssh-agent"),
        (lambda _: b"\xff\xff\xff\xff", "its answer is too long"),
        (lambda _: b"HTTP/1.1 400 Bad Request\r\n", "its answer is too long"),
        (lambda _: string(bytes([5])), "does not list its keys"),
        (lambda _: string(bytes([12, 0, 0, 0, 9])), "it ends too early"),
        (lambda _: string(bytes([12]) + b"\xff" * 8), "it ends too early"),
        (lambda _: listing(), "does not hold SHA256:"),
        (lambda _: listing(BLOB + b"x"), "does not hold SHA256:"),
        (then(string(bytes([5]))), "refused to sign"),
        (then(string(bytes([14]))), "it ends too early"),
        (then(string(bytes([14]) + string(b""))), "invalid signature"),
        (then(string(bytes([14]) + string(string(b"ssh-ed25519") + string(bytes(64))))), "invalid signature"),
    ],
)
async def test_invalid_response_of_ssh_agent_is_refused(
    answer: Answer, problem: str, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(short_folder / "agent"))
    async with stand_in(short_folder / "agent", answer):
        assert problem in await refusal(agent_signer(LINE, timeout_s=4).sign(CHALLENGE))


@pytest.mark.parametrize(("mode", "is_warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_private_key_readable_by_others_is_logged_as_a_warning(
    tmp_path: Path, mode: int, is_warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    key = ssh_keygen.make_key(tmp_path / "key")
    key.chmod(mode)
    load_signer(key)
    assert [f"mode {mode:04o}): chmod 600 {key}" in each for each in caplog.messages] == [True] * is_warned


async def test_rsa_signature_of_ssh_agent_with_sha1_is_refused_before_sending(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = rsa.generate_private_key(65_537, 2048)
    key = parse_public_key(private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())
    data = sshsig.signed_data(CHALLENGE.encode(), "artcafe", "sha512")
    raw = private.sign(data, padding.PKCS1v15(), SHA1())  # noqa: S303 - It must be caught.
    signature = string(string(b"ssh-rsa") + string(raw))
    asked: list[bytes] = []

    def answer(request: bytes) -> bytes:
        asked.append(request)
        return listing(key.blob) if len(asked) == 1 else string(bytes([14]) + signature)

    monkeypatch.setenv("SSH_AUTH_SOCK", str(short_folder / "agent"))
    async with stand_in(short_folder / "agent", answer):
        assert "SHA-1" in await refusal(agent_signer(key.line, timeout_s=4).sign(CHALLENGE))
    assert asked[1] == bytes([13]) + string(key.blob) + string(data) + (4).to_bytes(4, "big")


async def test_untouched_hardware_token_times_out(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hung_up = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(-1)
            hung_up.set()
        finally:
            writer.close()

    monkeypatch.setenv("SSH_AUTH_SOCK", str(short_folder / "agent"))
    async with await asyncio.start_unix_server(hold, short_folder / "agent"):
        assert "did not sign within 0.05 s; does a token wait" in await refusal(agent_signer(LINE, 0.05).sign(CHALLENGE))
        async with asyncio.timeout(20):
            await hung_up.wait()


async def test_rsa_signature_of_ssh_agent_without_leading_zeros_is_padded(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gpg-agent 2.2 does so in 1 of 256 signatures. The sent signature has them, for servers that require the full length."""
    private = rsa.generate_private_key(65_537, 2048)
    key = parse_public_key(private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())

    def raw(challenge: str) -> bytes:
        return private.sign(sshsig.signed_data(challenge.encode(), "artcafe", "sha512"), padding.PKCS1v15(), SHA512())

    challenge = next(text for number in count() if raw(text := f"login {number}")[0] == 0)
    short = string(string(b"rsa-sha2-512") + string(raw(challenge).lstrip(b"\0")))

    def answer(request: bytes) -> bytes:
        return listing(key.blob) if request[0] == 11 else string(bytes([14]) + short)

    monkeypatch.setenv("SSH_AUTH_SOCK", str(short_folder / "agent"))
    async with stand_in(short_folder / "agent", answer):
        armored = await agent_signer(key.line, timeout_s=4).sign(challenge)
    whole = string(b"rsa-sha2-512") + string(raw(challenge))
    assert armored == sshsig.armor(key.blob, whole, "artcafe", "sha512")
