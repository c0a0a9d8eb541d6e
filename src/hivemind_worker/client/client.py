"""Client: the same as AsyncClient for ordinary programs, safe to use from several threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from hivemind_worker.client import asynchronous, connection, following, inputs, running, shapes, uploading
from hivemind_worker.tasks import outcome, state

T = TypeVar("T")

_CLOSED = "the client is not open: use it within `with`"


class _Loop:
    """The one event loop of all clients of this process, in a thread of its own while any of them is open.

    gRPC's asynchronous half misbehaves with several loops in one process, so clients share one.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _shared: ClassVar[_Loop | None] = None

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.users = 0
        self._thread = threading.Thread(target=self._run, name="hivemind-client", daemon=True)
        self._thread.start()

    @classmethod
    def join(cls) -> _Loop:
        """Return the loop, begun by whoever is first."""
        with cls._lock:
            if cls._shared is None:
                cls._shared = cls()
            cls._shared.users += 1
            return cls._shared

    def leave(self) -> None:
        """Be done with it; the last one ends it."""
        with self._lock:
            self.users -= 1
            if self.users:
                return
            _Loop._shared = None
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(_rest())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            self.loop.close()


class Client:
    """A pool at ``address`` (``host:port``), used as ``with Client() as client``.

    What it takes, returns and raises is told at :class:`hivemind_worker.client.asynchronous.AsyncClient`.
    """

    def __init__(
        self,
        address: str = "",
        *,
        tls_ca_file: Path | None = None,
        insecure: bool = False,
        patience: float = connection.PATIENCE_SECONDS,
        progress: uploading.Progress | None = None,
        traceparent: str = "",
    ) -> None:
        self._client = asynchronous.AsyncClient(
            address,
            tls_ca_file=tls_ca_file,
            insecure=insecure,
            patience=patience,
            progress=progress,
            traceparent=traceparent,
        )
        self._loop: _Loop | None = None
        self._caller: running.ThreadCaller | None = None

    def __enter__(self) -> Self:
        """Make the channel; nothing is sent before the first call."""
        self._loop = _Loop.join()
        try:
            self._do(self._client.__aenter__())
            self._caller = running.ThreadCaller(self._client.target())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the channel."""
        caller, self._caller = self._caller, None
        if caller is not None:
            caller.close()
        try:
            self._do(self._client.__aexit__())
        finally:
            loop, self._loop = self._loop, None
            if loop is not None:
                loop.leave()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        """Have the loop do it, and wait; whoever is interrupted here leaves nothing running there."""
        if self._loop is None:
            work.close()
            raise RuntimeError(_CLOSED)
        future = asyncio.run_coroutine_threadsafe(work, self._loop.loop)
        try:
            return future.result()
        except BaseException:
            if future.cancel():
                concurrent.futures.wait([future], timeout=connection.PAUSE_SECONDS)
            raise

    def _each(self, many: AsyncIterator[T]) -> Iterator[T]:
        try:
            while (found := self._do(_next(many))) is not None:
                yield found
        finally:
            # Whoever let go of the client before this has its loop, and with it what it asked, closed already.
            if self._loop is not None:
                self._do(_close(many))

    def submit(
        self,
        tasks: asynchronous.Given | Iterable[asynchronous.Given],
        *,
        base: str | os.PathLike[str] = ".",
        key: str | None = None,
    ) -> list[str]:
        """Submit one task or many, and return their ids in order."""
        return self._do(self._client.submit(tasks, base=base, key=key))

    def run(
        self, task: asynchronous.Given, *, base: str | os.PathLike[str] = ".", seconds: float | None = None
    ) -> shapes.Task:
        """Submit one task and return it once it has ended; raises TimeoutError after ``seconds``."""
        if self._caller is None:
            raise RuntimeError(_CLOSED)
        run = self._client.begin(inputs.prepare(task, Path(base)), seconds)
        answer = self._caller.submit(run)
        if answer is not None and (ended := running.read(run, answer)) is not None and not ended.truncated:
            return ended
        return self._do(self._client.finish(run, answer))

    def task(self, task_id: str) -> shapes.Task:
        """Return one task with its story."""
        return self._do(self._client.task(task_id))

    def tasks(self, which: asynchronous.Filter | None = None) -> Iterator[shapes.Task]:
        """Yield the tasks there are, newest first."""
        return self._each(self._client.tasks(which))

    def wait(self, ids: str | Sequence[str], seconds: float | None = None) -> tuple[shapes.Task, ...]:
        """Return the tasks once all have ended; raises TimeoutError after ``seconds``."""
        return self._do(self._client.wait(ids, seconds))

    def watch(self, ids: str | Sequence[str]) -> Iterator[shapes.Task]:
        """Yield each task now and at every change, until all have ended."""
        return self._each(self._client.watch(ids))

    def logs(self, task_id: str, *, follow: bool = False, attempt: int = 0) -> Iterator[following.Output]:
        """Yield what a task wrote; with ``follow`` until it has ended."""
        return self._each(self._client.logs(task_id, follow=follow, attempt=attempt))

    def cancel(self, ids: str | Sequence[str]) -> list[state.TaskState]:
        """Ask for tasks to be stopped, and return each one's state after that."""
        return self._do(self._client.cancel(ids))

    def retry(self, ids: str | Sequence[str]) -> list[str]:
        """Submit ended tasks anew and return the new ids."""
        return self._do(self._client.retry(ids))

    def results(self, task_id: str) -> tuple[outcome.ResultFile, ...]:
        """Return the result files of a task."""
        return self._do(self._client.results(task_id))

    def download(
        self, task_id: str, directory: str | os.PathLike[str], names: Iterable[str] | None = None
    ) -> shapes.Downloaded:
        """Fetch the result files of a task into ``directory``; returns their paths, in ``skipped`` what has none."""
        return self._do(self._client.download(task_id, directory, names))

    def nodes(self) -> tuple[shapes.Node, ...]:
        """Return every node the pool knows."""
        return self._do(self._client.nodes())

    def drain(self, node_id: str) -> None:
        """Give a node no further tasks."""
        self._do(self._client.drain(node_id))

    def resume(self, node_id: str) -> None:
        """Give a drained node tasks again."""
        self._do(self._client.resume(node_id))

    def info(self) -> shapes.PoolInfo:
        """Return what the pool says of itself."""
        return self._do(self._client.info())


async def _rest() -> None:
    """Wait until gRPC has said how each call ended, also those that were cancelled as the last client went.

    What it says after its loop is closed nobody takes: it then keeps the call, and the connection, for good.
    """
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    if rest:
        await asyncio.wait(rest, timeout=connection.END_SECONDS)


async def _next(many: AsyncIterator[T]) -> T | None:
    # None is no task and no output; a StopAsyncIteration could not travel in a future.
    return await anext(many, None)


async def _close(many: AsyncIterator[Any]) -> None:
    close = getattr(many, "aclose", None)
    if close is not None:
        await close()
