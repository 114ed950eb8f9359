from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
import structlog
import uvloop
from nats.aio.client import Client
from nats.errors import Error as NatsError
from structlog.typing import EventDict, WrappedLogger

from artcafe.errors import StartRefused
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.health import HealthClient, HealthScope, LocalShortage
from artcafe.fabric.embedded.process import PORTS, find_binary
from artcafe.fabric.embedded.server import EmbeddedNats
from artcafe.fabric.fabric import Fabric
from artcafe.model import ChannelId, TenantId
from artcafe.rules import subjects
from tests.fabric.nats_clients import BOUND_S, connected, push
from tests.fabric.nats_env import until

SECRET = bytes(range(32))
A = TenantId("ten_a")

PARENT = f"""
import asyncio, sys
from pathlib import Path
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.server import EmbeddedNats

async def main():
    nats = EmbeddedNats(Path(sys.argv[1]), Accounts({SECRET!r}, "dev"))
    await nats.start()
    print("child", nats.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def accounts() -> Accounts:
    return Accounts(SECRET, "dev")


class Heard:
    """Captured log events, with waiting."""

    def __init__(self) -> None:
        self._entries: list[EventDict] = []
        self._news = asyncio.Event()

    def __call__(self, _logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
        self._entries.append(entry)
        self._news.set()
        raise structlog.DropEvent

    async def next(self, event: str) -> EventDict:
        """Return the next event of that name; forget those before it."""
        async with asyncio.timeout(BOUND_S):
            while True:
                while self._entries:
                    if (entry := self._entries.pop(0))["event"] == event:
                        return entry
                self._news.clear()
                await self._news.wait()


@pytest.fixture
def heard() -> Iterator[Heard]:
    before = structlog.get_config()
    heard = Heard()
    structlog.configure(processors=[heard])
    yield heard
    structlog.configure(**before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / 'data of "ArtCafe" é' / "nats"


@asynccontextmanager
async def started(nats: EmbeddedNats) -> AsyncIterator[EmbeddedNats]:
    await nats.start()
    try:
        yield nats
    finally:
        await nats.stop()


@asynccontextmanager
async def supervised(nats: EmbeddedNats) -> AsyncIterator[EmbeddedNats]:
    async with started(nats), asyncio.TaskGroup() as group:
        group.create_task(nats.run())
        yield nats
        await nats.stop()


async def store(nats: EmbeddedNats, accounts: Accounts, *, bytes_each: int = 5, timeout_s: float = BOUND_S) -> int:
    """Push the tenant's account, as a server does after NATS refused it, store one message and return its sequence."""
    async with connected(nats.url, accounts.system_user()) as system:
        await push(system, accounts.account_jwt(A))
    async with connected(nats.url, accounts.user(A)) as client:
        await client.jetstream().add_stream(name="log", subjects=["ch.>"])
        return (await client.jetstream().publish("ch.one", bytes(bytes_each), timeout=timeout_s)).seq


def runs(pid: int | None) -> bool:
    """Return whether the process runs; a zombie does not count."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip().rstrip("+")[:1] not in ("", "Z")


def guards_of(pid: int | None) -> list[str]:
    """Return the guard processes of a child."""
    listed = subprocess.run(["ps", "-ww", "-eo", "command="], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if line.endswith(f"artcafe-guard {pid}")]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


# --- it runs, and keeps its data and its port ---------------------------------------------------------------------------


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_killed_child_restarts_with_its_data_on_its_port(
    folder: Path, accounts: Accounts, heard: Heard, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def story() -> None:
        async with supervised(EmbeddedNats(folder, accounts)) as nats:
            url = nats.url
            assert await store(nats, accounts) == 1
            for seq in (2, 3):
                killed = nats.pid
                assert killed is not None
                os.kill(killed, signal.SIGKILL)
                await heard.next("nats.restarted")
                assert await store(nats, accounts) == seq
            assert nats.url == url

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story())


async def test_next_start_keeps_the_data_and_the_port(folder: Path, accounts: Accounts) -> None:
    async with started(EmbeddedNats(folder, accounts)) as nats:
        first = await store(nats, accounts), nats.url
    async with started(EmbeddedNats(folder, accounts)) as nats:
        second = await store(nats, accounts), nats.url

    assert (first[0], second[0]) == (1, 2)
    assert first[1] == second[1]


async def test_jetstream_answers_when_start_returns(folder: Path, accounts: Accounts) -> None:
    async with started(EmbeddedNats(folder, accounts)) as nats, connected(nats.url, accounts.platform_user()) as platform:
        assert (await platform.jetstream().account_info()).streams == 0


async def test_messages_are_flushed_before_the_ack_and_only_loopback_listens(folder: Path, accounts: Accounts) -> None:
    async with started(EmbeddedNats(folder, accounts)) as nats, connected(nats.url, accounts.system_user()) as system:
        told = json.loads((await system.request("$SYS.REQ.SERVER.PING.VARZ", timeout=BOUND_S)).data)["data"]

    assert told["jetstream"]["config"]["sync_always"] is True
    assert told["host"] == "127.0.0.1"
    assert not told.get("http_port")


async def test_folder_contains_no_secret(folder: Path, accounts: Accounts) -> None:
    async with started(EmbeddedNats(folder, accounts)) as nats:
        await store(nats, accounts)

    files = [path for path in folder.rglob("*") if path.is_file()]
    assert folder / "nats.conf" in files
    assert not [path for path in files if SECRET in path.read_bytes() or SECRET.hex() in path.read_text(errors="replace")]
    assert folder.stat().st_mode & 0o077 == 0


async def test_files_are_readable_by_their_owner_only_under_any_umask(folder: Path, accounts: Accounts) -> None:
    folder.mkdir(parents=True)
    for name in ("nats.conf", "nats.log", "nats.err"):  # as written by an earlier version
        (folder / name).touch(0o644)
    before = os.umask(0)
    try:
        async with started(EmbeddedNats(folder, accounts)) as nats:
            await store(nats, accounts)
    finally:
        os.umask(before)

    assert [path for path in folder.rglob("*") if path.stat().st_mode & 0o077] == []


async def test_child_does_not_inherit_the_environment(
    folder: Path, accounts: Accounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("GOMEMLIMIT", "1GiB")
    nosy = script(tmp_path / "nats-server", f'env >> {tmp_path}/env; exec {find_binary()} "$@"')
    async with started(EmbeddedNats(folder, accounts, binary=nosy)):
        told = (tmp_path / "env").read_text().splitlines()

    assert {line.partition("=")[0] for line in told} - {"PWD", "_", "SHLVL", "OLDPWD"} == {"PATH", "GOMEMLIMIT"}


async def test_account_lost_in_a_power_cut_reappears_with_its_streams_when_pushed(folder: Path, accounts: Accounts) -> None:
    async with started(EmbeddedNats(folder, accounts)) as nats:
        await store(nats, accounts)
    for token in (folder / "jwt").iterdir():
        token.write_bytes(b"")

    async with started(EmbeddedNats(folder, accounts)) as nats:
        assert await store(nats, accounts) == 2


async def test_new_generation_of_signing_keys_applies_from_the_start(folder: Path) -> None:
    for generation in (1, 2, 1):
        accounts = Accounts(SECRET, "dev", generation=generation)
        async with started(EmbeddedNats(folder, accounts)) as nats:
            assert await store(nats, accounts)


# --- what a killed parent leaves -----------------------------------------------------------------------------------------


async def test_nats_server_stops_when_its_parent_is_killed(folder: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", PARENT, str(folder)], env=env, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = next(int(line.split()[1]) for line in parent.stdout if line.startswith("child"))
        assert runs(child)
        parent.kill()
    await until(lambda: not runs(child))


async def test_guard_process_ends_with_the_child(folder: Path, accounts: Accounts) -> None:
    async with started(EmbeddedNats(folder, accounts)) as nats:
        assert guards_of(nats.pid)
    assert not guards_of(nats.pid)


async def test_leftover_nats_server_is_replaced(folder: Path, accounts: Accounts) -> None:
    async with started(EmbeddedNats(folder, accounts)):
        pass
    with subprocess.Popen([find_binary(), "-c", folder / "nats.conf"], start_new_session=True) as left:
        try:
            await until(lambda: (folder / "nats.pid").exists() and (folder / "nats.pid").read_text() == str(left.pid))
            async with started(EmbeddedNats(folder, accounts)) as nats:
                assert left.wait(BOUND_S) is not None
                assert await store(nats, accounts) == 1
        finally:
            left.kill()


async def test_leftover_that_ignores_sigterm_is_killed(folder: Path, accounts: Accounts) -> None:
    folder.mkdir(parents=True)
    ignore = "trap '' TERM; echo on; while :; do sleep 0.1; done"
    with subprocess.Popen(["sh", "-c", ignore, "-c", folder / "nats.conf"], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        assert deaf.stdout.readline() == b"on\n"
        (folder / "nats.pid").write_text(str(deaf.pid))
        async with started(EmbeddedNats(folder, accounts, end_s=0.2)):
            assert deaf.wait(BOUND_S) == -signal.SIGKILL


async def test_unrelated_process_with_the_recorded_pid_keeps_running(
    folder: Path, accounts: Accounts, sleeper: subprocess.Popen[bytes]
) -> None:
    folder.mkdir(parents=True)
    (folder / "nats.pid").write_text(str(sleeper.pid))

    async with started(EmbeddedNats(folder, accounts)):
        assert sleeper.poll() is None


@pytest.mark.parametrize("text", ["", "not a number", "999999999"])
async def test_pid_file_without_a_valid_pid_is_ignored(folder: Path, accounts: Accounts, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "nats.pid").write_text(text)

    async with started(EmbeddedNats(folder, accounts)) as nats:
        assert runs(nats.pid)


async def test_second_start_on_a_folder_is_refused_and_the_first_keeps_running(folder: Path, accounts: Accounts) -> None:
    async with started(EmbeddedNats(folder, accounts)) as first:
        with pytest.raises(StartRefused, match="another ArtCafe uses the folder"):
            await EmbeddedNats(folder, accounts).start()
        assert await store(first, accounts) == 1


async def test_start_takes_another_port_when_the_recorded_one_is_occupied(folder: Path, accounts: Accounts) -> None:
    async with started(EmbeddedNats(folder, accounts)) as nats:
        url = nats.url
    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))):
        async with started(EmbeddedNats(folder, accounts)) as nats:
            assert nats.url != url
            assert int(nats.url.rpartition(":")[2]) in PORTS
            assert await store(nats, accounts) == 1


async def test_restart_takes_another_port_when_its_own_is_occupied_and_connections_follow(
    folder: Path, accounts: Accounts, heard: Heard
) -> None:
    async with supervised(EmbeddedNats(folder, accounts)) as nats:
        fabric = Fabric(nats.urls, accounts, tls=nats.tls, is_embedded=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(fabric.run())
            await fabric.wait_up(BOUND_S)
            tenant_fabric, taken = fabric.tenant(A), nats.url
            await tenant_fabric.connection.wait_up(BOUND_S)
            assert nats.pid is not None
            os.kill(nats.pid, signal.SIGKILL)
            with taking(int(taken.rpartition(":")[2])):
                assert (await heard.next("nats.restarted"))["url"] != taken
                assert (await tenant_fabric.writer.submit(subjects.stored(ChannelId("chn_a")), b"{}", "msg_1", None)).seq == 1
                assert await fabric.audit_log.append(subjects.AUDIT_OF_PLATFORM, lambda last: b"{}") == b"{}"
            fabric.close()


@contextmanager
def taking(port: int) -> Iterator[None]:
    """Listen on the port as soon as it is free, while this process does nothing else."""
    until_s = time.monotonic() + BOUND_S
    while True:
        with suppress(OSError):
            listener = socket.create_server(("127.0.0.1", port))
            break
        assert time.monotonic() < until_s, "the port does not become free"
    with listener:
        yield


@pytest.mark.parametrize("text", ["", "{", "[]", '{"port": "x"}', '{"port": 22}'])
async def test_corrupt_configuration_file_is_rewritten(folder: Path, accounts: Accounts, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "nats.conf").write_text(text)

    async with started(EmbeddedNats(folder, accounts)) as nats:
        assert await store(nats, accounts) == 1


# --- it fails while it runs ----------------------------------------------------------------------------------------------


async def test_child_that_stops_answering_is_replaced(folder: Path, accounts: Accounts, heard: Heard) -> None:
    async with supervised(EmbeddedNats(folder, accounts, check_every_s=0.3, end_s=0.2)) as nats:
        await store(nats, accounts)
        assert nats.pid is not None
        os.kill(nats.pid, signal.SIGSTOP)

        assert "answered none" in (await heard.next("nats.failed"))["problem"]
        await heard.next("nats.restarted")
        assert await store(nats, accounts) == 2


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_without_free_descriptors_the_child_is_not_restarted_in_error_and_can_be_restarted(
    folder: Path, accounts: Accounts, heard: Heard, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def story() -> None:
        async with supervised(EmbeddedNats(folder, accounts, check_every_s=0.1)) as nats:
            child = nats.pid
            assert child is not None
            async with connected(nats.url, accounts.system_user()) as system:
                before = await answered(system)
                with no_descriptors():
                    while await answered(system) < before + 20:  # noqa: ASYNC110 (ours and those of the checks; nobody tells)
                        await asyncio.sleep(0.05)
                    assert nats.pid == child
            with no_descriptors():
                os.kill(child, signal.SIGKILL)
                await heard.next("nats.restarted")
            assert await store(nats, accounts) == 1

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story())


async def answered(system: Client) -> int:
    """Return how many messages nats-server has received."""
    told = json.loads((await system.request("$SYS.REQ.SERVER.PING.STATSZ", timeout=BOUND_S)).data)
    return int(told["statsz"]["received"]["msgs"])


async def test_health_check_without_free_descriptors_raises_local_shortage(folder: Path, accounts: Accounts) -> None:
    async with started(EmbeddedNats(folder, accounts)) as nats:
        known, new = HealthClient(nats.urls, accounts, nats.tls), HealthClient(nats.urls, accounts, nats.tls)
        try:
            assert await known.problems(HealthScope.SERVER, within_s=BOUND_S) == []
            with no_descriptors():
                assert await known.problems(HealthScope.SERVER, within_s=BOUND_S) == []
                with pytest.raises(LocalShortage, match="Too many open files"):
                    await new.problems(HealthScope.SERVER, within_s=BOUND_S)
            assert await new.problems(HealthScope.SERVER, within_s=BOUND_S) == []
        finally:
            await known.close()
            await new.close()


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open no file descriptor inside the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 64, hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in taken:
            os.close(each)


async def test_stream_stores_again_after_a_full_disk_has_space(
    folder: Path, accounts: Accounts, heard: Heard, tmp_path: Path
) -> None:
    # The first child only has a file size limit in place of a full disk.
    tenant_fabric = tmp_path / "room"
    fill = f'[ "$1" = --version ] || [ -e {tenant_fabric} ] || {{ touch {tenant_fabric}; ulimit -f 200; }}'
    full = script(tmp_path / "nats-server", f'{fill}; exec {find_binary()} "$@"')
    async with supervised(EmbeddedNats(folder, accounts, binary=full, check_every_s=0.3)) as nats:
        stored = []
        with pytest.raises(NatsError):  # noqa: PT012 - which of the publishes meets the limit depends on the block size.
            for _ in range(100):
                stored.append(await store(nats, accounts, bytes_each=30_000, timeout_s=0.5))  # noqa: PERF401 - must keep what was stored.

        assert "write error" in (await heard.next("nats.failed"))["problem"]
        await heard.next("nats.restarted")
        assert await store(nats, accounts) > stored[-1]


async def test_child_runs_in_a_session_of_its_own(folder: Path, accounts: Accounts) -> None:
    async with started(EmbeddedNats(folder, accounts)) as nats:
        assert nats.pid is not None
        assert os.getsid(nats.pid) == nats.pid


async def test_stop_ends_the_child_and_its_loop_and_may_be_repeated(folder: Path, accounts: Accounts) -> None:
    async with supervised(EmbeddedNats(folder, accounts)) as nats:
        child = nats.pid
        assert runs(child)
        await nats.stop()
    await nats.stop()

    assert not runs(child)
    assert nats.pid is None


async def test_stop_in_the_cleanup_of_a_cancelled_task_leaves_nothing(folder: Path, accounts: Accounts) -> None:
    nats = EmbeddedNats(folder, accounts, check_every_s=0.1)
    await nats.start()
    pid = nats.pid

    async def own() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await nats.stop()

    async with asyncio.TaskGroup() as group:
        owner = group.create_task(own())
        await asyncio.sleep(0)
        owner.cancel()
    assert nats.pid is None
    assert not guards_of(pid)
    again = EmbeddedNats(folder, accounts)
    await again.start()
    await again.stop()


async def test_stop_ends_a_loop_that_cannot_restart_the_child(folder: Path, accounts: Accounts, heard: Heard) -> None:
    async with supervised(EmbeddedNats(folder, accounts)) as nats:
        (folder / "nats.conf").write_text("port: [")
        assert nats.pid is not None
        os.kill(nats.pid, signal.SIGKILL)
        assert "Parse error" in (await heard.next("nats.restart_failed"))["problem"]

        await nats.stop()

    assert nats.pid is None


# --- it does not start ---------------------------------------------------------------------------------------------------


async def test_too_old_nats_server_is_refused(folder: Path, accounts: Accounts, tmp_path: Path) -> None:
    old = script(tmp_path / "nats-server", "echo nats-server: v2.14.9")

    with pytest.raises(StartRefused, match=r"version v2\.14\.9, which is too old\n.* 2\.15\.1 or later"):
        await EmbeddedNats(folder, accounts, binary=old).start()


@pytest.mark.parametrize(("binary", "problem"), [("/bin/echo", "is not nats-server"), ("/no/such/file", "cannot be run")])
async def test_binary_that_is_not_nats_server_is_refused(folder: Path, accounts: Accounts, binary: str, problem: str) -> None:
    with pytest.raises(StartRefused, match=problem):
        await EmbeddedNats(folder, accounts, binary=Path(binary)).start()


async def test_broken_store_is_reported_and_works_after_the_next_start(folder: Path, accounts: Accounts) -> None:
    folder.mkdir(parents=True)
    (folder / "jetstream").write_text("not a folder")

    with pytest.raises(StartRefused, match=r"not a directory\n.*writable for this user"):
        await EmbeddedNats(folder, accounts).start()

    (folder / "jetstream").unlink()
    async with started(EmbeddedNats(folder, accounts)) as nats:
        assert await store(nats, accounts) == 1


async def test_folder_that_cannot_be_created_is_reported(tmp_path: Path, accounts: Accounts) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StartRefused, match="--data-dir"):
        await EmbeddedNats(tmp_path / "file" / "nats", accounts).start()


async def test_failed_start_reports_the_childs_output(folder: Path, accounts: Accounts, tmp_path: Path) -> None:
    broken = script(tmp_path / "nats-server", '[ "$1" = --version ] && exec echo v2.15.1; echo "the moon is wrong" >&2; exit 1')

    with pytest.raises(StartRefused, match=r"the moon is wrong\n.*nats\.log"):
        await EmbeddedNats(folder, accounts, binary=broken).start()


async def test_slow_start_is_logged(folder: Path, accounts: Accounts, tmp_path: Path, heard: Heard) -> None:
    mute = script(tmp_path / "nats-server", '[ "$1" = --version ] && exec echo v2.15.1; exec sleep 60')
    nats = EmbeddedNats(folder, accounts, binary=mute, check_every_s=0.05)
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(nats.start())
        assert (await heard.next("nats.slow_to_start"))["log"] == str(folder / "nats.log")
        starting.cancel()


async def test_cancelled_start_leaves_nothing_running(folder: Path, accounts: Accounts, tmp_path: Path) -> None:
    mute = script(tmp_path / "nats-server", f'[ "$1" = --version ] && exec echo v2.15.1; echo $$ > {tmp_path}/pid; exec sleep 60')
    nats = EmbeddedNats(folder, accounts, binary=mute)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await nats.start()

    assert not runs(int((tmp_path / "pid").read_text()))
    async with started(EmbeddedNats(folder, accounts)) as other:
        assert runs(other.pid)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_start_cancelled_at_any_moment_has_ended_the_child_when_it_returns(
    tmp_path: Path, accounts: Accounts, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def is_cancelled_at(moment: int) -> bool:
        folder = tmp_path / str(moment)
        nats = EmbeddedNats(folder, accounts)
        async with asyncio.TaskGroup() as group:
            starting = group.create_task(nats.start())
            while not (folder / "nats.err").exists():  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0)
            await asyncio.sleep(moment / 1000)
            starting.cancel()
        if not starting.cancelled():
            await nats.stop()
        listed = subprocess.run(["ps", "-ww", "-eo", "ppid=,stat=,command="], capture_output=True, text=True, check=True)
        lines = [line for line in listed.stdout.splitlines() if "nats-server" in line]
        assert not [line for line in lines if str(folder) in line]
        assert not [line for line in lines if line.split()[:2] in ([str(os.getpid()), "Z"], [str(os.getpid()), "Zs"])]
        return starting.cancelled()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(is_cancelled_at(0)), "it cannot have been ready at once"
        for moment in range(1, 12):
            runner.run(is_cancelled_at(moment))
