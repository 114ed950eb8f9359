"""Every metric of a server: the one place of their names, labels and meanings. docs/metrics.md is generated from it.

A label's values are listed here, so that their number is bounded; none of them is an id, except those of the tenants that an
operator names (`METRICS_TENANTS`). Gauges are set by `monitoring.sampler`; everything else is counted where it happens. On the
paths of messages that is once for a group commit or a flush, and not for each delivery.
"""

from __future__ import annotations

import zlib
from typing import Final

from artcafe.errors import REGISTRY, ArtcafeError, CallerFault, LimitFault, RateLimited
from artcafe.observe.metric_types import OTHER, AnyMetric, Cells, Counter, Gauge, Histogram

CELLS: Final = Cells()
METRICS: Final[list[AnyMetric]] = []

TABLES: Final = (
    "artcafe-agents",
    "artcafe-tenants",
    "artcafe-user-tenants",
    "artcafe-user-tenant-index",
    "artcafe-channels",
    "artcafe-channel-subscriptions",
    "artcafe-usage-metrics",
    "artcafe-terms-acceptance",
    "artcafe-Challenges",
)
SEVERAL_TABLES: Final = "several"
"""The table of a transaction that writes more than one."""

LOOPS: Final = (
    "access_updates",
    "announcements",
    "audiences",
    "audit",
    "changes",
    "channel_readers",
    "connection",
    "connection_census",
    "cursors",
    "dead_letters",
    "fabric",
    "gateway",
    "gateway_changes",
    "hold_requests",
    "hub",
    "gauges",
    "identity",
    "inboxes",
    "key_gate",
    "limits",
    "loop_delay",
    "loop_guard",
    "meter",
    "metrics",
    "nats",
    "nats_gauges",
    "nats_liveness",
    "nats_messages",
    "other_holders",
    "outcomes",
    "position_exchange",
    "positions",
    "presence",
    "presence_registry",
    "process_gauges",
    "pull_revocation",
    "pulls",
    "queue_deadlines",
    "queue_feed",
    "queue_hub",
    "rate_limits",
    "readers",
    "receipts",
    "record_cache",
    "requests",
    "retention",
    "scheduler",
    "server_reports",
    "shares",
    "streams",
    "tables",
    "usage",
    "waker",
    "work_queue",
    "writer",
    OTHER,
)
"""Names of supervised loops (`supervision.Supervisor`)."""

RATES: Final = (
    "requests",
    "connections",
    "open connections",
    "unfinished request bodies",
    "logins of this agent",
    "changes",
    "waiting pulls",
    "open streams",
    OTHER,
)
"""What `errors.RateLimited` refuses, by its attribute `what`."""

LIMITS: Final = (
    "agents",
    "channels",
    "members",
    "connections",
    "agent_connections",
    "agent_subscriptions",
    "messages_a_minute",
    "messages_a_month",
    "message_bytes",
    "storage_bytes",
    "retention_s",
    "api_calls_a_minute",
    "hops",
    "chain_messages",
    OTHER,
)
"""The limits of a plan (`rules.plans.Limit`), by which `errors.LimitFault` refuses."""


def _counter(name: str, help: str, *, by_tenant: bool = False, **labels: tuple[str, ...]) -> Counter:
    counter = Counter(CELLS, f"artcafe_{name}_total", help, labels, by_tenant)
    METRICS.append(counter)
    return counter


def _gauge(
    name: str,
    help: str,
    *,
    by_tenant: bool = False,
    by_process: bool = True,
    is_shared: bool = False,
    **labels: tuple[str, ...],
) -> Gauge:
    gauge = Gauge(CELLS, f"artcafe_{name}", help, labels, by_tenant, by_process, is_shared)
    METRICS.append(gauge)
    return gauge


def _histogram(name: str, help: str, **labels: tuple[str, ...]) -> Histogram:
    histogram = Histogram(CELLS, f"artcafe_{name}_seconds", help, labels)
    METRICS.append(histogram)
    return histogram


# --- messages ---------------------------------------------------------------------------------------------------------

PUBLISHES: Final = _counter(
    "publishes",
    "Publishes by outcome: stored; duplicate (a repeat of a key); sent (to a live channel); refused (the caller's fault, or"
    " the tenant's quota); failed (NATS was unavailable or overloaded); unknown (may have been stored). Refused and failed ones"
    " were not stored.",
    by_tenant=True,
    outcome=("stored", "duplicate", "sent", "refused", "failed", "unknown"),
)
PUBLISH_SECONDS: Final = _histogram(
    "publish", "From the acceptance of a publish to a stored channel until it is stored: queueing, and the commit to disk."
)
PUBLISHES_QUEUED: Final = _gauge("publishes_queued", "Publishes that wait for a group commit.")
DELIVERIES: Final = _counter(
    "deliveries",
    "Messages written to sockets and streams, one for each message and connection, and those that pulls were answered with.",
    by_tenant=True,
)
PULLS: Final = _counter(
    "pulls", "Pulls that were answered: with messages, or empty (which may have a gap).", outcome=("messages", "empty")
)
PULLS_WAITING: Final = _gauge("pulls_waiting", "Pulls that wait for a message.")
DELIVERY_LAG: Final = _histogram(
    "delivery_lag",
    "From the storage of a message, by NATS's clock, to the write to the sockets of caught-up subscribers: for each flush, the"
    " age of its oldest message, counted once for each delivery. Messages read from a backlog are not counted.",
)
QUEUE_OUTCOMES: Final = ("acked", "nacked", "expired", "returned")
QUEUE_ENDS: Final = _counter(
    "queue_deliveries_ended",
    "Ends of deliveries of queue messages: acknowledged, given back by a nak, given back at the ack deadline, or returned because"
    " the connection or its subscription ended.",
    outcome=QUEUE_OUTCOMES,
)
QUEUE_REDELIVERIES: Final = _counter(
    "queue_redeliveries", "Deliveries of queue messages, to sockets and by pulls, that were delivered before.", by_tenant=True
)
QUEUE_HELD: Final = _gauge(
    "queue_messages_held", "Queue messages that connections and pulls hold: delivered, and not acknowledged yet.", by_tenant=True
)
DELIVERIES_BEHIND: Final = _gauge(
    "deliveries_behind",
    "Subscriptions of connected agents that are fed from the log: they have a backlog, read slowly, or wait for acks.",
    by_tenant=True,
)
DEAD_LETTERS: Final = _counter(
    "dead_letters",
    "Messages moved from a queue to its dead-letter channel, by reason: delivered too often, expired, or rejected by the holder.",
    by_tenant=True,
    reason=("max_deliveries", "expired", "rejected"),
)
REDRIVEN: Final = _counter("redriven", "Dead letters sent back to their queues.", by_tenant=True)

REQUESTS: Final = _counter(
    "agent_requests",
    "Requests to agents by outcome: answered; agent_error (the agent answered with an error); away (not connected, or takes no"
    " requests); busy; left (its connection ended before the answer); timed_out; cancelled (by the sender, or its connection"
    " ended); lost (the server of the sender stopped); refused (the sender's fault, or a limit); failed (NATS was unavailable)."
    " Away, busy, refused and failed ones were not delivered.",
    by_tenant=True,
    outcome=("answered", "agent_error", "away", "busy", "left", "timed_out", "cancelled", "lost", "refused", "failed"),
)
REQUEST_SECONDS: Final = _histogram("agent_request", "From the acceptance of a request to an agent until its last answer.")
REQUESTS_PENDING: Final = _gauge("agent_requests_pending", "Requests to agents without their last answer.", by_tenant=True)

WEBHOOKS: Final = _counter(
    "webhooks",
    "Attempts to send a webhook of a wake policy by outcome: sent (answered with 2xx), or failed. A failed one is sent again.",
    outcome=("sent", "failed"),
)
WEBHOOK_SECONDS: Final = _histogram(
    "webhook", "Duration of attempts to send a webhook: the lookup of its name, and the request until the head of the answer."
)
WAKES_DISABLED: Final = _counter(
    "wake_policies_disabled", "Wake policies that the server has disabled, after failed attempts or an answer 410."
)

# --- connections and logins -------------------------------------------------------------------------------------------

SOCKETS: Final = _gauge("sockets", "WebSockets after a successful `connect`.", by_tenant=True)
SOCKETS_CONNECTING: Final = _gauge("sockets_connecting", "WebSockets before a successful `connect`.")
STREAMS: Final = _gauge("streams", "Open streams of messages over HTTP (server-sent events).", by_tenant=True)
CONNECTIONS: Final = _gauge("connections", "Open connections of both public listeners.")
LOGINS: Final = _counter(
    "logins",
    "Logins of agents by signature, by outcome. Every outcome but `accepted` is a refusal, with the reason that the audit has;"
    " `other` is a deleted tenant.",
    outcome=(
        "accepted",
        "unknown_agent",
        "bad_signature",
        "unknown_key",
        "key_ended",
        "agent_disabled",
        "challenge_expired",
        "tenant_suspended",
        OTHER,
    ),
)
LOGIN_SECONDS: Final = _histogram("login", "Verification of a login by signature: one read of the agent, and one of a signature.")
HTTP_REQUESTS: Final = _counter(
    "http_requests",
    "REST requests by the class of their status; `none` had no answer, since the client was gone.",
    status=("1xx", "2xx", "3xx", "4xx", "5xx", "none"),
)
HTTP_SECONDS: Final = _histogram(
    "http_request", "Duration of REST requests, from the head to the end of the response; without streams."
)
ERRORS: Final = _counter(
    "errors",
    "Errors sent to clients, over REST and on sockets, by code (see errors.md).",
    code=(*sorted(code for code, kind in REGISTRY.items() if kind.__module__ == ArtcafeError.__module__), OTHER),
)
LIMIT_REFUSALS: Final = _counter("limit_refusals", "Refusals by a limit of a tenant's plan, by limit.", limit=LIMITS)
RATE_REFUSALS: Final = _counter(
    "rate_refusals", "Requests, connections and logins refused by a rate limit, by limit.", limit=RATES
)

# --- tables -----------------------------------------------------------------------------------------------------------

TABLE_SECONDS: Final = _histogram(
    "table_call",
    "Duration of calls to the tables, by verb and table; `several` is a transaction over more than one table.",
    verb=("get", "query", "scan", "put", "update", "delete", "transact"),
    table=(*TABLES, SEVERAL_TABLES),
)
TABLE_FAILURES: Final = _counter(
    "table_failures",
    "Calls to the tables that failed: the engine was unreachable, overloaded or full.",
    verb=("get", "query", "scan", "put", "update", "delete", "transact"),
)

TABLE_PERMISSIONS_DENIED: Final = _gauge(
    "table_permissions_denied",
    "Permissions on the tables in DynamoDB that the server has found missing. The event `tables.denied` names each.",
    is_shared=True,
)

# --- NATS -------------------------------------------------------------------------------------------------------------

NATS_UP: Final = _gauge("nats_up", "1 while the server is connected to NATS, else 0.", is_shared=True)
NATS_LOST: Final = _counter("nats_connections_lost", "Connections to NATS that were lost, of all accounts.")
NATS_RESTARTS: Final = _counter("nats_restarts", "Restarts of the embedded nats-server after it died, hung or could not store.")
NATS_SERVERS: Final = _gauge("nats_servers", "NATS servers with JetStream that answered.", by_process=False, is_shared=True)
NATS_STREAMS: Final = _gauge(
    "nats_streams", "Streams in NATS: one for each tenant with messages, and the platform's.", by_process=False, is_shared=True
)
NATS_MESSAGES: Final = _gauge("nats_messages", "Messages stored in NATS, each copy counted.", by_process=False, is_shared=True)
NATS_BYTES: Final = _gauge("nats_stored_bytes", "Bytes stored by JetStream, each copy counted.", by_process=False, is_shared=True)
OPEN_TENANTS: Final = _gauge("open_tenants", "Tenants with an open connection to NATS.")
CHANNEL_FEEDS: Final = _gauge("channel_feeds", "Channels that are followed for connected subscribers.")

# --- the process ------------------------------------------------------------------------------------------------------

LOOP_DELAY: Final = _gauge(
    "event_loop_delay_seconds",
    "The longest delay of the event loop in the last 15 to 30 s: how late a timer ran.",
    is_shared=True,
)
LOOP_FAILURES: Final = _counter(
    "loop_failures", "Failures of background loops: an item was given up, or the loop was restarted.", loop=LOOPS
)
PROCESSES: Final = _gauge("processes", "Server processes that serve now (`--processes`).", by_process=False, is_shared=True)
PROCESS_RESTARTS: Final = _counter("process_restarts", "Server processes that ended unexpectedly and were replaced.")
PROCESS_START: Final = _gauge("process_start_time_seconds", "Start of the process, in seconds since 1970.", is_shared=True)
PROCESS_CPU: Final = _gauge("process_cpu_seconds", "CPU time of the process, user and system.")
PROCESS_BYTES: Final = _gauge("process_resident_bytes", "Resident memory of the process.")

LAYOUT: Final = zlib.crc32(repr([(each.name, each.labels, each.by_tenant) for each in METRICS]).encode())
"""Identifies the order of the cells: a process of another version has another one, and its memory cannot be read."""


def count_refused_publish(error: ArtcafeError, tenant_id: str) -> None:
    """Count a publish that was not accepted. Those that were are counted by the log's writer."""
    PUBLISHES.of("refused" if isinstance(error, CallerFault) else "failed", tenant=tenant_id).add()


def count_error(error: ArtcafeError) -> None:
    """Count an error sent to a client."""
    ERRORS.of(error.code).add()
    if isinstance(error, RateLimited):
        RATE_REFUSALS.of(getattr(error, "what", OTHER)).add()
    elif isinstance(error, LimitFault):
        LIMIT_REFUSALS.of(error.limit).add()
