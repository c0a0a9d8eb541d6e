"""What a run of the delivery model did: counted, so that a run that did too little fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import model_calls as calls
from model_calls import Done, View


class Tally:
    """Counts over all examples of one run."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples = 0
        self._second = False

    def begin(self) -> None:
        """An example begins."""
        self._second = False

    def end(self) -> None:
        """An example has ended, and every promise was kept."""
        self.examples += 1
        self.counts["examples with a second attempt"] += self._second

    def count(self, name: str, more: int = 1) -> None:
        self.counts[name] += more

    def note(self, done: Sequence[Done], before: View, after: View) -> None:
        """Take note of one step that was checked."""
        for one in done:
            call, answer = one.call, one.answer
            self.counts[type(call).__name__] += 1
            if isinstance(call, calls.Report) and not answer.lost and answer.refusal is None:
                self.counts[f"{'ends' if call.status else 'starts'} {answer.verdict}"] += 1
                self.counts[f"reports of attempt {min(call.key.attempt, 3)}"] += 1
            if answer.refusal is not None:
                self.counts[f"refused: {answer.refusal}"] += 1
            for item in answer.assigned:
                self.counts[f"attempts {min(item.key.attempt, 3)} given"] += 1
                self._second = self._second or item.key.attempt > 1
            self.counts["drops"] += len(answer.drop)
            self.counts["cancellations told"] += len(answer.cancel)
        expired = any(isinstance(one.call, calls.Expire) for one in done)
        for name, node in before.nodes.items():
            lost = node.alive and name in after.nodes and not after.nodes[name].alive
            self.counts["leases lost"] += lost and expired
            self.counts["leases lost with attempts"] += bool(lost and node.keys)
        for task in before.tasks.values():
            new = after.tasks.get(task.id)
            if new is not None and task.state == "queued" and new.active and new.attempt == task.attempt:
                self.counts["taken up again"] += 1

    def missing(self, floors: Mapping[str, int], second: float = 0.3) -> list[str]:
        """Name what was done too seldom. ``second``: the part of examples that must reach a second attempt."""
        too_few = [
            f"{name}: {self.counts[name]} < {floor}" for name, floor in floors.items() if self.counts[name] < floor
        ]
        reached = self.counts["examples with a second attempt"]
        if reached < second * self.examples or not self.examples:
            too_few.append(f"{reached} of {self.examples} examples reached a second attempt")
        return too_few

    def text(self) -> str:
        """All counts, for a person."""
        return f"{self.examples} examples; " + ", ".join(f"{name} {n}" for name, n in sorted(self.counts.items()))
