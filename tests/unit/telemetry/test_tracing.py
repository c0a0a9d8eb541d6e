from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.telemetry import tracing

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_child_is_a_new_span_of_the_same_trace() -> None:
    parent = tracing.read(GIVEN)
    assert parent is not None
    assert str(parent) == GIVEN
    child = tracing.after(GIVEN)
    assert (child.trace_id, child.flags) == (parent.trace_id, parent.flags)
    assert child.span_id != parent.span_id
    assert tracing.read(str(child)) == child


def test_where_there_is_none_one_begins() -> None:
    first, second = tracing.after(""), tracing.after("rubbish")
    assert tracing.read(str(first)) == first
    assert first.trace_id != second.trace_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        GIVEN.upper(),
        GIVEN[:-1],
        GIVEN + "-more",  # version 00 has nothing more
        GIVEN.replace("00-", "ff-", 1),
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
        GIVEN + "\n" + GIVEN,
    ],
)
def test_what_the_standard_calls_invalid_is_ignored(text: str) -> None:
    assert tracing.read(text) is None


def test_a_later_version_may_say_more() -> None:
    assert tracing.read(GIVEN.replace("00-", "01-", 1) + "-more") is not None


@given(st.text(max_size=80))
def test_anything_is_read_without_harm(text: str) -> None:
    found = tracing.read(text)
    assert found is None or tracing.read(str(found)) == found
