"""The data kind: which programs and packages a task of each processing brings along."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import sys
from pathlib import Path

import program_runs
import pytest

from hivemind_worker import errors
from hivemind_worker.tasks import kinds, plan, processing, spec
from hivemind_worker.tasks.kinds import kind, program_files

STEPS = [{"op": "grayscale"}]
OPTIONS = {"csv_analysis": {}, "image_processing": {"steps": STEPS}, "text_analysis": {}}
PROGRAMS = Path(program_files.__file__).parent / "programs"
MODULES = {"pillow": "PIL", "cvttf-notosanscjk-regular": "cvttf_NotoSansCJK_Regular", "python-docx": "docx"}


def planned(**fields: object) -> plan.RunPlan:
    task = spec.parse({"input_files": {"a.bin": "x"}, "input_data": "a.bin", **fields})
    return kind.make_plan(kinds.of(task), task, "t1", 1, program_runs.NODE)


def imported(path: Path) -> set[str]:
    """Modules that a program imports, by a statement or by ``importlib.import_module``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            found.add(ast.literal_eval(node.args[0]))
    return {name.split(".")[0] for name in found}


@pytest.mark.parametrize("processing_type", processing.PROCESSING_TYPES)
def test_whatever_the_programs_import_comes_with_them(processing_type: str) -> None:
    made = planned(processing_type=processing_type, **OPTIONS[processing_type])
    folder = f"{program_files.FOLDER}/"
    scripts = {
        file.path.removeprefix(folder) for file in made.files if file.path.startswith(folder) and ".py" in file.path
    }
    assert made.argv == ("python3", "-u", f"{folder}{processing_type}.py")
    needed = set().union(*(imported(PROGRAMS / script) for script in scripts))
    ours = {script.removesuffix(".py") for script in scripts}
    packages = {requirement.split("==")[0] for requirement in made.requirements}
    there = {MODULES.get(package, package.replace("-", "_")) for package in packages}
    assert needed - ours - set(sys.stdlib_module_names) <= there | {"numpy"}
    assert ours - {processing_type} <= needed, "a program that nobody imports"


@pytest.mark.parametrize("processing_type", processing.PROCESSING_TYPES)
def test_the_packages_are_those_that_the_tests_run_with(processing_type: str) -> None:
    made = planned(processing_type=processing_type, **OPTIONS[processing_type])
    for requirement in made.requirements:
        name, _, version = requirement.partition("==")
        assert version == importlib.metadata.version(name)


def test_every_program_belongs_to_a_task() -> None:
    shipped: set[str] = set()
    for processing_type, fields in OPTIONS.items():
        made = planned(processing_type=processing_type, **fields)
        shipped |= {file.path.split("/")[-1] for file in made.files}
    names = {
        path.name
        for path in PROGRAMS.glob("*.py")
        if re.match("csv_|table_|cell_|image_|text_|contact|drawing|enc", path.name)
    }
    assert names <= shipped


def test_the_settings_are_the_tasks_own_fields() -> None:
    made = planned(processing_type="image_processing", steps=STEPS, options={"quality": 50})
    content = {file.path: file.content for file in made.files}
    said = json.loads(content[program_files.SETTINGS] or b"")
    assert said == {"files": ["a.bin"], "steps": STEPS, "group_by": [], "queries": {}, "options": {"quality": 50}}


def test_text_inside_the_task_becomes_a_file_of_ours() -> None:
    made = planned(processing_type="csv_analysis", input_data={"text": "a\n1\n"}, input_files={})
    content = {file.path: file.content for file in made.files}
    (path,) = json.loads(content[program_files.SETTINGS] or b"")["files"]
    assert content[path] == b"a\n1\n"


def test_a_font_comes_only_where_it_is_needed() -> None:
    def packages(steps: list[dict[str, object]], path: str = "a.png") -> bool:
        made = planned(processing_type="image_processing", steps=steps, input_data=path, input_files={path: "x"})
        return any("notosanscjk" in requirement for requirement in made.requirements)

    assert not packages([{"op": "watermark", "text": "HiveMind"}, {"op": "contact_sheet"}])
    assert packages([{"op": "watermark", "text": "蜂巢"}])
    assert packages([{"op": "contact_sheet"}], path="蜂.png")
    assert not packages([{"op": "contact_sheet", "labels": False}], path="蜂.png")


def test_an_input_in_our_folder_is_refused() -> None:
    with pytest.raises(errors.InvalidTask, match=r"'\.hivemind' is where the program goes"):
        planned(processing_type="csv_analysis", input_data=".hivemind/a", input_files={".hivemind/a": "x"})
