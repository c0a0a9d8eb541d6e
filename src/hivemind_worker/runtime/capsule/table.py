"""What may be said when: the one table of the conversation, and its picture."""

from __future__ import annotations

import enum
from typing import Final

from hivemind_worker.runtime.capsule import messages as m
from hivemind_worker.runtime.capsule.frame_types import FROM_CAPSULE, FrameType


class Phase(enum.Enum):
    """How far the conversation is, as the worker sees it."""

    WAITING = "waiting"
    """For the first READY."""
    RESUMING = "resuming"
    """RESUME sent on a new stream, its answer awaited."""
    IDLE = "idle"
    LOADING = "loading"
    RUNNING = "running"
    COLLECTING = "collecting"
    RECEIVING = "receiving"
    """Inside one result file."""
    DONE = "done"
    FAILED = "failed"
    CLOSED = "closed"


# READY leads to different phases; which READY it is follows from its fields and from how far we had read (`heard_in`).
_Ready = tuple[FrameType, Phase]

_T = FrameType
_P = Phase

_TO_TUNNELS = (_T.TUNNEL_DOWNLOAD, _T.TUNNEL_UPLOAD_CREDIT, _T.TUNNEL_CLOSE)
_TUNNELS = (
    *_TO_TUNNELS,
    *(_T.TUNNEL_OPENED, _T.TUNNEL_UPLOAD, _T.TUNNEL_DOWNLOAD_CREDIT, _T.TUNNEL_CLOSED),
)

TABLE: Final[dict[tuple[Phase, FrameType | _Ready], Phase]] = {
    (_P.WAITING, (_T.READY, _P.IDLE)): _P.IDLE,
    (_P.RESUMING, (_T.READY, _P.IDLE)): _P.IDLE,
    (_P.RESUMING, (_T.READY, _P.LOADING)): _P.LOADING,
    (_P.RESUMING, (_T.READY, _P.RUNNING)): _P.RUNNING,
    (_P.RESUMING, (_T.READY, _P.COLLECTING)): _P.COLLECTING,
    (_P.RESUMING, (_T.READY, _P.RECEIVING)): _P.RECEIVING,
    (_P.RESUMING, (_T.READY, _P.DONE)): _P.DONE,
    (_P.RESUMING, (_T.READY, _P.FAILED)): _P.FAILED,
    (_P.IDLE, _T.SPEC): _P.LOADING,
    (_P.LOADING, _T.FILE): _P.LOADING,
    (_P.LOADING, _T.START): _P.RUNNING,
    (_P.RUNNING, _T.INPUT): _P.RUNNING,
    (_P.RUNNING, _T.SIGNAL): _P.RUNNING,
    (_P.RUNNING, _T.STOP): _P.RUNNING,
    (_P.RUNNING, _T.ACK): _P.RUNNING,
    (_P.RUNNING, _T.OUT): _P.RUNNING,
    (_P.RUNNING, _T.ERR): _P.RUNNING,
    (_P.RUNNING, _T.TAKEN): _P.RUNNING,
    (_P.RUNNING, _T.EXITED): _P.COLLECTING,
    (_P.COLLECTING, _T.RESULT_BEGIN): _P.RECEIVING,
    (_P.RECEIVING, _T.RESULT_DATA): _P.RECEIVING,
    (_P.RECEIVING, _T.RESULT_END): _P.COLLECTING,
    (_P.RECEIVING, _T.RESULT_DROPPED): _P.COLLECTING,
    (_P.COLLECTING, _T.RESULT_SKIPPED): _P.COLLECTING,
    (_P.COLLECTING, _T.DONE): _P.DONE,
    (_P.COLLECTING, _T.ACK): _P.COLLECTING,
    (_P.RECEIVING, _T.ACK): _P.RECEIVING,
    (_P.DONE, _T.ACK): _P.DONE,
    **dict.fromkeys(((_P.RUNNING, frame_type) for frame_type in _TUNNELS), _P.RUNNING),
    # What the worker says crosses what the capsule says: these are harmless there when the task has just ended.
    (_P.COLLECTING, _T.INPUT): _P.COLLECTING,
    (_P.COLLECTING, _T.SIGNAL): _P.COLLECTING,
    (_P.COLLECTING, _T.STOP): _P.COLLECTING,
    (_P.RECEIVING, _T.INPUT): _P.RECEIVING,
    (_P.RECEIVING, _T.SIGNAL): _P.RECEIVING,
    (_P.RECEIVING, _T.STOP): _P.RECEIVING,
    (_P.DONE, _T.INPUT): _P.DONE,
    (_P.DONE, _T.SIGNAL): _P.DONE,
    (_P.DONE, _T.STOP): _P.DONE,
    **{(phase, frame_type): phase for phase in (_P.COLLECTING, _P.RECEIVING, _P.DONE) for frame_type in _TO_TUNNELS},
    # ERROR may come whenever something was asked for.
    (_P.IDLE, _T.ERROR): _P.FAILED,
    (_P.LOADING, _T.ERROR): _P.FAILED,
    (_P.RUNNING, _T.ERROR): _P.FAILED,
    (_P.COLLECTING, _T.ERROR): _P.FAILED,
    (_P.RECEIVING, _T.ERROR): _P.FAILED,
    (_P.DONE, _T.ERROR): _P.FAILED,
    (_P.RESUMING, _T.ERROR): _P.FAILED,
    (_P.FAILED, _T.ERROR): _P.FAILED,
    (_P.FAILED, _T.FILE): _P.FAILED,
    (_P.FAILED, _T.START): _P.FAILED,
    (_P.FAILED, _T.INPUT): _P.FAILED,
    (_P.FAILED, _T.SIGNAL): _P.FAILED,
    (_P.FAILED, _T.STOP): _P.FAILED,
    (_P.FAILED, _T.ACK): _P.FAILED,
    **dict.fromkeys(((_P.FAILED, frame_type) for frame_type in _TO_TUNNELS), _P.FAILED),
    # A new stream, at any time.
    (_P.WAITING, _T.RESUME): _P.RESUMING,
    (_P.RESUMING, _T.RESUME): _P.RESUMING,
    (_P.IDLE, _T.RESUME): _P.RESUMING,
    (_P.LOADING, _T.RESUME): _P.RESUMING,
    (_P.RUNNING, _T.RESUME): _P.RESUMING,
    (_P.COLLECTING, _T.RESUME): _P.RESUMING,
    (_P.RECEIVING, _T.RESUME): _P.RESUMING,
    (_P.DONE, _T.RESUME): _P.RESUMING,
    (_P.FAILED, _T.RESUME): _P.RESUMING,
    # The end, at any time.
    (_P.WAITING, _T.CLOSE): _P.CLOSED,
    (_P.RESUMING, _T.CLOSE): _P.CLOSED,
    (_P.IDLE, _T.CLOSE): _P.CLOSED,
    (_P.LOADING, _T.CLOSE): _P.CLOSED,
    (_P.RUNNING, _T.CLOSE): _P.CLOSED,
    (_P.COLLECTING, _T.CLOSE): _P.CLOSED,
    (_P.RECEIVING, _T.CLOSE): _P.CLOSED,
    (_P.DONE, _T.CLOSE): _P.CLOSED,
    (_P.FAILED, _T.CLOSE): _P.CLOSED,
}


def heard_in(ready: m.Ready, after: int, *, inside_file: bool) -> Phase:
    """Tell in which phase a worker is that has read up to sequence number `after` and now hears `ready`.

    What the capsule has said beyond `after` will be repeated, so its own state may be further on.
    """
    if ready.state in _PLAIN:
        return _PLAIN[ready.state]
    reached = max(after, ready.kept_from - 1)
    if not ready.exited_at or reached < ready.exited_at:
        return Phase.RUNNING
    if ready.done_at and reached >= ready.done_at:
        return Phase.DONE
    return Phase.RECEIVING if inside_file else Phase.COLLECTING


_PLAIN: Final = {m.State.IDLE: Phase.IDLE, m.State.LOADING: Phase.LOADING, m.State.FAILED: Phase.FAILED}


def mermaid() -> str:
    """Draw TABLE as a mermaid state diagram; arrows `→` the worker says, `←` the capsule. RESUME and CLOSE are left
    out.
    """
    said: dict[tuple[Phase, Phase], list[str]] = {}
    for (phase, word), following in TABLE.items():
        kind = word[0] if isinstance(word, tuple) else word
        if kind not in {FrameType.RESUME, FrameType.CLOSE}:
            arrow = "←" if kind & FROM_CAPSULE else "→"
            said.setdefault((phase, following), []).append(f"{kind.name} {arrow}")
    lines = [f"    {before.value} --> {after.value}: {', '.join(words)}" for (before, after), words in said.items()]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {Phase.WAITING.value}", *lines])
