"""Run a server, a publisher and a subscriber under OpenTelemetry, and print their spans as a tree.

    python examples/tracing/show_trace.py [--processes N] [--mode link|continue] [--count N] [--spans FILE]

It needs `pip install 'artcafe[server,otel]' opentelemetry-distro` and `ssh-keygen`. Everything runs on loopback, in a temporary
folder. `--spans` also writes the spans as a JSON array.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from artcafe import Client
from artcafe.data_dir import read_server_info

HERE: Final = Path(__file__).parent
BIN: Final = Path(sys.executable).parent
START_S: Final = 60.0
CHANNEL: Final = "orders"
END_S: Final = 60.0
TO_CONSOLE: Final = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}


@dataclass(frozen=True, slots=True)
class Span:
    """A finished span. A link names another span by its id."""

    service: str
    name: str
    kind: str
    id: str
    parent: str | None
    links: tuple[str, ...]
    trace: str
    began: str
    attributes: dict[str, Any]


def start(service: str, output: Path, command: list[str | Path], **variables: str) -> subprocess.Popen[bytes]:
    """Start a program under `opentelemetry-instrument`, which configures OpenTelemetry's SDK in it."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("ARTCAFE_", "OTEL_"))}
    environ |= {**TO_CONSOLE, "OTEL_SERVICE_NAME": service, **variables}
    with output.open("wb") as out:
        return subprocess.Popen([BIN / "opentelemetry-instrument", *command], stdout=out, stderr=out, env=environ)


@contextmanager
def server(folder: Path, processes: int, mode: str) -> Iterator[str]:
    """Run `artcafe up` in the block, and yield its address."""
    data, listen = str(folder / "data"), ["--listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0"]
    flags = ["--data-dir", data, *listen, "--processes", str(processes), "--tracing", mode]
    running = start("artcafe", folder / "artcafe.out", [BIN / "artcafe", "up", *flags])
    try:
        until = time.monotonic() + START_S
        while not (info := read_server_info(folder / "data")):
            if running.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the server did not start:\n{(folder / 'artcafe.out').read_text()}")
        yield info["url"]
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(END_S)  # The SDK exports the last spans when a process ends.


async def make_agents(url: str, token: str, folder: Path) -> dict[str, dict[str, str]]:
    """Create a channel, a publisher and its subscriber, and return the ARTCAFE_… variables of both."""
    made: dict[str, dict[str, str]] = {}
    async with Client(url, token) as client:
        tenant = (await client.create_tenant("Tracing")).id
        await client.tenant(tenant).channels.create(CHANNEL)
        for name in ("publisher", "subscriber"):
            key = folder / name
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
            await client.tenant(tenant).agents.create(name, key.with_suffix(".pub").read_text())
            made[name] = {"URL": url, "TENANT": tenant, "AGENT": name, "KEY": str(key)}
        await client.tenant(tenant).subscriptions.create(CHANNEL, "subscriber")
    return {name: {f"ARTCAFE_{key}": value for key, value in each.items()} for name, each in made.items()}


def run_agents(url: str, folder: Path, count: int) -> None:
    """Run the publisher and the subscriber until all messages are processed."""
    command = [str(BIN / "artcafe"), "token", "--user", "owner@example.com", "--data-dir", str(folder / "data")]
    token = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    agents = asyncio.run(make_agents(url, token, folder))
    programs = {"subscriber": ["subscriber.py", str(count)], "publisher": ["publisher.py", CHANNEL, str(count)]}
    running = {
        name: start(name, folder / f"{name}.out", [sys.executable, HERE / program, *arguments], **agents[name])
        for name, (program, *arguments) in programs.items()
    }
    for name, process in running.items():
        if process.wait(END_S) != 0:
            raise SystemExit(f"the {name} failed:\n{(folder / f'{name}.out').read_text()}")


def read_spans(output: Path) -> Iterator[Span]:
    """Read the spans in a program's output: each is a JSON object over several lines."""
    text, decoder = output.read_text(), json.JSONDecoder()
    at = text.find("{\n")
    while at >= 0:
        found, end = decoder.raw_decode(text, at)
        yield Span(
            service=output.stem,
            name=found["name"],
            kind=found["kind"].removeprefix("SpanKind.").lower(),
            id=found["context"]["span_id"],
            parent=found["parent_id"],
            links=tuple(link["context"]["span_id"] for link in found["links"]),
            trace=found["context"]["trace_id"],
            began=found["start_time"],
            attributes=found["attributes"],
        )
        at = text.find("{\n", end)


def tree(spans: list[Span]) -> Iterator[str]:
    """Yield the lines of a tree: below a span its children, and the spans of other traces that link to it first."""
    known = {span.id for span in spans}
    below: dict[str | None, list[Span]] = {}
    for span in sorted(spans, key=lambda span: span.began):
        causes = [cause for cause in (span.parent, *span.links) if cause in known]
        below.setdefault(causes[0] if causes else None, []).append(span)

    def lines(span: Span, depth: int) -> Iterator[str]:
        is_linked = span.parent not in known and depth > 0
        count = span.attributes.get("messaging.batch.message_count")
        notes = [f"batch of {count}"] if count is not None else []
        notes += [f"links to {len(span.links)} spans"] if len(span.links) > 1 else []
        mark = ("~~ " if is_linked else "-- ") if depth else ""
        text = f"{'   ' * depth}{mark}{span.service}: {span.name} ({', '.join([span.kind, *notes])})"
        yield f"{text:<90} trace {span.trace[2:10]}"
        for each in below.get(span.id, []):
            yield from lines(each, depth + 1)

    for root in below.get(None, []):
        yield from lines(root, 0)


def main() -> None:
    """Run everything, and print the tree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--mode", choices=("off", "link", "continue"), default="link")
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--spans", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="artcafe-tracing-") as made:
        folder = Path(made)
        with server(folder, options.processes, options.mode) as url:
            run_agents(url, folder, options.count)
        spans = [span for name in ("publisher", "artcafe", "subscriber") for span in read_spans(folder / f"{name}.out")]
    if options.spans is not None:
        options.spans.write_text(json.dumps([{each: getattr(span, each) for each in Span.__slots__} for span in spans]))
    print("-- child of, ~~ linked to the span above")
    print(*tree(spans), sep="\n")


if __name__ == "__main__":
    main()
