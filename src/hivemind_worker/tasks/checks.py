"""Small checks of single values: each returns the value as its proper type or raises InvalidTask naming the field."""

from __future__ import annotations

import base64 as _base64
import binascii
import math
import re
from collections.abc import Mapping, Sequence

from hivemind_worker import errors

ARGUMENT_BYTES = 120_000
"""Most bytes of one word of a command: the kernel's MAX_ARG_STRLEN is 131,072, less room for what we add."""

ARGUMENTS_BYTES = 1_000_000
"""Most bytes of a whole command: half of the kernel's usual 2 MiB, which the environment shares."""

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def text(field: str, value: object, most: int, *, nul: bool = False) -> str:
    """Require text of at most ``most`` UTF-8 bytes; without NUL characters unless ``nul``."""
    if not isinstance(value, str):
        raise errors.InvalidTask(field, f"must be text, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise errors.InvalidTask(field, "holds a lone surrogate, which no UTF-8 text can") from None
    if size > most:
        raise errors.InvalidTask(field, f"has {size} bytes; at most {most}")
    if not nul and "\0" in value:
        raise errors.InvalidTask(field, "holds a NUL character")
    return value


def words(field: str, value: object) -> tuple[str, ...]:
    """Require a list of words, short enough for the kernel to pass to a program."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise errors.InvalidTask(field, f"must be a list of words, not {type(value).__name__}")
    if len(value) > 10_000:
        raise errors.InvalidTask(field, f"has {len(value)} words; at most 10000")
    found = tuple(text(f"{field}[{at}]", word, ARGUMENT_BYTES) for at, word in enumerate(value))
    total = sum(len(word.encode()) + 1 for word in found)
    if total > ARGUMENTS_BYTES:
        raise errors.InvalidTask(field, f"has {total} bytes in all; at most {ARGUMENTS_BYTES}; use an input file")
    return found


def mapping(field: str, value: object, most: int) -> Mapping[str, object]:
    """Require an object with at most ``most`` text keys."""
    if not isinstance(value, Mapping):
        raise errors.InvalidTask(field, f"must be an object, not {type(value).__name__}")
    if len(value) > most:
        raise errors.InvalidTask(field, f"has {len(value)} entries; at most {most}")
    for key in value:
        if not isinstance(key, str):
            raise errors.InvalidTask(field, f"has the key {str(key)[:40]!r}, which is not text")
    return value


def whole(field: str, value: object, least: int, most: int) -> int:
    """Require a whole number from ``least`` to ``most``; 3.0 counts as whole, true does not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise errors.InvalidTask(field, f"must be a whole number, not {str(value)[:40]!r}")
    if isinstance(value, float) and not value.is_integer():
        raise errors.InvalidTask(field, f"must be a whole number, not {value!r}")
    if not least <= value <= most:
        raise errors.InvalidTask(field, f"must be between {least} and {most}, not {_shown(value)}")
    return int(value)


def amount(field: str, value: object) -> float:
    """Require a finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise errors.InvalidTask(field, f"must be a number, not {str(value)[:40]!r}")
    if not 0 <= value <= 2**40 or not math.isfinite(value):
        raise errors.InvalidTask(field, f"must be a finite number that is not negative, not {_shown(value)}")
    return float(value) + 0.0  # -0.0 is 0.0


def seconds(field: str, value: object) -> float:
    """Require a duration above zero, of at most a year."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise errors.InvalidTask(field, f"must be a number of seconds, not {str(value)[:40]!r}")
    if not 0 < value <= 366 * 86_400:
        raise errors.InvalidTask(field, f"must be above 0 and at most a year, not {_shown(value)}")
    return float(value)


def sha256(field: str, value: object) -> str:
    """Require 64 lower-case hexadecimal digits."""
    if not isinstance(value, str) or _SHA256.fullmatch(value) is None:
        raise errors.InvalidTask(field, "sha256 must be 64 lower-case hexadecimal digits")
    return value


def base64(field: str, value: object) -> bytes:
    """Require standard base64 and decode it."""
    try:
        return _base64.b64decode(text(field, value, most=8 * 1024**2), validate=True)
    except binascii.Error as error:
        raise errors.InvalidTask(field, f"is no base64: {error}") from None


def _shown(value: float) -> str:
    return str(value) if abs(value) < 1e30 else "a number that large"
