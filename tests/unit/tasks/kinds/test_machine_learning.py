"""The ml kind: which program, which packages, and what the program is told."""

import json
import re

import pytest

from hivemind_worker import errors
from hivemind_worker.tasks import kinds, learning, names, plan, spec
from hivemind_worker.tasks.kinds import kind, program_files

IRIS = {"model_type": "scikit-learn", "training_data": {"dataset": "iris"}}


def program(**fields: object) -> kind.Program:
    task = spec.parse(fields)
    return kinds.of(task).program(task)


def told(made: kind.Program) -> dict[str, object]:
    (content,) = (file.content for file in made.files if file.path == program_files.SETTINGS)
    assert content is not None
    found: dict[str, object] = json.loads(content)
    return found


@pytest.mark.parametrize("model_type", learning.MODEL_TYPES)
def test_each_framework_has_its_program_and_exact_packages(model_type: str) -> None:
    made = program(**{**IRIS, "model_type": model_type})
    assert made.argv == ("python3", "-u", ".hivemind/learn.py")
    there = {file.path.removeprefix(".hivemind/") for file in made.files}
    sources = [file.content.decode() for file in made.files if file.content and file.path.endswith(".py")]
    # All that the programs import of each other travels with them.
    ours = {path.name for path in program_files._PROGRAMS.glob("*.py")}
    imported = {name for source in sources for name in re.findall(r"^import (\w+)$", source, re.MULTILINE)}
    assert {f"{name}.py" for name in imported} & ours <= there
    assert f"learn_{model_type.replace('-', '_')}.py" in there
    assert names.requirements("requirements", made.requirements)
    assert all(
        re.fullmatch(r"[a-z0-9-]+==[0-9.]+(; platform_machine [!=]= 'x86_64')?", each) for each in made.requirements
    )


def test_the_program_is_told_what_the_task_says() -> None:
    said = told(program(**IRIS, estimator="svm", hyper_parameters={"C": 10.0}, seed=7))
    assert said["hyper_parameters"] == {"C": 10}
    assert said["seed"] == 7
    assert said["training_data"] == {"dataset": "iris"}
    assert isinstance(said["classes"], dict)
    assert said["classes"]["classification"]["name"] == "SVC"


def test_a_script_of_ones_own_gets_the_framework_and_what_was_said() -> None:
    made = program(model_type="pytorch", code="print(1)", args=["--fast"], epochs=3, hyper_parameters={"lr": 0.5})
    assert made.argv == ("python3", "-u", "task.py", "--fast")
    assert {file.path for file in made.files} == {"task.py", ".hivemind/settings.json"}
    assert "torch==2.13.0" in made.requirements
    assert told(made)["epochs"] == 3
    assert told(made)["hyper_parameters"] == {"lr": 0.5}
    with pytest.raises(errors.InvalidTask, match="rename yours"):
        program(model_type="pytorch", code="x", input_files={"task.py": "y"})


def test_extra_requirements_join_the_frameworks() -> None:
    task = spec.parse({"model_type": "scikit-learn", "code": "pass", "requirements": ["seaborn"]})
    limits = kind.NodeLimits("i", 1.0, 1.0, plan.Caps(1, 1, 1, 1, 1, 1.0), task.needs)
    made = kind.make_plan(kinds.of(task), task, "t", 1, limits)
    assert "seaborn" in made.requirements
    assert "scikit-learn==1.9.1" in made.requirements
