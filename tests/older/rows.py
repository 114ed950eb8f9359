"""Rows of the older system (spring of 2025) in an operator's tables, and the meaning of each.

All times are naive UTC with microseconds, except those of challenges. Ids are the same in every run; keys are new.

- Tenants have a uuid, and `subscription_tier` instead of `plan`. Their limits are flat (`max_agents`), or after a migration a map
  `limits` with flags as 0 and 1, next to `subscription_plan`.
- Agents have a bare ULID, or `agent-system-{uuid}` (one per tenant, without a key). `status` is liveness. The public key was not
  validated.
- Subscriptions have their own id and a map of `permissions`, which was never enforced. Subscriptions of deleted agents were kept.
- Memberships have `created_at` and `user_email`. A removed person keeps the row with `active` 0, and loses the one in the index.
- Acceptances of terms may be `revoked`. The user is an identity provider's `sub`, or an e-mail address if the `sub` was unknown.
"""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import PublicFormat

from tests.older.attributes import Raw
from tests.older.keys import KeyRing, fingerprint
from tests.older.manifest import Left, OlderPerson, Organisation, Program, Row, RowManifest
from tests.older.schema import KEYS

PEOPLE: Final = ("ada", "ben", "cleo", "dan", "eve", "fay", "gus", "hal")
FLAGS: Final = ("read", "write", "publish", "subscribe", "manage")
SUBSCRIBER: Final = {"read": True, "write": False, "publish": False, "subscribe": True, "manage": False}
PUBLISHER: Final = {"read": True, "write": True, "publish": True, "subscribe": True, "manage": False}

LIMITS: Final = {
    "starter": (3, 10_000, 1.0, 5, 10, 5),
    "free": (3, 10_000, 1.0, 5, 10, 5),
    "basic": (10, 100_000, 10.0, 20, 100, 20),
    "pro": (50, 500_000, 50.0, 100, 500, 100),
    "enterprise": (999_999, 999_999_999, 999_999.0, 999_999, 999_999, 999_999),
}
"""Agents, messages per month, gigabytes, connections, channels and SSH keys of each plan."""
LIMIT_NAMES: Final = (
    "max_agents",
    "max_messages_per_month",
    "max_storage_gb",
    "max_concurrent_connections",
    "max_channels",
    "max_ssh_keys",
)

Item = dict[str, Any]


def at(day: int, hour: int = 12, *, month: int = 5) -> str:
    """Return a time in 2025 in the older system's format."""
    return datetime(2025, month, day, hour, 1, 2, 123_456, tzinfo=UTC).replace(tzinfo=None).isoformat()


class OlderRows:
    """All rows by table, and their manifest."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._random = random.Random(20_250_524)
        self.rows: list[tuple[str, Item]] = []
        self.manifest = RowManifest(people={name: OlderPerson(user_id=self._uuid()) for name in PEOPLE})
        for make in (self._acme, self._bistro, self._empire, self._starter, self._bare, self._lapsed, self._terms, self._gone):
            make()
        self._usage_and_challenges()

    # --- ids ---

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def _ulid(self) -> str:
        return "01JV" + "".join(self._random.choice("0123456789ABCDEFGHJKMNPQRSTVWXYZ") for _ in range(22))

    # --- single rows ---

    def _put(self, table: str, why: str, item: Item, *, timed: bool = True) -> None:
        """Add a row. Rows of the older system had times by default."""
        if timed:
            item = {"created_at": at(18), "updated_at": at(18), **item}
        self.rows.append((table, item))
        self.manifest.rows.append(Row(table=table, key=[item[name] for name in KEYS[table]], why=why))

    def _leave(self, what: str, tenant: str, *keys: str) -> None:
        """Record a finding that requires a decision by a person."""
        self.manifest.left += [Left(what=what, tenant=tenant, key=key) for key in keys]

    def _tenant(self, label: str, name: str, tier: str, owner: str, *, is_migrated: bool = True, **more: Any) -> str:
        tenant, numbers = self._uuid(), dict(zip(LIMIT_NAMES, LIMITS[tier], strict=True))
        flags = {"custom_domains_enabled": tier in ("pro", "enterprise"), "priority_support": tier == "enterprise"}
        own: Item = {"limits": numbers | flags, "subscription_plan": tier} if is_migrated else dict(numbers)
        row = {
            "id": tenant,
            "name": name,
            "admin_email": f"{owner}@example.com",
            "subscription_tier": tier,
            "metadata": {"user_id": self.manifest.people[owner].user_id} if is_migrated else None,
            "terms_acceptance": {"terms_version": "1.0", "ip_address": "203.0.113.7"},
            "status": "active",
            "usage": {"agent_count": 3, "storage_used_gb": 0.3, "last_api_call": at(24)},
            "api_key": f"art_{self._random.getrandbits(192):048x}",
            "payment_status": "trial",
            "last_payment_date": None,
        }
        form = "a map of limits" if is_migrated else "flat limits"
        self._put("artcafe-tenants", f"a tenant of tier {tier}, with {form}", row | own | more)
        limits = {
            "agents": numbers["max_agents"],
            "channels": numbers["max_channels"],
            "connections": numbers["max_concurrent_connections"],
            "storage_bytes": int(numbers["max_storage_gb"] * 2**30),
            "messages_a_month": numbers["max_messages_per_month"],
        }
        self.manifest.tenants[label] = Organisation(id=tenant, plan=tier, limits={name: int(n) for name, n in limits.items()})
        self._leave("limit", tenant, tenant)
        if tier != "free":
            self._leave("plan", tenant, tenant)
        return tenant

    def _system_rows(self, tenant: str) -> None:
        """Add the rows of every new tenant: a channel, and a subscribed agent without a key."""
        channel, agent = f"channel-system-{self._uuid()}", f"agent-system-{self._uuid()}"
        self._put("artcafe-channels", "a tenant's system channel", {"tenant_id": tenant, "id": channel, "status": "active"})
        row = {"tenant_id": tenant, "id": agent, "name": "System agent", "type": "system", "status": "online"}
        self._put(
            "artcafe-agents", "a tenant's system agent: no key, no capabilities", row | {"channel_subscriptions": [channel]}
        )
        self._subscription(tenant, channel, agent, "the system agent's", dict.fromkeys(FLAGS, True))
        self._leave("key", tenant, agent)

    def _channel(self, tenant: str, label: str, name: str, **more: Any) -> str:
        channel = self._ulid()
        row = {"tenant_id": tenant, "id": channel, "name": name, "description": None, "metadata": None, "status": "active"}
        self._put("artcafe-channels", f"channel {label}", row | more)
        self.manifest.channels[label] = [tenant, channel]
        return channel

    def _agent(
        self,
        tenant: str,
        label: str,
        public_key: str | None,
        why: str,
        *,
        logs_in: bool = True,
        receives: tuple[str, ...] = (),
        **more: Any,
    ) -> str:
        agent = self._ulid()
        row = {
            "tenant_id": tenant,
            "id": agent,
            "name": label,
            "type": "worker",
            "status": "offline",
            "capabilities": ["summarize", "translate"],
            "metadata": {"description": f"The agent {label}", "owner": None, "tags": ["eu", "prod"]},
            "public_key": public_key,
            "last_seen": at(24, 8),
            "success_rate": None,
        }
        self._put("artcafe-agents", why, row | more)
        key = str(self._ring.path(label))
        self.manifest.agents[label] = Program(tenant=tenant, id=agent, key=key, logs_in=logs_in, receives=list(receives))
        if not logs_in:
            self._leave("key", tenant, agent)
        return agent

    def _subscription(
        self, tenant: str, channel: str, agent: str, why: str, permissions: object = SUBSCRIBER, **more: Any
    ) -> str:
        id = f"sub-{self._ulid().lower()}"
        row = {
            "id": id,
            "tenant_id": tenant,
            "channel_id": channel,
            "agent_id": agent,
            "role": "subscriber",
            "permissions": permissions,
            "status": "active",
            "subscribed_at": at(19),
            "last_activity": None,
            "messages_sent": 0,
        }
        self._put(
            "artcafe-channel-subscriptions", why, {name: value for name, value in (row | more).items() if value != "absent"}
        )
        return id

    def _member(
        self, who: str, tenant: str, role: str, *, why: str = "", is_listed: bool = True, reads_as: str | None = "", **more: Any
    ) -> None:
        """Add a membership in both directions. `reads_as` is the role ArtCafe gives the person, None for no membership."""
        person = self.manifest.people[who]
        row = {
            "id": self._uuid(),
            "user_id": person.user_id,
            "tenant_id": tenant,
            "role": role,
            "active": 1,
            "user_email": f"{who}@example.com",
            "invited_by": self.manifest.people["ada"].user_id,
        }
        self._put("artcafe-user-tenants", why or f"a member: {role}", row | more)
        if is_listed:
            self._put("artcafe-user-tenant-index", f"{why or 'a member'}, the other way round", row | more)
        if reads_as is not None:
            person.roles[tenant] = reads_as or role

    # --- tenants ---

    def _acme(self) -> None:
        """Add a tenant grown over weeks, with every form of key and subscription."""
        tenant = self._tenant("acme", "Acme Robotics", "basic", "ada", stripe_customer_id=None)
        self._system_rows(tenant)
        news = self._channel(tenant, "news", "news")
        jobs = self._channel(tenant, "jobs", "Jobs / EU", description="Work to do", metadata={"order": 2, "tags": ["a"]})
        self._acme_agents(tenant)
        generated = f"{self._ring.make('cruncher', 'rsa')} artcafe_agent_Data Cruncher_{tenant}_20250518_120102"
        cruncher = self._agent(
            tenant,
            "cruncher",
            generated,
            "an RSA key made by the server, with a space in its comment",
            receives=(news, jobs),
            channel_subscriptions=[news, jobs],
            average_response_time_ms=152.29999999999998,
            success_rate=100.0,
        )
        line = self._ring.make("writer") + " writer@laptop\n"
        writer = self._agent(
            tenant, "writer", line, "a line feed behind the key", receives=(news, jobs), status="online", capabilities=[]
        )
        busy = self._agent(tenant, "busy", self._ring.make("busy"), "at work when it was last seen", status="busy")
        self._subscription(tenant, news, cruncher, "an ordinary subscription")
        self._subscription(
            tenant, jobs, cruncher, "a publisher's, with a state", PUBLISHER, state="offline", server_id="ip-10-0-0-7"
        )
        by_hand = Raw({"M": {"read": {"BOOL": True}, "write": {"BOOL": False}}})
        self._subscription(tenant, news, writer, "written in the console", by_hand)
        self._subscription(tenant, news, writer, "the same pair again")
        self._subscription(tenant, jobs, writer, "without permissions", "absent")
        self._subscription(tenant, jobs, busy, "without any right", dict.fromkeys(FLAGS, False))
        gone_agent, gone_channel = self._ulid(), self._ulid()
        self._subscription(tenant, news, gone_agent, "of an agent that was deleted")
        self._subscription(tenant, gone_channel, writer, "of a channel that was deleted")
        self._leave("permissions", tenant, f"{jobs}#{busy}")
        self._leave("orphan", tenant, f"{news}#{gone_agent}", f"{gone_channel}#{writer}")
        for who, role in (("ada", "owner"), ("ben", "admin"), ("cleo", "member"), ("dan", "viewer")):
            self._member(who, tenant, role)
        self._member("eve", tenant, "admin", why="REMOVED: active 0", is_listed=False, reads_as=None, active=0)
        self._member("fay", tenant, "user", why="a role that nobody checked", reads_as="viewer")
        self._leave("membership", tenant, f"{tenant} {self.manifest.people['eve'].user_id}")
        self._leave("role", tenant, f"{tenant} {self.manifest.people['fay'].user_id}")

    def _acme_agents(self, tenant: str) -> None:
        """Add agents without a subscription, one per form of key."""
        make, ring = self._agent, self._ring
        definition = {"name": "vision", "description": None, "parameters": {"ratio": 0.75}, "models": ["m-large"]}
        make(
            tenant,
            "definitions",
            ring.make("definitions", "ecdsa"),
            "definitions of capabilities",
            capability_definitions=[definition],
        )
        make(tenant, "error", ring.make("error"), "its last heartbeat said error", status="error")
        make(tenant, "crlf", ring.make("crlf") + " me@DESKTOP\r\n", "a line that ends as on Windows")
        pem, pkcs1 = PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1
        make(tenant, "pem", ring.make_pem("pem", pem), "a PEM key (PKCS#8)", logs_in=False)
        make(tenant, "pkcs1", ring.make_pem("pkcs1", pkcs1), "a PEM key (PKCS#1)", logs_in=False)
        make(tenant, "options", 'no-pty,command="/bin/true" ' + ring.make("options"), "options before the key", logs_in=False)
        two = f"{ring.make('two')} a\n{ring.make('two-b')} b\n"
        make(tenant, "two", two, "two keys pasted as one", logs_in=False)
        make(tenant, "short", ring.make("short", "rsa1024"), "RSA of 1024 bits", logs_in=False)
        make(tenant, "nokey", None, "its key could not be made", logs_in=False)
        same = ring.make("same")
        ring.path("same2").write_bytes(ring.path("same").read_bytes())
        ring.path("same2").chmod(0o600)
        make(tenant, "same", same + " one", "the key of another agent")
        make(tenant, "same2", same + " two", "the key of another agent")
        self._leave("key_claim", tenant, f"~key#{fingerprint(same)}")

    def _bistro(self) -> None:
        """Add a tenant of the first week: flat limits, metadata NULL."""
        tenant = self._tenant("bistro", "Bistro Étoile", "free", "ben", is_migrated=False)
        self._system_rows(tenant)
        menu = self._channel(tenant, "menu", "Menü")
        line = f"{self._ring.make('cook', 'rsa')} artcafe_agent_Cook_{tenant}_20250518_120102"
        cook = self._agent(tenant, "cook", line, "an RSA key made by the server", receives=(menu,))
        self._subscription(tenant, menu, cook, "an ordinary subscription")
        self._member("ben", tenant, "owner")
        self._member("eve", tenant, "member", why="a member here, removed elsewhere")

    def _empire(self) -> None:
        """Add a tenant with every limit at 999999."""
        tenant = self._tenant("empire", "Empire", "enterprise", "gus", website="https://example.org", logo_url=None)
        self._system_rows(tenant)
        self._member("gus", tenant, "owner")
        for number in range(4):
            self._agent(tenant, f"droid{number}", self._ring.make(f"droid{number}"), "one of several")

    def _starter(self) -> None:
        """Add a tenant with as many agents as its plan allows."""
        tenant = self._tenant("starter", "Startup", "starter", "hal")
        self._member("hal", tenant, "owner")
        self._channel(tenant, "one", "one")
        for number in range(3):
            self._agent(tenant, f"small{number}", self._ring.make(f"small{number}"), "one of the three that the plan has")

    def _bare(self) -> None:
        """Add a tenant with only a name, and an owner missing in the index."""
        self._put("artcafe-tenants", "a tenant with nothing but a name", {"id": "tenant-default", "name": "Default"}, timed=False)
        ada = self.manifest.people["ada"]
        row = {"user_id": ada.user_id, "tenant_id": "tenant-default", "role": "owner"}
        self._put("artcafe-user-tenants", "as small as a membership can be, and not in the index", row, timed=False)
        ada.roles["tenant-default"] = "owner"
        self.manifest.tenants["bare"] = Organisation(id="tenant-default", plan="free", limits={})

    def _lapsed(self) -> None:
        """Add a tenant without a payment, active nevertheless."""
        tenant = self._tenant("lapsed", "Lapsed", "pro", "fay", payment_status="expired", subscription_expires_at=at(2))
        self._member("fay", tenant, "owner")
        self._agent(tenant, "lapsed", self._ring.make("lapsed"), "of a tenant that never paid")

    def _gone(self) -> None:
        """Add rows of a tenant without a row of its own."""
        tenant = self._uuid()
        agent = self._agent(tenant, "orphan", self._ring.make("orphan"), "of a tenant that has no row")
        self.manifest.agents["orphan"].logs_in = False
        channel = self._channel(tenant, "orphan", "orphan")
        self._member("dan", tenant, "owner", why="in a tenant that has no row", reads_as=None)
        self._leave("orphan", tenant, agent, channel, self.manifest.people["dan"].user_id)

    # --- other rows of people and tenants ---

    def _terms(self) -> None:
        """Add acceptances of the terms: accepted, revoked, and accepted by a person known only by address."""
        revoked = {"revoked": 1, "revoked_at": at(22), "revocation_reason": "asked by mail"}
        for who, version, more in (("ada", "1.0", {}), ("ben", "1.0", {}), ("cleo", "1.0", revoked), ("ada", "0.9", {})):
            user_id = self.manifest.people[who].user_id
            row: Item = {
                "id": self._uuid(),
                "user_id": user_id,
                "version": version,
                "email": f"{who}@example.com",
                "terms_version": version,
            }
            row |= {"accepted_at": at(18), "ip_address": "203.0.113.7", "user_agent": "Mozilla/5.0", "revoked": 0}
            self._put("artcafe-terms-acceptance", "terms, revoked" if more else "terms", row | more)
            self.manifest.people[who].has_accepted |= not more
        by_mail: Item = {
            "user_id": "hal@example.com",
            "version": "1.0",
            "accepted_at": at(18),
            "ip_address": "unknown",
            "revoked": 0,
        }
        self._put("artcafe-terms-acceptance", "terms of somebody whose `sub` was not known", by_mail)

    def _usage_and_challenges(self) -> None:
        """Add usage rows, one per day or metric, and two challenges, one of them expired."""
        acme = self.manifest.tenants["acme"].id
        for tenant in (acme, self.manifest.tenants["bistro"].id, self.manifest.tenants["empire"].id):
            day = {"tenant_id": tenant, "metric_id": "2025-05-18", "date": "2025-05-18", "messages": 0, "storage_mb": 0}
            self._put("artcafe-usage-metrics", "the row that a tenant began with", day)
            metric = {"tenant_id": tenant, "metric_id": "messages#2025-05-24", "name": "messages", "value": 1204.0}
            self._put("artcafe-usage-metrics", "one metric, its value a float", metric)
        june = {
            "tenant_id": acme,
            "metric_id": "20250608",
            "message_count": 17,
            "active_agents": ["a", "b"],
            "active_channels": [],
        }
        self._put("artcafe-usage-metrics", "a day in June, which goes a year later", june | {"ttl": 1_780_000_000})
        of_none = {"tenant_id": "system", "metric_id": "2025-05-24", "resources": {"cpu": 12.5}}
        self._put("artcafe-usage-metrics", "of no tenant", of_none, timed=False)
        now = datetime.now(UTC)
        for age_s in (0, 4000):
            end = now + timedelta(seconds=300 - age_s)
            challenge: Item = {
                "challenge_id": self._uuid(),
                "tenant_id": acme,
                "challenge": f"{self._random.getrandbits(256):064x}",
            }
            challenge |= {"expires_at": end.isoformat(), "ttl": int(end.timestamp())}
            self._put("artcafe-Challenges", "a challenge of 64 hexadecimal digits", challenge)
