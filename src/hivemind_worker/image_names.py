"""What an image reference looks like: for tasks, which name one, and for settings, which do as well."""

from __future__ import annotations

import re

# The grammar of the distribution project's `reference` package: [host[:port]/]path[:tag][@digest].
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*(?::[0-9]{1,5})?"
_IMAGE = re.compile(
    rf"(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?",
    re.ASCII,
)

MAX_BYTES = 512


def is_reference(text: str) -> bool:
    """Whether a text is an image reference and nothing else, so that no option can ride on it."""
    return len(text) <= MAX_BYTES and _IMAGE.fullmatch(text) is not None
