"""The generated pages (errors, frames, metrics, roles, settings) match the code."""

from __future__ import annotations

import re
from pathlib import Path
from types import NoneType
from typing import get_args, get_type_hints

import msgspec
import pytest

from artcafe import config
from artcafe.errors import REGISTRY
from artcafe.rest.frame_docs import COMMANDS, PUSHES
from artcafe.wire import field_docs, frames, replies
from artcafe.wire.envelopes import DeadLetter, Redriven
from artcafe.wire.receipts import Recipient
from docs import generate

ROOT = Path(__file__).parents[2]
PAGES = generate.pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_generated_page_matches_the_code(path: Path) -> None:
    assert path.read_text() == PAGES[path], "run: make docs"


def test_errors_page_has_every_error_once_with_the_anchor_of_its_problem_type() -> None:
    codes = [code for code, kind in REGISTRY.items() if kind.__module__.startswith("artcafe.")]
    assert sorted(re.findall(r'<a id="(\w+)"></a>`\1`', PAGES[ROOT / "docs" / "errors.md"])) == sorted(codes)


def test_settings_page_has_every_setting_with_its_variable() -> None:
    rows = re.findall(r"`ARTCAFE_(\w+)` \| `(\w+)` \|", PAGES[ROOT / "docs" / "settings.md"])
    assert [key for _, key in rows] == list(config.Settings.model_fields)
    assert all(variable == key.upper() for variable, key in rows)


FRAMES = PAGES[ROOT / "docs" / "frames.md"]


def section(heading: str) -> str:
    """Return the section of a frame."""
    (found,) = re.findall(rf"^### {heading}\n(.*?)(?=^##|\Z)", FRAMES, re.DOTALL | re.MULTILINE)
    return str(found)


def fields_of(frame: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    """Return the struct under each key of a frame."""
    hints = get_type_hints(frame)
    return {name: next(each for each in get_args(hint) if each is not NoneType) for name, hint in hints.items() if name != "id"}


def test_frames_page_has_every_frame_with_every_field() -> None:
    commands, incoming = fields_of(frames.Command), fields_of(replies.Incoming)
    assert re.findall(r"^### `(\w+)`$", FRAMES.partition("## Parts")[0], re.MULTILINE) == [
        *sorted(commands),
        *sorted(incoming.keys() - commands.keys()),
    ]
    for kind in commands | incoming:
        is_pushed_only = kind in commands and COMMANDS[kind].reply is None and kind in PUSHES
        shown = section(f"`{kind}`") + (section(f"`{kind}`, pushed") if is_pushed_only else "")
        listed = re.findall(r"^\| `(\w+)` \|", shown, re.MULTILINE)
        structs = [each for each in (commands.get(kind), incoming.get(kind)) if each is not None]
        assert listed == [name for struct in structs for name in struct.__struct_encode_fields__]


def test_field_docs_describe_only_existing_fields() -> None:
    structs: list[type[msgspec.Struct]] = [frames.Cause, frames.AgentFault, replies.Gap, replies.PastMessage, replies.LimitState]
    structs += [DeadLetter, Redriven, Recipient]
    structs += [*fields_of(frames.Command).values(), *fields_of(replies.Incoming).values()]
    known = {f"{struct.__name__}.{name}" for struct in structs for name in struct.__struct_encode_fields__}
    assert {key for key in field_docs.FIELD_DOCS if "." in key} <= known
    assert {key for key in field_docs.FIELD_DOCS if "." not in key} <= {each.partition(".")[2] for each in known}


def test_example_file_of_the_settings_page_is_valid(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGES[ROOT / "docs" / "settings.md"], re.DOTALL)
    file = tmp_path / "artcafe.toml"
    file.write_text(example)
    settings = config.load({}, {}, file)
    assert settings.listen == ("127.0.0.1", 9080)
    assert len(settings.model_fields_set) == len(example.splitlines())
