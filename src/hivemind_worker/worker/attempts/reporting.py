"""How an attempt ended, told to the pool until it acknowledges: result files first, then the report that names them."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable

from hivemind_worker import errors
from hivemind_worker.artifacts import store
from hivemind_worker.concurrency import clock
from hivemind_worker.tasks import attempt_id, outcome, state
from hivemind_worker.telemetry import logs
from hivemind_worker.wire import budget, calls, translate, verdicts
from hivemind_worker.worker.attempts import transfers, turns
from hivemind_worker.worker.pool_link import client, session

INLINE_BYTES = 3 * 1024**2
"""Result files that travel within a report to a pool without uploads: its 4 MiB less the logs and all the rest."""

REFUSALS = 5
"""How often a pool may answer a report with a plain "no success" before it is given up."""

MAX_READS = 5
"""How often a result file is read before it counts as lost: for up to half a minute, as a reset disk takes."""

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
        self.delivered = asyncio.Event()
        """Set by each end that the pool has answered; cleared by whoever waits for the next one."""

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
        tries = _Tries(run.attempt_id.task_id)
        while True:
            try:
                async with place.turn(with_files=bool(ended.results)):
                    await first()
                    ended, answer = await self._deliver_once(run, ended, tries.max_bytes)
            except errors.Unavailable as error:
                tries.delayed(error)
                continue
            except store.NoSuchArtifact as error:
                # Without it the end can never be told as it was; and untold, the pool would ask for it for ever.
                ended = _lost(run, ended, error)
                continue
            except OSError as error:
                if tries.unread(error):
                    ended = _lost(run, ended, error)
            except errors.Rejected as error:
                if not tries.may_change(error):
                    return f"rejected: {error}"
            except errors.HiveMindError as error:
                return f"rejected: {error}"
            else:
                self.delivered.set()
                if verdict := _final(answer):
                    return verdict
                if tries.refused():
                    return f"rejected: {answer.message or 'no reason given'}"
            await place.rest()

    async def _deliver_once(
        self, run: attempt_id.RunKey, ended: outcome.Outcome, max_bytes: int
    ) -> tuple[outcome.Outcome, calls.pb.ReportTaskResultResponse]:
        """Upload, then report in at most ``max_bytes``.

        Returns the outcome less the files that were refused, so that each is refused once.
        """

        async def all_of_it(session_id: str) -> tuple[outcome.Outcome, calls.pb.ReportTaskResultResponse]:
            began = clock.now()
            if self._line.plain:
                told, data = await self._files.on_thread(_inline, self._files, ended)
            else:
                told, data = await self._upload(run, ended, session_id)
            if told.results:
                told = dataclasses.replace(told, timings={**told.timings, "upload": clock.now() - began})
            result = translate.outcome_to_message(told)
            for name, content in data.items():
                result.result_data[name] = content
            return told, await self._report(run, session_id, str(told.status), result, max_bytes)

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
                return await self._files.on_thread(_inline, self._files, ended)
            except errors.Rejected as error:
                if error.reason != verdicts.Reason.TOO_LARGE:
                    raise
                too_large.append(artifact)
        left_out = [file for file in ended.results if file.artifact in too_large]
        return _without(ended, left_out, "larger than the pool takes"), {}

    async def _report(
        self,
        run: attempt_id.RunKey,
        session_id: str,
        status: str,
        result: calls.pb.TaskResult,
        max_bytes: int = budget.MESSAGE_BUDGET,
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
        if budget.fit_report(request, max_bytes):
            log.log_task_event("report_cut", run.attempt_id.task_id, {"bytes": request.ByteSize()}, level="warning")
        return await self._pool.report_task_result(request)


def _final(answer: calls.pb.ReportTaskResultResponse) -> str:
    """The pool's verdict in a word; empty where its answer settles nothing."""
    if answer.verdict in _FINAL:
        return calls.pb.Verdict.Name(answer.verdict).removeprefix("VERDICT_").lower()
    return "accepted" if answer.success else ""


class _Tries:
    """What the tries so far to deliver one end have come to."""

    def __init__(self, task_id: str) -> None:
        self.max_bytes = budget.MESSAGE_BUDGET
        """How large the report may be. It never comes to nothing, and no end is given up for its size."""
        self._task_id = task_id
        self._refusals = 0
        self._unread = 0
        self._reason = ""

    def delayed(self, error: errors.Unavailable) -> None:
        """The pool could not be reached, or had no room: perhaps for so large a report."""
        if isinstance(error, errors.Exhausted):
            self._shrink(error)
        self._log_delay(str(error))

    def refused(self) -> bool:
        """A try failed that another may not change; whether it was one too many."""
        self._refusals += 1
        return self._refusals >= REFUSALS

    def unread(self, error: OSError) -> bool:
        """A result file could not be read from this node's disk; whether that was once too often."""
        self._log_delay(str(error))
        self._unread += 1
        return self._unread >= MAX_READS

    def may_change(self, error: errors.Rejected) -> bool:
        """Whether another try may be answered otherwise: a smaller one, or with a file that the pool has lost."""
        if error.reason == verdicts.Reason.TOO_LARGE:
            self._shrink(error)
        elif error.reason == verdicts.Reason.MISSING_ARTIFACT:
            self._log_delay(str(error))
        else:
            return False
        return True

    def _shrink(self, error: errors.PeerError) -> None:
        smaller = max(self.max_bytes // 2, budget.MIN_REPORT_BYTES)
        if smaller < self.max_bytes:
            details = {"why": str(error), "bytes": self.max_bytes, "next_bytes": smaller}
            log.log_task_event("report_too_large", self._task_id, details, level="warning")
        self.max_bytes = smaller

    def _log_delay(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            log.log_task_event("report_delayed", self._task_id, {"why": reason}, level="warning")


def _lost(run: attempt_id.RunKey, ended: outcome.Outcome, error: Exception) -> outcome.Outcome:
    """The same attempt as one that this node hands back, so that the pool tries again.

    A disk that does not give back what it has kept uses up no attempt, as one that takes nothing. Other errors do.
    """
    log.log_task_event("result_lost", run.attempt_id.task_id, {"why": str(error)}, level="error")
    is_of_disk = isinstance(error, store.NoSuchArtifact) or errors.is_disk_fault(error)
    text = f"the node lost a result file before the pool had it: {error}"
    return dataclasses.replace(
        ended,
        status=outcome.Status.FAILED,
        reason=outcome.Reason.NODE_SHUTDOWN if is_of_disk else outcome.Reason.INTERNAL,
        error=f"handed back: {text}" if is_of_disk else text,
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
