"""The renderers of log lines, compared with structlog's and the standard library's."""

from __future__ import annotations

import io
import json
import re
import string
from datetime import UTC, datetime

import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.typing import EventDict

from artcafe.observe import redaction
from artcafe.observe.line_renderers import json_line, plain_line
from artcafe.observe.logs import configure, log

TEXT = st.text() | st.text(alphabet=string.printable)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.lists(TEXT, max_size=3)
)
NAMES = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
LEVELS = st.sampled_from(["debug", "info", "warning", "error", "critical"])
EVENTS = st.builds(
    lambda more, fields: {**more, **fields},
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.fixed_dictionaries(
        {"event": TEXT, "level": LEVELS, "timestamp": st.just("2026-11-28T12:00:00.000000Z")},
        optional={"exception": TEXT, "logger": TEXT},
    ),
)
HARMLESS_OR_NOT = st.text(alphabet="eyJKAZSACNOUX-abz019_.@+: =", max_size=60)


@given(event=EVENTS)
def test_plain_line_equals_that_of_structlog(event: EventDict) -> None:
    structlogs = structlog.dev.ConsoleRenderer(colors=False)(None, "info", dict(event))
    assert plain_line(None, "info", dict(event)) == structlogs


@given(event=EVENTS)
def test_json_line_has_the_same_fields_as_that_of_the_standard_library(event: EventDict) -> None:
    line = json_line(None, "info", dict(event))
    assert "\n" not in line
    assert json.loads(line) == json.loads(json.dumps(event))


def test_json_line_is_written_where_msgspec_refuses_a_value() -> None:
    for value in ("\ud800", 2**70, object):
        assert json.loads(json_line(None, "info", {"event": "x", "value": value}))["event"] == "x"


@given(text=HARMLESS_OR_NOT)
def test_text_that_is_not_searched_for_secrets_has_none_by_any_pattern(text: str) -> None:
    if redaction._HARMLESS.fullmatch(text):
        assert not any(pattern.search(text) for pattern, _ in redaction._PATTERNS)


def test_lines_carry_level_and_utc_time() -> None:
    stream = io.StringIO()
    configure(json=True, stream=stream)
    before = datetime.now(UTC)
    log.info("agent.connected", agent="agt_1")
    line = json.loads(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])
    assert before <= datetime.fromisoformat(line["timestamp"]) <= datetime.now(UTC)
    assert (line["event"], line["level"], line["agent"]) == ("agent.connected", "info", "agt_1")
