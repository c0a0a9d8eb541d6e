"""The words of the delivery model: calls, answers, what a reader sees; and which promises are in force already.

The model is written from the promise (docs/why/leases.md, the Protocol in pool/store/store.py), never from the
implementation. Values here are its own: a backend translates them for the store, or for the wire.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from hivemind_worker.tasks import resources


@dataclass(frozen=True)
class Promises:
    """Which promises the product keeps already; a rule or a check of one that is off does not run.

    Each is switched on with the change that lands it, and never off again.
    """

    epochs: bool = True
    """Identity is (store epoch, task, attempt); a restore renews the epoch and gives up what was assigned."""
    run_ids: bool = True
    """The pool binds an attempt to the first run id it sees."""
    takeover: bool = True
    """A living session is not taken over by a process that does not hold the same state folder's lock."""
    disruptions: bool = True
    """Attempts that the system itself ended do not use up max_attempts; 30 of them do end a task."""
    session_required: bool = True
    """A node that registered with a boot id shows its session in every call."""
    forgotten: bool = True
    """Nodes that hold nothing and were silent for a day are forgotten."""


PROMISES = Promises()
MAX_DISRUPTIONS = 30
"""The promise's own bound on disruptions of one task."""
MAX_REST_SECONDS = 60.0
"""How long a node that failed by its own fault may rest at most: docs/why/sick-nodes.md."""
MAX_SHAPE_REST_SECONDS = 600.0
"""How long a node may rest at most from tasks such as it has handed back: docs/why/disruptions.md."""
FORGET_SECONDS = 86_400.0
TIMEOUT_SECONDS = 3_600.0
"""Every task's own timeout: sooner no attempt that its node lists is given up for having lasted too long."""


@dataclass(frozen=True)
class Key:
    """One attempt: the fence."""

    epoch: str
    task: str
    attempt: int


@dataclass(frozen=True)
class Listed:
    """An attempt in a node's list. ``run`` is empty before its run id is made."""

    key: Key
    run: str = ""


@dataclass(frozen=True)
class Spec:
    """A task as submitted. ``digest`` tells two tasks of one id apart."""

    id: str
    digest: str
    needs: resources.Resources
    zone: str = ""
    priority: int = 0
    max_attempts: int = 3

    @property
    def shape(self) -> tuple[resources.Resources, str]:
        """What it asks of a node."""
        return self.needs, self.zone


@dataclass(frozen=True)
class Submit:
    """Submit tasks under an idempotency key (empty: none)."""

    specs: tuple[Spec, ...]
    request_key: str = ""


@dataclass(frozen=True)
class Retry:
    """Submit ended tasks again under new ids."""

    ids: tuple[str, ...]
    request_key: str = ""


@dataclass(frozen=True)
class Cancel:
    """Cancel tasks."""

    ids: tuple[str, ...]


@dataclass(frozen=True)
class Drain:
    """Drain a node, or resume it."""

    node: str
    draining: bool


@dataclass(frozen=True)
class Register:
    """Open a session. ``boot`` is empty from the reference document's client."""

    node: str
    boot: str
    lock: str
    capacity: resources.Resources
    zone: str = ""
    max_tasks: int = 0
    listed: tuple[Listed, ...] = ()


@dataclass(frozen=True)
class Beat:
    """A heartbeat. ``listed`` is None where the node does not say. ``offline``: the last, of a node that stops."""

    node: str
    session: str
    listed: tuple[Listed, ...] | None = None
    offline: bool = False


@dataclass(frozen=True)
class Poll:
    """Ask for tasks. ``free`` is None where the pool is to count."""

    node: str
    session: str
    free: resources.Resources | None = None
    max_tasks: int = 1
    paused: bool = False
    listed: tuple[Listed, ...] = ()


@dataclass(frozen=True)
class Report:
    """An attempt runs (``status`` empty) or ended. ``attempt`` 0 of the key: the newest that the node was given."""

    node: str
    session: str
    key: Key
    run: str = ""
    status: str = ""
    reason: str = ""
    body: str = ""
    check: str = ""
    """What its node found out about itself after a failure: "failed", or nothing."""


@dataclass(frozen=True)
class Expire:
    """The pool looks for leases that have run out."""


@dataclass(frozen=True)
class BeginAnew:
    """The pool was away itself: everybody has a whole lease from now on."""


@dataclass(frozen=True)
class Reopen:
    """The pool was stopped, or crashed, and opened its store."""

    crashed: bool = False


@dataclass(frozen=True)
class Restore:
    """A copy of the store was put back by the documented way; ``empty``: the store was wiped."""

    empty: bool = False


NodeCall: TypeAlias = Register | Beat | Poll | Report
Call: TypeAlias = Submit | Retry | Cancel | Drain | NodeCall | Expire | BeginAnew | Reopen | Restore


class Refusal(enum.StrEnum):
    """How a call can be refused."""

    UNKNOWN_NODE = "unknown node"
    REPLACED = "session replaced"
    REJECTED = "rejected"
    CONFLICT = "conflict"
    NO_SUCH_TASK = "no such task"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class Assigned:
    """An attempt in a poll's answer. ``body`` is the submitted task's digest, carried through."""

    key: Key
    body: str


@dataclass(frozen=True)
class Answer:
    """What a call was answered; only the fields of its kind are set. ``refusal`` None and ``lost`` False: it counts.

    ``lost``: the pool crashed meanwhile; whether the call took effect is unknown.
    """

    refusal: Refusal | None = None
    lost: bool = False
    ids: tuple[str, ...] = ()
    session: str = ""
    epoch: str = ""
    verdict: str = ""
    assigned: tuple[Assigned, ...] = ()
    cancel: tuple[Key, ...] = ()
    drop: tuple[Key, ...] = ()
    rests: float | None = 0.0
    """Seconds for which the node is given nothing; None where the backend does not tell."""
    draining: bool = False

    @property
    def fine(self) -> bool:
        return self.refusal is None and not self.lost


@dataclass(frozen=True)
class Done:
    """A call that was made, and its answer."""

    call: Call
    answer: Answer

    @functools.cached_property
    def text(self) -> str:
        """For the story; written once, for many checks name it."""
        return f"{brief(self.call)} ⇒ {brief(self.answer)}"


@dataclass(frozen=True)
class TaskView:
    """A task as a reader sees it. ``result`` is the accepted report's body, None where there is none."""

    id: str
    state: str
    attempt: int
    node: str
    max_attempts: int
    cancel: bool
    result: str | None = None
    disruptions: int = 0
    retry_of: str = ""
    reason: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ("completed", "failed", "cancelled")

    @property
    def active(self) -> bool:
        return self.state in ("assigned", "running")


@dataclass(frozen=True)
class NodeView:
    """A node as a reader sees it."""

    name: str
    alive: bool
    draining: bool
    capacity: resources.Resources
    max_tasks: int
    free: resources.Resources
    keys: frozenset[tuple[str, int]]


@dataclass(frozen=True)
class View:
    """Everything a reader sees after a step."""

    epoch: str = ""
    tasks: dict[str, TaskView] = field(default_factory=dict)
    nodes: dict[str, NodeView] = field(default_factory=dict)


def brief(value: object) -> str:
    """Write a value of this module in one short piece: for the story that a broken promise is shown with."""
    if isinstance(value, Key):
        return f"{value.epoch[:6]}{'/' if value.epoch else ''}{value.task}/{value.attempt}"
    if isinstance(value, Listed):
        return brief(value.key)
    if isinstance(value, Done):
        return value.text
    if isinstance(value, tuple | list):
        return f"[{', '.join(brief(part) for part in value)}]"
    if isinstance(value, resources.Resources):
        return f"{value.cpu_cores:g} cores"
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return str(value)[-12:] if isinstance(value, str) else str(value)
    parts = [
        f"{part.name}={brief(getattr(value, part.name))}"
        for part in _fields(type(value))
        if part.name not in {"run", "lock"} and getattr(value, part.name) not in (part.default, "", ())
    ]
    return f"{type(value).__name__}({' '.join(parts)})"


@functools.cache
def _fields(of: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(of)


class Backend(Protocol):
    """A pool under test. ``lease`` is in seconds of :meth:`wait`'s clock."""

    lease: float
    can_crash: bool
    can_restore: bool
    """Whether a backup can be put back; a store can be wiped in any case."""
    asks_incumbent: bool
    """Whether a living session is asked for a sign of life before another process is refused."""
    looks_itself: bool
    """Whether the pool looks for lost leases by itself, in steps of less than half a lease."""

    def make(self, *calls: Call) -> list[Answer]:
        """Make these calls, all at once where they are several."""

    def crash_in(self, *calls: Call, statement: int) -> list[Answer]:
        """Make these calls, kill the pool before its ``statement``-th database statement from now, and open it."""

    def view(self) -> View:
        """Read everything."""

    def wait(self, seconds: float) -> None:
        """Let time go by, within which nobody calls; the pool does not look for lost leases."""

    def set_clock(self, step: float) -> None:
        """Set the wall clock by so many seconds, forwards or backwards."""

    def reopen(self) -> None:
        """Stop the pool and start it."""

    def save(self) -> object:
        """Take a backup."""

    def restore(self, saved: object | None, /) -> None:
        """Put a backup back by the documented way; None: start with an empty store."""

    def close(self) -> None:
        """Put everything away."""
