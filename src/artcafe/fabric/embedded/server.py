"""The nats-server that `artcafe up` runs as a child process: started, monitored, restarted, stopped."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import time
from asyncio.subprocess import Process
from pathlib import Path
from typing import Final

from artcafe.data_dir import write_whole
from artcafe.errors import StartRefused
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.certificate import HOST, client_context, server_pem
from artcafe.fabric.embedded.health import HealthClient, HealthScope, LocalShortage
from artcafe.fabric.embedded.process import (
    END_S,
    PORTS,
    check_version,
    configuration,
    find_binary,
    last_lines,
    recorded_port,
    remedy,
    some_free_port,
    start_refusals,
    stop_leftover,
)
from artcafe.fabric.embedded.spawner import Spawner
from artcafe.fabric.nats.configuration import to_text
from artcafe.observe import metrics
from artcafe.observe.logs import log

ENOUGH_FREE_BYTES: Final = 16 * 1024 * 1024
"""After a full disk, a restart is worthwhile once a stream can grow by two blocks of 8 MiB."""

READY_S: Final = 300.0
"""Timeout of a start: usually 20 ms, but after a crash JetStream reads its files first, and killing it then would start that
over."""
SLOW_CHECKS: Final = 2
"""A start longer than this many checks is logged."""
CHECK_S: Final = 5.0
SILENT_CHECKS: Final = 3
RETRY_MIN_S: Final = 0.05
RETRY_MAX_S: Final = 10.0
SETTLED_S: Final = 60.0
"""A child that dies after this time is restarted at once; each earlier death increases the delay."""

_PORT_TAKEN: Final = "address already in use"


class EmbeddedNats:
    """One nats-server on 127.0.0.1, with its files in one folder, and the operator and system account of `accounts`.

    Every message is on disk before it is acknowledged, so stopping the child in any way loses nothing. It ends with this process;
    a child that survived nevertheless is replaced at the next `start`. It listens on one port for TLS and plain connections; a
    TLS connection proves the peer of the plain ones (`nats.server_proof`). Its health is queried over NATS, as the system
    account.
    """

    def __init__(
        self,
        folder: Path,
        accounts: Accounts,
        *,
        binary: Path | None = None,
        check_every_s: float = CHECK_S,
        end_s: float = END_S,
    ) -> None:
        """`binary`: the nats-server to run, instead of searching for one. `check_every_s` is also the timeout of a health check.

        `end_s`: how long nats-server may take to stop before it is killed.
        """
        self._folder = folder.absolute()
        self._conf = self._folder / "nats.conf"
        self._accounts = accounts
        self._binary = binary
        self._check_every_s = check_every_s
        self._end_s = end_s
        self.tls = client_context(accounts)
        """A TLS context that accepts only this nats-server's certificate."""
        self.urls = [""]
        """Its TLS address. A restart changes this list when another program has taken the port."""
        self._health = HealthClient(self.urls, accounts, self.tls)
        self._spawner: Spawner | None = None
        self._process: Process | None = None
        self._lock: int | None = None
        self._is_full = False
        self._stopping = asyncio.Event()
        self._changing = asyncio.Lock()

    @property
    def url(self) -> str:
        """Its address for plain connections, which do not prove the server's identity."""
        return self.urls[0].replace("tls:", "nats:")

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the child and wait until JetStream answers. Stop a nats-server left in the folder by a killed parent first.

        Raise `StartRefused`, with nothing left running, if no suitable nats-server is installed, if another ArtCafe uses the
        folder, or if the child does not start; the text contains the last lines of its log then. Call once for each object.
        """
        self._binary = self._binary or find_binary()
        await check_version(self._binary)
        try:
            with start_refusals(self._folder):
                self._lock_folder()
                await stop_leftover(self._folder / "nats.pid", self._conf, within_s=self._end_s)
                self._configure(recorded_port(self._conf))
                self._spawner = Spawner(self._folder / "nats.err")
            await self._launch_on_some_port()
        except BaseException:
            self._unlock_folder()
            raise
        log.info("nats.started", url=self.url, pid=self.pid)

    async def run(self) -> None:
        """Restart the child whenever it dies, hangs or can no longer store, until `stop`. Run it in a `TaskGroup`.

        A restart keeps the data, and the port if that is still free; clients reconnect by themselves. Cancelling this leaves the
        child to `stop`.
        """
        delay_s = RETRY_MIN_S
        while not self._stopping.is_set():
            since = time.monotonic()
            problem = await self._failure()
            if self._stopping.is_set():
                return
            metrics.NATS_RESTARTS.of().add()
            log.warning("nats.failed", problem=problem, last_output=self._last_output())
            delay_s = RETRY_MIN_S if time.monotonic() - since > SETTLED_S else min(delay_s * 2, RETRY_MAX_S)
            await self._restart(delay_s)

    async def stop(self) -> None:
        """Stop the child, by SIGKILL after `end_s`. Call it after the clients have drained; may be repeated.

        It sends SIGTERM rather than SIGUSR2, nats-server's lame duck mode, which spends two minutes on moving clients to other
        servers that do not exist here.
        """
        self._stopping.set()
        try:
            async with self._changing:
                await self._stop_child()
        finally:
            self._unlock_folder()

    def _lock_folder(self) -> None:
        """Lock the folder against other ArtCafe processes: two nats-servers would corrupt the store, and this one stops
        leftovers."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self._folder / "nats.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            problem = f"another ArtCafe uses the folder {self._folder}"
            raise StartRefused(problem, "stop it first, or start this one with another --data-dir") from exc
        for file in self._folder.glob("nats.*"):  # An earlier version created them with the umask's mode.
            file.chmod(0o600)

    def _unlock_folder(self) -> None:
        if self._spawner is not None:
            self._spawner.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _configure(self, port: int | None) -> None:
        port = port or some_free_port()
        self.urls[0] = f"tls://{HOST}:{port}"
        # These two accounts come from the configuration, whatever the clock did since an earlier start stored a copy.
        for key in (self._accounts.system_key, self._accounts.platform_key):
            (self._folder / "jwt" / f"{key}.jwt").unlink(missing_ok=True)
        certificate = self._folder / "nats.pem"
        write_whole(certificate, server_pem(self._accounts))
        tls = {"tls": {"cert_file": str(certificate), "key_file": str(certificate)}, "allow_non_tls": True}
        write_whole(self._conf, to_text(configuration(self._folder, port, self._accounts) | tls))

    async def _launch_on_some_port(self) -> None:
        for _ in range(5):
            try:
                return await self._launch()
            except StartRefused as exc:
                if _PORT_TAKEN not in exc.problem:
                    raise
                with start_refusals(self._folder):
                    self._configure(None)
        raise StartRefused(
            f"no port of 127.0.0.1 from {PORTS.start} to {PORTS.stop} is free", "stop the programs that listen there"
        )

    async def _launch(self) -> None:
        """Start a child and wait until it is ready. Raise `StartRefused` without one."""
        assert self._binary is not None, "start comes first"
        assert self._spawner is not None, "start comes first"
        async with self._changing:
            # Until its first health check: other connections that had taken these descriptors would prevent that too.
            with self._spawner.using_reserved():
                try:
                    with start_refusals(self._folder):
                        self._process = await self._spawner.start(self._binary, "-c", self._conf)
                        await self._spawner.start_guard(self._process)
                    await self._until_ready(self._process)
                except BaseException:
                    await self._stop_child()
                    raise

    async def _until_ready(self, process: Process) -> None:
        since, is_slow = time.monotonic(), False
        try:
            async with asyncio.timeout(READY_S):
                while not await self._is_ready():
                    if process.returncode is not None or self._stopping.is_set():
                        raise self._refused()
                    if not is_slow and time.monotonic() - since > SLOW_CHECKS * self._check_every_s:
                        is_slow = True
                        log.warning("nats.slow_to_start", pid=process.pid, log=str(self._folder / "nats.log"), most_s=READY_S)
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise self._refused() from None

    async def _is_ready(self) -> bool:
        try:
            return await self._health.problems(HealthScope.SERVER, within_s=self._check_every_s) == []
        except LocalShortage:
            return False

    async def _restart(self, delay_s: float) -> None:
        """Stop the child and start it after `delay_s`, with retries until it is ready or `stop` is called."""
        async with self._changing:
            await self._stop_child()
        while not await _is_set(self._stopping, within_s=delay_s):
            try:
                await self._launch_on_some_port()
            except StartRefused as exc:
                if not self._stopping.is_set():
                    log.error("nats.restart_failed", problem=exc.problem, remedy=exc.remedy)
                delay_s = min(delay_s * 2, RETRY_MAX_S)
            else:
                log.info("nats.restarted", url=self.url, pid=self.pid)
                return

    async def _failure(self) -> str:
        """Wait until the child has failed, and return the reason."""
        assert self._process is not None, "start comes first"
        silent = 0
        while True:
            try:
                async with asyncio.timeout(self._check_every_s):
                    return f"it ended with {await self._process.wait()}"
            except TimeoutError:
                pass
            try:
                found = await self._health.problems(HealthScope.SERVER, within_s=self._check_every_s)
                silent = silent + 1 if found is None else 0
                if found == []:
                    found = await self._health.problems(HealthScope.STREAMS, within_s=self._check_every_s)
            except LocalShortage as exc:  # the shortage is on this side, and says nothing about the child
                log.warning("nats.check_not_sent", problem=str(exc))
                continue
            if silent >= SILENT_CHECKS:
                return f"it answered none of {silent} checks"
            if found and self._has_space():
                return found[0]

    def _has_space(self) -> bool:
        was_full, self._is_full = self._is_full, shutil.disk_usage(self._folder).free < ENOUGH_FREE_BYTES
        if self._is_full and not was_full:
            log.error("nats.disk_full", folder=str(self._folder))
        return not self._is_full

    async def _stop_child(self) -> None:
        """Stop the child and the resources made for it, each whatever became of the others. A guard that is left would keep
        uvloop from closing, and so this process from ending."""
        try:
            await self._stop_process()
        finally:
            try:
                await self._health.close()
            finally:
                if self._spawner is not None:
                    await self._spawner.stop_guard()

    async def _stop_process(self) -> None:
        process = self._process
        for kill in (signal.SIGTERM, signal.SIGKILL):
            if process is None or process.returncode is not None:
                return
            process.send_signal(kill)
            try:
                async with asyncio.timeout(self._end_s):
                    await process.wait()
            except TimeoutError:
                log.warning("nats.slow_to_end", pid=process.pid, signal=kill.name)

    def _refused(self) -> StartRefused:
        words = "\n".join(self._last_output())
        return StartRefused(f"nats-server did not start; it reported:\n{words}", remedy(words, self._folder))

    def _last_output(self) -> list[str]:
        """Return the end of the child's standard error, and of its log: the errors if any, else the last lines."""
        mine = f"[{self._process.pid}]" if self._process else "["
        lines = [line for line in last_lines(self._folder / "nats.log") if line.startswith(mine)]
        errors = [line for line in lines if "[FTL]" in line or "[ERR]" in line]
        return [*last_lines(self._folder / "nats.err")[-5:], *(errors or lines)[-5:]]


async def _is_set(event: asyncio.Event, *, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            return await event.wait()
    except TimeoutError:
        return False
