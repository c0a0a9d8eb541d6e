"""The error tree, by whose fault it is: every error of ours is one of these, or stands in its room's file beneath one.

::

    HiveMindError
    ├── UserError               the submitter must change something
    │   ├── InvalidTask         a field of the task is wrong; names the field
    │   ├── NoSuchTask          the pool knows no task of that id
    │   ├── Conflict            the same id or key was used for something else
    │   └── TooLarge            artifacts/writing: more bytes than were allowed or announced
    ├── OwnerError              the owner of this machine must change something
    │   ├── BadSettings         a setting is wrong; names it and where it came from
    │   │   ├── NoFileLocks     the file system of a folder grants no locks
    │   │   └── NotPrivate      filesystem/private_dir: others can read or replace what must be its user's alone
    │   ├── IsolationMissing    neither an engine nor a sandbox can fence a task here
    │   ├── StateInUse          another process holds the state directory or the store
    │   │   └── SessionLives    nodepool/store/takeover: the node's id is that of a worker which may live
    │   └── Damaged             nodepool/store/database: the store holds what SQLite cannot have written
    ├── PeerError               the other end of a wire
    │   ├── Unavailable         not reachable now; trying again may help
    │   │   └── Exhausted       it had no room for the call: too many at once, or too large
    │   ├── Rejected            it answered no; trying again will not help
    │   │   ├── NotImplementedByPeer   it has no such call; do without
    │   │   ├── WrongContent    artifacts/writing: what came is not what its name says
    │   │   ├── TakenOver       artifacts/writing: a newer upload goes on in this one's place
    │   │   └── NoPlace         client/landing: a result's name leads to no place of its own
    │   └── UnknownNode         the pool has forgotten us; register again
    ├── NodeFault               this node failed the task; the pool tries elsewhere
    │   ├── EngineLost          the container engine stopped answering
    │   ├── SpecMismatch        the container engine made another container than it was told to
    │   ├── NoRoom              it had no room for the task: not in time, or not on its disk
    │   │   └── JournalBroken   journal/writer: the disk does not take what must be written down first
    │   ├── Refused             containers/engine: it answered no
    │   │   └── NotThere        containers/engine: it has no such image, container or volume
    │   └── CapsuleFault        the capsule broke its side of the conversation
    │       ├── FrameError      capsule/frames: its bytes are no frames
    │       └── ConversationError   capsule/conversation: it said what may not be said then
    ├── ImageUnavailable        the task's image cannot be had here
    ├── DependencyFailed        the task's requirements cannot be installed
    │   └── SourceNeeded        supplies/making: some have no wheel, and would have to be built
    ├── NoSuchArtifact          artifacts/store: it holds no file of that name
    │   └── DamagedArtifact     artifacts/store: what it held was not its content; set aside
    ├── ImpossibleMove          our own defect: a move that the table does not have
    ├── LoopFailed              concurrency/supervision: a loop raised, so its group was stopped
    └── LoopsStuck              concurrency/supervision: loops did not end although cancelled

`concurrency.stopping.Stopped` is no error: it is how work that was told to stop says so.
"""

from __future__ import annotations

import errno
from pathlib import Path


class HiveMindError(Exception):
    """Root of all errors that the product raises on purpose.

    The message is one line: what happened and what to do about it.
    """


class UserError(HiveMindError):
    """The submitter must change something."""


class InvalidTask(UserError):
    """A task says something it may not say. ``field`` names where."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class NoSuchTask(UserError):
    """The pool knows no task of that id."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"no task {task_id[:80]!r}; `hivemind tasks` lists those there are")
        self.task_id = task_id


class Conflict(UserError):
    """An id or an idempotency key was used before, for something else."""


class OwnerError(HiveMindError):
    """The owner of this machine must change something."""


class BadSettings(OwnerError):
    """A setting has a value that cannot be used."""


class NoFileLocks(BadSettings):
    """The file system at ``path`` grants no locks, as some network file systems: nobody can have a folder alone."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path} cannot be locked ({error.strerror}): put it on a local disk")


class IsolationMissing(OwnerError):
    """Nothing here can fence a task: no engine answers and the kernel allows no sandbox."""


class StateInUse(OwnerError):
    """Another process holds the state directory or the store."""


class PeerError(HiveMindError):
    """The other end of a wire could not, or would not, do what was asked.

    ``reason`` is the peer's own word for why, from the list in the wire's verdicts; empty where it gave none.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class Unavailable(PeerError):
    """Not reachable now; trying again later may help."""


class Exhausted(Unavailable):
    """It had no room for the call, and did not say for which reason: later, or smaller, it may have."""


class Rejected(PeerError):
    """Answered with a no that another try will not change."""


class NotImplementedByPeer(Rejected):
    """It does not know this call: an older or simpler peer. Do without."""


class UnknownNode(PeerError):
    """The pool has forgotten this node or its session: register again, keep the tasks."""


class NodeFault(HiveMindError):
    """This node failed the task through no fault of the task's."""


class NoRoom(NodeFault):
    """The node had no room for the task: not within the time that it may wait, or not on a disk of its own.

    It hands the task back, which is no attempt. A task that fills its own share of a disk is another matter.
    """


class EngineLost(NodeFault):
    """The container engine stopped answering."""


class SpecMismatch(NodeFault):
    """The container engine made another container than it was told to: its task must not start in it."""


class CapsuleFault(NodeFault):
    """The capsule broke its side of the conversation, or ended without a word."""


class ImageUnavailable(HiveMindError):
    """The task's image cannot be had on this node."""


class DependencyFailed(HiveMindError):
    """The task's requirements cannot be resolved or installed; the message carries the resolver's own words."""


class ImpossibleMove(HiveMindError):
    """A move the table does not have was asked for: a defect of ours. The message tells the story so far."""


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came of, is that of a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        error = error.__cause__
    return False


def is_disk_fault(error: BaseException | None) -> bool:
    """Whether an error, or what it came of, is that of a disk: full, broken, or mounted anew to be read alone."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}:
            return True
        error = error.__cause__
    return False
