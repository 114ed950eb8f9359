"""No log event contains a secret, from any source and at any level."""

from __future__ import annotations

import base64
import io
import json
import logging
import random
import sys
import time
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.observe.logs import configure, log
from artcafe.observe.redaction import SECRET_FIELDS, redacted
from tests import ssh_keygen
from tests.conftest import Require
from tests.issuer import Issuer, b64
from tests.platform import running

RANDOM = random.Random(28)  # Seeded, so that every worker of a parallel run collects the same test ids.
TOKEN = f"{b64(json.dumps({'alg': 'RS256'}).encode())}.{b64(RANDOM.randbytes(90))}.{b64(RANDOM.randbytes(256))}"
SEEDS = [kind + base64.b32encode(RANDOM.randbytes(35)).decode() for kind in ("SA", "SU")]
PEM = (
    f"-----BEGIN OPENSSH PRIVATE KEY-----\n{base64.b64encode(RANDOM.randbytes(200)).decode()}\n-----END OPENSSH PRIVATE KEY-----"
)

WAYS = [
    (TOKEN, "{}"), (TOKEN, "GET /v1/me Authorization: Bearer {} refused"), (TOKEN, "b'{}'"), (TOKEN[:40], "cut: {}"),
    (PEM, "{}"), (PEM, "before {} behind"), (PEM[:100], "cut: {}"), (SEEDS[0], "seed {}."), (SEEDS[1], '"{}"'),
    ("hunter2secret", "password={}"), ("hunter2secret", "{{'password': '{}'}}"), ("hunter2secret", "https://alice:{}@example.com/"),
    ("hunter2secret", "url=-HTTPS://alice:{}@example.com/"), ("hunter2secret", "1nats+tls://{}@example.com"),
    ("opaque-token-1", "access_token={}&x=1"), ("opaque-token-1", '{{"refresh_token": "{}"}}'), ("opaque-token-1", "bearer {}"),
]  # fmt: skip


@pytest.mark.parametrize(("secret", "text"), WAYS)
def test_secret_is_recognized_by_its_format_anywhere(secret: str, text: str) -> None:
    said = text.format(secret)
    for value in (said, [said], {"a": {"b": [said]}}, (said,), ValueError(said), said.encode()):
        shown = json.dumps(redacted(value))
        assert secret not in shown
        assert "characters>" in shown


@given(name=st.sampled_from(sorted(SECRET_FIELDS)), value=st.text(min_size=4) | st.binary(min_size=4) | st.integers(1000))
def test_value_of_a_secret_field_is_replaced_by_its_length(name: str, value: object) -> None:
    for field in (name, name.upper(), name.replace("_", "-")):
        assert redacted({field: value}) == {field: f"<{len(str(value))} characters>"}


@pytest.mark.parametrize(
    "value",
    [
        "agent.connected",
        "agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2",
        "/v1/tenants/ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2/agents",
        429,
        0.5,
        True,
        None,
        "SHA256:uNiVztksCsDhcc0u9e8BrrQXVUpKZIDTMczCvj3tD2s",
        "nats://127.0.0.1:4222",
        "the token has expired",
        "2026-11-22T16:55:57Z",
    ],
)
def test_useful_values_are_not_redacted(value: object) -> None:
    assert redacted(value) == value


HARD = [
    "a.",
    "a://b",
    "://",
    "-----BEGIN A",
    "-----END A",
    "-----BEGIN A-----",
    "eyJ-",
    "eyJa.",
    "bearer ",
    "token ",
    "token=<",
    "token: '",
    " ",
]


def _cpu_s(text: str) -> float:
    """Return the minimum over several runs: other load on the machine only adds time."""
    taken = []
    for _ in range(5):
        since = time.process_time()
        redacted(text)
        taken.append(time.process_time() - since)
    return min(taken)


@pytest.mark.parametrize("piece", HARD)
def test_redaction_time_is_linear_in_the_text_length(piece: str) -> None:
    least_s = 0.0005  # below it a clock says little
    short, long = (_cpu_s(piece * (size // len(piece))) for size in (16_384, 131_072))
    assert long / max(short, least_s) < 24, "8 times the text is 8 times the work; of its square it would be 64"


@given(st.recursive(st.text() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))
def test_any_value_can_be_logged(value: object) -> None:
    json.dumps(redacted(value))


@pytest.mark.parametrize("as_json", [True, False])
def test_tracebacks_and_libraries_are_redacted_too(as_json: bool) -> None:
    stream = io.StringIO()
    configure("debug", json=as_json, stream=stream)
    try:
        raise ValueError(f"cannot read {TOKEN}")
    except ValueError:
        log.exception("request.failed", authorization=f"Bearer {TOKEN}")
        logging.getLogger("some.library").exception("failed on %s", TOKEN)
    finally:
        logging.getLogger("some.library").info("payload %s", "canary-of-a-library")
        configure("debug", stream=sys.__stdout__ or sys.stdout)
    said = stream.getvalue()
    assert TOKEN not in said
    assert TOKEN[-40:] not in said
    assert "canary-of-a-library" not in said
    assert said.count("ValueError: cannot read <") == 2
    assert "some.library" in said


async def test_debug_log_of_a_whole_run_contains_no_secret(tmp_path: Path, require: Require) -> None:
    require("ssh-keygen", ssh_keygen.PRESENT)
    canary = "canary-of-a-payload"
    with running(tmp_path, ["--log-level", "debug", "--log-json"]) as platform:
        cast = await platform.tenant_with(agents=2)
        async with cast.agent(0) as writer, cast.agent(1) as reader:
            await writer.publish(cast.channels[0], {"canary": canary})
            assert (await anext(reader.messages())).data == {"canary": canary}
        secrets = [cast.token, canary, (platform.data / "secret").read_text().strip()]
        secrets += [line for key in cast.keys for line in key.read_text().splitlines() if len(line) > 30 and "-----" not in line]
        async with httpx2.AsyncClient(base_url=platform.url, trust_env=False) as client:
            claim = {"tenant_id": cast.tenant, "agent_id": cast.agents[0]}
            posed = (await client.post("/v1/auth/challenges", json=claim)).json()
            signature = ssh_keygen.sign(cast.keys[0], posed["challenge"].encode())
            proof = {"challenge_id": posed["challenge_id"], "signature": signature}
            token = (await client.post("/v1/auth/tokens", json=proof)).json()["access_token"]
            assert (await client.post("/v1/auth/tokens", json=proof)).status_code == 401
            with Issuer() as issuer:
                forged = issuer.token()
            for said in (token, cast.token, forged, token[:-5], f"{token}x"):
                await client.get("/v1/me", headers={"Authorization": f"Bearer {said}"})
                await client.get(f"/v1/{said[:100]}", params={"access_token": said})
            secrets += [token, forged, *signature.splitlines()[1:-1]]
        platform.stop()
        said = platform.log()
    assert said.count("request.done") >= 10
    assert "nats_connection.up" in said
    assert [secret for secret in secrets if secret in said] == []
