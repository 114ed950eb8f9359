"""Settings from options, `ARTCAFE_…` variables and a TOML file, in this order of precedence, read once at the start."""

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
"""Variables of the commands for users and agents, ignored by a server, so that both may share one environment."""


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Address(NamedTuple):
    """Host and port of a listener. Port 0 selects a free port."""

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


def _listener_or_off(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() == "off" else _address(value)


def _place(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"sqlite:.+|dynamodb:[a-z]+(-[a-z0-9]+)+", value):
        raise ValueError("must be sqlite:PATH or dynamodb:REGION, such as dynamodb:eu-central-1")
    return value


MOST_PROCESSES: Final = 256
USER_CHARS: Final = 255
"""As in tokens: OpenID Connect Core 1.0, section 2."""


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


def _scope(value: str) -> str:
    """Check the syntax of RFC 6749, section 3.3, and the scope of OpenID Connect Core 1.0, section 3.1.2.1."""
    if not re.fullmatch(r"[!#-\[\]-~]+( [!#-\[\]-~]+)*", value):
        raise ValueError("must be scopes with one space between them, without quotes and backslashes, such as openid email")
    if "openid" not in value.split(" "):
        raise ValueError("must contain openid, such as openid email")
    return value


def _list(value: object) -> Any:
    return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value


def _user(value: str) -> str:
    if not (0 < len(value) <= USER_CHARS and value.isprintable()):
        raise ValueError(f"must be user ids of 1 to {USER_CHARS} printable characters")
    return value


UserText = Annotated[str, AfterValidator(_user)]


def _networks(value: object) -> object:
    try:
        return tuple(map(ipaddress.ip_network, _list(value))) if isinstance(value, str) else value
    except ValueError as exc:
        raise ValueError(f"must be networks, such as 10.0.0.0/8, or addresses: {exc}") from None


class Settings(BaseModel):
    """The settings of an installation. The docstring of a setting is its help and its entry in docs/settings.md."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    environment: Literal["prod", "dev"] = "prod"
    """The environment: `dev` uses tables with the suffix `-dev`, and other keys for NATS accounts."""

    data_dir: Annotated[Path, AfterValidator(_folder)] = Path("artcafe-data")
    """The data folder of a single machine, with tables, message log and secret. Created if missing."""

    listen: Annotated[Address, BeforeValidator(_address)] = Address("127.0.0.1", 8080)
    """The address of the REST listener, HOST:PORT. Port 0 selects a free port."""

    gateway_listen: Annotated[Address, BeforeValidator(_address)] = Address("127.0.0.1", 8081)
    """The address of the WebSocket gateway for agents, HOST:PORT. Port 0 selects a free port."""

    metrics_listen: Annotated[Address | None, BeforeValidator(_listener_or_off)] = Address("127.0.0.1", 8082)
    """The address of the listener for Prometheus, which reads `/metrics` there, HOST:PORT; `off` for none. If only the default is
    taken, the server starts without."""

    metrics_tenants: Annotated[tuple[str, ...], BeforeValidator(_list)] = Field(default=(), max_length=20)
    """Ids of at most 20 tenants that have metrics of their own, with the label `tenant`, separated by commas. Default: no metric
    names a tenant."""

    processes: Annotated[int | Literal["auto"], BeforeValidator(_processes)] = 1
    """The number of server processes behind both listeners, from 1 to 256; each uses one processor. `auto`: one per processor, as
    far as memory allows. With several, SIGHUP restarts them one by one."""

    tables: Annotated[str | None, AfterValidator(_place)] = None
    """The table engine: `sqlite:PATH`, or `dynamodb:REGION` on AWS, with the credentials that AWS's tools find on this machine.
    Default: `tables.sqlite` in the data folder."""

    dynamodb_endpoint: Annotated[str | None, AfterValidator(_url)] = Field(default=None, pattern=r"^https?://.+$")
    """The URL of a DynamoDB-compatible service, in place of AWS's own in the region."""

    nats_urls: Annotated[tuple[str, ...], BeforeValidator(_list)] = ()
    """The URLs of a fleet's NATS servers, separated by commas. Default: `up` runs one as a child process."""

    secret_file: Path | None = None
    """The secret from which every key is derived: at least 32 bytes, readable only by its owner. Default: `secret` in the data
    folder, created by `up`."""

    issuer: Annotated[str | None, AfterValidator(_url)] = None
    """The identity provider of users: the URL of an OpenID Connect issuer such as a Cognito user pool, exactly as in its tokens.
    Default: the local identity (`artcafe token`), only for this machine."""

    jwks_url: Annotated[str | None, AfterValidator(_url)] = None
    """The URL of the issuer's keys. Default: the URL in its discovery document (`/.well-known/openid-configuration`)."""

    client_ids: Annotated[tuple[str, ...], BeforeValidator(_list)] = ()
    """The accepted recipients of a user's token, separated by commas: app clients of a Cognito pool, or audiences of another
    issuer."""

    console_client_id: str | None = Field(default=None, pattern=r"^[!-~]{1,255}$")
    """The console's client id at the issuer: a public client (no secret) for the code flow with PKCE, with the redirect URI
    `https://api.example.com/console`. Default: the console signs nobody in, if there is an issuer."""

    console_scope: Annotated[str, AfterValidator(_scope)] = Field(default="openid email", max_length=1000)
    """The scopes that the console requests at the issuer, separated by spaces, with `openid`. At some issuers, such as Microsoft
    Entra ID, they select the API that the access token is for; others issue refresh tokens only for `offline_access`."""

    console_token_origin: Annotated[str | None, AfterValidator(_url)] = Field(default=None, pattern=r"^https?://[^/?#\s]+$")
    """The origin of the issuer's token endpoint for the console, if it is not that of the issuer: of a Cognito pool
    `https://DOMAIN.auth.REGION.amazoncognito.com`. Default: the issuer's own."""

    tls_cert: Path | None = None
    """The certificate of both listeners, with its chain, as PEM. Default: no TLS, for loopback or behind a proxy."""

    tls_key: Path | None = None
    """The private key of the certificate, as PEM without a password; the file must not be readable by everybody."""

    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(_networks)] = ()
    """Trusted reverse proxies, as networks separated by commas, such as `10.0.0.0/8`: the client's address is then read from
    their `X-Forwarded-For`."""

    webhook_networks: Annotated[tuple[Network, ...], BeforeValidator(_networks)] = ()
    """Networks that webhooks of agents may be sent to besides public addresses, separated by commas, such as `10.20.0.0/16`;
    there also with http. Default: none."""

    public_gateway_url: Annotated[str | None, AfterValidator(_url)] = Field(
        default=None, pattern=r"^wss?://[^/?#\s]+/v1/connect$"
    )
    """The gateway's URL for agents, returned by `GET /v1`, such as `wss://agents.example.com/v1/connect`. Default: the address of
    the listener."""

    public_url: Annotated[str | None, AfterValidator(_url)] = Field(default=None, pattern=r"^https?://[^/?#\s]+$")
    """The REST listener's URL for clients, such as `https://api.example.com`, which MCP clients get; needed for their OAuth
    login behind a proxy. Default: the address of the listener."""

    allowed_origins: Annotated[tuple[str, ...], BeforeValidator(_list)] = ()
    """Origins of web pages that may connect to the gateway and call MCP, separated by commas, such as `https://app.example.com`.
    Pages of the listener's own host are always allowed, by its address, as `localhost`, or by the name in its setting
    (GATEWAY_LISTEN or PUBLIC_GATEWAY_URL, LISTEN or PUBLIC_URL); so are programs, which send no origin."""

    requests_per_s: float = Field(default=1000.0, ge=0)
    """Maximum REST requests per second from one address, averaged over ten seconds. 0: unlimited."""

    connects_per_s: float = Field(default=1000.0, ge=0)
    """Maximum gateway connections opened per second from one address, averaged over ten seconds. 0: unlimited."""

    connections_per_address: int = Field(default=10_000, ge=0)
    """Maximum open connections from one address, at both listeners together; never more than half of the process's limit. Behind
    trusted proxies, only gateway connections count, by their forwarded address. 0: unlimited."""

    challenges_per_min: float = Field(default=600.0, ge=0)
    """Maximum logins per minute of one agent from one address; a failed login counts as ten. 0: unlimited."""

    tenants_per_person: int = Field(default=100, ge=0)
    """Maximum number of tenants owned by one person. 0: unlimited."""

    tenants_per_day: int = Field(default=100, ge=0)
    """Maximum number of tenants created by one person per day (UTC). 0: unlimited."""

    plans_file: Path | None = None
    """A TOML file with the plans and their limits, checked at the start (`artcafe plans check FILE` explains each fault).
    Default: the shipped plans, which `artcafe plans list` shows."""

    nats_ca: Path | None = None
    """The certificate authority of the NATS servers, as PEM, for `tls://` URLs of NATS. Default: the system's authorities."""

    operators: Annotated[tuple[UserText, ...], BeforeValidator(_list)] = Field(default=(), max_length=100)
    """User ids of at most 100 people who may read the platform's state (`/v1/operator`), separated by commas: with an issuer the
    `sub` of their tokens, otherwise the name of `artcafe token`. `GET /v1/me` returns it. Default: nobody."""

    terms_version: str | None = Field(default=None, pattern=r"^[!-~]{1,64}$")
    """The version of the terms that users must accept before anything else, a name of 1 to 64 characters, such as `2026-11`.
    Default: no terms."""

    terms_file: Path | None = None
    """A UTF-8 file with the text of the terms, returned by `GET /v1/terms`. Default: the text is published elsewhere."""

    terms_grace_until: AwareDatetime | None = None
    """End of the grace period in which users who accepted an earlier version can continue without this one, such as
    `2026-12-31T00:00:00Z`. Default: no grace period."""

    cursor_write_s: float | None = Field(default=None, ge=0.1, le=600)
    """Maximum delay of writing an acknowledged position, in seconds. After a crash, messages acknowledged in that time are
    delivered again. Default: 5, or 60 with tables on DynamoDB, which charges for every write."""

    meter_s: float = Field(default=25.0, ge=0, le=45)
    """The interval of counting a tenant's stored messages while it is busy, in seconds. Usage trails by that and the time that
    another server waits for a dead one, 15 s. 0: nothing is counted."""

    tracing: Literal["off", "link", "continue"] = "link"
    """Spans of messages, if an OpenTelemetry tracer provider is configured. `link`: they link to the publishers' spans, and the
    provider's sampler alone decides which are recorded. `continue`: a publish continues the trace of its message, with that
    trace's sampling decision, so any agent can have its messages recorded. `off`: no spans."""

    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """The minimum level of log lines on standard error."""

    log_json: bool = False
    """Log JSON lines for a collector instead of lines for people."""

    @field_validator("dynamodb_endpoint")
    @classmethod
    def _belongs_to_dynamodb(cls, endpoint: str | None, info: ValidationInfo) -> str | None:
        # `tables` is validated first, and is missing here if it was invalid.
        if endpoint is not None and not (info.data.get("tables", DYNAMODB) or "").startswith(DYNAMODB):
            raise ValueError("is set, but TABLES is not dynamodb:REGION: set both, or neither")
        return endpoint

    @property
    def tables_location(self) -> str:
        """`sqlite:PATH` or `dynamodb:REGION`."""
        return self.tables or f"{SQLITE}{self.data_dir / 'tables.sqlite'}"

    @property
    def tables_file(self) -> Path:
        """The file of the tables. Raises SettingInvalid if they are on DynamoDB."""
        if not self.tables_location.startswith(SQLITE):
            raise SettingInvalid("TABLES", f"it is {self.tables_location}, but this requires tables in a file (sqlite:PATH)")
        return Path(self.tables_location.removeprefix(SQLITE))

    @property
    def cursor_seconds(self) -> float:
        """`cursor_write_s`, or the default of the table engine."""
        return self.cursor_write_s or (60.0 if self.tables_location.startswith(DYNAMODB) else 5.0)

    @property
    def own_hosts(self) -> frozenset[str]:
        """The host names of the gateway in browsers' origins."""
        return _hosts(self.gateway_listen, self.public_gateway_url)

    @property
    def own_rest_hosts(self) -> frozenset[str]:
        """The host names of the REST listener in browsers' origins."""
        return _hosts(self.listen, self.public_url)

    @property
    def secret_path(self) -> Path:
        return self.secret_file or self.data_dir / "secret"


def _hosts(address: Address, public_url: str | None) -> frozenset[str]:
    public = urlsplit(public_url).hostname if public_url else None
    return frozenset({address.host, *([public] if public else [])})


def load(flags: Mapping[str, Any], environ: Mapping[str, str] = os.environ, file: Path | None = None) -> Settings:
    """Return the settings: options override variables, which override the file. Raises SettingInvalid with the setting's name."""
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
    """Return the settings in variables. An empty variable is ignored: a compose file writes `${NAME:-}` for a missing one."""
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
        return f"there is no such setting; the settings are {', '.join(sorted(Settings.model_fields)).upper()}"
    meaning = (Settings.model_fields[name].description or "").split(". ")[0] if name in Settings.model_fields else ""
    return f"{error['msg'].removeprefix('Value error, ')} (got {error['input']!r}). It means: {meaning}"
