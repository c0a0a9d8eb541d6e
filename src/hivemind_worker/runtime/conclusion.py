"""The end of an attempt that got as far as its capsule: judged, logged where the capsule contradicts it, recorded."""

from __future__ import annotations

from collections.abc import Mapping

from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import checkpoint, evidence, session_result, verdict
from hivemind_worker.runtime.capsule import accounts
from hivemind_worker.tasks import outcome, plan
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)


async def conclude(
    setting: verdict.Setting,
    run: plan.RunPlan,
    heard: session_result.SessionResult,
    stop: stopping.Stop,
    counted: accounts.Reading,
    timings: Mapping[str, float],
    custody: checkpoint.Custody | None,
) -> outcome.Outcome:
    """Return the outcome, once it is on record, unless its node is to be checked first.

    Raises as :meth:`checkpoint.Keeper.ended`.
    """
    ended = verdict.judge(setting, heard, stop, counted, timings)
    if heard.exited is not None:
        claim = evidence.contradiction(heard.exited.why, verdict.facts_of(setting, heard, stop, counted))
        if claim:
            details = {"attempt": run.attempt, "why": claim, "reason": str(ended.reason or "")}
            log.log_task_event("capsule_contradicted", run.task_id, details, level="warning")
    if custody is not None and not heard.not_begun and ended.node_check is not outcome.NodeCheck.NOT_DONE:
        await custody.keeper.ended(ended)
    return ended
