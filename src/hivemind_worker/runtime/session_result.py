"""What a conversation with a capsule came to: collected while it lasts, then judged."""

from __future__ import annotations

import dataclasses

from hivemind_worker.runtime import outbound, results
from hivemind_worker.runtime.capsule import messages
from hivemind_worker.tasks import outcome


@dataclasses.dataclass(slots=True)
class SessionResult:
    """What came of a conversation with a capsule. `fault` says why it broke off, empty when it went to its end.

    `cut`: the stream ended before its time. `lost`: that was the engine's doing. `overtime`: it did not answer when
    its time was over. `over_disk`: it was killed because its workspace was larger than allowed; said how large.
    `not_begun`: a capsule that was entered again had not been told to start: the attempt can be run anew.
    ``ended_first``: EXITED came before the stop. ``killed_first``: the capsule was killed before EXITED came.
    ``undead``: it was killed, and its stream did not end. ``started``: START was sent. ``reattached``: an earlier
    process of this node had the capsule. ``elapsed_seconds``: by our clock from START to EXITED, or to the end of the
    conversation without it; None where nobody knows.
    """

    exited: messages.Exited | None = None
    done: messages.Done | None = None
    results: results.Results = dataclasses.field(default_factory=results.Results)
    logs: outcome.Logs = dataclasses.field(default_factory=outcome.Logs)
    truncated: bool = False
    stopped: bool = False
    ended_first: bool = False
    killed_first: bool = False
    overtime: bool = False
    cut: bool = False
    lost: bool = False
    refused_file: str = ""
    over_disk: str = ""
    not_begun: bool = False
    fault: str = ""
    undead: bool = False
    started: bool = False
    reattached: bool = False
    elapsed_seconds: float | None = None
    timings: dict[str, float] = dataclasses.field(default_factory=dict)
    traffic: outbound.Traffic | None = None
