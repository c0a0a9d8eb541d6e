"""What a task may say of its secrets; no refusal and no text about the task shows a value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from hivemind_worker import errors
from hivemind_worker.cli import describing
from hivemind_worker.client import inputs
from hivemind_worker.pool.matching import assignment
from hivemind_worker.pool.store import records
from hivemind_worker.tasks import resources, spec
from hivemind_worker.wire import calls, translate

VALUE = "hunter2-äöü-\n-the-value"


def task(secrets: object, **more: object) -> dict[str, object]:
    return {"command": "true", "secrets": secrets, **more}


@pytest.mark.parametrize(
    "said",
    [
        task({"1x": VALUE}),
        task({"A=B": VALUE}),
        task({"HIVEMIND_TASK_ID": VALUE}),
        task({"A": VALUE}, environment={"A": VALUE}),
        task({"A": VALUE + "\0"}),
        task({"A": [VALUE]}),
        task({"A": VALUE * 10_000}),
        task({f"A{number}": VALUE * 4_000 for number in range(10)}),
        task([VALUE]),
        task({"A": {"file": "/none/there"}}),
        task({"A": {"env": "NOT_SET_HERE"}}),
    ],
)
def test_what_it_may_not_say_is_refused_without_the_value(said: Mapping[str, object]) -> None:
    with pytest.raises(errors.InvalidTask) as refused:
        inputs.prepare(said, Path())
    assert refused.value.field.startswith("secrets")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("value", ["", VALUE, "x" * 120_000])
def test_every_value_comes_through_as_it_is(value: str) -> None:
    found = spec.parse(task({"A": value}))
    assert translate.task_from_message(translate.task_to_message(found)).secrets == {"A": value}
    assert "hunter2" not in repr(found)


def test_values_come_from_files_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(VALUE)
    (tmp_path / "binary").write_bytes(b"\xff")
    monkeypatch.setenv("FROM_HERE", "value")
    said = task({"A": {"file": "key"}, "B": {"env": "FROM_HERE"}})
    assert inputs.prepare(said, tmp_path).task.secrets == {"A": VALUE, "B": "value"}
    with pytest.raises(errors.InvalidTask, match="no UTF-8 text"):
        inputs.prepare(task({"A": {"file": "binary"}}), tmp_path)


def test_the_command_line_takes_no_value() -> None:
    assert describing.secrets(["A", "B=@key"])["A"] == {"env": "A"}
    with pytest.raises(Exception, match="no value here") as refused:
        describing.secrets(["A=hunter2"])
    assert "hunter2" not in str(refused.value)


def test_a_task_that_lost_its_secrets_does_not_run() -> None:
    with pytest.raises(errors.InvalidTask, match="its value is lost"):
        translate.task_from_message(calls.pb.Task(command="true", secret_names=["A"]))


def test_only_a_node_that_knows_secrets_is_given_them() -> None:
    amounts = resources.Resources(1.0, 1, 1)
    shape = assignment.Shape("command", amounts, (assignment.NEEDS_SECRETS,))
    old = records.Node("old", "", amounts, capabilities=("command",))
    reference = records.Node("reference", "", amounts, capabilities=("docker",))
    new = records.Node("new", "", amounts, capabilities=("command", "secrets"))
    assert [assignment.suits(shape, node.site) for node in (old, reference, new)] == [False, False, True]
    assert "knows no secrets" in assignment.why_waiting(shape, [old.site])
