"""Result files come to a folder of the submitter's: whole and checked or not there at all, and never outside it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import grpc

from hivemind_worker import errors
from hivemind_worker.client import connection, landing, shapes, uploading
from hivemind_worker.tasks import outcome, state
from hivemind_worker.wire import calls, translate, verdicts

_ROUNDS = 3
"""Times that one file may arrive with the wrong content before it is given up: each costs the whole file."""


async def results(pool: connection.Connection, task_id: str) -> tuple[outcome.ResultFile, ...]:
    """Return the result files of a task that has ended: all of them, on however many pages the pool names them."""
    files, _ = await _listing(pool, task_id)
    return files


async def complete(pool: connection.Connection, task: shapes.Task) -> shapes.Task:
    """Return a task with the names of all its result files, where its own message had no room for them."""
    if not task.truncated or task.result is None:
        return task
    files, skipped = await _listing(pool, task.id)
    return dataclasses.replace(task, result=dataclasses.replace(task.result, results=files, skipped=skipped))


async def _listing(
    pool: connection.Connection, task_id: str
) -> tuple[tuple[outcome.ResultFile, ...], tuple[outcome.SkippedFile, ...]]:
    request = calls.pb.ListResultsRequest(task_id=task_id)
    files: list[outcome.ResultFile] = []
    skipped: list[outcome.SkippedFile] = []
    while True:
        answer = await pool.ask(pool.pool.ListResults, request, f"listing the results of {task_id}")
        files += map(translate.file_from_message, answer.files)
        skipped += (outcome.SkippedFile(entry.name, entry.why) for entry in answer.skipped)
        if answer.next_page_token in {"", request.page_token}:
            return tuple(files), tuple(skipped)
        request.page_token = answer.next_page_token


async def download(
    pool: connection.Connection,
    task_id: str,
    directory: Path,
    names: Iterable[str] | None,
    progress: uploading.Progress,
) -> shapes.Downloaded:
    """Fetch result files (all, or those named) into ``directory``, and return where they lie.

    What lies there already with the right content is not fetched again; a download that broke off goes on where it
    was. A file whose name would lead outside the directory, or to where another of these files lies, is skipped, and
    the others are fetched. Raises :class:`errors.UserError` for a name that there is not and for a task that has not
    ended, :class:`errors.Rejected` where none of the files can be fetched.
    """
    there = {file.name: file for file in await results(pool, task_id)}
    if not there:
        await _ended(pool, task_id)
    wanted = list(there) if names is None else list(dict.fromkeys(names))
    missing = [name for name in wanted if name not in there]
    if missing:
        raise errors.UserError(f"task {task_id} has no result {missing[0]!r}; it has {_listed(list(there))}")
    fetched = shapes.Downloaded()
    skipped = list[outcome.SkippedFile]()
    written = dict[tuple[int, int], str]()
    for name in wanted:
        try:
            path = landing.place(directory, name)
            _need_other_place(path, name, written)
            await _fetch(pool, task_id, there[name], landing.Landing(directory, path, there[name]), progress)
        except landing.NoPlace as refused:
            skipped.append(outcome.SkippedFile(name, str(refused)))
            continue
        fetched.append(path)
        written[landing.identity(path)] = name
    fetched.skipped = tuple(skipped)
    if skipped and not fetched:
        raise errors.Rejected(f"no result of {task_id} can be fetched into {directory}: {skipped[0].why}")
    return fetched


def _need_other_place(path: Path, name: str, written: Mapping[tuple[int, int], str]) -> None:
    """Refuse to write over a result of this very download: this file system may take two names for one."""
    with contextlib.suppress(OSError):
        if (other := written.get(landing.identity(path))) is not None:
            raise landing.NoPlace(f"{name!r} and {other!r} are one file on the file system of {path.parent}")


async def _ended(pool: connection.Connection, task_id: str) -> None:
    """Tell a task without results from one that has not come to them."""
    answer = await pool.ask(pool.pool.GetTask, calls.pb.GetTaskRequest(task_id=task_id), f"asking for {task_id}")
    if answer.task.state not in state.ENDED:
        raise errors.UserError(f"task {task_id} is {answer.task.state}: its results come when it has ended")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (" …" if len(names) > 10 else "") if names else "none"


async def _fetch(
    pool: connection.Connection,
    task_id: str,
    file: outcome.ResultFile,
    arriving: landing.Landing,
    progress: uploading.Progress,
) -> None:
    """Bring one file over, however often the line breaks."""
    tries, doing = pool.tries(), f"fetching {file.name}"
    wrong = 0
    async with arriving:
        while not arriving.done:
            while arriving.offset < file.artifact.size:
                before = arriving.offset
                try:
                    await _receive(pool, task_id, file, arriving, progress)
                except grpc.aio.AioRpcError as error:
                    if arriving.offset > before:
                        tries.worked()
                    await tries.again(error, doing)
            if not await asyncio.to_thread(arriving.finish):
                wrong += 1
                if wrong == _ROUNDS:
                    raise errors.Rejected(f"{doing}: what the pool sends is not what the task made (SHA-256 differs)")


async def _receive(
    pool: connection.Connection,
    task_id: str,
    file: outcome.ResultFile,
    arriving: landing.Landing,
    progress: uploading.Progress,
) -> None:
    """Take what one call brings; it may be less than all, never something else than asked for."""
    request = calls.pb.DownloadResultRequest(task_id=task_id, name=file.name, offset=arriving.offset)
    before = arriving.offset
    with pool.open(pool.pool.DownloadResult(request)) as answers:
        async for answer in answers:
            verdicts.legible(answer, "fetching a result")
            if answer.offset != arriving.offset or arriving.offset + len(answer.data) > file.artifact.size:
                raise errors.Rejected(f"fetching {file.name}: the pool sent bytes of another place than asked for")
            await asyncio.to_thread(arriving.write, answer.data)
            progress(file.name, arriving.offset, file.artifact.size)
    if arriving.offset == before:
        raise errors.Rejected(f"fetching {file.name}: the pool sent nothing of what it said it has")
