"""What a capsule says about an end, checked against what the worker did and the kernel counted: one table, pure.

Before START nothing that an author wrote has run in a capsule, and what it says is our own program's word. From START
on a reason needs evidence from outside of the capsule; `verdict` asks here for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime.capsule import messages
from hivemind_worker.tasks import outcome

Reason = outcome.Reason

CLOCK_SHARE: Final = 0.99
CLOCK_SECONDS: Final = 0.1
"""Two clocks differ by a hundredth at most, and by what it takes to read them: a remote engine has its own."""


FAR_SHARE: Final = 0.5
"""A task that never had half of its memory was not killed for want of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one attempt without its capsule's word; times in seconds.

    ``elapsed``: by the worker's clock, from START to the end, None where nobody knows when it started. ``reattached``:
    an earlier process of this node had the capsule before, and may have stopped it. ``cut``: the capsule's stream ended
    before its time. ``limit_hits``: how often the
    kernel refused memory at the capsule's own limit, None where nobody counted; ``peak_share``: the most memory that
    was in use, of that limit, None where nobody knows.
    """

    timeout: float
    started: bool = True
    elapsed: float | None = None
    stop_level: stopping.StopLevel = stopping.StopLevel.RUN
    reattached: bool = False
    overtime: bool = False
    cut: bool = False
    lost: bool = False
    over_disk: bool = False
    memory_kills: int | None = None
    limit_hits: int | None = None
    peak_share: float | None = None
    forks_refused: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What proves a reason, and what an end becomes without that."""

    evidence: str
    otherwise: str
    proved: Callable[[Facts], bool]


def _timeout(facts: Facts) -> bool:
    passed = facts.elapsed is None or facts.elapsed >= CLOCK_SHARE * facts.timeout - CLOCK_SECONDS
    return facts.overtime or passed


def _oom(facts: Facts) -> bool:
    # Either count alone may stay behind: some kernels count no refusals, others keep no peak.
    far_from_limit = facts.limit_hits == 0 and facts.peak_share is not None and facts.peak_share < FAR_SHARE
    return bool(facts.memory_kills) and not far_from_limit


_OWN = "the task's own end: `nonzero_exit`, or completed with exit code 0"
_NOT_OF_CAPSULE = "never by a capsule's word"

EVIDENCE: Final[Mapping[Reason, Row]] = {
    Reason.NONZERO_EXIT: Row(
        "none: nobody gains by it, and every claim without evidence becomes this",
        "a SIGKILL with which the capsule ended, too, came from outside: `engine_lost` or `internal`",
        lambda _: True,
    ),
    Reason.TIMEOUT: Row("the time limit has passed by the worker's own clock since START", _OWN, _timeout),
    Reason.CANCELLED: Row(
        "the worker was told to stop the attempt", _OWN, lambda facts: facts.stop_level >= stopping.StopLevel.CANCEL
    ),
    Reason.NODE_SHUTDOWN: Row(
        "the worker itself is being stopped, or the process before it, which had the capsule, may have been",
        _OWN,
        lambda facts: facts.stop_level >= stopping.StopLevel.DRAIN or facts.reattached,
    ),
    Reason.OOM: Row(
        "the kernel killed a process of the control group, whose memory came near its own limit",
        "killed far from its limit: the machine was out of memory, `internal`; not killed: the task's own end",
        _oom,
    ),
    Reason.PIDS_LIMIT: Row(
        "the kernel refused a process at the group's limit", "`nonzero_exit`", lambda facts: bool(facts.forks_refused)
    ),
    Reason.DISK_LIMIT: Row(
        "the worker measured the workspace, or inputs did not fit before START",
        "a break of the conversation: `internal`",
        lambda facts: facts.over_disk or not facts.started,
    ),
    Reason.INVALID_TASK: Row(
        "an input could not be written before START",
        "a break of the conversation: `internal`",
        lambda facts: not facts.started,
    ),
    Reason.RESULTS_REJECTED: Row(
        "the task had ended by itself, and its capsule went on until it was seen that its results do not come whole",
        "its capsule was ended, or fell silent, meanwhile: `oom` where that is proved, else `internal`",
        lambda facts: not facts.cut,
    ),
    Reason.IMAGE_UNAVAILABLE: Row(_NOT_OF_CAPSULE, "-", lambda _: False),
    Reason.DEPENDENCY_FAILED: Row(_NOT_OF_CAPSULE, "-", lambda _: False),
    Reason.ENGINE_LOST: Row(
        "a call to the engine failed", "a break of the conversation: `internal`", lambda facts: facts.lost
    ),
    Reason.WORKER_CRASH: Row(
        "never by a capsule's word: one that is being listened to has not lost its worker", _OWN, lambda _: False
    ),
    Reason.INTERNAL: Row("the conversation broke off, and nothing above explains it", "-", lambda _: True),
}
"""Every reason of the closed list."""

CLAIMS: Final[Mapping[messages.Why, tuple[Reason, ...]]] = {
    messages.Why.OWN: (),
    messages.Why.TIMEOUT: (Reason.TIMEOUT,),
    messages.Why.STOP: (Reason.CANCELLED, Reason.NODE_SHUTDOWN),
    messages.Why.DISCONNECT: (Reason.WORKER_CRASH,),
}
"""What EXITED says of the end → the reasons, one of which must be proved."""

MESSAGES: Final[Mapping[str, str]] = {
    "READY": "its nonce is that of our RESUME, its sequence numbers fit what was received, its state fits the phase",
    "OUT, ERR": "offsets only grow, and all bytes together stay below the caps of the output",
    "TAKEN": "not more than was sent",
    "EXITED": "its counts are those of the output received; its cause by the table above; its time is at most that on "
    "the worker's clock; memory, processes and CPU by the kernel's accounts where there are some",
    "RESULT_*": "names are safe, in order and once each; sizes, count and depth within the caps, counted again as they "
    "are stored; a file that is not whole is none",
    "DONE": "its counts are those of the results received",
    "ERROR": "before START as our own program's word; later it breaks the conversation off",
    "any other": "ends the conversation: a message may come only where the table of the conversation has it, and none "
    "renews the time limit",
}
"""What is checked of every message of a capsule."""


def proved(reason: Reason, facts: Facts) -> bool:
    """Whether there is evidence for a reason."""
    return EVIDENCE[reason].proved(facts)


def credible(why: messages.Why, facts: Facts) -> bool:
    """Whether what EXITED says of the cause may be believed."""
    return not CLAIMS[why] or any(proved(reason, facts) for reason in CLAIMS[why])


def contradiction(why: messages.Why, facts: Facts) -> str:
    """Say what in a capsule's claim lacks evidence; empty where nothing does."""
    if credible(why, facts):
        return ""
    lacking = " or ".join(EVIDENCE[reason].evidence for reason in CLAIMS[why])
    return f"its capsule spoke of {why.name.lower()}, for which there is no evidence ({lacking})"
