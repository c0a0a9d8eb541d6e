"""Names of result files: those that nobody could download are told apart from those that are odd but safe."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.tasks import result_names


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"), ("/etc/passwd", "absolute"), ("../x", "'..'"), ("a/../../x", "'..'"), ("..", "'..'"),
        ("a//b", "empty or '.'"), ("./a", "empty or '.'"), ("a/", "empty or '.'"), ("a/.", "empty or '.'"),
        ("x\0y", "NUL"), ("n/" * 2500 + "n", "longer than"), ("n" * 256, "a part"), ("é" * 128, "a part"),
        ("a/" * 300 + "b", "deeper"), ("\udc80", "UTF-8"),
    ],
)  # fmt: skip
def test_what_leads_elsewhere_or_nowhere_is_no_name(name: str, why: str) -> None:
    assert why in result_names.problem(name)


@pytest.mark.parametrize("name", ["a", "a/b.txt", "...", "..a", "a\nb", "-rf", " ", "\\", "C:x", "é" * 127, "日本/x"])
def test_what_is_odd_but_safe_is_taken(name: str) -> None:
    assert result_names.problem(name) == ""


@given(st.text(max_size=30))
def test_whatever_is_taken_stays_inside(name: str) -> None:
    if not result_names.problem(name):
        path = os.path.normpath(os.path.join("/base", name))  # noqa: PTH118  (it is text that is tried)
        assert path == f"/base/{name}"


def test_of_names_that_collide_the_file_and_the_first_stay() -> None:
    given_names = ["a/b", "x", "a", "x", "a-c", "a/b/c", "A", "e\u0301", "\u00e9", "../x", "x.y"]
    assert {at: why.partition(": ")[2] for at, why in result_names.problems(given_names).items()} == {
        0: "it is a file and a folder at once",
        3: "another file has it",
        5: "it is a file and a folder at once",
        9: "it holds a '..' part",
    }
