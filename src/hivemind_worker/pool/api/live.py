"""What nodes last said of the attempts they hold: how far each is, what it uses. In memory: the next beat is near."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hivemind_worker.pool.store import records
from hivemind_worker.tasks import state
from hivemind_worker.wire import calls

pb = calls.pb


@dataclass(frozen=True, slots=True)
class Said:
    """One attempt as its node last told."""

    attempt: int
    node_id: str
    phase: str
    usage: bytes | None
    """A `Usage` as bytes: the message itself would keep the whole heartbeat in memory, to 16 MiB."""


class Live:
    """Kept for tasks that are with a node, and forgotten with the end of their attempt."""

    def __init__(self) -> None:
        self._said: dict[str, Said] = {}
        self._of: dict[str, set[str]] = {}

    def beat(self, node_id: str, held: Iterable[pb.AttemptRef], drop: Iterable[records.Ref]) -> None:
        """Take in a heartbeat that the store has accepted; ``drop`` names what is that node's no more."""
        gone = {(ref.task_id, ref.attempt) for ref in drop}
        now = {ref.task_id: ref for ref in held if (ref.task_id, ref.attempt) not in gone}
        for task_id in self._of.pop(node_id, set()) - now.keys():
            self._forget(task_id, node_id)
        if now:
            self._of[node_id] = set(now)
        for ref in now.values():
            usage = _known(ref.usage) if ref.HasField("usage") else None
            self._said[ref.task_id] = Said(ref.attempt, node_id, ref.phase[:40], usage)

    def heard(self, changes: Sequence[records.Change]) -> None:
        """Take note of what the store has committed: attempts that ended, for good or for another."""
        for change in changes:
            if change.state in state.ENDED or change.state is state.TaskState.QUEUED:
                said = self._said.pop(change.task_id, None)
                if said is not None:
                    self._discard(said.node_id, change.task_id)

    def forget(self, node_ids: Iterable[str]) -> None:
        """Forget what these nodes said: their leases have run out."""
        for node_id in node_ids:
            for task_id in self._of.pop(node_id, ()):
                self._forget(task_id, node_id)

    def _discard(self, node_id: str, task_id: str) -> None:
        task_ids = self._of.get(node_id, set())
        task_ids.discard(task_id)
        if not task_ids:
            self._of.pop(node_id, None)

    def _forget(self, task_id: str, node_id: str) -> None:
        said = self._said.get(task_id)
        if said is not None and said.node_id == node_id:
            del self._said[task_id]

    def of(self, task_id: str, attempt: int, node_id: str) -> Said | None:
        """Return what was said of this attempt, if anything."""
        said = self._said.get(task_id)
        return said if said is not None and (said.attempt, said.node_id) == (attempt, node_id) else None


def _known(usage: pb.Usage) -> bytes:
    """As bytes, without fields that this version does not know: those may be of any size."""
    usage.DiscardUnknownFields()
    return usage.SerializeToString()
