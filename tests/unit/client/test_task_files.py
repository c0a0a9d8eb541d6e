"""What counts as a task file."""

from pathlib import Path

import pytest

from hivemind_worker import errors
from hivemind_worker.client import task_files


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('{"command": "a"}', 1),
        ('[{"command": "a"}, {"command": "b"}]', 2),
        ('{"command": "a"}\n\n{"command": "b"}\n', 2),
        ('\ufeff{"command": "a"}', 1),
        ('{\n "command": "a"\n}\n', 1),
    ],
)
def test_tasks_are_read(text: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(text, encoding="utf-8")
    tasks = task_files.read(path)
    assert [sorted(task) for task in tasks] == [["command"]] * count


@pytest.mark.parametrize("text", ["", "[]", "3", "[3]", "{", '{"a": 1}\n{', "null", '{"a": 1} {"b": 2}'])
def test_what_is_no_task_file_is_refused_by_name(text: str) -> None:
    with pytest.raises(errors.InvalidTask, match=r"mine\.json"):
        task_files.parse(text, "mine.json")


@pytest.mark.parametrize("name", ["missing.json", "folder", "binary.json"])
def test_what_cannot_be_read_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(errors.InvalidTask, match=name):
        task_files.read(tmp_path / name)
