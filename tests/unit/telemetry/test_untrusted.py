"""Text of tasks, nodes and pools is shown as it is where it is harmless, and as escapes where it is not."""

from __future__ import annotations

import itertools
import unicodedata

from hivemind_worker.telemetry import untrusted

ACTIVE = [chr(code) for code in (*range(32), *range(0x7F, 0xA0))]
BIDI = list("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
SEPARATORS = list("\u2028\u2029")
ORDINARY = "Grüße, 日本, مرحبا, a b\tc, 👩‍💻 🏳️‍🌈"


def test_a_value_is_one_visible_line() -> None:
    for char in (*ACTIVE, *BIDI, *SEPARATORS, "\udc80", "\ufeff"):
        shown = untrusted.line(f"a{char}b")
        assert shown.isprintable()
        assert len(shown) >= 4, "it is shown, not swallowed"


def test_no_output_moves_a_terminal() -> None:
    for char in (*(each for each in ACTIVE if each not in "\n\t"), *BIDI, *SEPARATORS, "\ufeff"):
        assert char not in untrusted.OutputFilter().text(f"a{char}b".encode(), final=True)


def test_no_raw_byte_of_a_c1_control_comes_through() -> None:
    for byte in range(0x80, 0xA0):
        shown = untrusted.OutputFilter().text(bytes([0x61, byte, 0x62]), final=True)
        assert shown == f"a\\x{byte:02x}b"


def test_ordinary_output_is_as_it_was() -> None:
    assert untrusted.OutputFilter().text(f"{ORDINARY}\n".encode()) == f"{ORDINARY}\n"


def test_output_is_the_same_however_its_bytes_are_cut() -> None:
    data = f"{ORDINARY}\r\n\x1b]52;c;cm0gLXJmIH4=\x07\rdone\r\n".encode() + b"\x9b31m\xff\xe2\x80"
    whole = untrusted.OutputFilter().text(data, final=True)
    assert "\x1b" not in whole
    assert "\\x1b]52;c;" in whole
    for width in (1, 2, 3, 5):
        cut = untrusted.OutputFilter()
        parts = [cut.text(data[at : at + width]) for at in range(0, len(data), width)]
        assert "".join((*parts, cut.text(b"", final=True))) == whole


def test_a_message_cannot_begin_a_line_at_the_margin() -> None:
    for break_ in ("\n", "\r", "\r\n", "\x85", "\u2028", "\u2029", "\x0b", "\x0c"):
        first, second = untrusted.message(f"it failed{break_}status: completed").split("\n")
        assert (first, second) == ("it failed", f"{untrusted.CONTINUED}status: completed")


def test_every_control_and_format_character_but_joiners_is_inert_in_output() -> None:
    kept = {"\n", "\t", "\u200c", "\u200d"}
    for code in itertools.chain(range(0x3000), range(0xFE00, 0x10000), range(0xE0000, 0xE0080)):
        char = chr(code)
        if unicodedata.category(char) in {"Cc", "Zl", "Zp"} or unicodedata.bidirectional(char) in {
            "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
        }:  # fmt: skip
            assert char in kept or char not in untrusted.OutputFilter().text(char.encode(), final=True), hex(code)
