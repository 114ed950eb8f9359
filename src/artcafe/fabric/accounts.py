"""NATS identities: operator, accounts and users, all derived from one secret. No I/O; the JWTs are sent to NATS elsewhere.

Two public formats of nats-io are used, both with Ed25519 throughout:

* an *nkey* (github.com/nats-io/nkeys, `strkey.go`) is a prefix byte, the 32 raw bytes of a key and their CRC-16/XMODEM
  (little-endian), in unpadded base32; the prefix determines the first letter, which names the kind: O, A or U;
* a *NATS JWT* (github.com/nats-io/jwt, `v2/`) is a JWT with `alg` `ed25519-nkey`, nkeys as `iss` and `sub`, and its claims beyond
  RFC 7519 under `nats`.

The operator signs accounts, an account's signing key signs its users, and a server configured with the operator accepts the rest.
A tenant is an account, so the NATS server itself isolates tenants.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b32encode, b64encode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from artcafe.model import TenantId
from artcafe.observe.clock import Clock, now

SECRET_BYTES = 32
"""The shortest accepted secret: every identity is only as hard to guess as the secret."""

STREAMS_PER_ACCOUNT = 4
"""A tenant has one stream (design, decision 2). The rest is for the stream created beside it by a restore."""
PLATFORM_STREAMS = 8
"""The platform's account has four: the audit, the storage check and two of counters. The rest is for a restore."""

_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_UNLIMITED = -1
_NO_LIMITS = {"subs": _UNLIMITED, "data": _UNLIMITED, "payload": _UNLIMITED}
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class NkeyKind(IntEnum):
    """The kind of an nkey: the prefix byte of its public form."""

    OPERATOR = 14 << 3
    ACCOUNT = 0 << 3
    USER = 20 << 3


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An nkey with its private half, hidden from `repr`."""

    public: str
    _private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def of(cls, kind: NkeyKind, private: Ed25519PrivateKey) -> KeyPair:
        raw = bytes([kind]) + private.public_key().public_bytes_raw()
        return cls(_base32(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")), private)

    def sign(self, data: bytes) -> bytes:
        """Return the 64 raw bytes of an Ed25519 signature (RFC 8032)."""
        return self._private.sign(data)


@dataclass(frozen=True, slots=True)
class UserCredentials:
    """A user of one account, made for one process. `nats.connect` takes the two callbacks under their names.

    The key exists in this object only and is never written, so the JWT has no expiry: it would cut every gateway's connections
    again and again, and protect nothing that outlives the process. A user ends with its account: when that is deleted, or moved
    to the next generation of its signing key.
    """

    public: str
    _token: str = field(repr=False)
    _key: KeyPair = field(repr=False)

    def user_jwt_cb(self) -> bytes:
        return self._token.encode()

    def signature_cb(self, nonce: str) -> bytes:
        """Sign a server's nonce. Return the signature in base64, as nats-py sends it."""
        return b64encode(self._key.sign(nonce.encode()))


class Accounts:
    """Every NATS identity of one installation, derived by HKDF-SHA256 (RFC 5869) from its secret and a label.

    The same secret and environment give the same keys in every process and on every server, so no table stores one. A label
    contains the hash of a tenant's id, never the id: an id may be any text, and one like `x/signing/1` must not equal another
    key's label. `generation` numbers the signing keys: raising it replaces them, and keeps every identity and thus every stream.

    An account's JWT depends on its arguments and the clock only. nats-server 2.15 treats `iat` as follows. A *push*
    (`$SYS.REQ.CLAIMS.UPDATE`) always replaces the server's copy, whatever either `iat` (`DirJWTStore.save`). Servers that
    synchronize later, after one was down, keep the higher `iat` (`saveIfNewer`). So `iat` is the time of issue, in whole seconds
    as in RFC 7519 and nats-io/jwt, and the last push wins; a server that missed two different pushes within one second cannot
    order them. `jti` is a hash of all claims, so that equal JWTs count as the same one.
    """

    def __init__(self, secret: bytes, environment: str, *, generation: int = 1, clock: Clock = now) -> None:
        """`secret`: at least `SECRET_BYTES` random bytes. `generation`: the default generation of the signing keys."""
        if len(secret) < SECRET_BYTES:
            raise ValueError(f"the secret has {len(secret)} bytes; at least {SECRET_BYTES} are required")
        self.environment = environment
        self._secret, self._generation, self._clock = secret, generation, clock
        self._operator = self._derive(NkeyKind.OPERATOR, "operator")
        self.operator_key = self._operator.public
        self.system_key = self._derive(NkeyKind.ACCOUNT, "system").public
        self.platform_key = self._derive(NkeyKind.ACCOUNT, "platform").public

    def __repr__(self) -> str:
        return f"Accounts(environment={self.environment!r}, generation={self._generation})"

    def operator_jwt(self) -> str:
        """Return the operator's JWT, the root of trust of a NATS server. It contains no secret."""
        return self._signed(self._operator, self.operator_key, "artcafe", _claims("operator", system_account=self.system_key))

    def system_jwt(self) -> str:
        """Return the JWT of the system account, for pushing other accounts' JWTs and for health checks. NATS denies it
        JetStream."""
        return self._account("system", "system", {}, self._generation)

    def platform_jwt(self) -> str:
        """Return the JWT of the platform's own account, for the audit, the announcements of changes and the counters.

        Only this account may keep streams in memory: the counters (`fabric.counters`).
        """
        limits = {**_jetstream(_UNLIMITED), "mem_storage": _UNLIMITED, "streams": PLATFORM_STREAMS}
        return self._account("platform", "platform", limits, self._generation)

    def route_password(self) -> str:
        """Return the password between the NATS servers of a cluster."""
        return self._hkdf("routes").hex()

    def server_key(self) -> Ed25519PrivateKey:
        """Return the private key of the embedded nats-server's certificate."""
        return Ed25519PrivateKey.from_private_bytes(self._hkdf("server"))

    def account_key(self, tenant_id: TenantId) -> str:
        """Return the public nkey of the tenant's account, its name everywhere in NATS."""
        return self._derive(NkeyKind.ACCOUNT, _tenant_label(tenant_id)).public

    def account_name(self, tenant_id: TenantId) -> str:
        """Return the display name of the tenant's account: the id, or its hash if the id has other characters than
        `[A-Za-z0-9_-]`."""
        return tenant_id if _PLAIN_ID.fullmatch(tenant_id) else f"sha256-{_hashed(tenant_id)}"

    def account_jwt(self, tenant_id: TenantId, *, storage_bytes: int = -1, generation: int | None = None) -> str:
        """Return the tenant's account, signed by the operator, for a push to `$SYS.REQ.CLAIMS.UPDATE`.

        `storage_bytes` limits all its streams together; -1 is unlimited. A limit below the stored size refuses publishes and
        removes nothing. The account's connections belong to servers, so it stays open while the tenant is suspended (decision
        record 21). Users signed by another `generation` are refused and disconnected from the push on.
        """
        name, limits = self.account_name(tenant_id), _jetstream(storage_bytes)
        return self._account(_tenant_label(tenant_id), name, limits, generation or self._generation)

    def deletion_jwt(self, tenant_id: TenantId) -> str:
        """Return the JWT for `$SYS.REQ.CLAIMS.DELETE`, to delete the tenant's account.

        Its streams stay on disk and reappear with the account: delete them first.
        """
        claims = _claims("generic", accounts=[self.account_key(tenant_id)])
        return self._signed(self._operator, self.operator_key, "delete", claims)

    def user(self, tenant_id: TenantId, *, generation: int | None = None) -> UserCredentials:
        """Return a new user of the tenant's account. The account must be registered with NATS."""
        return self._user(_tenant_label(tenant_id), generation or self._generation)

    def system_user(self) -> UserCredentials:
        """Return a new user of the system account, with read and write access to every account."""
        return self._user("system", self._generation)

    def platform_user(self) -> UserCredentials:
        """Return a new user of the platform's own account."""
        return self._user("platform", self._generation)

    def _account(self, label: str, name: str, limits: Mapping[str, int], generation: int) -> str:
        claims = _claims(
            "account",
            # An omitted limit is zero: no leaf nodes, imports or exports.
            limits={**_NO_LIMITS, "conn": _UNLIMITED, "disallow_bearer": True, **limits},
            signing_keys=[self._signing(label, generation).public],
            default_permissions={"pub": {}, "sub": {}},
        )
        return self._signed(self._operator, self._derive(NkeyKind.ACCOUNT, label).public, name, claims)

    def _user(self, label: str, generation: int) -> UserCredentials:
        key = KeyPair.of(NkeyKind.USER, Ed25519PrivateKey.generate())
        claims = _claims(
            "user",
            issuer_account=self._derive(NkeyKind.ACCOUNT, label).public,
            allowed_connection_types=["STANDARD"],
            pub={},
            sub={},
            **_NO_LIMITS,
        )
        return UserCredentials(key.public, self._signed(self._signing(label, generation), key.public, "artcafe", claims), key)

    def _signing(self, label: str, generation: int) -> KeyPair:
        return self._derive(NkeyKind.ACCOUNT, f"{label}/signing/{generation}")

    def _derive(self, kind: NkeyKind, label: str) -> KeyPair:
        return KeyPair.of(kind, Ed25519PrivateKey.from_private_bytes(self._hkdf(label)))

    def _hkdf(self, label: str) -> bytes:
        info = f"nats/{self.environment}/{label}".encode()
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(self._secret)

    def _signed(self, signer: KeyPair, subject: str, name: str, nats: Mapping[str, object]) -> str:
        claims = {"iat": int(self._clock().timestamp()), "iss": signer.public, "name": name, "sub": subject, "nats": nats}
        claims["jti"] = _base32(sha256(_json(claims)).digest())
        unsigned = f"{_base64url(_json(_HEADER))}.{_base64url(_json(claims))}"
        return f"{unsigned}.{_base64url(signer.sign(unsigned.encode()))}"


def _claims(kind: str, **more: object) -> Mapping[str, object]:
    return {"type": kind, "version": 2, **more}


def _jetstream(storage_bytes: int) -> dict[str, int]:
    # Zero bytes would disable JetStream and make the streams unreachable; one byte refuses a publish just as well.
    return {"disk_storage": storage_bytes or 1, "streams": STREAMS_PER_ACCOUNT, "consumer": _UNLIMITED}


def _tenant_label(tenant_id: TenantId) -> str:
    return f"account/{_hashed(tenant_id)}"


def _hashed(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _base32(data: bytes) -> str:
    return b32encode(data).decode().rstrip("=")


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
