"""A scrape as Prometheus reads it: samples by name and labels, and Prometheus's own checker."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx2

from artcafe.monitoring.listener import REUSE_S
from tests.plain_http import NO_AUTHORITIES

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (\S+)')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str) -> Samples:
    """Return the samples. Fail on a line of another form, and on a repeated series."""
    samples: Samples = {}
    for line in text.splitlines():
        if line.startswith("# "):
            continue
        found = SAMPLE.fullmatch(line)
        assert found, line
        key = found[1], frozenset(LABEL.findall(found[2] or ""))
        assert key not in samples, line
        samples[key] = float(found[3])
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of the series of a name that have these labels, like PromQL's `sum(name{…})`."""
    wanted = set(labels.items())
    return sum(number for (each, pairs), number in samples.items() if each == name and wanted <= pairs)


def scrape(url: str | None) -> Samples:
    """Return the samples of a server."""
    assert url is not None, "the server serves no metrics"
    time.sleep(REUSE_S)  # noqa: TID251 (an earlier answer may be sent again for so long)
    answer = httpx2.get(url, timeout=10, verify=NO_AUTHORITIES)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(answer.text)


PROMTOOL = shutil.which("promtool") or shutil.which("promtool", path=str(Path(sys.executable).parent))


def complaints(text: str) -> str:
    """Return what `promtool check metrics` says about a scrape; empty if it accepts it without remarks."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout + done.stderr + (f"exit status {done.returncode}" if done.returncode else "")
