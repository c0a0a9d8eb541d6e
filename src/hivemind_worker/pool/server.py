"""NodePool: a pool as one object, from its files to its port: started, stopped in order, embedded where wanted."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2_grpc  # type: ignore[import-untyped]

from hivemind_worker import errors
from hivemind_worker.artifacts import scrub
from hivemind_worker.artifacts import store as artifact_store
from hivemind_worker.concurrency import stopping, supervision
from hivemind_worker.filesystem import private_dir, sealed
from hivemind_worker.pool import checkup, free_space, readiness, serving_status
from hivemind_worker.pool.api import attempt_logs, audit, changes, files, service, streams, task_service
from hivemind_worker.pool.scheduling import dispatch, leases
from hivemind_worker.pool.store import database, locks, sqlite
from hivemind_worker.telemetry import logs
from hivemind_worker.telemetry.health import report
from hivemind_worker.wire import calls, channels, unparsed

GRACE_SECONDS = 5.0
"""How long calls that move bytes may go on when the pool stops; polls and followers are answered at once."""

_HOST_PORT = re.compile(r"(?:\[[^\]]+\]|[^:\[\]]+):\d{1,5}")

log = logs.StructuredLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tls:
    """The pool's certificate with its chain, and its private key, as PEM files."""

    certificate: Path
    key: Path


class NodePool:
    """A Node Pool. Made anywhere; started, used and stopped on one event loop.

    ``data`` is its folder: ``pool.sqlite``, ``artifacts`` and ``logs`` are in it unless ``store_path`` or
    ``artifact_folder`` say otherwise. ``listen`` is host:port; port 0 takes a free one. Plain text is spoken to
    loopback addresses only, unless ``insecure``. ``lease_seconds`` is how long a node may be silent,
    ``max_attempts`` how often a task is tried that names no number, ``artifact_limit_bytes`` the largest file taken,
    ``scrub_bytes_per_second`` how fast stored files are read again (0: never), ``min_free_bytes`` what must be free on
    its disks for tasks to be handed out, ``preload_images`` what nodes are asked to have ready,
    ``budgets`` what streams may have in memory.
    """

    def __init__(  # noqa: PLR0913  (each is a setting of its own; all but the folder have defaults)
        self,
        data: Path,
        listen: str = "127.0.0.1:0",
        *,
        store_path: Path | None = None,
        artifact_folder: Path | None = None,
        lease_seconds: float = 60.0,
        max_attempts: int = 3,
        artifact_limit_bytes: int = 16 * 1024**3,
        scrub_bytes_per_second: int = scrub.BYTES_PER_SECOND,
        min_free_bytes: int = free_space.MIN_FREE_BYTES,
        tls: Tls | None = None,
        insecure: bool = False,
        with_reflection: bool = False,
        preload_images: tuple[str, ...] = (),
        budgets: streams.Streams | None = None,
    ) -> None:
        self._running = leases.running_time(lease_seconds)
        self.store = sqlite.SqliteStore(store_path or data / "pool.sqlite", lease_seconds, self._running)
        self._locks = [
            locks.InodeLock(folder, f"give this one {setting} of its own", is_folder=True)
            for folder, setting in (
                (data / "logs", "a state folder (--state-dir)"),
                (artifact_folder or data / "artifacts", "a pool_artifact_dir"),
            )
        ]
        self._data = data
        self.address = ""
        self._listen = listen
        self._tls = tls
        self._insecure = insecure
        self._with_reflection = with_reflection
        self._artifacts = artifact_store.Store(artifact_folder or data / "artifacts")
        self._scrub = scrub.Scrub(self._artifacts, scrub_bytes_per_second)
        output = attempt_logs.AttemptLogs(data / "logs")
        ready = readiness.Readiness()
        places = artifact_folder or data / "artifacts"
        self._space = free_space.FreeSpace(
            (data, places, (store_path or data / "pool.sqlite").parent), places / "staging", ready, min_free_bytes
        )
        self._parts = service.Parts(
            store=self.store,
            files=files.Files(self._artifacts, artifact_limit_bytes, self._space),
            readiness=ready,
            logs=output,
            audit=audit.Audit(output),
            dispatch=dispatch.Dispatch(self.store),
            followers=changes.Followers(),
            lease_seconds=lease_seconds,
            max_attempts=max_attempts,
            preload_images=preload_images,
            streams=budgets or streams.Streams(),
            key=sealed.Key(database.key_file(store_path or data / "pool.sqlite")),
        )
        ready.listen(lambda is_ready: self._parts.dispatch.pause(paused=not is_ready))
        self._stop = stopping.Stop()
        self._loops: asyncio.Task[supervision.Ending] | None = None
        self._server: grpc.aio.Server | None = None
        self._status = serving_status.ServingStatus(ready)
        self.health: report.Health = checkup.checker(self.store, data, self._not_serving, ready)

    async def start(self) -> str:
        """Open the store, listen, serve; return the address, host:port, with the port that was taken.

        Raises :class:`errors.StateInUse` where another pool has the store or a folder, :class:`errors.BadSettings` for
        a store, a port or a certificate that cannot be used.
        """
        credentials = self._credentials()
        async with contextlib.AsyncExitStack() as undo:
            await asyncio.to_thread(private_dir.make, self._data)
            for lock in self._locks:
                lock.take()
                undo.callback(lock.release)
            await self.store.open()
            undo.push_async_callback(self.store.close)
            try:
                await asyncio.to_thread(self._artifacts.prepare)
            except OSError as error:
                raise errors.BadSettings(
                    f"the pool's files cannot be written to {error.filename}: {error.strerror}; mount the disk to be "
                    "written, or choose another folder with pool_artifact_dir"
                ) from None
            await self._space.look()
            self.store.listen(self._parts.dispatch.heard)
            self.store.answer(self._parts.dispatch.answered)
            self.store.listen(self._parts.followers.heard)
            self.store.listen(self._parts.told.heard)
            self.store.listen(self._parts.live.heard)
            self.store.on_unusable(self._judge_store)
            server = self._serve()
            self.address = self._bind(server, credentials)
            await server.start()
            await self._status.update()
            self._server = server
            self._loops = asyncio.create_task(self._run_loops(), name="pool")
            undo.pop_all()
        log.log_system_event("pool_started", {"address": self.address, "tls": self._tls is not None})
        return self.address

    def adopt(self, max_attempts: int, preload_images: tuple[str, ...]) -> None:
        """Take these from now on: for tasks that come, and for nodes with their next heartbeat."""
        self._parts.max_attempts, self._parts.preload_images = max_attempts, preload_images

    async def failed(self) -> None:
        """Wait until the pool has stopped; raises where one of its loops failed."""
        if self._loops is not None:
            await asyncio.shield(self._loops)

    async def metrics(self) -> tuple[bytes, str]:
        """Return the pool's metrics in Prometheus' text format, and that format's content type."""
        self._parts.told.artifacts(damaged=self._artifacts.damaged_count, read_bytes=self._scrub.read_bytes)
        return await self._parts.told.exposition(self.store, self._parts.dispatch.waiting)

    def _judge_store(self, reason: str) -> None:
        """Take note that nothing can be written into the store, or (no reason) that it can again."""
        if reason:
            self._parts.readiness.set_unready("store", reason)
        else:
            self._parts.readiness.set_ready("store")

    def _not_serving(self) -> str:
        if self._server is None or self._stop.requested:
            return "the pool does not serve: it has not started, or it stops"
        return "a loop of the pool has ended" if self._loops is None or self._loops.done() else ""

    async def stop(self) -> None:
        """Stop in order: answer what waits, let calls finish, then close the store. Does nothing a second time."""
        server, self._server = self._server, None
        if server is None:
            return
        await self._status.servicer.enter_graceful_shutdown()
        self._parts.dispatch.close()
        self._parts.followers.close()
        await server.stop(GRACE_SECONDS)
        self._stop.request(stopping.StopLevel.DRAIN, "the pool stops")
        try:
            if self._loops is not None:
                await self._loops
        finally:
            self._parts.files.close()
            self._parts.audit.close()
            self._parts.logs.close()
            await self.store.close()
            for lock in self._locks:
                lock.release()
            log.log_system_event("pool_stopped", {"address": self.address})

    async def _run_loops(self) -> supervision.Ending:
        loops = supervision.Loops("pool", [supervision.Stage("all", GRACE_SECONDS)])
        loops.add("dispatch", "all", self._parts.dispatch.run)
        loops.add("scrub", "all", self._scrub.run)
        loops.add("free space", "all", self._space.run)
        loops.add("serving status", "all", self._status.run)
        loops.add("store", "all", self._watch_store)
        watch = functools.partial(
            leases.watch, self.store, self._running, self._parts.lease_seconds, self._parts.forget
        )
        loops.add("leases", "all", watch)
        try:
            return await loops.run(self._stop)
        except errors.HiveMindError as error:
            log.log_system_event("pool_failed", level="error", error=error)
            # Without its loops a pool answers nobody: waiting workers must not wait for nothing.
            self._parts.readiness.set_unready("loops", str(error))
            await self._status.update()
            self._parts.dispatch.close()
            raise

    async def _watch_store(self, stop: stopping.Stop) -> None:
        with contextlib.suppress(stopping.Stopped):
            await stop.until(stopping.StopLevel.DRAIN, self.store.failed())

    def _serve(self) -> grpc.aio.Server:
        server = grpc.aio.server(options=calls.SERVER_OPTIONS, maximum_concurrent_rpcs=calls.CALLS_AT_ONCE)
        unparsed.add_servicer(calls.NODE_MANAGER, service.NodeManager(self._parts), server)
        unparsed.add_servicer(calls.TASK_MANAGER, task_service.TaskManager(self._parts), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._status.servicer, server)
        if self._with_reflection:
            from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]  # noqa: PLC0415  (35 ms few need)
                reflection,
            )

            shown = (*calls.service_names(), health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(shown, server)
        return server

    def _credentials(self) -> grpc.ServerCredentials | None:
        if self._tls is not None:
            try:
                pair = (self._tls.key.read_bytes(), self._tls.certificate.read_bytes())
            except OSError as error:
                raise errors.BadSettings(f"{error.filename} cannot be read: {error.strerror}") from None
            return grpc.ssl_server_credentials([pair])
        if not (self._insecure or channels.is_local(self._listen)):
            raise errors.BadSettings(
                f"{self._listen} can be reached by other machines, and there is no certificate: set tls_cert_file and "
                "tls_key_file, listen on 127.0.0.1, or allow plain text with insecure"
            )
        return None

    def _bind(self, server: grpc.aio.Server, credentials: grpc.ServerCredentials | None) -> str:
        add: Callable[[str], int] = server.add_insecure_port
        if credentials is not None:
            add = functools.partial(server.add_secure_port, server_credentials=credentials)
        try:
            port = add(self._listen)
        except RuntimeError:
            port = 0
        if not port:
            raise errors.BadSettings(f"cannot listen on {self._listen}: the port is taken, or the address is not ours")
        return re.sub(r":\d+$", f":{port}", self._listen) if _HOST_PORT.fullmatch(self._listen) else self._listen
