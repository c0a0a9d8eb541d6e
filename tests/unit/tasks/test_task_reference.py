"""The task reference names every field, option and step there is, and its examples are tasks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hivemind_worker.tasks import processing, processing_options, spec

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "tasks.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0].strip("# "): part for part in re.split(r"^(?=##)", PAGE, flags=re.MULTILINE)}
EXAMPLES = re.findall(r"^```json\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def rows(section: str) -> dict[str, str]:
    """Each name in the first cell of a row of the section's tables → the row."""
    found = re.findall(r"^\| (`[^|]+) \|(.+)$", SECTIONS[section], flags=re.MULTILINE)
    return {name: first + rest for first, rest in found for name in re.findall(r"`([^`]+)`", first)}


def test_every_field_of_data_tasks_is_told() -> None:
    assert rows("Data processing").keys() >= processing.FIELDS


@pytest.mark.parametrize("processing_type", processing.PROCESSING_TYPES)
def test_every_option_is_told(processing_type: str) -> None:
    assert rows(processing_type).keys() >= processing_options.OPTIONS[processing_type].keys()


@pytest.mark.parametrize("operation", processing_options.STEPS)
def test_every_step_is_told_with_its_parameters(operation: str) -> None:
    row = rows("image_processing")[operation]
    assert [name for name in processing_options.STEPS[operation].parameters if f"`{name}`" not in row] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_is_a_task(example: str) -> None:
    assert spec.parse(json.loads(example)).kind
