"""A plan in the capsule's words: what to run, with which variables, within which limits. Pure but for a new key."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from hivemind_worker.runtime.capsule import messages
from hivemind_worker.tasks import plan

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH where neither image nor task names one; what container engines give too."""

LIVE_WAITING_BYTES: Final = 16 * 1024 * 1024
"""Of each stream, where the output is wanted live: a burst of 0.1 s at the speed of a pipe."""


def spec_of(
    asked: plan.RunPlan,
    environment: Mapping[str, str],
    on_disconnect: messages.OnDisconnect,
    resume_key: bytes = b"",
) -> messages.Spec:
    """Put a plan into the capsule's words. `environment` is what the image or sandbox gives; the plan's wins.

    `resume_key` is the one that a capsule was given before; a new capsule gets a new one.
    """
    # HOME: the account of a task has none of its own, and much software insists on a folder it may write to.
    variables = {"PATH": DEFAULT_PATH, **environment, "HOME": plan.WORKSPACE, **asked.environment, **asked.secrets}
    caps = asked.caps
    return messages.Spec(
        argv=tuple(word.encode() for word in asked.argv),
        env=tuple((name.encode(), value.encode()) for name, value in variables.items()),
        workspace=plan.WORKSPACE.encode(),
        limits=messages.Limits(
            timeout_ms=max(1, round(asked.limits.timeout_seconds * 1000)),
            grace_ms=round(asked.grace_seconds * 1000),
            output_head=max(caps.output_head_bytes, caps.output_live_bytes),
            # Also what waits inside while we are slower than the task: beyond it the middle is given up.
            output_tail=max(caps.output_tail_bytes, min(caps.output_live_bytes, LIVE_WAITING_BYTES)),
            results_bytes=caps.results_bytes,
            results_apparent=caps.results_bytes,
            results_count=caps.results_count,
            results_depth=caps.results_depth,
            results_ms=max(1, round(caps.results_seconds * 1000)),
        ),
        on_disconnect=on_disconnect,
        resume_key=resume_key or secrets.token_bytes(messages.MAX_KEY_BYTES),
    )
