"""The nats-server that `artcafe up` runs as its child: started, watched, started again, ended. What it carries is elsewhere."""

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
from artcafe.observe.logs import log

ENOUGH_FREE_BYTES: Final = 16 * 1024 * 1024
"""A stream that met a full disk is worth a new start once it can grow by two blocks (8 MiB each)."""

READY_S: Final = 300.0
"""Usually 20 ms; after a crash JetStream reads its files first, and a child that is killed over it would never get through."""
SLOW_CHECKS: Final = 2
"""A start that takes longer than so many checks is said to wait for nats-server."""
CHECK_S: Final = 5.0
SILENT_CHECKS: Final = 3
RETRY_MIN_S: Final = 0.05
RETRY_MAX_S: Final = 10.0
SETTLED_S: Final = 60.0
"""A child that lived so long is started again at once when it dies; one that died sooner, later each time."""

_PORT_TAKEN: Final = "address already in use"


class EmbeddedNats:
    """One nats-server on 127.0.0.1, its files under one folder, its operator and system account those of `accounts`.

    Every message is on disk before it is acknowledged, so ending the child in any way loses nothing. It ends with this process;
    one that outlived it nevertheless is replaced at the next `start`. It listens on one port, for TLS and for plain connections,
    whose other end must be proven by the former (`nats.server_proof`). Its health is asked over NATS, as the system account.
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
        """`binary`: the nats-server to run, instead of looking for one. `check_every_s`: also the longest wait for an answer.

        `end_s`: how long a nats-server may take to end by itself.
        """
        self._folder = folder.absolute()
        self._conf = self._folder / "nats.conf"
        self._accounts = accounts
        self._binary = binary
        self._check_every_s = check_every_s
        self._end_s = end_s
        self.tls = client_context(accounts)
        """What accepts this nats-server's certificate, and no other."""
        self.urls = [""]
        """Where it listens, for TLS. A restart changes the list where another program has taken the port meanwhile."""
        self._health = HealthClient(self.urls, accounts, self.tls)
        self._spawner: Spawner | None = None
        self._process: Process | None = None
        self._lock: int | None = None
        self._is_full = False
        self._stopping = asyncio.Event()
        self._changing = asyncio.Lock()

    @property
    def url(self) -> str:
        """Where it listens for plain connections, which prove nothing of it by themselves."""
        return self.urls[0].replace("tls:", "nats:")

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Returns when JetStream answers. A nats-server left over in the folder from a killed parent is ended first.

        Raises `StartRefused`, with nothing left running, when there is no fit nats-server, when another ArtCafe has the
        folder, or when the child does not come up; then with the last lines of its log. Once for each object.
        """
        self._binary = self._binary or find_binary()
        await check_version(self._binary)
        try:
            with start_refusals(self._folder):
                self._take_folder()
                await stop_leftover(self._folder / "nats.pid", self._conf, within_s=self._end_s)
                self._configure(recorded_port(self._conf))
                self._spawner = Spawner(self._folder / "nats.err")
            await self._launch_on_some_port()
        except BaseException:
            self._leave_folder()
            raise
        log.info("nats.started", url=self.url, pid=self.pid)

    async def run(self) -> None:
        """Starts the child again whenever it dies, hangs or can store no more, until `stop`. Belongs in a `TaskGroup`.

        A restart keeps the data, and the port where it is still free; clients come back by themselves. Cancelling it leaves the
        child to `stop`.
        """
        delay_s = RETRY_MIN_S
        while not self._stopping.is_set():
            since = time.monotonic()
            problem = await self._failure()
            if self._stopping.is_set():
                return
            log.warning("nats.failed", problem=problem, last_words=self._last_words())
            delay_s = RETRY_MIN_S if time.monotonic() - since > SETTLED_S else min(delay_s * 2, RETRY_MAX_S)
            await self._restart(delay_s)

    async def stop(self) -> None:
        """Ends the child, after `end_s` with SIGKILL. Call it when the clients have drained; may be repeated.

        SIGTERM and not SIGUSR2: the latter is nats-server's lame duck mode, which spends two minutes on sending clients to
        servers that aren't there.
        """
        self._stopping.set()
        async with self._changing:
            await self._end()
        self._leave_folder()

    def _take_folder(self) -> None:
        """Makes sure that no other ArtCafe has the folder: two nats-servers would spoil a store, and ours ends what it finds."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self._folder / "nats.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            problem = f"another ArtCafe is running on {self._folder}"
            raise StartRefused(problem, "stop it first, or start this one with another --data-dir") from exc
        for file in self._folder.glob("nats.*"):  # made by an earlier version, as the umask had it
            file.chmod(0o600)

    def _leave_folder(self) -> None:
        if self._spawner is not None:
            self._spawner.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _configure(self, port: int | None) -> None:
        port = port or some_free_port()
        self.urls[0] = f"tls://{HOST}:{port}"
        # The configuration's word on these two accounts wins over a copy from an earlier start, whatever the clock did since.
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
        raise StartRefused(f"no port of 127.0.0.1 from {PORTS.start} to {PORTS.stop} is free", "end what listens there")

    async def _launch(self) -> None:
        """Leaves a child that is ready, or none and raises `StartRefused`."""
        assert self._binary is not None, "start comes first"
        assert self._spawner is not None, "start comes first"
        async with self._changing:
            # Until it has been asked once: what other connections had taken of the descriptors would keep it from that too.
            with self._spawner.with_spare():
                try:
                    with start_refusals(self._folder):
                        self._process = await self._spawner.start(self._binary, "-c", self._conf)
                    await self._until_ready(self._process)
                except BaseException:
                    await self._end()
                    raise

    async def _until_ready(self, process: Process) -> None:
        since, is_slow = time.monotonic(), False
        try:
            async with asyncio.timeout(READY_S):
                while not await self._is_ready():
                    if (task := asyncio.current_task()) is not None and task.cancelling():
                        raise asyncio.CancelledError  # nats-py, in its close, takes a cancellation for a timeout of its own
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
        """Ends what is left of the child and starts it after `delay_s`, over and over until it is ready or `stop` was called."""
        async with self._changing:
            await self._end()
        while not await _happens(self._stopping, within_s=delay_s):
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
        """Waits until the child has failed, and says how."""
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
            except LocalShortage as exc:  # which says nothing of the child
                log.warning("nats.not_asked", problem=str(exc))
                continue
            if silent >= SILENT_CHECKS:
                return f"it answered none of {silent} checks"
            if found and self._has_room():
                return found[0]

    def _has_room(self) -> bool:
        was_full, self._is_full = self._is_full, shutil.disk_usage(self._folder).free < ENOUGH_FREE_BYTES
        if self._is_full and not was_full:
            log.error("nats.disk_full", folder=str(self._folder))
        return not self._is_full

    async def _end(self) -> None:
        """Ends the child, and what was there on its account."""
        await self._end_process()
        await self._health.close()
        if self._spawner is not None:
            await self._spawner.ended()

    async def _end_process(self) -> None:
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
        words = "\n".join(self._last_words())
        return StartRefused(f"nats-server did not start; it says:\n{words}", remedy(words, self._folder))

    def _last_words(self) -> list[str]:
        """What the child said last: its standard error, then the errors in its log, or else the log's last lines."""
        mine = f"[{self._process.pid}]" if self._process else "["
        lines = [line for line in last_lines(self._folder / "nats.log") if line.startswith(mine)]
        errors = [line for line in lines if "[FTL]" in line or "[ERR]" in line]
        return [*last_lines(self._folder / "nats.err")[-5:], *(errors or lines)[-5:]]


async def _happens(event: asyncio.Event, *, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            return await event.wait()
    except TimeoutError:
        return False
