"""Whose fault a failed attempt was, as far as a pool can tell: by its node's check of itself, and by whose tasks fail.


A pool knows two things of where a task comes from: the address that submitted it, and its image. The image is its
author's to choose, the address hardly. So tasks are unrelated when both differ. Pure.
"""

from __future__ import annotations

import dataclasses
import enum

from hivemind_worker.tasks import outcome


class Blame(enum.Enum):
    """What the end of an attempt says of its node."""

    NOBODY = enum.auto()
    """The node did its work, or stopped in order."""
    NODE = enum.auto()
    """The node could not start a capsule of its own either."""
    UNPROVEN = enum.auto()
    """It may be the node, and it may be the task."""


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where a task comes from. ``submitter``: the address that submitted it, empty where that is not known."""

    submitter: str
    image: str


def judge(reason: str, check: str) -> Blame:
    """Say what an end tells of its node, by its reason and what its node found out about itself."""
    if not outcome.is_nodes_fault(reason) or reason == outcome.Reason.NODE_SHUTDOWN:
        return Blame.NOBODY
    return Blame.NODE if check == outcome.NodeCheck.FAILED else Blame.UNPROVEN


def are_related(one: Origin, other: Origin) -> bool:
    """Whether one author may have written both tasks."""
    same_submitter = bool(one.submitter) and one.submitter == other.submitter
    return same_submitter or one.image == other.image
