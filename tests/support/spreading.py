"""How tests are spread over processes (pytest-xdist): those of the engine on one, a file's on one, slow ones first."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

ENGINE = "engine"
OWN_ENGINES = "own engines"
"""Of tests that start engines of their own: one after the other, but beside those of the engine that all others use."""
# What waits longest begins first, so that nothing long is left over at the end; the others in any order behind it.
ORDER = ("faults", "docker", "end_to_end", "hostile", "node", "contracts", "programs", "unit", "architecture")
# These are the longest of all: one that begins late has every other process wait for its end.
LONGEST = (
    "test_tutorial.py::test_in_the_sandbox",
    "test_engine_restarts.py::",
    "test_release.py::test_it_installs_and_goes",
    "test_readme.py::",
    "programs/test_learn_scikit_learn.py::",
    "test_demo.py::",
    "test_store_queue.py::",
    "test_store_model.py::",
)
# The tests of these folders are long; those that share nothing go wherever there is room.
SINGLE = ("tests/faults/", "tests/end_to_end/", "tests/node/", "tests/hostile/")
# These share a program that is compiled for them.
TOGETHER = "tests/unit/runtime/capsule/test_init"


class Spreading(LoadScopeScheduling):  # type: ignore[misc]  # its package has no types
    """Tests of one scope on one process.

    ``note`` is the file in which :func:`arrange` writes the scopes: a scheduler sees no marks. (xdist's own groups do
    not come through either, with pytest 9.)
    """

    def __init__(self, config: pytest.Config, log: object, note: Path) -> None:
        super().__init__(config, log)
        self._note = note
        self._scopes: dict[str, str] = {}

    def _split_scope(self, nodeid: str) -> str:
        self._scopes = self._scopes or json.loads(self._note.read_text(encoding="utf-8"))  # all have collected by now
        return self._scopes[nodeid]


def arrange(items: list[pytest.Item], note: Path) -> None:
    """Put the tests in order, and note the scope of each."""
    items.sort(key=_rank)
    own = note.with_name(f"{note.name}-{os.getpid()}")  # each process writes the same, none half of it
    own.write_text(json.dumps({item.nodeid: _scope(item) for item in items}), encoding="utf-8")
    own.rename(note)


def _scope(item: pytest.Item) -> str:
    """What goes to one process together with this test.

    Each test of the engine looks for what it left there, and would find what another has not yet removed.
    """
    if is_of_the_engine(item):
        return ENGINE
    if item.get_closest_marker("own_engine") is not None:
        return OWN_ENGINES
    if item.nodeid.startswith(TOGETHER):
        return TOGETHER
    alone = item.nodeid.startswith(SINGLE) and not _shares(item)
    return item.nodeid if alone else item.nodeid.partition("::")[0]


def _shares(item: pytest.Item) -> bool:
    """Whether it uses something that is started once for its file."""
    info = getattr(item, "_fixtureinfo", None)
    definitions = [used[-1] for used in info.name2fixturedefs.values()] if info else []
    return any(each.scope == "module" and each.baseid.startswith("tests/") for each in definitions)


def is_of_the_engine(item: pytest.Item) -> bool:
    """Whether it uses the engine that is shared, and answers for what it leaves there."""
    return item.get_closest_marker("docker") is not None and item.get_closest_marker("own_engine") is None


def _rank(item: pytest.Item) -> tuple[bool, bool, int]:
    folder = item.nodeid.split("/")[1] if "/" in item.nodeid else ""
    folder_rank = ORDER.index(folder) if folder in ORDER else len(ORDER)
    return not is_of_the_engine(item), not any(name in item.nodeid for name in LONGEST), folder_rank
