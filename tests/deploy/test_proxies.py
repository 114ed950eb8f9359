"""deploy/nginx and deploy/caddy, run for real with TLS in front of both listeners of one server."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from artcafe.fabric.embedded.process import some_free_port
from tests.certificates import Authority
from tests.children import started_with_parent
from tests.conftest import Require
from tests.deploy.tools import DEPLOY, find, program
from tests.platform import WAIT_S, Cast, Platform, running
from tests.rest.event_reader import reading

NGINX_CONF = """
user root;
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/answers;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    include {folder}/upstreams.conf;
    include {folder}/artcafe.conf;
}}
"""
CADDY_OPTIONS = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n"
CLIENT = "127.0.0.2"
"""The address of a client that is no trusted proxy: the server trusts 127.0.0.1 alone."""


@dataclass
class Behind:
    """A proxy, and the platform behind it."""

    url: str
    platform: Platform
    tls: ssl.SSLContext
    cast: Cast

    @property
    def path(self) -> str:
        return f"/v1/tenants/{self.cast.tenant}"

    def client(self, **headers: str) -> httpx2.Client:
        """Return a client of the tenant's owner, at an address of its own."""
        headers = {"Authorization": f"Bearer {self.cast.token}", **headers}
        transport = httpx2.HTTPTransport(verify=self.tls, local_address=CLIENT)
        return httpx2.Client(base_url=self.url, headers=headers, transport=transport, timeout=30)


GATEWAY = f"127.0.0.1:{some_free_port()}"
"""The gateway's listener. `server.json` names the proxy's address in its place."""
Files = tuple[Path, Path]
"""The certificate and its key."""


def nginx_command(folder: Path, port: int, platform: Platform, files: Files) -> list[str]:
    """Write the snippets with these addresses and files, and return the command."""
    upstreams = (DEPLOY / "nginx" / "upstreams.conf").read_text()
    upstreams = "".join(line for line in upstreams.splitlines(keepends=True) if "10.0.0.22" not in line)
    upstreams = upstreams.replace("127.0.0.1:8080", platform.url.split("/")[2]).replace("127.0.0.1:8081", GATEWAY)
    (folder / "upstreams.conf").write_text(upstreams)
    snippet = (DEPLOY / "nginx" / "artcafe.conf").read_text().replace("listen 443 ", f"listen 127.0.0.1:{port} ")
    snippet = snippet.replace("cafe.example.com", "localhost")
    snippet = snippet.replace("/etc/nginx/tls/artcafe.pem", str(files[0])).replace("/etc/nginx/tls/artcafe.key", str(files[1]))
    (folder / "artcafe.conf").write_text(snippet)
    (folder / "nginx.conf").write_text(NGINX_CONF.format(folder=folder))
    return [program("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def caddy_command(folder: Path, port: int, platform: Platform, files: Files) -> list[str]:
    """Write the Caddyfile with these addresses and files, and return the command."""
    snippet = (DEPLOY / "caddy" / "Caddyfile").read_text().replace(" 10.0.0.22:8080", "").replace(" 10.0.0.22:8081", "")
    snippet = snippet.replace("127.0.0.1:8080", platform.url.split("/")[2]).replace("127.0.0.1:8081", GATEWAY)
    snippet = snippet.replace("cafe.example.com {", f"https://localhost:{port} {{\n\tbind 127.0.0.1")
    snippet = snippet.replace("/etc/caddy/tls/artcafe.pem", str(files[0])).replace("/etc/caddy/tls/artcafe.key", str(files[1]))
    (folder / "Caddyfile").write_text(CADDY_OPTIONS + snippet)
    return [program("caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


COMMANDS: dict[str, Callable[[Path, int, Platform, Files], list[str]]] = {"nginx": nginx_command, "caddy": caddy_command}


@pytest.fixture(scope="module")
def port() -> int:
    return some_free_port()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Platform]:
    """Return a server with the settings of docs/deploy.md for a proxy on its machine."""
    flags = ["--trusted-proxies", "127.0.0.1/32", "--gateway-listen", GATEWAY, "--public-url", f"https://localhost:{port}"]
    flags += ["--public-gateway-url", f"wss://localhost:{port}/v1/connect"]
    with running(tmp_path_factory.mktemp("behind"), flags) as platform:
        yield platform


def accepts(port: int) -> bool:
    """Return whether a program of this machine listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def proxying(folder: Path, command: list[str], port: int) -> Iterator[None]:
    """Run a proxy in this block, from when it accepts connections."""
    with (folder / "log").open("wb") as log:
        environ = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        process = started_with_parent(command, stdout=log, stderr=log, env=environ)
        try:
            until = time.monotonic() + WAIT_S
            while not accepts(port):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < until, (folder / "log").read_text()
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module", params=list(COMMANDS))
def behind(
    request: pytest.FixtureRequest, platform: Platform, port: int, require: Require, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Behind]:
    """Return each proxy in turn, at the same address."""
    name: str = request.param
    require(name, find(name) is not None)
    folder = tmp_path_factory.mktemp(name)
    authority = Authority(folder)
    made = authority.sign("proxy")
    url = f"https://localhost:{port}"
    with proxying(folder, COMMANDS[name](folder, port, platform, (made.cert, made.key)), port):
        cast = asyncio.run(platform.tenant_with(agents=2))
        cast.url = url
        with pytest.MonkeyPatch.context() as environ:
            environ.setenv("SSL_CERT_FILE", str(authority.file))
            yield Behind(url, platform, authority.client(), cast)


def test_agents_publish_and_receive_on_sockets_through_the_proxy(behind: Behind) -> None:
    async def converse() -> Any:
        async with asyncio.timeout(WAIT_S), behind.cast.agent(0) as sender, behind.cast.agent(1) as receiver:
            await sender.publish(behind.cast.channels[0], {"through": "the proxy"})
            return (await anext(receiver.messages())).data

    with behind.client() as rest:
        home = rest.get("/v1").json()
    assert home["gateway_url"] == f"{behind.url.replace('https', 'wss')}/v1/connect"
    assert asyncio.run(converse()) == {"through": "the proxy"}


def test_events_of_a_stream_arrive_while_it_is_open(behind: Behind) -> None:
    channel = behind.cast.channels[0]
    with behind.client() as rest, reading(rest, f"{behind.path}/channels/{channel}/messages/stream") as reader:
        for n in range(2):  # One after another: a proxy that collects would keep the first.
            assert rest.post(f"{behind.path}/channels/{channel}/messages", json={"data": n}).status_code == 201
            assert reader.messages(1) == [n]


def test_bodies_above_the_servers_limit_get_its_problem_and_larger_ones_the_proxys(behind: Behind) -> None:
    path = f"{behind.path}/channels/{behind.cast.channels[0]}/messages"
    with behind.client() as rest:
        problem = rest.post(path, json={"data": "x" * 300_000})
        assert (problem.status_code, problem.headers["Content-Type"]) == (413, "application/problem+json")
        # Caddy ends the request to the server, and before its version 2.7 blames that one.
        assert rest.post(path, json={"data": "x" * 2_000_000}).status_code in (413, 502)


def test_server_sees_the_proxys_client_and_not_the_address_that_it_claims(behind: Behind) -> None:
    with behind.client(**{"X-Forwarded-For": "203.0.113.9", "X-Real-IP": "203.0.113.9"}) as rest:
        made = rest.post(f"{behind.path}/channels", json={"name": "made by a claimed address"})
        assert made.status_code == 201, (made.text, behind.platform.log()[-2000:])
        entries = [each for each in rest.get(f"{behind.path}/audit").json()["items"] if made.json()["id"] in str(each)]
    assert {each["address"] for each in entries} == {CLIENT}


def test_plain_http_is_refused(behind: Behind) -> None:
    assert httpx2.get(f"{behind.url.replace('https', 'http')}/v1", trust_env=False).status_code == 400
