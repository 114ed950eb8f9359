"""The settings, each documented in its place: from flags, `ARTCAFE_…` variables and a TOML file, in this order. Read once."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from artcafe.errors import SettingInvalid

PREFIX: Final = "ARTCAFE_"
FILE_VARIABLE: Final = "ARTCAFE_CONFIG"
SQLITE: Final = "sqlite:"
DYNAMODB: Final = "dynamodb:"

CLIENT_VARIABLES: Final = frozenset(
    f"{PREFIX}{name}" for name in ("CONFIG", "URL", "TENANT", "AGENT", "KEY", "TOKEN", "ID_TOKEN", "USER")
)
"""Variables that belong to the agent's and the people's commands, so that they may stand beside a server's."""


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Address(NamedTuple):
    """Where to listen. Port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def _address(value: object) -> object:
    if not isinstance(value, str):
        return value
    host, colon, port = value.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535 or not host:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:8080")
    return Address(host.strip("[]"), int(port))


def _place(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"sqlite:.+|dynamodb:[a-z]+(-[a-z0-9]+)+", value):
        raise ValueError("must be sqlite:PATH or dynamodb:REGION, such as dynamodb:eu-central-1")
    return value


MOST_PROCESSES: Final = 256


def _processes(value: object) -> object:
    text = str(value).strip().lower()
    if text == "auto":
        return text
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_PROCESSES):
        raise ValueError(f"must be a number from 1 to {MOST_PROCESSES}, or auto")
    return int(text)


def _folder(path: Path) -> Path:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError("must be a path in UTF-8") from None
    return path


def _url(value: str | None) -> str | None:
    try:
        _ = urlsplit(value or "").port
    except ValueError as exc:
        raise ValueError(f"must be a URL: {str(exc).lower()}") from None
    return value


def _list(value: object) -> Any:
    return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value


def _networks(value: object) -> object:
    try:
        return tuple(map(ipaddress.ip_network, _list(value))) if isinstance(value, str) else value
    except ValueError as exc:
        raise ValueError(f"must be networks, such as 10.0.0.0/8, or addresses: {exc}") from None


class Settings(BaseModel):
    """What an installation can choose."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    environment: Literal["prod", "dev"] = "prod"
    """Which set of tables: `dev` uses the `-dev` twins. Keys of NATS accounts differ too."""

    data_dir: Annotated[Path, AfterValidator(_folder)] = Path("artcafe-data")
    """The folder that holds everything of a single machine: tables, message log, secret. Made when it is missing."""

    listen: Annotated[Address, BeforeValidator(_address)] = Address("127.0.0.1", 8080)
    """Where REST listens, HOST:PORT. Port 0 takes a free one."""

    gateway_listen: Annotated[Address, BeforeValidator(_address)] = Address("127.0.0.1", 8081)
    """Where agents connect by WebSocket, HOST:PORT. Port 0 takes a free one."""

    processes: Annotated[int | Literal["auto"], BeforeValidator(_processes)] = 1
    """How many server processes share both listeners, from 1 to 256; each uses one processor. `auto`: one for each processor, as
    far as memory allows. With several, SIGHUP restarts them one by one."""

    tables: Annotated[str | None, AfterValidator(_place)] = None
    """Where the tables are: `sqlite:PATH`, or `dynamodb:REGION` on AWS, with whatever credentials its tools would find here.
    Absent: `sqlite:` and `tables.sqlite` in the data folder."""

    dynamodb_endpoint: Annotated[str | None, AfterValidator(_url)] = Field(default=None, pattern=r"^https?://.+$")
    """The URL of what speaks DynamoDB in place of AWS's own service in the region."""

    nats_urls: Annotated[tuple[str, ...], BeforeValidator(_list)] = ()
    """The NATS servers of a fleet, separated by commas. Absent: `up` runs one as its child."""

    secret_file: Path | None = None
    """The root of every key: 32 bytes or more, readable by its owner alone. Absent: `secret` in the data folder, made by `up`."""

    issuer: Annotated[str | None, AfterValidator(_url)] = None
    """Who vouches for people: the URL of an OpenID Connect issuer such as a Cognito user pool, exactly as its tokens name it.
    Absent: the local identity, `artcafe token`, for this machine alone."""

    jwks_url: Annotated[str | None, AfterValidator(_url)] = None
    """Where the issuer's keys are. Absent: where its discovery document (`/.well-known/openid-configuration`) says."""

    client_ids: Annotated[tuple[str, ...], BeforeValidator(_list)] = ()
    """Whom a token must be made out to, separated by commas: app clients of a Cognito pool, or audiences of another issuer."""

    tls_cert: Path | None = None
    """The certificate of both listeners, with its chain, as PEM. Absent: they are plain, on loopback or behind a proxy."""

    tls_key: Path | None = None
    """Its private key, as PEM without a password, not readable by everybody."""

    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(_networks)] = ()
    """The proxies in front, as networks separated by commas, such as `10.0.0.0/8`: where a call comes from is then taken from
    their `X-Forwarded-For`."""

    public_gateway_url: Annotated[str | None, AfterValidator(_url)] = Field(
        default=None, pattern=r"^wss?://[^/?#\s]+/v1/connect$"
    )
    """Where agents reach the gateway, as `GET /v1` tells them, such as `wss://agents.example.com/v1/connect`. Absent: where it
    listens."""

    allowed_origins: Annotated[tuple[str, ...], BeforeValidator(_list)] = ()
    """Origins whose pages may connect to the gateway, separated by commas, such as `https://app.example.com`. Those of the
    gateway's own host always may, by its address, as `localhost`, or by the name in GATEWAY_LISTEN or PUBLIC_GATEWAY_URL; and so
    may programs, which name no origin."""

    requests_per_s: float = Field(default=1000.0, ge=0)
    """How many REST requests one address may make each second, on average over ten. 0: as many as it likes."""

    connects_per_s: float = Field(default=1000.0, ge=0)
    """How many sockets one address may open each second, on average over ten. 0: as many as it likes."""

    connections_per_address: int = Field(default=10_000, ge=0)
    """How many connections one address may have open, at both listeners together; never more than half of what the process can
    open. Behind trusted proxies the sockets of the gateway count, by the address that is forwarded. 0: as many as there are."""

    challenges_per_min: float = Field(default=600.0, ge=0)
    """How many logins of one agent one address may begin each minute; one that fails counts as ten. 0: as many as it likes."""

    tenants_per_person: int = Field(default=100, ge=0)
    """How many tenants one person may own at a time. 0: any number."""

    tenants_per_day: int = Field(default=100, ge=0)
    """How many tenants one person may make in a day of UTC. 0: any number."""

    nats_ca: Path | None = None
    """The authority that NATS's certificates are checked by, as PEM, for `tls://` among the NATS URLs. Absent: the system's."""

    terms_version: str | None = Field(default=None, pattern=r"^[!-~]{1,64}$")
    """The terms that people must accept before they do anything, by a name of 1 to 64 characters, such as `2026-11`. Absent:
    there is nothing to accept."""

    terms_file: Path | None = None
    """The text of those terms, as UTF-8, which `GET /v1/terms` answers. Absent: it is told elsewhere."""

    terms_grace_until: AwareDatetime | None = None
    """Until when whoever accepted an earlier version goes on without this one, such as `2026-12-31T00:00:00Z`. Absent: a new
    version asks at once."""

    cursor_write_s: float | None = Field(default=None, ge=0.1, le=600)
    """How many seconds an acknowledgement may wait until it is written. A crash repeats at most so much. Absent: 5, or 60 where
    the tables are on DynamoDB, which charges for every write."""

    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """How much is logged, on standard error."""

    log_json: bool = False
    """Logs JSON lines for a collector instead of lines for a person."""

    @field_validator("dynamodb_endpoint")
    @classmethod
    def _belongs_to_dynamodb(cls, endpoint: str | None, info: ValidationInfo) -> str | None:
        # `tables` stands before it, and is missing here where it was wrong.
        if endpoint is not None and not (info.data.get("tables", DYNAMODB) or "").startswith(DYNAMODB):
            raise ValueError("is set, but TABLES is not dynamodb:REGION: set both, or neither")
        return endpoint

    @property
    def tables_place(self) -> str:
        """`sqlite:PATH` or `dynamodb:REGION`."""
        return self.tables or f"{SQLITE}{self.data_dir / 'tables.sqlite'}"

    @property
    def tables_file(self) -> Path:
        """The file of the tables. Raises `SettingInvalid` where they are on DynamoDB."""
        if not self.tables_place.startswith(SQLITE):
            raise SettingInvalid("TABLES", f"it is {self.tables_place}, and this is about tables in a file (sqlite:PATH)")
        return Path(self.tables_place.removeprefix(SQLITE))

    @property
    def cursor_seconds(self) -> float:
        """`cursor_write_s`, or its default where the tables are."""
        return self.cursor_write_s or (60.0 if self.tables_place.startswith(DYNAMODB) else 5.0)

    @property
    def own_hosts(self) -> frozenset[str]:
        """The names by which browsers may know the gateway's host."""
        public = urlsplit(self.public_gateway_url).hostname if self.public_gateway_url else None
        return frozenset({self.gateway_listen.host, *([public] if public else [])})

    @property
    def secret_path(self) -> Path:
        return self.secret_file or self.data_dir / "secret"


def load(flags: Mapping[str, Any], environ: Mapping[str, str] = os.environ, file: Path | None = None) -> Settings:
    """The settings, a flag before a variable before the file. Raises `SettingInvalid` naming the one that is unknown or wrong."""
    given = _from_file(file or (Path(environ[FILE_VARIABLE]) if environ.get(FILE_VARIABLE) else None))
    given |= _from_variables(environ)
    given |= {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as exc:
        first = exc.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "?"
        raise SettingInvalid(name.upper(), _sentence(name, first)) from None


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        given = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise SettingInvalid("CONFIG", f"the file {file} cannot be read as TOML: {exc}") from exc
    return {name.lower(): value for name, value in given.items()}


def _from_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what the variables set; an empty one is absent, as `${NAME:-}` in a compose file writes it."""
    given = {}
    for variable, value in environ.items():
        if (
            value
            and variable.startswith(PREFIX)
            and variable not in CLIENT_VARIABLES
            and not variable.startswith(f"{PREFIX}TEST_")
        ):
            given[variable.removeprefix(PREFIX).lower()] = value
    return given


def _sentence(name: str, error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return f"there is no such setting; there are {', '.join(sorted(Settings.model_fields)).upper()}"
    meaning = (Settings.model_fields[name].description or "").split(". ")[0] if name in Settings.model_fields else ""
    return f"{error['msg'].removeprefix('Value error, ')} (got {error['input']!r}). It means: {meaning}"
