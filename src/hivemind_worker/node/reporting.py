"""How an attempt ended, told to the pool until it acknowledges: result files first, then the report that names them."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable

from hivemind_worker.artifacts import store
from hivemind_worker.concurrency import clock
from hivemind_worker.node import transfers, turns
from hivemind_worker.pool_client import client, session
from hivemind_worker.task import attempt_id, errors, outcome, state
from hivemind_worker.telemetry import logs
from hivemind_worker.wire import calls, translate, verdicts

INLINE_BYTES = 3 * 1024**2
"""Result files that travel within a report to a pool without uploads: its 4 MiB less the logs and all the rest."""

REFUSALS = 5
"""How often a pool may answer a report with a plain "no success" before it is given up."""

log = logs.StructuredLogger(__name__)

_FINAL = frozenset(
    {
        calls.pb.VERDICT_ACCEPTED,
        calls.pb.VERDICT_DUPLICATE,
        calls.pb.VERDICT_STALE,
        calls.pb.VERDICT_UNKNOWN,
    }
)


class Reporter:
    """Tells the pool about attempts. Safe for many at once."""

    def __init__(self, pool: client.NodePoolClient, line: session.Session, files: store.Store, node_id: str) -> None:
        self._pool = pool
        self._line = line
        self._files = files
        self._uploads = transfers.Uploads(pool, files)
        self._node_id = node_id
        self.turns = turns.Turns(lambda: line.heard_at)

    async def running(self, run: attempt_id.RunKey) -> None:
        """Say once that the task's own process runs. The heartbeats say it too, so a failure is only logged."""
        try:
            await self._line.call(
                lambda session_id: self._report(run, session_id, str(state.TaskState.RUNNING), calls.pb.TaskResult())
            )
        except errors.HiveMindError as error:
            log.log_task_event("start_not_reported", run.attempt_id.task_id, {"why": str(error)}, level="warning")

    async def deliver(
        self, run: attempt_id.RunKey, ended: outcome.Outcome, place: turns.Place, first: Callable[[], Awaitable[None]]
    ) -> str:
        """Deliver how a run ended, in its turn; returns what became of the report, for the log.

        A run without an id never began.

        ``first`` is done before each try. Tries for ever while the pool is away or has forgotten us; cancel it to give
        up. Ends also when the pool says a no that another try will not change. Never raises for what the pool does.
        """
        refused = 0
        delayed = ""
        while True:
            try:
                async with place.turn():
                    await first()
                    ended, answer = await self._deliver_once(run, ended)
            except errors.Unavailable as error:
                if str(error) != delayed:
                    delayed = str(error)
                    log.log_task_event("report_delayed", run.attempt_id.task_id, {"why": delayed}, level="warning")
                continue
            except store.NoSuchArtifact as error:
                # Without it the end can never be told as it was; and untold, the pool would ask for it for ever.
                ended = _lost(ended, error)
                log.log_task_event("result_lost", run.attempt_id.task_id, {"why": str(error)}, level="error")
                continue
            except errors.Rejected as error:
                if error.reason != verdicts.Reason.MISSING_ARTIFACT or (refused := refused + 1) >= REFUSALS:
                    return f"rejected: {error}"
            except (errors.HiveMindError, OSError) as error:
                return f"rejected: {error}"
            else:
                if answer.verdict in _FINAL:
                    return calls.pb.Verdict.Name(answer.verdict).removeprefix("VERDICT_").lower()
                if answer.success:
                    return "accepted"
                refused += 1
                if refused >= REFUSALS:
                    return f"rejected: {answer.message or 'no reason given'}"
            await place.rest()

    async def _deliver_once(
        self, run: attempt_id.RunKey, ended: outcome.Outcome
    ) -> tuple[outcome.Outcome, calls.pb.ReportTaskResultResponse]:
        """Upload, then report. Returns the outcome as it was reported, so that a refused file is refused once."""

        async def all_of_it(session_id: str) -> tuple[outcome.Outcome, calls.pb.ReportTaskResultResponse]:
            began = clock.now()
            if self._line.plain:
                told, data = await asyncio.to_thread(_inline, self._files, ended)
            else:
                told, data = await self._upload(run, ended, session_id)
            if told.results:
                told = dataclasses.replace(told, timings={**told.timings, "upload": clock.now() - began})
            result = translate.outcome_to_message(told)
            for name, content in data.items():
                result.result_data[name] = content
            return told, await self._report(run, session_id, str(told.status), result)

        return await self._line.call(all_of_it)

    async def _upload(
        self, run: attempt_id.RunKey, ended: outcome.Outcome, session_id: str
    ) -> tuple[outcome.Outcome, dict[str, bytes]]:
        owner = transfers.Owner(self._node_id, session_id, run.attempt_id.task_id, run.attempt_id.attempt)
        too_large = []
        for artifact in {file.artifact for file in ended.results}:
            try:
                await self._uploads.send(artifact, owner)
            except errors.NotImplementedByPeer:
                return await asyncio.to_thread(_inline, self._files, ended)
            except errors.Rejected as error:
                if error.reason != verdicts.Reason.TOO_LARGE:
                    raise
                too_large.append(artifact)
        left_out = [file for file in ended.results if file.artifact in too_large]
        return _without(ended, left_out, "larger than the pool takes"), {}

    async def _report(
        self, run: attempt_id.RunKey, session_id: str, status: str, result: calls.pb.TaskResult
    ) -> calls.pb.ReportTaskResultResponse:
        request = calls.pb.ReportTaskResultRequest(
            task_id=run.attempt_id.task_id,
            node_id=self._node_id,
            result=result,
            status=status,
            timestamp=int(time.time()),
            session_id=session_id,
            attempt=run.attempt_id.attempt,
            store_epoch=run.attempt_id.store_epoch,
            run_id=run.run_id,
        )
        return await self._pool.report_task_result(request)


def _lost(ended: outcome.Outcome, error: store.NoSuchArtifact) -> outcome.Outcome:
    """The same attempt as a failure of this node, so that the pool tries again."""
    return dataclasses.replace(
        ended,
        status=outcome.Status.FAILED,
        reason=outcome.Reason.INTERNAL,
        error=f"the node lost a result file before the pool had it: {error}",
        results=(),
    )


def _inline(files: store.Store, ended: outcome.Outcome) -> tuple[outcome.Outcome, dict[str, bytes]]:
    """The small result files themselves, smallest first, up to the cap; the rest is named as left out. Blocks."""
    data: dict[str, bytes] = {}
    left_out = []
    room = INLINE_BYTES
    for file in sorted(ended.results, key=lambda file: (file.artifact.size, file.name)):
        # A name that is no proper text cannot be a key of the map.
        cost = file.artifact.size + len(file.name.encode("utf-8", "replace"))
        if cost > room or not _is_text(file.name):
            left_out.append(file)
            continue
        room -= cost
        data[file.name] = b"".join(files.read(file.artifact.sha256))
    return _without(ended, left_out, "larger than this pool takes"), data


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _without(ended: outcome.Outcome, left_out: list[outcome.ResultFile], why: str) -> outcome.Outcome:
    if not left_out:
        return ended
    skipped = tuple(outcome.SkippedFile(file.name, why) for file in left_out)
    return dataclasses.replace(
        ended,
        results=tuple(file for file in ended.results if file not in left_out),
        skipped=(*ended.skipped, *skipped),
        flags=ended.flags | {outcome.Flag.RESULTS_TRUNCATED},
    )
