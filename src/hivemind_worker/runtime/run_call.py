"""One call of an executor's `run`: what was asked, who stops it, who listens, how long its steps took."""

from __future__ import annotations

import dataclasses

from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import checkpoint, executor, outbound, verdict
from hivemind_worker.tasks import plan


@dataclasses.dataclass(frozen=True, slots=True)
class RunCall:
    """What both drivers keep of a call. ``timings``: seconds by the name of a step."""

    plan: plan.RunPlan
    setting: verdict.Setting
    stop: stopping.Stop
    observer: executor.Observer
    timings: dict[str, float]
    custody: checkpoint.Custody | None
    relay: outbound.Relay | None = dataclasses.field(default=None, kw_only=True)
