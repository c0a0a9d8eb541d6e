"""Kinds: from a spec to a plan, under the owner's limits."""

import json

import pytest

from hivemind_worker import errors, units
from hivemind_worker.tasks import kinds, plan, resources, spec
from hivemind_worker.tasks.kinds import kind

NODE = kind.NodeLimits(
    default_image="python:3.11-slim",
    timeout_seconds=100.0,
    grace_seconds=3.0,
    caps=plan.Caps(1000, 100, 10_000, 10, 5, 60.0),
    most=resources.Resources(2.0, 2 * units.GIB, 4 * units.GIB, 0),
)


def planned(**fields: object) -> plan.RunPlan:
    task = spec.parse(fields)
    return kind.make_plan(kinds.of(task), task, "t1", 2, NODE)


def content(made: plan.RunPlan, path: str) -> bytes:
    found = [file.content for file in made.files if file.path == path]
    assert len(found) == 1
    assert found[0] is not None
    return found[0]


def test_there_is_a_kind_for_every_type() -> None:
    assert tuple(kinds.KINDS) == spec.KINDS


def test_words_stay_words_and_a_string_goes_to_the_shell() -> None:
    assert planned(command=["a", "b c"]).argv == ("a", "b c")
    assert planned(command="a | b").argv == ("/bin/sh", "-c", "a | b")


def test_i04_a_long_string_becomes_a_file() -> None:
    line = "true " + "#" * 1_000_000
    made = planned(command=line)
    assert made.argv == ("/bin/sh", "command.sh")
    assert content(made, "command.sh") == line.encode()
    with pytest.raises(errors.InvalidTask, match="rename yours"):
        planned(command=line, input_files={"command.sh": "x"})


def test_python_runs_its_code_unbuffered() -> None:
    made = planned(code="print('ü')", args=["-x", ""], docker_image="other:1")
    assert made.argv == ("python3", "-u", "task.py", "-x", "")
    assert content(made, "task.py") == "print('ü')".encode()
    assert made.image == "other:1"
    with pytest.raises(errors.InvalidTask, match="rename yours"):
        planned(code="x", input_files={"task.py": "y"})


@pytest.mark.parametrize(
    ("quota", "threads"), [(None, "1"), (10_000, "1"), (120_000, "1"), (180_000, "2"), (900_000, "2")]
)
def test_libraries_are_told_to_take_as_many_threads_as_the_quota_has_cores(quota: int | None, threads: str) -> None:
    made = planned(command="x", **({"cpu_quota": quota} if quota else {}))
    assert {made.environment[name] for name in kind.THREADS} == {threads}
    assert planned(command="x").environment["PYTHONUNBUFFERED"] == "1"
    assert planned(command="x", environment={"PYTHONUNBUFFERED": ""}).environment["PYTHONUNBUFFERED"] == ""
    own = planned(command="x", cpu_quota=200_000, environment={"OMP_NUM_THREADS": "7"}).environment
    assert (own["OMP_NUM_THREADS"], own["MKL_NUM_THREADS"]) == ("7", "2")


def test_limits_are_clamped_to_the_owners() -> None:
    made = planned(command="x", memory_limit="64g", cpu_quota=900_000, timeout=9_999, disk_limit="1t", pids_limit=7)
    assert made.limits.memory_bytes == 2 * units.GIB
    assert made.limits.cpu_quota == 200_000
    assert made.limits.timeout_seconds == 100.0
    assert made.limits.disk_bytes == 4 * units.GIB
    assert made.limits.pids == 7
    assert made.image == "python:3.11-slim"


def test_the_description_holds_no_secrets() -> None:
    made = planned(command="x", environment={"TOKEN": "s3cret"}, input_files={"a": "b"})
    said = json.loads(content(made, "task.json"))
    assert said["environment"] == ["TOKEN"]
    assert said["input_files"] == ["a"]
    assert b"s3cret" not in content(made, "task.json")
    assert made.environment["TOKEN"] == "s3cret"
    assert made.environment["HIVEMIND_ATTEMPT"] == "2"
