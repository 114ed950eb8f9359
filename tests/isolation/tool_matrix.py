"""Tenant isolation of MCP over HTTP: tools × kinds of callers × existing, foreign, unknown and hidden ids, and resources ×
kinds of callers.

A tool or resource missing in the tables fails `test_matrix`. The cells are cells of the REST matrix too, for `test_mutations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from artcafe.rest.mcp_offers import AgentOffer
from artcafe.rest.mcp_tools import PersonTools, StatelessAgentTools
from tests.isolation.matrix import OWN, Matrix, TenantRecords
from tests.isolation.route_rules import ABSENT, AGENTS, OUTSIDE, PENDING, SUSPENDED, UNPROVEN, CallerKind

METHOD_NOT_FOUND: Final = -32601
META: Final = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
LISTEN: Final = "subscriptions/listen"
LISTENING: Final = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": LISTEN}
NO_TOOL: Final = "no tool"
"""A tool that this kind of caller does not have."""


@dataclass(frozen=True)
class ToolRule:
    """The expected answers of a tool.

    `person`, `viewer`, `agent` and `other`: the error code for existing records, None for a result. `missing`: the error code by
    argument for an unknown id in it. `reads`: whether people of a suspended tenant may call it.
    """

    person: str | None = None
    viewer: str | None = None
    agent: str | None = None
    other: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Those without an id; ids are added by `missing`."""
    missing: Mapping[str, str] = field(default_factory=dict)
    reads: bool = False

    def expected(self, who: CallerKind) -> str | None:
        """Return the error code for a caller of the tenant, None for a result."""
        code = {
            CallerKind.VIEWER: self.viewer,
            CallerKind.AGENT: self.agent,
            CallerKind.OTHER: self.other,
        }.get(SUSPENDED.get(who, who), self.person)
        is_refused = code in ("forbidden", NO_TOOL)
        return "tenant_suspended" if who in SUSPENDED and not self.reads and not is_refused else code


READS: Final = ToolRule(reads=True)
TOOLS: Final[Mapping[str, ToolRule]] = {
    "whoami": READS,
    "agents_find": READS,
    "channels_list": READS,
    "limits": READS,
    "publish": ToolRule(viewer="forbidden", arguments={"data": 1}, missing={"channel": "channel_not_found"}),
    "send": ToolRule(viewer="forbidden", arguments={"data": 1}, missing={"agent": "agent_not_found"}),
    "ask": ToolRule(
        person="agent_away",
        viewer="forbidden",
        agent="agent_away",
        other="agent_away",
        arguments={"data": 1},
        missing={"agent": "agent_not_found"},
    ),
    "inbox_pull": ToolRule(
        person=NO_TOOL, viewer=NO_TOOL, other="subscription_not_found", missing={"channel": "subscription_not_found"}
    ),
    "ack": ToolRule(
        person=NO_TOOL,
        viewer=NO_TOOL,
        other="subscription_not_found",
        arguments={"seq": 0},
        missing={"channel": "subscription_not_found"},
    ),
}


RESOURCES: Final = ("inbox://me",)
"""Of agents; people have none."""


def own_resources() -> set[str]:
    """Return the addresses of all resources that a server has."""
    return {each["uri"] for each in AgentOffer.resources}


def own_names() -> set[str]:
    """Return the names of all tools that a server has."""
    return {*PersonTools.names, *StatelessAgentTools.names}


def there(matrix: Matrix, tool: str, who: CallerKind) -> None:
    """Check the answer for existing records."""
    world = matrix.halted if who in SUSPENDED else matrix.ours
    status, found = call(matrix, who, world.tenant.id, tool, arguments_of(world, TOOLS[tool]))
    assert (status, code_of(found)) == expected_there(tool, who), found


def expected_there(tool: str, who: CallerKind) -> tuple[int, str | None]:
    """Return the expected HTTP status and error code."""
    return _refusal(who) or (200, TOOLS[tool].expected(who))


def _refusal(who: CallerKind) -> tuple[int, str] | None:
    """Return the expected status and error code for a caller who may call nothing; None for others."""
    if who in UNPROVEN:
        return 401, UNPROVEN[who]
    if who in OUTSIDE:
        return 404, "tenant_not_found"
    if who in PENDING:
        return 403, "terms_required"
    return (403, "tenant_suspended") if who is CallerKind.SUSPENDED_AGENT else None


def elsewhere(matrix: Matrix, tool: str, argument: str, who: CallerKind) -> None:
    """Check that the id and the handle of another tenant's record, and an unknown id, get the same answer."""
    name = f"{argument}_id"
    foreign = (matrix.theirs.ids()[name], matrix.theirs.handles()[name], ABSENT[name], "no-such-name")
    rule, answers = TOOLS[tool], []
    for id in foreign:
        status, found = call(matrix, who, matrix.ours.tenant.id, tool, {**rule.arguments, argument: id})
        assert status == 200, found
        answers.append(found)
    assert answers == [answers[0]] * len(answers)
    expected = rule.expected(who)
    assert code_of(found) == (expected if expected in ("forbidden", NO_TOOL) else rule.missing[argument])


def hidden(matrix: Matrix, tool: str) -> None:
    """Check that an agent without a subscription to a managed channel gets the answer of an unknown one, by id and handle."""
    answers = []
    for id in (matrix.ours.managed, matrix.ours.managed_handle, ABSENT["channel_id"], "no-such-channel"):
        arguments = {**TOOLS[tool].arguments, "channel": id}
        _, found = call(matrix, CallerKind.OTHER, matrix.ours.tenant.id, tool, arguments)
        answers.append(found)
    assert answers == [answers[0]] * len(answers)
    assert code_of(found) == TOOLS[tool].missing["channel"]


def arguments_of(world: TenantRecords, rule: ToolRule) -> dict[str, Any]:
    """Return the arguments of a call about the tenant's own records."""
    return {**rule.arguments, **{name: world.ids()[f"{name}_id"] for name in rule.missing}}


def resource(matrix: Matrix, uri: str, who: CallerKind) -> None:
    """Check that an agent reads what waits for itself, and may be notified of it, and that nobody else may do either."""
    world = matrix.halted if who in SUSPENDED else matrix.ours
    read = {"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": uri}}
    listen = {"jsonrpc": "2.0", "id": 1, "method": LISTEN, "params": {"notifications": {}, "_meta": META}}
    answers = [_post(matrix, who, world, read), _post(matrix, who, world, listen, LISTENING)]
    refusal = _refusal(who)
    if refusal is not None:
        assert [(each.status_code, each.json()["code"]) for each in answers] == [refusal, refusal]
    elif who not in AGENTS:
        assert [each.json()["error"]["code"] for each in answers] == [METHOD_NOT_FOUND, METHOD_NOT_FOUND]
    else:
        (content,) = answers[0].json()["result"]["contents"]
        channels = [each["channel"] for each in msgspec.json.decode(content["text"])["subscriptions"]]
        agent = world.agent if who is CallerKind.AGENT else world.other
        own = matrix.callers[who].get(f"/v1/tenants/{world.tenant.id}/agents/{agent.id}/subscriptions?limit=200").json()["items"]
        assert channels == [*(each["channel_id"] for each in own), f"@{agent.id}"]
        assert "notifications/subscriptions/acknowledged" in answers[1].text


def elsewhere_in_resources(matrix: Matrix, who: CallerKind) -> None:
    """Check that the inboxes of another agent and of another tenant's one get the answer of an unknown one."""
    answers = []
    for id in (matrix.ours.ids()["agent_id"], matrix.theirs.ids()["agent_id"], ABSENT["agent_id"]):
        read = {"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": f"inbox://{id}"}}
        answers.append(_post(matrix, who, matrix.ours, read).text.replace(id, "NAME"))
    assert answers == [answers[0]] * len(answers)
    assert "there is no resource" in answers[0]


def _post(
    matrix: Matrix, who: CallerKind, world: TenantRecords, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Any:
    answer = matrix.callers[who].post(f"/v1/tenants/{world.tenant.id}/mcp", json=body, headers=headers)
    matrix.check_text(who, answer.text)
    return answer


def call(matrix: Matrix, who: CallerKind, tenant: str, tool: str, arguments: Mapping[str, Any]) -> tuple[int, Any]:
    """Call a tool, and return the status and the answer, in which ids of the arguments are `NAME`: an error repeats them."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    answer = matrix.callers[who].post(f"/v1/tenants/{tenant}/mcp", json=body)
    text = answer.text
    for id in (arguments[name] for name in TOOLS[tool].missing):
        text = text.replace(id, "NAME")
    matrix.check_text(who, text)
    return answer.status_code, msgspec.json.decode(text)


def code_of(found: Any) -> str | None:
    """Return the error code of a problem, of a tool's error, or of a tool that the caller does not have; None for a result."""
    if "error" in found:
        assert "there is no tool" in found["error"]["message"], found
        return NO_TOOL
    if "code" in found:
        return str(found["code"])
    result = found["result"]
    if not result["isError"]:
        assert msgspec.json.decode(result["content"][0]["text"]) == result["structuredContent"]
        return None
    return str(msgspec.json.decode(result["content"][0]["text"])["error"]["code"])


THERE: Final = [(tool, who) for tool in TOOLS for who in CallerKind]
ELSEWHERE: Final = [(tool, name, who) for tool, rule in TOOLS.items() for name in rule.missing for who in OWN]
IN_RESOURCES: Final = [(uri, who) for uri in RESOURCES for who in CallerKind]
HIDDEN: Final = [tool for tool, rule in TOOLS.items() if "channel" in rule.missing]
