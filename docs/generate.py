#!/usr/bin/env python3
"""Writes the pages that are made from the code: errors.md, frames.md, roles.md and settings.md. `make docs` runs it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

import artcafe
from artcafe.cli.operate.serve import up
from artcafe.config import CLIENT_VARIABLES, FILE_VARIABLE, PREFIX, Settings
from artcafe.errors import REGISTRY, ArtcafeError
from artcafe.model import Role
from artcafe.rest import asyncapi
from artcafe.rules.access import WHILE_SUSPENDED, WHO, Action, AgentAccess
from artcafe.wire import frames

DOCS: Final = Path(__file__).parent

APART: Final = {
    "start_refused": "at the start of a server, and of the commands that read its data folder",
    "chain_broken": "in `artcafe audit verify`",
    "archive_refused": "in `artcafe backup` and `artcafe restore`",
    "setting_invalid": "at the start, for a flag, a variable or a line of the file",
    "key_unusable": "in the SDK and in `artcafe agent …`, before anything is sent",
    "challenge_refused": "in the SDK and in `artcafe agent …`, before anything is signed",
    "unknown": "in the SDK and in `artcafe agent …`, talking to a newer server",
    "link_lost": "in a server's log",
    "no_responder": "in a server's log",
}
"""Errors that no server tells a peer, and where they are met instead."""

ERRORS_PAGE: Final = """\
<!-- Made from src/artcafe/errors.py: change it there, and run `make docs`. -->

# Errors

An error has a `code`, which is stable and for programs, and a text, which is for people and may change. *Words like this* stand
for facts of the case.

Over REST an error is an `application/problem+json` (RFC 9457) with its HTTP status. `request_id` names the request in the
server's log, and is in the header `X-Request-Id` of every answer; `invalid` lists every wrong field in `errors`.

    {"type":"/docs/errors#tenant_not_found","title":"Tenant not found","status":404,"code":"tenant_not_found",
     "detail":"no tenant of this id among yours; GET /v1/me lists them","request_id":"req_…"}

On the gateway it answers the command of the same `id`, or stands alone where it answers none:

    {"id":3,"error":{"code":"channel_not_found","message":"no channel 'news' in this tenant; …","temporary":false}}

A *close code* ends the connection, with the beginning of the text as the reason. An error that answers a command other than
`connect` never ends it, whatever stands here. Codes from 4000 to 4499 mean: connect again; from 4500 to 4999: not before
something was mended.

*Retry* says whether the same call can succeed a little later (`temporary` on the gateway, a `Retry-After` header over REST).

| code | what it says | HTTP | close code | retry |
| --- | --- | --- | --- | --- |
{told}

## Not from a server

These are met elsewhere, and have neither a status nor a close code.

| code | what it says | where |
| --- | --- | --- |
{apart}
"""

ROLES_PAGE: Final = """\
<!-- Made from src/artcafe/rules/access.py: change it there, and run `make docs`. -->

# Who may do what

A person acts in a tenant with the role of their membership, an agent as itself. This is the whole table: nobody may what does not
stand here. *itself*: only where the thing is about that agent.

| may | {roles} | agent | in a suspended tenant |
| --- | {rule} | --- | --- |
{rows}

An admin invites, changes and removes members, but makes nobody an owner, and changes and removes no owner; everybody may leave.
The last owner stays: they make somebody else an owner first, or delete the tenant. In a suspended tenant agents are out, and
people do what the last column says.

Where the operator has set terms (`TERMS_VERSION`), a person who has not accepted the current version may do nothing but read and
accept it (`/v1/terms`), and ask who they are (`/v1/me`); until `TERMS_GRACE_UNTIL` whoever accepted an earlier version goes on.
Agents are not asked. [people.md](people.md) has a day of it.
"""

FRAMES_PAGE: Final = """\
<!-- Made from src/artcafe/wire (frames, replies, field_docs) and rest/asyncapi.py: change it there, and run `make docs`. -->

# Frames

Every frame of the gateway and every field of it, for looking up. [gateway.md](gateway.md) tells how they go together, and
`GET /asyncapi.json` of a running server has the same for programs.

A command carries an `id`, an integer of your choice from 0 to 2^53, beside its own key; its reply carries the same `id` and the
same key, or [`error`](#error). An unknown field of a command is refused; one of the server's is to be passed over, and so is a
push that is not here. What is neither required nor always there may be left out.

## Commands

{commands}

## Pushes

They answer no command, and have no `id`.

{pushes}

## Parts

{parts}
"""

SETTINGS_PAGE: Final = """\
<!-- Made from src/artcafe/config.py: change it there, and run `make docs`. -->

# Settings

A setting is a flag of `artcafe up` and `artcafe serve`, an environment variable, or a line of a TOML file. A flag counts before
a variable, and a variable before the file. They are read once, at the start; one that is unknown or wrong stops the start with
a sentence.

| flag | variable | TOML key | default | meaning |
| --- | --- | --- | --- | --- |
{settings}

The file is named by `--config FILE` or `{file_variable}`. All of it is optional:

```toml
data_dir = "/var/lib/artcafe"
listen = "127.0.0.1:9080"
gateway_listen = "127.0.0.1:9081"
cursor_write_s = 1
log_level = "info"
log_json = true
```

{client_variables} are no settings of a server, which passes over them: they
are for the SDK and the commands of agents and people. `artcafe token`, `artcafe demo` and the people's commands take the data
folder from `{prefix}DATA_DIR` too. How an issuer is set up stands in [people.md](people.md).
"""


def pages() -> dict[Path, str]:
    """The generated pages: where each belongs, and what must stand there."""
    made = {"errors": errors_page(), "frames": frames_page(), "roles": roles_page(), "settings": settings_page()}
    return {DOCS / f"{name}.md": page for name, page in made.items()}


def errors_page() -> str:
    """Every error of the registry, by its code."""
    for module in pkgutil.walk_packages(artcafe.__path__, "artcafe."):
        importlib.import_module(module.name)  # An error is in the registry once its module is imported.
    ours = {code: kind for code, kind in sorted(REGISTRY.items()) if kind.__module__.startswith("artcafe.")}
    told = [_told_row(kind) for code, kind in ours.items() if code not in APART]
    apart = [f"| {_anchor(code)} | {_text(ours[code])} | {where} |" for code, where in sorted(APART.items())]
    return _filled(ERRORS_PAGE, told="\n".join(told), apart="\n".join(apart))


def roles_page() -> str:
    """The table of `rules.access`, an action a line."""
    told = {AgentAccess.NONE: "–", AgentAccess.ITSELF: "itself", AgentAccess.ANY: "yes"}
    rows = []
    for action in Action:
        roles, agents = WHO[action]
        cells = [action.value, *("yes" if role in roles else "–" for role in Role), told[agents]]
        cells.append("yes" if action in WHILE_SUSPENDED else "–")
        rows.append(f"| {' | '.join(cells)} |")
    rule = " | ".join("---" for _ in Role)
    return _filled(ROLES_PAGE, roles=" | ".join(Role), rule=rule, rows="\n".join(rows))


def settings_page() -> str:
    """Every field of `Settings`, in its order, with the flag that the command line has for it."""
    flags = {option.name: [*option.opts, *option.secondary_opts] for option in up.params}
    rows = [_setting_row(name, flags[name]) for name in Settings.model_fields]
    clients = ", ".join(f"`{name}`" for name in sorted(CLIENT_VARIABLES - {FILE_VARIABLE}))
    return _filled(SETTINGS_PAGE, settings="\n".join(rows), file_variable=FILE_VARIABLE, client_variables=clients, prefix=PREFIX)


def frames_page() -> str:
    """Every frame of the AsyncAPI document, which is made from the frames' types."""
    told = msgspec.json.decode(asyncapi.document("ws://127.0.0.1:8081/v1/connect", "0"))
    schemas = told["components"]["schemas"]
    commands = [_command(kind, told) for kind in sorted(asyncapi.COMMANDS)]
    pushes = [_push(kind, told) for kind in sorted(asyncapi.PUSHES)]
    parts = [f"### `{name}`\n\n{_fields(schemas[name])}" for name in sorted(_parts(schemas))]
    filled = {"commands": commands, "pushes": pushes, "parts": parts}
    return _filled(FRAMES_PAGE, **{name: "\n\n".join(sections) for name, sections in filled.items()})


def _command(kind: str, told: dict[str, Any]) -> str:
    command, reply = asyncapi.COMMANDS[kind], told["components"]["messages"].get(f"{kind}_reply")
    shown = [f"### `{kind}`", command.summary, f"    > {_example(kind, told)}", _fields(_body(kind, kind, told))]
    if reply is not None:
        shown += ["Its reply:", f"    < {_example(f'{kind}_reply', told)}", _fields(_body(f"{kind}_reply", kind, told))]
    codes = ", ".join(f"[`{code}`](errors.md#{code})" for code in told["operations"][kind]["x-errors"])
    return "\n\n".join([*shown, f"Errors: {codes}."])


def _push(kind: str, told: dict[str, Any]) -> str:
    name = f"{kind}_push"
    shown = [f"### `{kind}`", asyncapi.PUSHES[kind].summary, f"    < {_example(name, told)}", _fields(_body(name, kind, told))]
    return "\n\n".join(shown)


def _example(name: str, told: dict[str, Any]) -> str:
    (example,) = told["components"]["messages"][name]["examples"]
    return msgspec.json.encode(example["payload"]).decode()


def _body(name: str, kind: str, told: dict[str, Any]) -> dict[str, Any]:
    """The schema of what stands under a frame's key."""
    reference: str = told["components"]["messages"][name]["payload"]["properties"][kind]["$ref"]
    schema: dict[str, Any] = told["components"]["schemas"][reference.rpartition("/")[2]]
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
    return f"else `{default}`" if default not in (None, {}) else ""


def _type(field: dict[str, Any]) -> str:
    """A JSON schema in words."""
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
    """The schemas that stand within others."""
    return set(re.findall(r'"#/components/schemas/(\w+)"', msgspec.json.encode(schemas).decode()))


def _told_row(kind: type[ArtcafeError]) -> str:
    # Without a status of its own, or of a class between it and the root, an error has no way into an HTTP answer.
    is_http = any("status" in vars(each) for each in kind.__mro__ if each is not ArtcafeError)
    status = str(kind.status) if is_http else "–"
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
    """The code, to be linked to as the `type` of a problem does."""
    return f'<a id="{code}"></a>`{code}`'


def _text(kind: type[ArtcafeError]) -> str:
    """The error's text, its facts in italics; behind a text of nothing but facts, what the class says of itself."""
    text = re.sub(r"\{(\w+)[^}]*\}", r"*\1*", kind.text.replace("\n ", ";")).replace("|", "\\|")
    is_bare = not re.search(r"\w", re.sub(r"\{[^}]*\}", "", kind.text))
    return f"{text} ({re.split(r'[.;]', kind.__doc__ or '')[0]})" if is_bare else text


def _filled(page: str, **parts: str) -> str:
    """`str.format` for a page with braces of its own: only the named parts are filled in."""
    for name, part in parts.items():
        page = page.replace(f"{{{name}}}", part)
    return page


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
