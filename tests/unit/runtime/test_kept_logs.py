"""What is kept of output, for any way a capsule may cut and interleave it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.runtime import logs
from hivemind_worker.runtime.capsule import messages
from hivemind_worker.tasks import plan

OUT, ERR = messages.Stream.OUT, messages.Stream.ERR


def kept(head: int, tail: int) -> logs.Kept:
    return logs.Kept(plan.Caps(head, tail, 1, 1, 1, 1.0))


def test_short_output_is_kept_as_it_arrived() -> None:
    under_test = kept(100, 100)
    for stream, offset, data in ((OUT, 0, b"a\n"), (ERR, 0, b"b\n"), (OUT, 2, b"c\n")):
        under_test.take(messages.Output(stream, offset, data))
    found = under_test.logs()
    assert (found.text, found.stdout_bytes, found.stderr_bytes) == (b"a\nb\nc\n", 4, 2)
    assert not under_test.truncated


def test_a_gap_is_told_where_it_is_with_its_size() -> None:
    under_test = kept(4, 100)
    under_test.take(messages.Output(OUT, 0, b"head"))
    under_test.take(messages.Output(OUT, 1004, b"tail"))
    assert under_test.logs().text == b"head\n[hivemind: 1000 bytes of stdout are not kept]\ntail"
    assert under_test.logs().stdout_bytes == 1008
    assert under_test.truncated


def test_output_lost_at_its_end_counts_as_missing() -> None:
    under_test = kept(10, 0)
    under_test.take(messages.Output(ERR, 0, b"0123456789"))
    under_test.missed(ERR, 50)
    assert b"[hivemind: 40 bytes of stderr are not kept]" in under_test.logs().text
    assert under_test.logs().stderr_bytes == 50


def test_a_stream_that_needs_no_tail_leaves_it_to_the_other() -> None:
    under_test = kept(0, 10)
    under_test.take(messages.Output(OUT, 0, b"0123456789"))
    assert under_test.logs().text == b"0123456789"
    under_test.take(messages.Output(ERR, 0, b"abcdefghij"))
    text = under_test.logs().text
    assert b"56789" in text
    assert b"fghij" in text
    assert b"01234" not in text


@given(
    st.integers(0, 40),
    st.integers(0, 40),
    st.lists(st.tuples(st.sampled_from([OUT, ERR]), st.integers(0, 30), st.binary(min_size=1, max_size=60))),
)
def test_never_more_than_the_caps_and_all_is_counted(
    head: int, tail: int, pieces: list[tuple[messages.Stream, int, bytes]]
) -> None:
    under_test = kept(head, tail)
    ends = {OUT: 0, ERR: 0}
    for stream, gap, data in pieces:
        under_test.take(messages.Output(stream, ends[stream] + gap, data))
        ends[stream] += gap + len(data)
    found = under_test.logs()
    assert (found.stdout_bytes, found.stderr_bytes) == (ends[OUT], ends[ERR])
    lines = 2 * len(b"\n[hivemind: 00000 bytes of stderr are not kept]\n")
    assert len(found.text) <= head + tail + 1 + lines
