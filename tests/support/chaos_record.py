"""Writes down each client call of a chaos run: when it began, when it was answered, with what; for `client_history`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from hivemind_worker import errors
from hivemind_worker.client import asynchronous, shapes

T = TypeVar("T")

MAX_DOWNLOAD_BYTES = 1_000
"""Result files up to this size are compared by content: those name the run that wrote them."""


class Recorder:
    """A history file, one JSON object a line. Times are of the machine's monotonic clock, in seconds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._number = 0
        self.last_answer = time.monotonic()
        """When the pool last answered any call."""

    def write(self, kind: str, **fields: object) -> None:
        """Append one line."""
        self._file.write(json.dumps({"kind": kind, **fields}, separators=(",", ":")) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    async def call(
        self, name: str, args: Mapping[str, object], doing: Callable[[], Awaitable[T]], value: Callable[[T], object]
    ) -> T:
        """Do one call and record it; ``value`` turns its answer into what the history keeps. Raises what it raises."""
        self._number += 1
        number = self._number
        self.write("call", n=number, at=time.monotonic(), call=name, args=dict(args))
        try:
            answer = await doing()
        except errors.Unavailable as error:
            self._answer(number, "unknown", error)
            raise
        except (errors.HiveMindError, TimeoutError) as error:
            # An answer that cannot be read, or a deadline, says nothing about what was done.
            known = isinstance(error, errors.UserError | errors.Rejected) and "DEADLINE" not in str(error)
            self._answer(number, "refused" if known else "unknown", error)
            raise
        self.last_answer = time.monotonic()
        self.write("answer", n=number, at=self.last_answer, outcome="ok", value=value(answer))
        return answer

    def _answer(self, number: int, outcome: str, error: Exception) -> None:
        text = type(error).__name__
        self.write("answer", n=number, at=time.monotonic(), outcome=outcome, error=text, message=str(error)[:300])


class Client:
    """The calls of one client, each recorded. As `AsyncClient`, whose errors they raise."""

    def __init__(self, address: str, recorder: Recorder, patience: float) -> None:
        self.recorder = recorder
        self._client = asynchronous.AsyncClient(address, patience=patience)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.__aexit__(*exc)

    async def submit(self, tasks: Sequence[Mapping[str, object]], key: str, name: str = "submit") -> list[str]:
        """Submit; the same key makes a repeat harmless."""
        ids = [str(task["id"]) for task in tasks]
        args: dict[str, object] = {"tasks": ids, "key": key, "task": ids[0] if len(ids) == 1 else ""}
        return await self.recorder.call(name, args, lambda: self._client.submit(tasks, key=key), list)

    async def status(self, task_id: str, *, final: bool = False) -> shapes.Task:
        """Read one task with its history."""
        args = {"task": task_id, "final": final}
        return await self.recorder.call("status", args, lambda: self._client.task(task_id), row)

    async def list_all(self, states: Sequence[Any] = ()) -> list[shapes.Task]:
        """Read all tasks, page by page: each page is a read of its own time, so the whole is one long read."""

        async def pages() -> list[shapes.Task]:
            return [task async for task in self._client.tasks(asynchronous.Filter(states=states))]

        return await self.recorder.call("list", {}, pages, lambda tasks: [row(task) for task in tasks])

    async def wait(self, ids: Sequence[str], seconds: float) -> tuple[shapes.Task, ...]:
        """Wait for ends. Raises TimeoutError."""
        return await self.recorder.call(
            "wait", {"tasks": list(ids)}, lambda: self._client.wait(ids, seconds), lambda tasks: [row(t) for t in tasks]
        )

    async def logs(self, task_id: str, *, attempt: int = 0, final: bool = False) -> None:
        """Read a task's output so far."""

        async def pieces() -> list[tuple[int, str, int, str]]:
            return [
                (piece.attempt, piece.stream, piece.offset, piece.data.decode("utf-8", "replace"))
                async for piece in self._client.logs(task_id, attempt=attempt)
            ]

        args = {"task": task_id, "attempt": attempt, "final": final}
        await self.recorder.call("logs", args, pieces, list)

    async def results(self, task_id: str) -> Mapping[str, str]:
        """List a task's result files with their sums."""
        files = await self.recorder.call(
            "results", {"task": task_id}, lambda: self._client.results(task_id),
            lambda files: {file.name: file.artifact.sha256 for file in files} if len(files) < 100 else len(files),
        )  # fmt: skip
        return {file.name: file.artifact.sha256 for file in files}

    async def download(self, task_id: str, names: Sequence[str], *, final: bool = False) -> None:
        """Fetch small result files and record their content."""

        async def fetch() -> dict[str, str]:
            with tempfile.TemporaryDirectory(prefix="chaos-download-") as folder:
                paths = await self._client.download(task_id, folder, names)
                return await asyncio.to_thread(_contents, Path(folder), paths)

        await self.recorder.call("download", {"task": task_id, "final": final}, fetch, dict)

    async def cancel(self, task_id: str) -> None:
        """Ask for a task to be stopped."""
        await self.recorder.call(
            "cancel", {"task": task_id}, lambda: self._client.cancel([task_id]), lambda states: str(states[0])
        )

    async def retry(self, task_id: str) -> list[str]:
        """Submit an ended task anew, under a new id."""
        return await self.recorder.call("retry", {"task": task_id}, lambda: self._client.retry([task_id]), list)

    async def follow(self, ids: Sequence[str], ended: set[str]) -> None:
        """Record every change of these tasks as it arrives, until all have ended; ``ended`` gets those that have."""
        async for task in self._client.watch(ids):
            at = time.monotonic()
            if task.ended:
                ended.add(task.id)
            self.recorder.last_answer = at
            # Taken as begun a second before it came: the pool read it before it sent it.
            self.recorder.write("seen", begin=at - 1.0, end=at, call="watch", **row(task))

    async def info(self) -> shapes.PoolInfo:
        """Ask the pool about itself."""
        return await self.recorder.call("info", {}, self._client.info, lambda info: dict(info.tasks_by_state))

    async def nodes(self) -> tuple[shapes.Node, ...]:
        """Ask for the nodes."""
        return await self.recorder.call(
            "nodes", {}, self._client.nodes, lambda nodes: {node.node_id: node.status for node in nodes}
        )


def _contents(folder: Path, paths: Sequence[Path]) -> dict[str, str]:
    small = [path for path in paths if path.stat().st_size <= MAX_DOWNLOAD_BYTES]
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8", errors="replace") for path in small}


def row(task: shapes.Task) -> dict[str, object]:
    """A task as the history has it."""
    result = task.result
    files = {file.name: file.artifact.sha256 for file in result.results} if result else {}
    fields: dict[str, object] = {
        "task": task.id, "state": str(task.status), "attempt": task.attempt,
        "cancel_requested": task.cancel_requested, "disruptions": task.disruptions,
    }  # fmt: skip
    if result is not None:
        fields |= {
            "reason": str(result.reason) if result.reason else "",
            "exit_code": result.exit_code,
            # Of thousands of names the sum of all says as much as each.
            "files": files if len(files) < MAX_NAMES else {"*": str(len(files))},
            "flags": sorted(str(flag) for flag in result.flags),
        }
    if task.story:
        fields["story"] = [(event.event, event.attempt, event.node_id) for event in task.story]
        fields["losses"] = {
            str(event.attempt): event.details[:MAX_REASON] for event in task.story if event.event in _LOSSES
        }
    return fields


MAX_NAMES = 100
MAX_REASON = 200
"""Characters of why an attempt was lost; its first word is the reason, and the rest is for people."""

_LOSSES = frozenset({"requeue", "late_report", "fail"})


def planned(plan: object, recorder: Recorder) -> None:
    """Record what a submission must come to."""
    recorder.write("planned", **dataclasses.asdict(plan))  # type: ignore[call-overload]
