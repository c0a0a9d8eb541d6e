"""Values in output are masked however they come, and every offset stays what it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.runtime import redaction
from hivemind_worker.runtime.capsule import messages

OUT, ERR = messages.Stream.OUT, messages.Stream.ERR
SECRETS = {"TOKEN": "hunter2hunter2", "SHORT": "yes", "LINES": "first line\nsecond\n", "WIDE": "schlüssel", "EMPTY": ""}


def passed(pieces: list[bytes], values: dict[str, str] = SECRETS) -> bytes:
    """What comes out of a stream in these pieces; each byte at the place it had."""
    redactor, offset, outputs = redaction.Redactor(values), 0, list[messages.Output]()
    for piece in pieces:
        outputs += redactor.take(messages.Output(OUT, offset, piece))
        offset += len(piece)
    outputs += redactor.flush()
    at = 0
    for output in outputs:
        assert (output.stream, output.offset) == (OUT, at)
        at += len(output.data)
    assert at == offset
    return b"".join(output.data for output in outputs)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (b"a hunter2hunter2 b", b"a ************** b"),
        (b"hunter2hunter2hunter2", b"*" * 21),  # they overlap
        (b"yes hunter2hunter", b"yes " + b"*" * 13),  # the end cut off: as good as the value
        (b"hunter", b"hunter"),
        (b"-first line\nsecond\n", b"-" + b"*" * 17 + b"\n"),
        ("der schlüssel!".encode(), b"der ********** "[:-1] + b"!"),
    ],
)
def test_a_value_is_masked_in_whatever_pieces_it_comes(text: bytes, masked: bytes) -> None:
    assert passed([text]) == masked
    assert passed([text[at : at + 1] for at in range(len(text))]) == masked
    assert passed([text[:7], text[7:]]) == masked


@given(st.lists(st.binary(max_size=6).map(lambda data: data.replace(b"\0", b"12345678")), max_size=12))
def test_pieces_make_no_difference(pieces: list[bytes]) -> None:
    values = {"A": "12345678", "B": "5678123456"}
    masked = passed([b"".join(pieces)], values)
    assert passed(pieces, values) == masked
    assert b"12345678" not in masked


def test_streams_are_apart_and_a_gap_joins_nothing() -> None:
    redactor = redaction.Redactor(SECRETS)
    assert redactor.take(messages.Output(OUT, 0, b"hunter2")) == []
    assert redactor.take(messages.Output(ERR, 0, b"error")) == [messages.Output(ERR, 0, b"error")]
    after = redactor.take(messages.Output(OUT, 100, b"hunter2."))
    assert after == [messages.Output(OUT, 0, b"hunter2"), messages.Output(OUT, 100, b"hunter2.")]
    assert not redactor.is_holding


def test_what_is_flushed_in_the_middle_of_a_value_gives_nothing_away() -> None:
    redactor = redaction.Redactor(SECRETS)
    assert redactor.take(messages.Output(OUT, 0, b"= hunter2hu")) == [messages.Output(OUT, 0, b"= ")]
    assert redactor.flush() == [messages.Output(OUT, 2, b"*" * 9)]
    assert redactor.take(messages.Output(OUT, 11, b"nter2.")) == [messages.Output(OUT, 11, b"*****.")]


def test_without_values_everything_goes_on_as_it_is() -> None:
    output = messages.Output(OUT, 5, b"yes")
    assert redaction.Redactor({"SHORT": "yes"}).take(output) == [output]
