"""Who may register under the id of a node that has a session already: a living session is not taken over. Pure."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass

from hivemind_worker import errors


class Decision(enum.StrEnum):
    """What becomes of a registration."""

    SAME_PROCESS = "same_process"
    """The session goes on."""
    TAKE_OVER = "take_over"
    """The process before it is gone, or has no session that could live: a new session at once."""
    CHALLENGE = "challenge"
    """The process before it may live: to be asked for a call in its session before anything is decided."""


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The session that a node has. ``leased``: its lease is in force; ``offline``: its last word was that it goes."""

    session_id: str
    boot_id: str
    state_lock_id: str
    leased: bool
    offline: bool


def decide(incumbent: Incumbent | None, boot_id: str, state_lock_id: str, silent_session: str = "") -> Decision:
    """Decide about a process that registers with ``boot_id`` and ``state_lock_id``, either of them empty if unknown.

    ``silent_session`` was challenged, and nothing was heard in it. The same lock id proves that the process before is
    gone: both held the lock of one state folder, and a copy of the folder has another id.
    """
    if incumbent is None:
        return Decision.TAKE_OVER
    if boot_id and boot_id == incumbent.boot_id:
        return Decision.SAME_PROCESS
    proven = (
        not incumbent.boot_id  # the reference document's client: it knows no sessions, so none of it can be refused
        or not incumbent.leased
        or incumbent.offline
        or incumbent.session_id == silent_session
        or (state_lock_id and state_lock_id == incumbent.state_lock_id)
    )
    return Decision.TAKE_OVER if proven else Decision.CHALLENGE


def is_clash(incumbent: Incumbent | None, state_lock_id: str, former_state_lock_ids: Collection[str] = ()) -> bool:
    """Whether a node id goes over to a process that has not locked the incumbent's state folder.

    ``former_state_lock_ids`` are the newcomer's of before its machine was started anew; empty where it was not.

    What is lost by that is no fault of a task, nor of a crash: the newcomer knows nothing of what the other was given.
    A newcomer that names no folder has none to know it from; of an incumbent that named none nothing can be told.
    """
    return bool(
        incumbent is not None
        and incumbent.leased
        and incumbent.state_lock_id
        and incumbent.state_lock_id not in {state_lock_id, *former_state_lock_ids}
    )


_LOOPBACK = frozenset({"127.0.0.1", "::1"})


class SessionLives(errors.StateInUse):
    """Another process has a session under this node id, which may live.

    ``returning``: for how many seconds the pool has been back without having heard of it; infinite where it has.
    """

    def __init__(self, node_id: str, address: str, session_id: str, returning: float) -> None:
        # Workers listen nowhere: their port is 0.
        host = address.removesuffix(":0")
        place = f" at {host}" + (" (this pool's own host)" if host in _LOOPBACK else "") if host else ""
        super().__init__(
            f"{node_id!r} is the id of a worker that is alive{place}: this process is refused, that one goes on. "
            "Give each worker a node id and a state folder of its own"
        )
        self.session_id = session_id
        self.returning = returning
