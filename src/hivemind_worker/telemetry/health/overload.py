"""Whether a use is too high for more work: told late and taken back later, so that it does not flap. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

BELOW: Final = 5.0
"""How far below its limit, in points of a percent, a use must come before more work is taken."""

IN_A_ROW: Final = 2
"""Looks in a row that must agree before anything changes: one busy moment is none."""


@dataclass(frozen=True, slots=True)
class Watch:
    """One use against its ``limit``, in percent. ``over``: what is told now; ``other``: looks that say otherwise."""

    limit: float
    over: bool = False
    other: int = 0

    def look(self, percent: float) -> Watch:
        """Return the watch after one more look."""
        says = percent > (self.limit - BELOW if self.over else self.limit)
        if says is self.over:
            return replace(self, other=0)
        if self.other + 1 < IN_A_ROW:
            return replace(self, other=self.other + 1)
        return replace(self, over=says, other=0)


def others_cpu_percent(all_percent: float, cores: int, ours_percent: float) -> float:
    """Return what is left of the machine's CPU use, of all its cores, without ours (100 is one core); never below 0."""
    return min(max(all_percent - ours_percent / max(cores, 1), 0.0), 100.0)
