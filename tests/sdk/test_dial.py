"""Opening and losing connections, with real sockets and servers of another kind or with faults."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from websockets.asyncio.server import ServerConnection, serve

from artcafe.errors import (
    ArtcafeError,
    BadCredentials,
    BadFrame,
    ChallengeRefused,
    Invalid,
    KeyUnusable,
    OutcomeUnknown,
    Revoked,
    SignatureInvalid,
    Unavailable,
)
from artcafe.sdk import dial
from artcafe.sdk.keys import Signer, load_signer
from artcafe.sdk.messages import Gap, Message
from tests import ssh_keygen
from tests.sdk.scripted import CHANNEL, agent_at, gateway, hear, let_in, message, pose, say


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str, bool], None]) -> Signer:
    require("ssh-keygen", ssh_keygen.PRESENT)
    return load_signer(ssh_keygen.make_key(tmp_path_factory.mktemp("dial") / "key"))


@asynccontextmanager
async def answering(answer: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run a TCP server that reads a request and sends these bytes; yield its port."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def failure(url: str | list[str], key: Signer) -> ArtcafeError:
    """Return the error of entering an agent."""
    with pytest.raises(ArtcafeError) as caught:
        async with asyncio.timeout(20), agent_at(url, key):
            pytest.fail("the login must be refused")
    return caught.value


# --- who answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "problem"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Invalid, "not an ArtCafe gateway: it answered HTTP 404"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", Unavailable, "it answered HTTP 503"),
        (b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", Unavailable, "it answered HTTP 429"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Invalid, "not an ArtCafe gateway: it answered HTTP 200"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", Invalid, "no WebSocket opens"),
        (b"", Unavailable, "cannot be reached now"),
    ],
)
async def test_response_of_another_server_is_reported(answer: bytes, kind: type, problem: str, signer: Signer) -> None:
    async with answering(answer) as port:
        found = await failure(f"ws://127.0.0.1:{port}", signer)
    assert isinstance(found, kind)
    assert problem in str(found)


@pytest.mark.parametrize("subprotocol", [None, "artcafe.v9"])
async def test_websocket_with_another_subprotocol_is_refused(subprotocol: str | None, signer: Signer) -> None:
    async def anything(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with gateway(anything, subprotocol=subprotocol) as url:
        found = await failure(url, signer)
    assert isinstance(found, Invalid)
    assert "gateway" in str(found) or "WebSocket" in str(found)


async def test_rest_address_without_a_gateway_is_refused(signer: Signer) -> None:
    async with answering(b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"name":"others"}') as port:
        found = await failure(f"http://127.0.0.1:{port}", signer)
    assert isinstance(found, Invalid)
    assert "is not one of ArtCafe's REST API" in str(found)


async def test_untrusted_certificate_is_refused_at_once(signer: Signer, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path / "certificate.pem"))
    async with serve(let_in, "127.0.0.1", 0, ssl=context) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        for url in (f"wss://127.0.0.1:{port}", f"https://127.0.0.1:{port}"):
            found = await failure(url, signer)
            assert isinstance(found, Invalid)
            assert "certificate verify failed" in str(found)


def self_signed(path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    text = made.sign(key, SHA256()).public_bytes(Encoding.PEM)
    path.write_bytes(text + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


# --- the login -----------------------------------------------------------------------------------------------------------


async def test_challenge_for_another_tenant_is_not_signed(signer: Signer) -> None:
    heard: list[str] = []

    async def greedy(socket: ServerConnection) -> None:
        await pose(socket, tenant="ten_2")
        heard.extend([str(frame) async for frame in socket])

    async with gateway(greedy) as url:
        found = await failure(url, signer)
    assert isinstance(found, ChallengeRefused)
    assert heard == []


async def test_unusable_key_is_raised_at_once() -> None:
    class Locked:
        public_key = "ssh-ed25519 AAAA"

        async def sign(self, challenge: str) -> str:
            raise KeyUnusable("the token is locked")

    async with gateway(let_in) as url:
        assert isinstance(await failure(url, Locked()), KeyUnusable)


async def test_server_that_never_replies_to_the_login_is_unavailable(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def mute(socket: ServerConnection) -> None:
        await socket.wait_closed()

    monkeypatch.setattr(dial, "LOGIN_S", 0.1)
    async with gateway(mute) as url:
        found = await failure(url, signer)
    assert isinstance(found, Unavailable)
    assert "does not answer the login" in str(found)


async def test_close_during_the_login_is_raised_with_its_reason(signer: Signer) -> None:
    async def strict(socket: ServerConnection) -> None:
        await pose(socket)
        await socket.close(4500, "no")

    async with gateway(strict) as url:
        assert isinstance(await failure(url, signer), BadCredentials)


async def test_invalid_signature_of_ssh_agent_is_followed_by_another_challenge(signer: Signer) -> None:
    class Unlucky:
        """A signer with an invalid first signature, like 1 of 256 of some ssh-agents."""

        public_key = signer.public_key
        times = 0

        async def sign(self, challenge: str) -> str:
            self.times += 1
            if self.times == 1:
                raise SignatureInvalid("ssh-agent made a signature that is not valid")
            return await signer.sign(challenge)

    unlucky = Unlucky()
    async with gateway(let_in) as url, asyncio.timeout(20), agent_at(url, unlucky, connect_timeout_s=4):
        assert unlucky.times == 2


async def test_unusable_key_during_a_reconnect_is_retried(signer: Signer) -> None:
    class Unplugged:
        public_key = signer.public_key
        times = 0

        async def sign(self, challenge: str) -> str:
            self.times += 1
            if self.times == 2:
                raise KeyUnusable("the token is not there")
            return await signer.sign(challenge)

    logins = 0

    async def short(socket: ServerConnection) -> None:
        nonlocal logins
        await let_in(socket)
        logins += 1
        if logins == 2:
            await say(socket, message=message(1))
            await socket.wait_closed()

    unplugged = Unplugged()
    async with gateway(short) as url, asyncio.timeout(20), agent_at(url, unplugged) as agent:
        assert (await anext(agent.messages())).seq == 1
    assert unplugged.times == 3


async def test_agent_logs_in_only_to_the_service_of_its_first_login(signer: Signer) -> None:
    logins = 0

    async def moved(socket: ServerConnection) -> None:
        nonlocal logins
        logins += 1
        await let_in(socket, service="one" if logins == 1 else "another")

    async with gateway(moved) as url, asyncio.timeout(20), agent_at(url, signer) as agent:
        assert agent.service == "one"
        with pytest.raises(ChallengeRefused, match="the service 'another', not 'one'"):
            await anext(agent.messages())


# --- several servers -----------------------------------------------------------------------------------------------------


async def test_agent_continues_at_another_server_if_its_own_is_gone(signer: Signer, caplog: pytest.LogCaptureFixture) -> None:
    one_is_left = asyncio.Event()

    async def one(socket: ServerConnection) -> None:
        await let_in(socket)
        await say(socket, message=message(1))
        await one_is_left.wait()

    async def other(socket: ServerConnection) -> None:
        await let_in(socket)
        await say(socket, message=message(2))
        await socket.wait_closed()

    caplog.set_level(logging.INFO, "artcafe")
    async with gateway(other) as there, asyncio.timeout(20), AsyncExitStack() as stack:
        here = await stack.enter_async_context(gateway(one))
        async with agent_at([here, there], signer) as agent:
            messages = agent.messages()
            assert (await anext(messages)).seq == 1
            one_is_left.set()
            await stack.aclose()
            assert (await anext(messages)).seq == 2
    assert "connected again" in caplog.messages


async def test_agent_tries_the_next_address_after_a_server_of_another_kind(signer: Signer) -> None:
    async with (
        answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as port,
        gateway(let_in) as url,
        asyncio.timeout(20),
        agent_at(f"ws://127.0.0.1:{port}, {url}", signer) as agent,
    ):
        assert agent.service == "s"


async def test_error_names_all_servers_if_none_answers(signer: Signer) -> None:
    async with gateway(let_in) as one, gateway(let_in) as two:
        pass
    found = await failure([one, two], signer)
    assert isinstance(found, Unavailable)
    assert one in str(found)
    assert two in str(found)


async def test_refused_login_is_not_retried_at_the_next_server(signer: Signer) -> None:
    asked: list[str] = []

    async def strict(socket: ServerConnection) -> None:
        asked.append("login")
        await pose(socket)
        await socket.close(4500, "no")

    async with gateway(strict) as one, gateway(strict) as two:
        assert isinstance(await failure([one, two], signer), BadCredentials)
    assert asked == ["login"]


# --- without encryption --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "is_warned"),
    [("http://10.0.0.1:8080", True), ("ws://gw.example", True)]
    + [(url, False) for url in ("https://10.0.0.1", "wss://gw.example", "http://127.0.0.1:8080", "ws://localhost:8081")],
)
def test_unencrypted_address_of_another_machine_is_logged_as_a_warning(
    url: str, is_warned: bool, signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    agent_at(url, signer)
    assert [url.split("/")[2] in each and "not encrypted" in each for each in caplog.messages] == [True] * is_warned


async def test_rest_address_with_tls_does_not_lead_to_a_gateway_without_tls(
    signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path / "certificate.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    home = json.dumps({"name": "artcafe", "version": "1", "gateway_url": "ws://127.0.0.1:1/v1/connect"}).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(home), home)
    async with answering(answer, context) as port:
        found = await failure(f"https://127.0.0.1:{port}", signer)
    assert isinstance(found, Invalid)
    assert "has TLS, but the gateway that it names has not" in str(found)


# --- after it ------------------------------------------------------------------------------------------------------------


async def test_invalid_frame_of_the_gateway_closes_with_1002_and_is_raised(signer: Signer) -> None:
    closed: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def unruly(socket: ServerConnection) -> None:
        await let_in(socket)
        await socket.send('["no", "frame"]')
        await socket.wait_closed()
        closed.set_result(socket.close_code)

    async with gateway(unruly) as url, asyncio.timeout(20):
        async with agent_at(url, signer) as agent:
            with pytest.raises(BadFrame):
                await anext(agent.messages())
            with pytest.raises(BadFrame):
                await agent.publish(CHANNEL, 1)
        assert await closed == 1002


async def test_publish_in_flight_at_a_revocation_is_unknown_and_the_next_is_refused(
    signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    async def revoking(socket: ServerConnection) -> None:
        await let_in(socket)
        await hear(socket)
        await socket.close(4503, "deleted")

    async with gateway(revoking) as url, asyncio.timeout(20), agent_at(url, signer) as agent:
        caplog.clear()
        with pytest.raises(OutcomeUnknown) as unknown:
            await agent.publish(CHANNEL, 1)
        assert isinstance(unknown.value.__cause__, Revoked)
        with pytest.raises(Revoked):
            await agent.publish(CHANNEL, 2)
        assert caplog.messages == ["the connection has ended permanently: deleted"]


async def test_agent_reconnects_after_a_temporary_close_code_and_retries_with_the_same_key(signer: Signer) -> None:
    keys: list[str] = []

    async def busy(socket: ServerConnection) -> None:
        await let_in(socket)
        keys.append((await hear(socket))["publish"]["key"])
        if len(keys) < 3:
            await socket.close(4029, "too fast")
            return
        await say(socket, id=2, publish={"seq": 1, "message_id": "msg_1", "duplicate": True})
        await socket.wait_closed()

    async with gateway(busy) as url, asyncio.timeout(20), agent_at(url, signer) as agent:
        assert (await agent.publish(CHANNEL, 1)).seq == 1
    assert len(keys) == 3
    assert len(set(keys)) == 1


async def test_leaving_sends_the_acks_and_closes_with_1000(signer: Signer) -> None:
    heard: list[str] = []
    closed: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def polite(socket: ServerConnection) -> None:
        await let_in(socket)
        await say(socket, message=message(1))
        heard.extend([str(frame) async for frame in socket])
        closed.set_result(socket.close_code)

    async with gateway(polite) as url, asyncio.timeout(20):
        async with agent_at(url, signer) as agent:
            await (await anext(agent.messages())).ack()
        assert await closed == 1000
    assert [json.loads(frame) for frame in heard] == [{"ack": {"channel": CHANNEL, "seq": 1}}]


async def test_new_log_after_a_reconnect_is_read_from_its_first_message(signer: Signer) -> None:
    starts: list[object] = []

    async def restored(socket: ServerConnection) -> None:
        await let_in(socket)
        epoch = "E2" if starts else "E1"
        async for frame in socket:
            command = json.loads(frame)
            starts.append(command["subscribe"]["from"])
            await say(socket, id=command["id"], subscribe={"epoch": epoch, "cursor": 0, "last": 9, "gap": None})
            await say(socket, message=message({1: 9, 2: 20, 3: 1}[len(starts)]))
            if len(starts) == 1:
                await socket.close(4000, "restored")

    async with gateway(restored) as url, asyncio.timeout(20), agent_at(url, signer) as agent:
        messages = agent.messages(CHANNEL, start="first", gaps=True)
        nine, gap, one = [await anext(messages) for _ in range(3)]
    assert isinstance(nine, Message)
    assert isinstance(one, Message)
    assert (nine.seq, gap, one.seq) == (9, Gap(CHANNEL, 10, None, "epoch"), 1)
    assert starts == ["first", 1, "first"]


async def test_loop_without_gaps_skips_them(signer: Signer) -> None:
    async def lossy(socket: ServerConnection) -> None:
        await let_in(socket)
        await say(socket, gap={"channel": CHANNEL, "from": 1, "to": 4, "reason": "retention"})
        await say(socket, message=message(5))
        await socket.wait_closed()

    async with gateway(lossy) as url, asyncio.timeout(20), agent_at(url, signer) as agent:
        assert (await anext(agent.messages())).seq == 5
