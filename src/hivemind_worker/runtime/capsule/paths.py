"""Which file names may cross the capsule's border: relative, plain, as bytes."""

from __future__ import annotations

MAX_PATH = 4096  # bytes; Linux PATH_MAX, so a longer one could not be opened in one call anyway
MAX_PART = 255  # bytes; NAME_MAX of every file system a capsule can have
MAX_DEPTH = 256  # parts; the program inside keeps one open directory per part while it walks

_FIRST_PRINTABLE = 0x20
_DELETE = 0x7F


def problem(path: bytes, *, max_depth: int = MAX_DEPTH) -> str | None:
    """Say why `path` is not a safe relative name, or None if it is.

    Safe: not empty, not absolute, no NUL, no empty, `.` or `..` part, at most MAX_PATH bytes and `max_depth` parts.
    Anything else is allowed, byte for byte: newlines, quotes, broken UTF-8.
    """
    parts = path.split(b"/")
    checks = (
        (not path, "it is empty"),
        (len(path) > MAX_PATH, f"it is longer than {MAX_PATH} bytes"),
        (b"\0" in path, "it holds a NUL byte"),
        (path.startswith(b"/"), "it is absolute"),
        (b".." in parts, "it holds a '..' part"),
        (b"" in parts or b"." in parts, "it holds an empty or '.' part"),
        (any(len(part) > MAX_PART for part in parts), f"a part is longer than {MAX_PART} bytes"),
        (len(parts) > max_depth, f"it is deeper than {max_depth} parts"),
    )
    return next((why for wrong, why in checks if wrong), None)


def checked(path: bytes, *, max_depth: int = MAX_DEPTH) -> bytes:
    """Return `path` unchanged if it is safe.

    Raises:
        ValueError: it is not; the text names the path, printable, and the reason.
    """
    why = problem(path, max_depth=max_depth)
    if why is not None:
        message = f"the file name '{rendered(path[:200])}' is not usable: {why}"
        raise ValueError(message)
    return path


def rendered(path: bytes) -> str:
    """Show path bytes as one line of text: UTF-8 where it is, backslash escapes for all else and for control
    characters.
    """
    text = path.decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() and _FIRST_PRINTABLE <= ord(char) != _DELETE else _escaped(char) for char in text
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
