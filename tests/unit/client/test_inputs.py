"""What a task's files become: inline while small, an address and an upload when large, a named field when wrong."""

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hivemind_worker import errors
from hivemind_worker.client import inputs
from hivemind_worker.tasks import spec


def _task(**files: object) -> dict[str, object]:
    return {"command": ["true"], "input_files": files}


def test_a_small_local_file_travels_inside(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"a,b\n")
    prepared = inputs.prepare(_task(table={"file": "data.csv"}, text="hi"), tmp_path)
    assert prepared.task.input_files == {"table": b"a,b\n", "text": b"hi"}
    assert not prepared.uploads


def test_a_folder_stands_for_all_files_beneath_it(tmp_path: Path) -> None:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "b.txt").write_bytes(b"b")
    (tmp_path / "data" / "deep" / "a.txt").write_bytes(b"a")
    (tmp_path / "data" / "link").symlink_to("/etc/passwd")
    inside = inputs.prepare(_task(**{"in": {"folder": "data"}}, more="x"), tmp_path).task.input_files
    assert inside == {"in/b.txt": b"b", "in/deep/a.txt": b"a", "more": b"x"}
    beside = inputs.prepare(_task(**{".": {"folder": "data"}}), tmp_path).task.input_files
    assert beside == {"b.txt": b"b", "deep/a.txt": b"a"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"in": {"folder": "nowhere"}}, "'in'.*nowhere is no folder"),
        ({"in": {"folder": "file"}}, "is no folder"),
        ({"in": {"folder": "empty"}}, "there is no file in"),
        ({"in": {"folder": ""}}, "must name a local folder"),
        ({"in": {"folder": 3}}, "must name a local folder"),
        ({"in/a": "x", "in": {"folder": "some"}}, "in/a.*comes twice"),
    ],
)
def test_a_folder_that_cannot_be_taken_is_named(tmp_path: Path, files: dict[str, object], said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "a").write_bytes(b"a")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(errors.InvalidTask, match=said):
        inputs.prepare(_task(**files), tmp_path)


def test_a_folder_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MOST_FILES", 3)
    for number in range(4):
        (tmp_path / str(number)).write_bytes(b"")
    with pytest.raises(errors.InvalidTask, match="input_files"):
        inputs.prepare(_task(**{"in": {"folder": "."}}), tmp_path)


def test_a_large_file_is_named_by_its_sum_and_put_aside(tmp_path: Path) -> None:
    content = bytes(range(256)) * 300
    (tmp_path / "big").write_bytes(content)
    named = hashlib.sha256(content).hexdigest()
    prepared = inputs.prepare(_task(data={"file": "big"}), tmp_path)
    assert prepared.task.input_files == {"data": spec.StoredFile(named, len(content))}
    source = prepared.uploads[named]
    assert source.read(0) + source.read(len(content)) == content
    assert source.read(76_000) == content[76_000:]


@pytest.mark.parametrize(
    "given",
    [
        lambda content: content,
        lambda content: content.decode(),
        lambda content: {"base64": base64.b64encode(content).decode()},
    ],
)
def test_large_contents_of_any_form_are_put_aside(given: Callable[[bytes], object]) -> None:
    content = b"x" * (inputs.INLINE_FILE + 1)
    prepared = inputs.prepare(_task(data=given(content)), Path())
    assert [source.content for source in prepared.uploads.values()] == [content]


def test_many_small_files_stop_being_inline_when_the_task_is_full() -> None:
    each = inputs.INLINE_FILE
    files = {f"f{number}": bytes([number]) * each for number in range(20)}
    prepared = inputs.prepare(_task(**files), Path())
    inline = [content for content in prepared.task.input_files.values() if isinstance(content, bytes)]
    assert sum(map(len, inline)) == inputs.INLINE_TASK
    assert len(prepared.uploads) == 20 - len(inline)


def test_the_same_content_is_put_aside_once() -> None:
    content = b"y" * (inputs.INLINE_FILE + 1)
    assert len(inputs.prepare(_task(a=content, b=content), Path()).uploads) == 1


def test_code_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("\ufeffprint('hé')\n", encoding="utf-8")
    assert inputs.prepare({"code": {"file": "main.py"}}, tmp_path).task.code == "print('hé')\n"


@pytest.mark.parametrize(
    ("task", "field"),
    [
        (_task(data={"file": "missing"}), "input_files['data']"),
        (_task(data={"file": "."}), "input_files['data']"),
        (_task(data={"file": ""}), "input_files['data']"),
        (_task(data={"file": "a\0b"}), "input_files['data']"),
        (_task(data={"file": 3}), "input_files['data']"),
        (_task(data={"file": "x", "mode": 1}), "input_files['data']"),
        (_task(**{"../up": "x"}), "input_files['../up']"),
        ({"command": ["true"], "input_files": ["a"]}, "input_files"),
        ({"code": {"file": "missing.py"}}, "code"),
        ({"code": {"file": "latin1.py"}}, "code"),
        ({"command": ["true"], "bogus": 1}, "bogus"),
        ({"code": "pass", "requirements": ["./numpy"]}, "requirements[0]"),
        ([], "task"),
    ],
)
def test_what_is_wrong_is_named(task: Any, field: str, tmp_path: Path) -> None:
    (tmp_path / "latin1.py").write_bytes(b"# \xe9\n")
    with pytest.raises(errors.InvalidTask) as caught:
        inputs.prepare(task, tmp_path)
    assert caught.value.field == field


def test_a_file_that_changed_is_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"x" * 100_000)
    (source,) = inputs.prepare(_task(data={"file": "big"}), tmp_path).uploads.values()
    path.write_bytes(b"x" * 99_999)
    with pytest.raises(errors.UserError, match="changed"):
        source.read(0)
