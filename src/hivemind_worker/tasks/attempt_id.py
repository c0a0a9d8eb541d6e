"""Which attempt, and which run of it: the identity that outlives a process, a session and a pool's store."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AttemptId:
    """One attempt of one task. ``attempt`` is the pool's own number: 0 from a pool that counts none.

    ``store_epoch`` names the life of the pool's store that assigned it: a store that was made new or restored may use
    task id and attempt number a second time. Empty from a pool that knows no epochs.
    """

    task_id: str
    attempt: int
    store_epoch: str = ""

    def is_of(self, store_epoch: str) -> bool:
        """Whether it belongs to that epoch. A side that knows no epochs contradicts nobody. Pure."""
        return not self.store_epoch or not store_epoch or self.store_epoch == store_epoch


@dataclass(frozen=True, slots=True)
class RunKey:
    """One execution of one attempt. ``run_id``: 32 hexadecimal characters, see `new_run_id`."""

    attempt_id: AttemptId
    run_id: str

    @property
    def file_name(self) -> str:
        """A file's name for it, 32 hexadecimal characters: never the task's id itself, which a submitter may choose."""
        about = self.attempt_id
        text = "\0".join((about.store_epoch, about.task_id, str(about.attempt), self.run_id))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def new_run_id() -> str:
    """Return a run's id: 32 hexadecimal characters, never given twice."""
    return uuid.uuid4().hex
