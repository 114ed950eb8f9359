"""The first system's tables, used unchanged: checked, repaired twice, and then each person and agent has the access of their
rows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Set
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx2
import pytest

from artcafe.data_dir import read_secret
from artcafe.errors import BadCredentials, Forbidden, KeyUnusable
from artcafe.identity.local import LocalIdentity
from artcafe.model import UserId
from artcafe.observe.clock import now
from artcafe.rules.secrets import derive
from artcafe.sdk.agent import Agent
from artcafe.sdk.client import Client
from tests import ssh_keygen
from tests.aws import Aws
from tests.cli.tables.shell import TablesResult, run
from tests.older.__main__ import write_older_rows
from tests.older.manifest import Left, Program, RowManifest
from tests.older.schema import Form
from tests.platform import Platform, running

SOON_S = 20.0
DIFFERENT, REFUSED = 5, 3
TERMS = "1.0"


@dataclass
class Cloud:
    """A region with the first system's tables in one form."""

    url: str
    region: str
    form: Form
    manifest: RowManifest

    def check(self, *arguments: str) -> TablesResult:
        """Run `artcafe tables check` with these arguments."""
        environment = "dev" if self.form is Form.DEV else "prod"
        place = {"ARTCAFE_TABLES": f"dynamodb:{self.region}", "ARTCAFE_DYNAMODB_ENDPOINT": self.url}
        return run("check", *arguments, "--json", ARTCAFE_ENVIRONMENT=environment, **place)

    @property
    def flags(self) -> list[str]:
        return ["--tables", f"dynamodb:{self.region}", "--dynamodb-endpoint", self.url]


def older(aws: Aws, folder: Path, form: Form = Form.PLAIN) -> Cloud:
    """Write the first system's rows into a region of their own."""
    region = aws.new_region()
    with closing(boto3.client("dynamodb", region, endpoint_url=aws.url)) as client:
        return Cloud(aws.url, region, form, write_older_rows(client, folder, form))


def left_in(findings: list[dict[str, Any]]) -> list[Left]:
    """Return the findings that no repair fixes, in the manifest's form."""
    left = [each for each in findings if not each["is_mended"]]
    return sorted(Left(what=each["what"], tenant=each["tenant_id"], key=each["key"]) for each in left)


def check_repairs(cloud: Cloud) -> None:
    """Check, repair twice, and compare the remaining findings with the manifest."""
    report = cloud.check("--rows")
    mendable = [each for each in report.json["findings"] if each["is_mended"]]
    assert (report.code, len(mendable) > 0, report.json["mended"]) == (DIFFERENT, True, 0)
    first, second = cloud.check("--repair", "--yes"), cloud.check("--repair", "--yes")
    assert first.json["mended"] >= len(mendable)
    assert (second.code, second.json["mended"]) == (DIFFERENT, 0)
    assert [each for each in second.json["findings"] if each["is_mended"]] == []
    assert left_in(second.json["findings"]) == left_in(first.json["findings"][first.json["mended"] :])
    assert left_in(second.json["findings"]) == sorted(cloud.manifest.left)


@pytest.mark.parametrize("form", [Form.DEV, Form.INDEXES])
def test_other_forms_of_the_tables_are_repaired_alike(aws: Aws, tmp_path: Path, form: Form) -> None:
    cloud = older(aws, tmp_path, form)
    checked = cloud.check()
    assert (checked.code, [each for each in checked.json["problems"] if not each["is_advice"]]) == (0, [])
    check_repairs(cloud)


def test_tables_with_the_keys_of_the_shell_scripts_are_refused_by_name(aws: Aws, tmp_path: Path) -> None:
    cloud = older(aws, tmp_path, Form.AS_SCRIPTED)
    checked = cloud.check("--rows")
    found = {each["table"] for each in checked.json["problems"] if "key is" in each["says"]}
    assert (checked.code, found) == (
        DIFFERENT,
        {
            "artcafe-user-tenants",
            "artcafe-user-tenant-index",
            "artcafe-channel-subscriptions",
            "artcafe-usage-metrics",
            "artcafe-Challenges",
        },
    )


@pytest.fixture(scope="module")
def cloud(aws: Aws, tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    """Return the first system's tables, checked and repaired."""
    made = older(aws, tmp_path_factory.mktemp("keys"))
    check_repairs(made)
    return made


@pytest.fixture(scope="module")
def server(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("older")
    (folder / "terms.txt").write_text("Be kind.\n")
    terms = ["--terms-version", TERMS, "--terms-file", str(folder / "terms.txt")]
    with running(folder, [*cloud.flags, *terms]) as platform:
        yield platform


def token(server: Platform, user_id: str) -> str:
    """Return an access token of a person, as `artcafe token` prints it."""
    return LocalIdentity(derive(read_secret(server.secret), "local-identity")).issue(UserId(user_id), now())


@contextmanager
def client_of(server: Platform, cloud: Cloud, name: str) -> Iterator[httpx2.Client]:
    """Return a REST client for a person."""
    bearer = {"Authorization": f"Bearer {token(server, cloud.manifest.people[name].user_id)}"}
    with httpx2.Client(base_url=f"{server.url}/v1", headers=bearer, trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def accepted(server: Platform, cloud: Cloud) -> set[str]:
    """Return the names of the people who have accepted the terms by their rows, before a test accepts them."""
    names = set()
    for name in cloud.manifest.people:
        with client_of(server, cloud, name) as client:
            if client.get("/me").json()["terms_outstanding"] is None:
                names.add(name)
    return names


@contextmanager
def caller(server: Platform, cloud: Cloud, name: str) -> Iterator[httpx2.Client]:
    """Return a REST client for a person who has accepted the terms."""
    with client_of(server, cloud, name) as client:
        assert client.post("/terms/acceptances", json={"version": TERMS}).status_code == 201
        yield client


# --- people --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ada", "ben", "cleo", "dan", "eve", "fay", "gus", "hal"])
def test_person_belongs_to_exactly_the_tenants_of_their_rows(
    server: Platform, cloud: Cloud, accepted: set[str], name: str
) -> None:
    person = cloud.manifest.people[name]
    with client_of(server, cloud, name) as client:
        me = client.get("/me").json()
        assert {each["tenant_id"]: each["role"] for each in me["tenants"]} == person.roles
        assert (name in accepted) is person.has_accepted
        assert client.post("/terms/acceptances", json={"version": TERMS}).status_code == 201
        assert client.get("/me").json()["terms_outstanding"] is None
        for organisation in cloud.manifest.tenants.values():
            seen = client.get(f"/tenants/{organisation.id}/agents").status_code
            assert seen == (200 if organisation.id in person.roles else 404)


def test_admins_see_exactly_the_members_with_their_addresses_and_times(server: Platform, cloud: Cloud) -> None:
    tenant, people = cloud.manifest.tenants["acme"].id, cloud.manifest.people
    with caller(server, cloud, "ada") as ada:
        listed = {each["user_id"]: each for each in ada.get(f"/tenants/{tenant}/members").json()["items"]}
        assert {id: each["role"] for id, each in listed.items()} == {
            person.user_id: person.roles[tenant] for person in people.values() if tenant in person.roles
        }
        cleo = listed[people["cleo"].user_id]
        assert (cleo["address"], cleo["joined_at"]) == ("cleo@example.com", "2025-05-18T12:01:02.123Z")
        (owner,) = ada.get("/tenants/tenant-default/members").json()["items"]
        assert (owner["address"], owner["joined_at"]) == (None, None)
        named = ada.get("/tenants/tenant-default").json()
        assert (named["created_at"], named["updated_at"]) == (None, None)


def test_removed_person_has_no_access_and_can_be_invited_again(server: Platform, cloud: Cloud) -> None:
    tenant = cloud.manifest.tenants["acme"].id
    with caller(server, cloud, "eve") as eve, caller(server, cloud, "ada") as ada:
        body = {"address": "another@example.com", "role": "admin"}
        assert eve.post(f"/tenants/{tenant}/members", json=body).status_code == 404
        assert ada.delete(f"/tenants/{tenant}/members/{cloud.manifest.people['eve'].user_id}").status_code == 404


# --- plans and limits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "owner", "has_room"),
    [
        ("acme", "ada", False),
        ("bistro", "ben", True),
        ("empire", "gus", True),
        ("starter", "hal", False),
        ("lapsed", "fay", True),
    ],
)
def test_tenant_keeps_its_plan_and_its_own_limits(server: Platform, cloud: Cloud, label: str, owner: str, has_room: bool) -> None:
    organisation = cloud.manifest.tenants[label]
    with caller(server, cloud, owner) as person:
        shown = person.get(f"/tenants/{organisation.id}").json()
        assert (shown["plan"], shown["limits"]) == (organisation.plan, organisation.limits)
        key = cloud.manifest.agents["two"].key
        made = person.post(f"/tenants/{organisation.id}/agents", json={"name": "new", "public_key": public_line(key)})
        assert (made.status_code, made.json().get("code")) == ((201, None) if has_room else (402, "limit_reached"))


def public_line(private: str) -> str:
    """Return the public half of a private key, as `ssh-keygen -y` prints it."""
    return ssh_keygen.run("-y", "-f", private).stdout.decode()


# --- agents --------------------------------------------------------------------------------------------------------------


async def received(server: Platform, program: Program, expected: Set[tuple[str, object]]) -> set[tuple[str, object]]:
    """Return channel and data of the messages that an agent receives, up to the last of the expected ones."""
    found: set[tuple[str, object]] = set()
    async with Agent(server.url, tenant=program.tenant, agent=program.id, key=program.key) as agent, asyncio.timeout(SOON_S):
        async for message in agent.messages():
            found.add((message.channel_id, message.data))
            await message.ack()
            if expected <= found:
                break
    return found


async def test_agents_log_in_and_receive_the_messages_of_their_rows(server: Platform, cloud: Cloud) -> None:
    for label, (tenant, channel) in cloud.manifest.channels.items():
        owner = next((p for p in cloud.manifest.people.values() if p.roles.get(tenant) == "owner"), None)
        if owner is None:
            continue
        async with Client(server.url, token(server, owner.user_id)) as rest:
            await rest.tenant(tenant).messages.publish(channel, label)
    named = {channel: label for label, (_, channel) in cloud.manifest.channels.items()}
    for program in cloud.manifest.agents.values():
        async with Client(server.url) as rest:
            with nullcontext() if program.logs_in else pytest.raises((BadCredentials, KeyUnusable)):
                await rest.login(program.tenant, program.id, program.key)
        if program.receives:
            expected = {(each, named[each]) for each in program.receives}
            found = await received(server, program, expected)
            assert {channel for channel, _ in found} == set(program.receives)


async def test_agent_whose_subscription_has_no_permission_gets_an_error(server: Platform, cloud: Cloud) -> None:
    program, (_, jobs) = cloud.manifest.agents["busy"], cloud.manifest.channels["jobs"]
    async with Agent(server.url, tenant=program.tenant, agent=program.id, key=program.key) as agent:
        with pytest.raises(Forbidden, match="lacks the permission 'receive'"):
            await agent.subscribe(jobs)
        assert (await agent.publish(jobs, "done")).seq is not None


async def test_older_agent_publishes_and_another_one_receives(server: Platform, cloud: Cloud) -> None:
    writer, (_, news) = cloud.manifest.agents["writer"], cloud.manifest.channels["news"]
    async with Agent(server.url, tenant=writer.tenant, agent=writer.id, key=writer.key) as agent:
        sent = await agent.publish(news, "hello")
    cruncher = cloud.manifest.agents["cruncher"]
    async with Agent(server.url, tenant=cruncher.tenant, agent=cruncher.id, key=cruncher.key) as agent, asyncio.timeout(SOON_S):
        async for message in agent.messages():
            if message.seq == sent.seq:
                break
    assert (message.channel_id, message.sender_id, message.data) == (news, writer.id, "hello")
