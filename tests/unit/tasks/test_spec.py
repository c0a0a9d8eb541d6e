"""What a task may say, and that every refusal names its field."""

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker import errors
from hivemind_worker.tasks import learning, processing, resources, spec


def refused(**fields: object) -> str:
    task = {"command": ["true"], **fields}
    with pytest.raises(errors.InvalidTask) as caught:
        spec.parse(task)
    assert str(caught.value).startswith(caught.value.field)
    return caught.value.field


def test_a_task_that_says_everything() -> None:
    task = spec.parse(
        {
            "id": "job-1.a_b",
            "type": "command",
            "docker_image": "registry.example:5000/team/tool:1.2",
            "command": ["echo", "", "ünïcode"],
            "input_files": {"a.txt": "text", "dir/b.bin": b"\x00\xff", "c": {"sha256": "a" * 64, "size": 7}},
            "environment": {"KEY": "value", "_x1": ""},
            "memory_limit": "512m",
            "cpu_quota": 50_000,
            "timeout": 1.5,
            "disk_limit": "2g",
            "pids_limit": 10,
            "required_resources": {"cpu_cores": 2, "memory_gb": 0.25, "disk_gb": 5, "gpus": 1},
            "network": "egress",
            "priority": -3,
            "max_attempts": 2,
            "labels": {"project/x": "y"},
            "node_selector": {"zone": "a"},
        }
    )
    assert task.command == ("echo", "", "ünïcode")
    assert task.input_files["c"] == spec.StoredFile("a" * 64, 7)
    assert task.input_files["a.txt"] == b"text"
    assert task.needs == resources.Resources(2.0, 512 * 2**20, 5 * 2**30, 1)


def test_the_kind_is_told_by_its_fields() -> None:
    assert spec.parse({"command": "ls"}).kind == "command"
    assert spec.parse({"code": "print(1)"}).kind == "python"
    assert spec.parse({"code": "print(1)", "args": ["a"], "requirements": []}).args == ("a",)


def test_defaults_are_the_reference_documents() -> None:
    # It names no limit of disk; ours lets the workspace lie in memory.
    assert spec.parse({"command": "ls"}).needs == resources.Resources(1.0, 2**30, 2**29)


@pytest.mark.parametrize("field", ["privileged", "cap_add", "devices", "volumes", "security_opt", "user", "Network"])
def test_c04_unknown_fields_are_refused_by_name(field: str) -> None:
    assert refused(**{field: True}) == field


def test_a_misspelt_field_is_named_and_not_taken_for_a_missing_type() -> None:
    with pytest.raises(errors.InvalidTask, match="comand: a task has no such field; did you mean 'command'"):
        spec.parse({"comand": "true"})
    with pytest.raises(errors.InvalidTask, match="args: belongs to python tasks"):
        spec.parse({"type": "command", "command": "true", "args": ["x"]})
    with pytest.raises(errors.InvalidTask, match="or one string, not int"):
        spec.parse({"command": 3})


@pytest.mark.parametrize(
    "image",
    [
        "",
        "x --privileged",
        "-v",
        "UPPER/case:tag!",
        "a:b:c",
        "a@sha256:123",
        "../x",
        "a//b",
        "x\n",
        "http://x",
        "a" * 600,
    ],
)
def test_c04_images_are_references_and_nothing_else(image: str) -> None:
    assert refused(docker_image=image) == "docker_image"


@pytest.mark.parametrize(
    "image", ["busybox", "python:3.11-slim", "a.b/c_d/e--f", "localhost:5000/x@sha256:" + "0" * 64]
)
def test_images_that_are_well_named(image: str) -> None:
    assert spec.parse({"command": "ls", "docker_image": image}).docker_image == image


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/cron.d/x",
        "/etc/passwd",
        "",
        ".",
        "./x",
        "a//b",
        "a/",
        "a/./b",
        "a/../b",
        "x\0y",
        "a" * 5_000,
        "a" * 256,
        "/".join("a" * 200),
        "\ud800",
        "task.json",
        "results/x",
    ],
)
def test_i01_input_paths_that_are_refused(path: str) -> None:
    assert refused(input_files={path: "x"}).startswith("input_files")


@pytest.mark.parametrize(
    "path", ["a b", "-rf", "ünï/cödé", "x\ny", "back\\slash", "...", "a" * 255, "\u202eevil", "*?"]
)
def test_i01_odd_but_safe_names_are_taken(path: str) -> None:
    assert path in spec.parse({"command": "ls", "input_files": {path: "x"}}).input_files


def test_i02_collisions() -> None:
    assert refused(input_files={"a": "1", "a/b": "2"}) == "input_files"
    both = spec.parse({"command": "ls", "input_files": {"\u00e9": "nfc", "e\u0301": "nfd"}})
    assert len(both.input_files) == 2


@pytest.mark.parametrize("task_id", ["../x", "x" * 10_000, "", "-a", "a/b", "ä", "a\n", 5, b"x"])
def test_i03_ids(task_id: object) -> None:
    assert refused(id=task_id) == "id"


@pytest.mark.parametrize(
    "command", ["", "  ", [], [""], ["a\0b"], "a\0b", ["x" * 200_000], ["x" * 1000] * 2000, 5, [5], None]
)
def test_i04_commands_that_cannot_run(command: object) -> None:
    with pytest.raises(errors.InvalidTask) as caught:
        spec.parse({"type": "command", "command": command})
    assert caught.value.field.startswith("command")


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf, True, "soon", [], 10**400])
def test_times_and_counts_that_are_none(value: object) -> None:
    assert refused(timeout=value) == "timeout"
    assert refused(cpu_quota=value) == "cpu_quota"
    assert refused(pids_limit=value) == "pids_limit"
    assert refused(max_attempts=value) == "max_attempts"


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, True, "many", 10**400])
def test_required_resources(value: object) -> None:
    for name in ("cpu_cores", "memory_gb", "disk_gb", "gpus"):
        assert refused(required_resources={name: value}) == f"required_resources.{name}"
    assert refused(required_resources={"tpus": 1}) == "required_resources.tpus"


def test_the_engines_smallest_memory() -> None:
    assert refused(memory_limit="5m") == "memory_limit"
    assert spec.parse({"command": "ls", "memory_limit": "6m"}).memory_limit == 6 * 2**20


@pytest.mark.parametrize("name", ["1x", "a-b", "", "a=b", "HIVEMIND_TOKEN", "ä"])
def test_variables(name: str) -> None:
    assert refused(environment={name: "x"}).startswith("environment")


def test_too_much_inline() -> None:
    assert refused(input_files={f"f{n}": b"x" * 2**20 for n in range(4)}) == "input_files"


def test_a_task_does_one_thing() -> None:
    assert refused(code="print(1)") == "type"
    assert refused(type="python") == "command"
    assert refused(type="magic") == "type"
    with pytest.raises(errors.InvalidTask, match="no field tells it"):
        spec.parse({})
    with pytest.raises(errors.InvalidTask, match="model_type"):
        spec.parse({"type": "ml"})
    assert spec.parse({"code": "pass", "model_type": "pytorch"}).kind == "ml"
    assert spec.parse({"processing_type": "csv_analysis", "input_data": {"text": "a\n1\n"}}).kind == "data_processing"


def test_requirements_are_names_and_nothing_else() -> None:
    said = {
        "code": "pass",
        "requirements": ["Zope.Interface >= 5 , <7", "numpy", "six ; python_version < '4'", "numpy"],
    }
    assert spec.parse(said).requirements == ("numpy", "six; python_version < '4'", "zope-interface<7,>=5")
    bad = [
        "--index-url=http://x",
        "-r a.txt",
        "-e git+https://x/y",
        "six\nRUN id",
        "$(id)",
        "./local",
        "a @ https://x/y",
    ]
    for requirement in (*bad, "a b", "", "six; os.system('x') and `id`", "git+https://x", "a=1", "/etc/passwd"):
        assert refused(command=None, code="pass", requirements=[requirement]) == "requirements[0]"
    assert refused(command=None, code="pass", requirements=["six"] * 10_000) == "requirements"


@pytest.mark.parametrize(
    "marker",
    [
        "python_version<'4'",
        "sys_platform == 'linux' and (python_version >= '3.9' or extra == \"x\")",
        "'linux' in sys_platform",
        "os_name not in 'nt java'",
        "platform_python_implementation!='PyPy'",
    ],
)
def test_markers_compare_facts_of_the_machine(marker: str) -> None:
    assert spec.parse({"code": "pass", "requirements": [f"six; {marker}"]}).requirements == (f"six; {marker}",)


@pytest.mark.parametrize(
    "marker",
    ["import os", "x == 'y'", "python_version", "python_version == 3", "python_version == '3' and", "'a' == 'b'",
     "(python_version == '3'", "python_version == '3' or or os_name == ''", "python_version == '" + "3" * 2_000 + "'"],
)  # fmt: skip
def test_what_is_no_marker_is_refused(marker: str) -> None:
    assert refused(command=None, code="pass", requirements=[f"six; {marker}"]) == "requirements[0]"


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted(
    spec._COMMON_FIELDS | {"command", "code", "args", "requirements", "bogus"} | learning.FIELDS | processing.FIELDS
)


@given(st.dictionaries(st.sampled_from(FIELDS), json_like, max_size=5))
def test_anything_is_a_task_or_names_its_field(given_task: dict[str, object]) -> None:
    refusal = None
    task = None
    try:
        task = spec.parse(given_task)
    except errors.InvalidTask as error:
        refusal = error
    if refusal is not None:
        assert refusal.field
        assert len(str(refusal)) < 500
        assert "\n" not in str(refusal)
    if task is not None:
        assert task.kind in spec.KINDS
        assert task.needs.memory_bytes < sys.maxsize
