"""docs/hostile-tasks.md names every case that is tried, and no other; the places that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import hostile_tasks

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "hostile-tasks.md").read_text(encoding="utf-8")
IDS = "CIRDHXSLPW"


def _on_the_page() -> set[str]:
    first_cells = re.findall(r"^\| ([^|]+) \|", PAGE, re.MULTILINE)
    return {word for cell in first_cells for word in re.findall(r"\b[A-Z]\d+\b", cell)}


def _tried() -> set[str]:
    cases = [case.id for case in hostile_tasks.cases("", "", 0)]
    found = {case.partition("-")[0] for case in [*cases, *hostile_tasks.REFUSED]}
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        found |= {name.upper() for name in re.findall(rf"def test_(?:\w+_)?([{IDS.lower()}]\d\d)_", text)}
        for pair in re.findall(rf"def test_((?:[{IDS.lower()}]\d\d_)+)", text):
            found |= {name.upper() for name in pair.split("_") if name}
    return found


def test_each_case_that_is_tried_has_its_row_and_each_row_is_tried() -> None:
    assert _on_the_page() == _tried()


def test_the_cases_of_the_whole_node_are_marked() -> None:
    marked = set(re.findall(r"^\| (\w+) ●", PAGE, re.MULTILINE))
    assert marked == {case.id.partition("-")[0] for case in hostile_tasks.cases("", "", 0)}


def test_the_places_that_it_names_exist() -> None:
    places = re.findall(r"`((?:hostile|contracts|docker|unit|node|faults)/[\w/.]*)`", PAGE)
    assert places
    assert not [place for place in places if not (ROOT / "tests" / place).exists()]
