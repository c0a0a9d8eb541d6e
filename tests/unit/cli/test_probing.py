"""What `hivemind doctor` says of settings that accept nothing."""

from __future__ import annotations

from hivemind_worker.cli import probing
from hivemind_worker.runtime.capsule import defences


def test_an_id_that_no_defence_has_is_named() -> None:
    (row,) = probing.misspelt([defences.IDS[0], "rooot"])
    assert not row.in_force
    assert "rooot" in row.why
    assert defences.IDS[0] not in row.why
    assert defences.IDS[0] in row.fix


def test_ids_of_defences_are_no_row() -> None:
    assert probing.misspelt(defences.IDS) == []
