#!/usr/bin/env python3
"""Generate docs/errors.md, frames.md, metrics.md, promises.md, roles.md and settings.md from the code. `make docs` runs it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

import artcafe
from artcafe.cli.operate.serve import up
from artcafe.config import CLIENT_VARIABLES, FILE_VARIABLE, PREFIX, Settings
from artcafe.errors import REGISTRY, ArtcafeError
from artcafe.model import Role
from artcafe.observe.metric_types import BOUNDS_S, AnyMetric, Gauge
from artcafe.observe.metrics import METRICS
from artcafe.rest import asyncapi, frame_docs
from artcafe.rest.error_page import has_status, readable_text
from artcafe.rules.access import WHILE_SUSPENDED, WHO, Action, AgentAccess
from artcafe.wire import frames
from tests.promises import delivery_clauses, marked_tests, passages

DOCS: Final = Path(__file__).parent

PROMISES_PAGE: Final = """\
<!-- Generated from tests/promises.toml and the marks in tests/: change them there, and run `make docs`. -->

# The promises and their tests

The twelve sentences on delivery of [contract.md](contract.md), section 5, and its paragraphs on requests, pull, receipts, expiry
and scheduled messages, clause by clause, and the tests that show each. Tests marked `faults` and of the cluster run by `make
faults`, the others by `make test`. A clause with a † does not run yet.

{parts}
"""

APART: Final = {
    "start_refused": "when a server starts, and in commands that read its data folder",
    "chain_broken": "in `artcafe audit verify`",
    "archive_refused": "in `artcafe backup` and `artcafe restore`",
    "setting_invalid": "at start, for a flag, a variable or a line of the file",
    "key_unusable": "in the SDK and in `artcafe agent …`, before anything is sent",
    "challenge_refused": "in the SDK and in `artcafe agent …`, before anything is signed",
    "sign_in_failed": "in the console",
    "unknown": "in the SDK and in `artcafe agent …`, for an error code of a newer server",
    "link_lost": "in a server's log",
    "no_responder": "in a server's log",
}
"""Errors that a server never sends to a peer, and where they occur instead."""

ERRORS_PAGE: Final = """\
<!-- Generated from src/artcafe/errors.py: change it there, and run `make docs`. -->

# Errors

An error has a `code`, which is stable and for programs, and a text, which is for people and may change. *Words in italics* are
placeholders for values.

Over REST an error is an `application/problem+json` (RFC 9457) with its HTTP status. `request_id` identifies the request in the
server's log, and is in the header `X-Request-Id` of every answer; `invalid` lists every wrong field in `errors`.

    {"type":"/docs/errors#tenant_not_found","title":"Tenant not found","status":404,"code":"tenant_not_found",
     "detail":"no tenant of this id among yours; GET /v1/me lists them","request_id":"req_…"}

On the gateway an error answers the command with the same `id`, or is a push without `id`:

    {"id":3,"error":{"code":"channel_not_found","message":"no channel 'news' in this tenant; …","temporary":false}}

A *close code* ends the connection, with the beginning of the text as the reason. An error that answers a command other than
`connect` never ends it, even if it has a close code here. Codes from 4000 to 4499 mean "reconnect"; codes from 4500 to 4999 mean
"reconnect only after fixing the cause".

*Retry* is "yes" if the same call can succeed a little later (`temporary` on the gateway, a `Retry-After` header over REST).

| code | text | HTTP | close code | retry |
| --- | --- | --- | --- | --- |
{sent}

## Errors that no server sends

These occur elsewhere, and have neither a status nor a close code.

| code | text | where |
| --- | --- | --- |
{apart}
"""

ROLES_PAGE: Final = """\
<!-- Generated from src/artcafe/rules/access.py: change it there, and run `make docs`. -->

# Permissions by role

A person acts in a tenant with the role of their membership, an agent as itself. The table is complete: everything else is
forbidden. *itself*: only the agent's own subscriptions.

| action | {roles} | agent | in a suspended tenant |
| --- | {rule} | --- | --- |
{rows}

An admin invites, changes and removes members, but cannot make anyone an owner, nor change or remove an owner; every member may
leave. The last owner stays: they make another member an owner first, or delete the tenant. In a suspended tenant agents have no
access, and people may perform the actions marked in the last column.

If the operator has set terms (`TERMS_VERSION`), a person who has not accepted the current version may only read and
accept it (`/v1/terms`), and read their own record (`/v1/me`); until `TERMS_GRACE_UNTIL` a person who accepted an earlier version
may continue. Agents are not asked. [people.md](people.md) has an example.
"""

FRAMES_PAGE: Final = """\
<!-- Generated from src/artcafe/wire (frames, replies, field_docs), rest/frame_docs.py: change it there, run `make docs`. -->

# Frames

Reference of every frame of the gateway and its fields. [gateway.md](gateway.md) describes the protocol, and
`GET /asyncapi.json` of a running server has the same reference for programs.

A command has an `id`, an integer of your choice from 0 to 2^53, and its own key; its reply has the same `id` and the
same key, or [`error`](#error). The server refuses an unknown field of a command; a client must ignore unknown fields and unknown
pushes of the server. A field marked neither required nor always present is optional.

## Commands

{commands}

## Pushes

A push answers no command, and has no `id`.

{pushes}

## Parts

{parts}

## Test vectors

[`tests/wire/vectors/session.json`](../tests/wire/vectors/session.json) has the order of frames as data, to test a client in any
language:

- `client.sends`, `client.receives` and `server.receives`: the rows of the state tables, each with `state`, `kind` and `next`.
- `transcripts`: whole connections. A step has its sender (`from`), the `kind` and exact text (`frame`) of one frame, and the
  states of `client` and `server` after it. A client sends the frames of `client` (compare them as JSON) and accepts those of
  `server`. It ignores a frame of kind `unknown`.
- `illegal_for_client`: for every state, each frame that a client must refuse, after the frames of `path`. It closes with the code
  `close`.
- `illegal_for_server`: for every state, each command that a server refuses, with the error's `code` and the `close` code.

`python -m tests.wire.transcripts` writes the file; a test fails when it is stale.
"""

METRICS_PAGE: Final = """\
<!-- Generated from src/artcafe/observe/metrics.py: change it there, and run `make docs`. -->

# Metrics

Every metric of a server, read at `/metrics` of its own listener (`--metrics-listen`). [monitoring.md](monitoring.md) says how to
scrape them and what to alert on. Names, labels and their values change only with an entry in the changelog.

A counter or a histogram has one value for all server processes of `--processes`, and does not fall when one of them is restarted.
A gauge marked *process* has a series for each, with the label `process`: from 1 on, and 0 for the supervisor of several. A metric
marked *tenant* has further series for the tenants that `METRICS_TENANTS` names, with the label `tenant`, besides one without this
label for all others; by default no metric names a tenant. All other label values are listed here.

Histograms count seconds in buckets whose bounds double from {first_bound} s to {last_bound} s. A series of a histogram with
labels appears with its first value; all other series are always present, except gauges that do not apply.

| metric | type | labels | meaning |
| --- | --- | --- | --- |
{metrics}
"""

SETTINGS_PAGE: Final = """\
<!-- Generated from src/artcafe/config.py: change it there, and run `make docs`. -->

# Settings

A setting is a flag of `artcafe up` and `artcafe serve`, an environment variable, or a line of a TOML file. A flag overrides
a variable, and a variable overrides the file. Settings are read once, at start; an unknown or invalid one stops the start with
an explanation.

| flag | variable | TOML key | default | meaning |
| --- | --- | --- | --- | --- |
{settings}

`--config FILE` or `{file_variable}` names the file. An empty variable counts as not set, so `${NAME:-}` of a compose file or a
shell passes an optional one on; an empty text as a flag or in the file is an invalid value. Every line is optional:

```toml
data_dir = "/var/lib/artcafe"
listen = "127.0.0.1:9080"
gateway_listen = "127.0.0.1:9081"
cursor_write_s = 1
log_level = "info"
log_json = true
```

{client_variables} configure the SDK and the
commands of agents and people; a server ignores them. `artcafe token`, `artcafe demo` and people's commands also read the data
folder from `{prefix}DATA_DIR`. [people.md](people.md) describes how to set up an issuer.
"""


def pages() -> dict[Path, str]:
    """Return the generated pages: the path and the text of each."""
    made = {
        "errors": errors_page(),
        "frames": frames_page(),
        "metrics": metrics_page(),
        "promises": promises_page(),
        "roles": roles_page(),
        "settings": settings_page(),
    }
    return {DOCS / f"{name}.md": page for name, page in made.items()}


def errors_page() -> str:
    """Return the page of every error in the registry, sorted by code."""
    for module in pkgutil.walk_packages(artcafe.__path__, "artcafe."):
        importlib.import_module(module.name)  # Importing a module registers its errors.
    ours = {code: kind for code, kind in sorted(REGISTRY.items()) if kind.__module__.startswith("artcafe.")}
    sent = [_sent_row(kind) for code, kind in ours.items() if code not in APART]
    apart = [f"| {_anchor(code)} | {_text(ours[code])} | {where} |" for code, where in sorted(APART.items())]
    return _filled(ERRORS_PAGE, sent="\n".join(sent), apart="\n".join(apart))


def promises_page() -> str:
    """Return the page of the promises: each clause with the tests marked with it."""
    marked = marked_tests()
    parts = {"Delivery": delivery_clauses()} | {name.capitalize(): passage.clauses for name, passage in passages().items()}
    shown = [f"## {name}\n\n{_clause_table(found, marked)}" for name, found in parts.items()]
    return _filled(PROMISES_PAGE, parts="\n\n".join(shown))


def _clause_table(found: Mapping[str, str], marked: Mapping[str, list[str]]) -> str:
    rows = ["| clause | text | tests |", "| --- | --- | --- |"]
    for id, text in found.items():
        tests = "<br>".join(_test_link(test) for test in marked.get(id, ())) or "–"
        rows.append(f"| {id} | {text} | {tests} |")
    return "\n".join(rows)


def _test_link(test: str) -> str:
    path, _, name = test.partition("::")
    return f"[{name.removeprefix('test_').replace('_', ' ')}](../{path})"


def roles_page() -> str:
    """Return the page of the access table in `rules.access`, one action a line."""
    of_agents = {AgentAccess.NONE: "–", AgentAccess.ITSELF: "itself", AgentAccess.ANY: "yes"}
    rows = []
    for action in Action:
        roles, agents = WHO[action]
        cells = [action.value, *("yes" if role in roles else "–" for role in Role), of_agents[agents]]
        cells.append("yes" if action in WHILE_SUSPENDED else "–")
        rows.append(f"| {' | '.join(cells)} |")
    rule = " | ".join("---" for _ in Role)
    return _filled(ROLES_PAGE, roles=" | ".join(Role), rule=rule, rows="\n".join(rows))


def metrics_page() -> str:
    """Return the page of every declared metric, in order, with its labels."""
    first, last = (f"{bound:.6f}".rstrip("0") for bound in (BOUNDS_S[0], BOUNDS_S[-1]))
    return _filled(METRICS_PAGE, first_bound=first, last_bound=last, metrics="\n".join(map(_metric_row, METRICS)))


def _metric_row(metric: AnyMetric) -> str:
    labels = [f"`{name}`: {_label_values(name, values)}" for name, values in metric.labels.items()]
    labels += ["*process*"] if isinstance(metric, Gauge) and metric.by_process else []
    labels += ["*tenant*"] if metric.by_tenant else []
    return f"| `{metric.name}` | {metric.kind} | {'; '.join(labels) or '–'} | {metric.help} |"


def _label_values(name: str, values: tuple[str, ...]) -> str:
    """Return the values of a label; the codes of errors have a page of their own."""
    return "the codes of [errors.md](errors.md), or `other`" if name == "code" else ", ".join(f"`{each}`" for each in values)


def settings_page() -> str:
    """Return the page of every field of `Settings`, in order, with its flag on the command line."""
    flags = {option.name: [*option.opts, *option.secondary_opts] for option in up.params}
    rows = [_setting_row(name, flags[name]) for name in Settings.model_fields]
    clients = ", ".join(f"`{name}`" for name in sorted(CLIENT_VARIABLES - {FILE_VARIABLE}))
    return _filled(SETTINGS_PAGE, settings="\n".join(rows), file_variable=FILE_VARIABLE, client_variables=clients, prefix=PREFIX)


def frames_page() -> str:
    """Return the page of every frame in the AsyncAPI document, which is generated from the frames' types."""
    document = msgspec.json.decode(asyncapi.document("ws://127.0.0.1:8081/v1/connect", "0"))
    schemas = document["components"]["schemas"]
    commands = [_command(kind, document) for kind in sorted(frame_docs.COMMANDS)]
    pushes = [_push(kind, document) for kind in sorted(frame_docs.PUSHES)]
    parts = [f"### `{name}`\n\n{_fields(schemas[name])}" for name in sorted(_parts(schemas))]
    filled = {"commands": commands, "pushes": pushes, "parts": parts}
    return _filled(FRAMES_PAGE, **{name: "\n\n".join(sections) for name, sections in filled.items()})


def _command(kind: str, document: dict[str, Any]) -> str:
    command, reply = frame_docs.COMMANDS[kind], document["components"]["messages"].get(f"{kind}_reply")
    shown = [f"### `{kind}`", command.summary, f"    > {_example(kind, document)}", _fields(_body(kind, kind, document))]
    if reply is not None:
        reply_name = f"{kind}_reply"
        shown += ["Its reply:", f"    < {_example(reply_name, document)}", _fields(_body(reply_name, kind, document))]
    codes = ", ".join(f"[`{code}`](errors.md#{code})" for code in document["operations"][kind]["x-errors"])
    return "\n\n".join([*shown, f"Errors: {codes}."])


def _push(kind: str, document: dict[str, Any]) -> str:
    name = f"{kind}_push"
    shown = [
        f"### `{kind}`" + (", pushed" if kind in frame_docs.COMMANDS else ""),
        frame_docs.PUSHES[kind].summary,
        f"    < {_example(name, document)}",
        _fields(_body(name, kind, document)),
    ]
    return "\n\n".join(shown)


def _example(name: str, document: dict[str, Any]) -> str:
    (example,) = document["components"]["messages"][name]["examples"]
    return msgspec.json.encode(example["payload"]).decode()


def _body(name: str, kind: str, document: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of the object under a frame's key."""
    reference: str = document["components"]["messages"][name]["payload"]["properties"][kind]["$ref"]
    schema: dict[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]
    return schema


def _fields(schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    must = "required" if schema.get("additionalProperties") is False else "always"
    rows = [
        f"| `{name}` | {_type(field)} | {_presence(name in required, must, field)} | {field['description']} |"
        for name, field in schema["properties"].items()
    ]
    return "\n".join(["| field | type | | meaning |", "| --- | --- | --- | --- |", *rows])


def _presence(is_required: bool, must: str, field: dict[str, Any]) -> str:
    default = field.get("default")
    if is_required:
        return must
    return f"default `{default}`" if default not in (None, {}) else ""


def _type(field: dict[str, Any]) -> str:
    """Return a JSON schema in words."""
    if "anyOf" in field:
        return " or ".join(_type(each) for each in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{each}`" for each in field["enum"])
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if field.get("type") == "object":
        return f"object of {_type(field['additionalProperties'])}"
    bounds = [field[each] for each in ("minimum", "maximum") if each in field]
    return str(field.get("type", "any JSON")) + (f" {_number(bounds[0])} to {_number(bounds[1])}" if len(bounds) == 2 else "")


def _number(number: int) -> str:
    return "2^53" if number == frames.MAX_SEQ else f"{number:,}"


def _parts(schemas: dict[str, Any]) -> set[str]:
    """Return the names of the schemas that other schemas reference."""
    return set(re.findall(r'"#/components/schemas/(\w+)"', msgspec.json.encode(schemas).decode()))


def _sent_row(kind: type[ArtcafeError]) -> str:
    status = str(kind.status) if has_status(kind) else "–"
    close = "–" if kind.close is None else str(kind.close)
    return f"| {_anchor(kind.code)} | {_text(kind)} | {status} | {close} | {'yes' if kind.temporary else 'no'} |"


def _setting_row(name: str, flags: list[str]) -> str:
    field = Settings.model_fields[name]
    flag = ", ".join(f"`{each}`" for each in flags)
    default = "–" if field.default in (None, ()) else f"`{str(field.default).removesuffix('.0')}`"
    if isinstance(field.default, bool):
        default = default.lower()
    choices = f" One of {', '.join(get_args(field.annotation))}." if get_origin(field.annotation) is Literal else ""
    meaning = " ".join((field.description or "").split())
    return f"| {flag} | `{PREFIX}{name.upper()}` | `{name}` | {default} | {meaning}{choices} |"


def _anchor(code: str) -> str:
    """Return the code with an anchor, to which the `type` of a problem links."""
    return f'<a id="{code}"></a>`{code}`'


def _text(kind: type[ArtcafeError]) -> str:
    """Return the error's text for a cell of a table, with its placeholders in italics."""
    return readable_text(kind, r"*\1*").replace("|", "\\|")


def _filled(page: str, **parts: str) -> str:
    """Fill in the named parts only; `str.format` fails on a page that contains other braces."""
    for name, part in parts.items():
        page = page.replace(f"{{{name}}}", part)
    return page


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
