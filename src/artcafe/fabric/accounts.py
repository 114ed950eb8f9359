"""Who is who on NATS: operator, accounts and users, all derived from one secret; no I/O, what is made here is pushed elsewhere.

Two public formats of nats-io stand behind it, both Ed25519 throughout:

* an *nkey* (github.com/nats-io/nkeys, `strkey.go`) is a prefix byte, the 32 raw bytes of a key and their CRC-16/XMODEM
  (little-endian), in unpadded base32; the prefix makes the first letter tell the kind: O, A or U;
* a *NATS JWT* (github.com/nats-io/jwt, `v2/`) is a JWT whose `alg` is `ed25519-nkey`, whose `iss` and `sub` are nkeys and
  whose claims beyond RFC 7519 stand under `nats`.

The operator signs accounts, an account's signing key signs its users, and a server that was told the operator believes the
rest. A tenant is an account, so the wall between tenants is the server's own.
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
"""The shortest secret that is taken: every identity is only as hard to guess as this."""

STREAMS_PER_ACCOUNT = 4
"""A tenant has one stream (decision 2); the rest is room for the one a restore builds beside it, not for use."""

_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_UNLIMITED = -1
_NO_LIMITS = {"subs": _UNLIMITED, "data": _UNLIMITED, "payload": _UNLIMITED}
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class NkeyKind(IntEnum):
    """What an nkey is for: the prefix byte of its public form."""

    OPERATOR = 14 << 3
    ACCOUNT = 0 << 3
    USER = 20 << 3


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An nkey with its private half, which no `repr` shows."""

    public: str
    _private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def of(cls, kind: NkeyKind, private: Ed25519PrivateKey) -> KeyPair:
        raw = bytes([kind]) + private.public_key().public_bytes_raw()
        return cls(_base32(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")), private)

    def sign(self, data: bytes) -> bytes:
        """The 64 raw bytes of an Ed25519 signature (RFC 8032)."""
        return self._private.sign(data)


@dataclass(frozen=True, slots=True)
class UserCredentials:
    """A user of one account, made for one process; `nats.connect` takes the two callbacks under their names.

    The key lives in this object alone and is never written, so the JWT names no expiry: an expiry would cut every gateway's
    connections again and again and protect nothing that outlives the process. What ends a user is its account: deleted, or moved
    to the next generation of its signing key.
    """

    public: str
    _token: str = field(repr=False)
    _key: KeyPair = field(repr=False)

    def user_jwt_cb(self) -> bytes:
        return self._token.encode()

    def signature_cb(self, nonce: str) -> bytes:
        """The answer to a server's nonce, in base64 as nats-py sends it on."""
        return b64encode(self._key.sign(nonce.encode()))


class Accounts:
    """Every NATS identity of one installation, derived by HKDF-SHA256 (RFC 5869) from its secret and a label.

    The same secret and environment give the same keys in every process and on every server, so no table holds one. A label
    holds the hash of a tenant's id, never the id: an id may be any text, and one like `x/signing/1` must not meet another
    key's label. `generation` numbers the signing keys: raising it replaces those and leaves every identity, and with it
    every stream, where it is.

    An account's JWT is a function of its arguments and the clock. About `iat`, as nats-server 2.15 treats it: a *push*
    (`$SYS.REQ.CLAIMS.UPDATE`) always replaces what the server has, whatever either `iat` says (`DirJWTStore.save`); servers
    that compare notes afterwards, one having been away, keep the higher `iat` (`saveIfNewer`). So `iat` is the time of issue,
    in whole seconds as RFC 7519 and nats-io/jwt have it, and the last push wins; two different pushes within one second are
    told apart by no server that missed both. `jti` is a hash of all claims, so an equal JWT counts as the same one.
    """

    def __init__(self, secret: bytes, environment: str, *, generation: int = 1, clock: Clock = now) -> None:
        """`secret`: at least `SECRET_BYTES` random bytes. `generation`: of the signing keys, where a call names no other."""
        if len(secret) < SECRET_BYTES:
            raise ValueError(f"the secret has {len(secret)} bytes, and {SECRET_BYTES} are the least")
        self.environment = environment
        self._secret, self._generation, self._clock = secret, generation, clock
        self._operator = self._derive(NkeyKind.OPERATOR, "operator")
        self.operator_key = self._operator.public
        self.system_key = self._derive(NkeyKind.ACCOUNT, "system").public
        self.platform_key = self._derive(NkeyKind.ACCOUNT, "platform").public

    def __repr__(self) -> str:
        return f"Accounts(environment={self.environment!r}, generation={self._generation})"

    def operator_jwt(self) -> str:
        """What a NATS server must be told to believe everything else here; holds no secret."""
        return self._signed(self._operator, self.operator_key, "artcafe", _claims("operator", system_account=self.system_key))

    def system_jwt(self) -> str:
        """The account that pushes other accounts' JWTs and asks for health. NATS forbids it JetStream."""
        return self._account("system", "system", {}, self._generation)

    def platform_jwt(self) -> str:
        """The platform's own account: the audit stream and the announcements of changes."""
        return self._account("platform", "platform", _jetstream(_UNLIMITED), self._generation)

    def route_password(self) -> str:
        """What the NATS servers of a cluster prove to each other that they are of this installation with."""
        return self._hkdf("routes").hex()

    def server_key(self) -> Ed25519PrivateKey:
        """The private key of the embedded nats-server's certificate."""
        return Ed25519PrivateKey.from_private_bytes(self._hkdf("server"))

    def account_key(self, tenant_id: TenantId) -> str:
        """The tenant's account as NATS names it everywhere: its public nkey."""
        return self._derive(NkeyKind.ACCOUNT, _tenant_label(tenant_id)).public

    def account_name(self, tenant_id: TenantId) -> str:
        """The tenant's account as NATS shows it to people: the id, or its hash where the id isn't plain."""
        return tenant_id if _PLAIN_ID.fullmatch(tenant_id) else f"sha256-{_hashed(tenant_id)}"

    def account_jwt(self, tenant_id: TenantId, *, storage_bytes: int = -1, generation: int | None = None) -> str:
        """The tenant's account, signed by the operator, to be pushed to `$SYS.REQ.CLAIMS.UPDATE`.

        `storage_bytes` bounds all its streams together, -1 is no bound. It can be lowered below what is stored, which then
        refuses publishes and drops nothing. Its connections are servers', so it stays open while the tenant is suspended
        (decision record 21).
        Users signed by another `generation` than this one are refused, and cut off, from the push on.
        """
        name, limits = self.account_name(tenant_id), _jetstream(storage_bytes)
        return self._account(_tenant_label(tenant_id), name, limits, generation or self._generation)

    def deletion_jwt(self, tenant_id: TenantId) -> str:
        """What `$SYS.REQ.CLAIMS.DELETE` wants to forget the tenant's account.

        Its streams stay on disk and come back with it: delete them first.
        """
        claims = _claims("generic", accounts=[self.account_key(tenant_id)])
        return self._signed(self._operator, self.operator_key, "delete", claims)

    def user(self, tenant_id: TenantId, *, generation: int | None = None) -> UserCredentials:
        """A new user of the tenant's account, which NATS must have been told of."""
        return self._user(_tenant_label(tenant_id), generation or self._generation)

    def system_user(self) -> UserCredentials:
        """A new user of the system account: it can read and change every account."""
        return self._user("system", self._generation)

    def platform_user(self) -> UserCredentials:
        """A new user of the platform's own account."""
        return self._user("platform", self._generation)

    def _account(self, label: str, name: str, limits: Mapping[str, int], generation: int) -> str:
        claims = _claims(
            "account",
            # What is not named is zero, which for leaf nodes, imports and exports means none.
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
    # Zero bytes would switch JetStream off and put the streams out of reach; one byte refuses a publish just as well.
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
