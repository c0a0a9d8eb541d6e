from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.runtime.capsule import paths

UNSAFE = [b"", b"/", b"/etc/shadow", b"..", b"../x", b"a/../b", b"a/..", b".", b"./a", b"a/.", b"a//b", b"a/", b"a\0b"]
ODD_BUT_SAFE = [
    b"a",
    b"...",
    b"..a",
    b"a..",
    b".hidden",
    b"a b",
    b"a\nb",
    b"\xff\xfe",
    b"-rf",
    b"a/b/c",
    b"x" * 255,
    b"$(id)",
]


@pytest.mark.parametrize("path", UNSAFE)
def test_unsafe_names_are_refused_with_the_reason(path: bytes) -> None:
    assert paths.problem(path)
    with pytest.raises(ValueError, match="not usable"):
        paths.checked(path)


@pytest.mark.parametrize("path", ODD_BUT_SAFE)
def test_odd_names_pass_byte_for_byte(path: bytes) -> None:
    assert paths.checked(path) == path


def test_lengths_and_depth_have_limits() -> None:
    assert paths.problem(b"x" * 256)
    assert paths.problem(b"/".join([b"x" * 200] * 21))
    assert paths.problem(b"/".join([b"x"] * 257))
    assert not paths.problem(b"/".join([b"x"] * 256))
    assert paths.problem(b"a/b/c", max_depth=2)


@given(st.binary(max_size=300))
def test_what_is_rendered_is_one_printable_line(path: bytes) -> None:
    shown = paths.rendered(path)
    assert shown.isprintable()
    assert "\n" not in shown
