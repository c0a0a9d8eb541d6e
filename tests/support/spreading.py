"""How tests are spread over processes (pytest-xdist): those of the engine on one, a file's on one, slow ones first."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

ENGINE = "engine"
# What waits longest begins first, so that nothing long is left over at the end; the others in any order behind it.
ORDER = ("faults", "docker", "end_to_end", "hostile", "node", "contracts", "programs", "unit", "architecture")
# The tests of these files share nothing worth a process: each goes wherever there is room.
SINGLE = ("tests/faults/", "tests/end_to_end/", "tests/node/", "tests/hostile/")
# These share a program that is compiled for them.
TOGETHER = "tests/unit/capsule/test_init"


class Spreading(LoadScopeScheduling):  # type: ignore[misc]  # its package has no types
    """Tests of the engine on one process; of the others those of a file, where it shares something.

    ``note`` is the file in which :func:`arrange` names the tests of the engine: a scheduler sees no marks. (xdist's own
    groups do not come through either, with pytest 9.)
    """

    def __init__(self, config: pytest.Config, log: object, note: Path) -> None:
        super().__init__(config, log)
        self._note = note
        self._of_the_engine: frozenset[str] | None = None

    def _split_scope(self, nodeid: str) -> str:
        if self._of_the_engine is None:  # all have collected by now
            self._of_the_engine = frozenset(json.loads(self._note.read_text(encoding="utf-8")))
        return ENGINE if nodeid in self._of_the_engine else scope(nodeid)


def scope(nodeid: str) -> str:
    """What goes to one process together with this test, which is none of the engine's."""
    if nodeid.startswith(TOGETHER):
        return TOGETHER
    return nodeid if nodeid.startswith(SINGLE) else nodeid.partition("::")[0]


def arrange(items: list[pytest.Item], note: Path) -> None:
    """Put the tests in order, and note those of the engine, which one process gets.

    Each of these looks for what it left at the engine, and would find what another has not yet removed.
    """
    items.sort(key=_rank)
    own = note.with_name(f"{note.name}-{os.getpid()}")  # each process writes the same, none half of it
    own.write_text(json.dumps([item.nodeid for item in items if _is_of_the_engine(item)]), encoding="utf-8")
    own.rename(note)


def _is_of_the_engine(item: pytest.Item) -> bool:
    return item.get_closest_marker("docker") is not None


def _rank(item: pytest.Item) -> tuple[bool, int]:
    folder = item.nodeid.split("/")[1] if "/" in item.nodeid else ""
    return not _is_of_the_engine(item), ORDER.index(folder) if folder in ORDER else len(ORDER)
