"""AsyncClient: all that a submitter and an operator may ask of a pool, for programs with an event loop of their own."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from hivemind_worker import errors
from hivemind_worker.client import connection, fetching, following, inputs, running, shapes, submission, uploading
from hivemind_worker.tasks import outcome, state
from hivemind_worker.wire import calls, channels

Given = Mapping[str, object]
"""A task as JSON has it; the fields are those of `hivemind_worker.tasks.spec`."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which tasks :meth:`AsyncClient.tasks` yields; what is empty does not restrict."""

    states: Sequence[state.TaskState] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    node_id: str = ""
    type: str = ""


def _silent(_what: str, _done: int, _of: int) -> None:
    """Nobody wants to see progress."""


class AsyncClient:
    """A pool at ``address`` (``host:port``), used as ``async with AsyncClient(…) as client``.

    Without an address it is the pool that the ``hivemind`` command would ask: settings file and environment
    (``HIVEMIND_NODE_POOL_ADDRESS``, ``HIVEMIND_TLS_CA_FILE``, …) count, and with none of them it is this machine's own.
    ``tls_ca_file`` is the PEM file whose certificates the pool's own must be signed by. Without TLS
    only this machine's own addresses are spoken to, unless ``insecure``: raises :class:`errors.BadSettings`.
    ``patience`` is for how many seconds a pool that does not answer is tried again. Every call raises
    :class:`errors.Unavailable` after that, and :class:`errors.Rejected` where the pool says no.
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
        if not address:
            address, tls_ca_file, insecure = _as_settings_say(tls_ca_file, insecure=insecure)
        self.address = address
        self._ca_file = tls_ca_file
        self._insecure = insecure
        self._patience = patience
        self._progress = progress or _silent
        self._traceparent = traceparent
        self._pool: connection.Connection | None = None

    async def __aenter__(self) -> Self:
        """Make the channel; nothing is sent before the first call."""
        self._pool = connection.Connection(channels.open_channel(self.target()), self.address, self._patience)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of the channel."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    def target(self) -> channels.Line:
        """Return how the pool is reached. Raises :class:`errors.BadSettings`."""
        return channels.Line(self.address, _certificates(self._ca_file), self._insecure)

    @property
    def _open(self) -> connection.Connection:
        if self._pool is None:
            raise RuntimeError("the client is not open: use it within `async with`")
        return self._pool

    async def submit(
        self, tasks: Given | Iterable[Given], *, base: str | os.PathLike[str] = ".", key: str | None = None
    ) -> list[str]:
        """Submit one task or many, and return their ids in order.

        ``{"file": "path"}`` in ``input_files`` and as ``code`` stands for a local file, relative to ``base``, and in
        ``input_files`` ``{"folder": "path"}`` for all files in a folder; large files are uploaded first. All tasks are
        checked before any is sent: raises :class:`errors.InvalidTask` naming the field. ``key`` makes a repeat of the
        same call harmless. Raises :class:`errors.Conflict` for an id that is taken.
        """
        many = [tasks] if isinstance(tasks, Mapping) else list(tasks)
        prepared = await self._prepared(many, Path(base))
        return await self.submit_prepared(prepared, key=key)

    async def _prepared(self, tasks: Sequence[Given], base: Path) -> list[inputs.Prepared]:
        """In a thread, but for the most frequent case: one task that names no file costs less than the way there."""
        if len(tasks) == 1 and not inputs.may_read(tasks[0]):
            return [inputs.prepare(tasks[0], base)]
        return await asyncio.to_thread(lambda: [inputs.prepare(task, base) for task in tasks])

    async def submit_prepared(self, prepared: Sequence[inputs.Prepared], *, key: str | None = None) -> list[str]:
        """Submit tasks that :func:`inputs.prepare` has checked already, and return their ids in order."""
        return await submission.submit(self._open, prepared, key, self._progress, self._traceparent)

    async def run(
        self, task: Given, *, base: str | os.PathLike[str] = ".", seconds: float | None = None
    ) -> shapes.Task:
        """Submit one task and return it once it has ended: one call where :meth:`submit` and :meth:`wait` make two.

        The task goes on whatever becomes of this call: its own ``id`` finds it again. Raises as :meth:`submit`, and
        TimeoutError, naming the task, where it has not ended ``seconds`` after the call. A pool that does not even say
        whether it has the task is waited for as long, and for ``patience`` where that is longer.
        """
        (prepared,) = await self._prepared([task], Path(base))
        return await self.finish(self.begin(prepared, seconds))

    def begin(self, prepared: inputs.Prepared, seconds: float | None) -> running.Run:
        """Put a task into words that is to be run, for :meth:`finish`; ``seconds`` begin now.

        Raises ValueError for ``seconds`` that are nan.
        """
        return running.begin(prepared, self._traceparent, seconds, self._patience)

    async def finish(self, run: running.Run, answer: calls.pb.SubmitTasksResponse | None = None) -> shapes.Task:
        """Return a task that was begun once it has ended; without an ``answer`` it is submitted now."""
        if answer is None:
            answer = await running.submit(self._open, run, self._progress)
        return await running.finish(self._open, run, running.read(run, answer))

    async def task(self, task_id: str) -> shapes.Task:
        """Return one task with its story. Raises :class:`errors.NoSuchTask`."""
        request = calls.pb.GetTaskRequest(task_id=task_id)
        answer = await self._open.ask(self._open.pool.GetTask, request, f"asking for {task_id}")
        return await fetching.complete(self._open, shapes.task_from(answer.task))

    async def tasks(self, which: Filter | None = None, page: int = 500) -> AsyncIterator[shapes.Task]:
        """Yield the tasks there are, newest first; ``page`` at a time are asked for."""
        wanted = which or Filter()
        request = calls.pb.ListTasksRequest(
            states=[str(each) for each in wanted.states],
            labels=wanted.labels,
            node_id=wanted.node_id,
            type=wanted.type,
            page_size=page,
        )
        while True:
            answer = await self._open.ask(self._open.pool.ListTasks, request, "listing tasks")
            for message in answer.tasks:
                yield shapes.task_from(message)
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    async def wait(
        self,
        ids: str | Sequence[str],
        seconds: float | None = None,
        told: Callable[[shapes.Task], None] = lambda _task: None,
    ) -> tuple[shapes.Task, ...]:
        """Return the tasks, in the order asked, once all have ended; ``told`` is called with each the moment it has.

        Raises TimeoutError, naming those that have not, after ``seconds``.
        """
        return await following.wait(self._open, _several(ids), seconds, told)

    def watch(self, ids: str | Sequence[str]) -> AsyncIterator[shapes.Task]:
        """Yield each task now and at every change, until all have ended."""
        return following.watch(self._open, _several(ids))

    def logs(self, task_id: str, *, follow: bool = False, attempt: int = 0) -> AsyncIterator[following.Output]:
        """Yield what a task wrote; with ``follow`` until it has ended. ``attempt`` 0 is the newest."""
        return following.logs(self._open, task_id, follow=follow, attempt=attempt)

    async def cancel(self, ids: str | Sequence[str]) -> list[state.TaskState]:
        """Ask for tasks to be stopped, and return each one's state after that; ended tasks stay as they are."""
        request = calls.pb.CancelTasksRequest(task_ids=_several(ids))
        answer = await self._open.ask(self._open.pool.CancelTasks, request, "cancelling")
        _accepted(answer.success, answer.message, "cancelling")
        return [state.TaskState(word) for word in answer.states]

    async def retry(self, ids: str | Sequence[str]) -> list[str]:
        """Submit ended tasks anew and return the new ids."""
        request = calls.pb.RetryTasksRequest(task_ids=_several(ids), idempotency_key=uuid.uuid4().hex)
        answer = await self._open.ask(self._open.pool.RetryTasks, request, "retrying")
        _accepted(answer.success, answer.message, "retrying")
        return list(answer.new_task_ids)

    async def results(self, task_id: str) -> tuple[outcome.ResultFile, ...]:
        """Return the result files of a task: name, size, SHA-256, mode."""
        return await fetching.results(self._open, task_id)

    async def download(
        self, task_id: str, directory: str | os.PathLike[str], names: Iterable[str] | None = None
    ) -> shapes.Downloaded:
        """Fetch the result files of a task (all, or those named) into ``directory``; returns their paths.

        Each appears whole and checked or not at all, never outside the directory; what broke off is resumed. A file
        that has no place there is left out, and named in ``skipped`` of what is returned.
        """
        return await fetching.download(self._open, task_id, Path(directory), names, self._progress)

    async def nodes(self) -> tuple[shapes.Node, ...]:
        """Return every node the pool knows."""
        request = calls.pb.ListNodesRequest()
        found: list[shapes.Node] = []
        while True:
            answer = await self._open.ask(self._open.pool.ListNodes, request, "listing nodes")
            found += map(shapes.node_from, answer.nodes)
            if answer.next_page_token in {"", request.page_token}:
                return tuple(found)
            request.page_token = answer.next_page_token

    async def drain(self, node_id: str) -> None:
        """Give a node no further tasks; what it runs goes on."""
        request = calls.pb.DrainNodeRequest(node_id=node_id)
        answer = await self._open.ask(self._open.pool.DrainNode, request, f"draining {node_id}")
        _accepted(answer.success, answer.message, f"draining {node_id}")

    async def resume(self, node_id: str) -> None:
        """Give a drained node tasks again."""
        request = calls.pb.ResumeNodeRequest(node_id=node_id)
        answer = await self._open.ask(self._open.pool.ResumeNode, request, f"resuming {node_id}")
        _accepted(answer.success, answer.message, f"resuming {node_id}")

    async def info(self) -> shapes.PoolInfo:
        """Return what the pool says of itself."""
        answer = await self._open.ask(self._open.pool.GetPoolInfo, calls.pb.GetPoolInfoRequest(), "asking the pool")
        return shapes.pool_from(answer)


def _as_settings_say(tls_ca_file: Path | None, *, insecure: bool) -> tuple[str, Path | None, bool]:
    """Where the command would go, and how. Raises :class:`errors.BadSettings`."""
    from hivemind_worker.settings import sources  # noqa: PLC0415  (slow to import, and most callers say where)

    found = sources.load(toml_path=sources.find_file(None, os.environ))
    security = found.security
    return found.node.node_pool_address, tls_ca_file or security.tls_ca_file, insecure or security.insecure


def _certificates(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError as error:
        raise errors.BadSettings(f"tls_ca_file: {path} cannot be read: {error.strerror}") from None


def _several(ids: str | Sequence[str]) -> list[str]:
    return [ids] if isinstance(ids, str) else list(ids)


def _accepted(success: bool, message: str, doing: str) -> None:  # noqa: FBT001  (the answer's own field)
    if not success:
        raise errors.Rejected(f"{doing}: {message or 'the pool said no, and no more'}")
