"""Takes secrets out of whatever is about to be written down, at any depth, and bounds its size.

What cannot be recognised cannot be removed: this is the second fence. The first is not to hand secrets to a log.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

REMOVED = "[redacted]"

# An event is for reading: one string of it is at most a page, the whole a few pages, so that a flood of hostile
# events costs time and disk in proportion to their number alone.
TEXT_LIMIT = 4096
NAME_LIMIT = 200
CHARACTERS_LIMIT = 32 * 1024
VALUES_LIMIT = 1000
DEPTH_LIMIT = 8
# A secret may begin before the cut and be recognised only by what follows it, so this much more is searched.
BEYOND_THE_CUT = 1024

_NAMED = (
    r"[A-Za-z0-9_.-]{0,100}(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|private[_-]?key|access[_-]?key|credential)"
    r"[A-Za-z0-9_-]{0,100}"
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL
        ),
        REMOVED,
    ),
    (
        re.compile(
            r"(?i)\b((?:proxy-)?authorization)(['\"]?\s*[:=]\s*['\"]?)(?:(?:bearer|basic|digest|token)\s+)?[^\s'\",;]+"
        ),
        rf"\1\2{REMOVED}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {REMOVED}"),
    # The user's part may be the token itself, so all that stands before the @ goes. The host is kept.
    (re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)[^\s/?#]*@"), rf"\1{REMOVED}@"),
    (
        re.compile(rf"(?i)(?<![A-Za-z0-9_.-])({_NAMED})(['\"]?\s*[=:]\s*)(?:\"[^\"]*\"?|'[^']*'?|[^\s,;&'\"]+)"),
        rf"\1\2{REMOVED}",
    ),
    (re.compile(r"(?i)(--?(?:password|token|secret|api-key))\s+(?!-)\S+"), rf"\1 {REMOVED}"),
    (re.compile(r"\bhm1\.[A-Za-z0-9_.~+/=-]+"), REMOVED),  # join tokens: hm1.<ca sha256>.<id>.<secret>
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"), REMOVED),  # JSON web tokens
    (re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk-|hf_)[A-Za-z0-9_-]{16,}"), REMOVED),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), REMOVED),
)

# A word of the name that ends so: PGPASSWORD, dbSecret, tokens.
_SECRET_ENDS = (
    "password", "passwords", "passwd", "pwd", "passphrase", "secret", "secrets", "token", "tokens", "authorization",
    "credential", "credentials", "cookie", "cookies", "apikey", "privatekey", "accesskey",
)  # fmt: skip
_SECRET_PAIRS = frozenset({("api", "key"), ("private", "key"), ("access", "key"), ("signing", "key"), ("auth", "key")})
# Said about a secret, not the secret itself: token_count, token_file, secret_bytes.
_HARMLESS_ENDS = frozenset(
    {"count", "bytes", "size", "limit", "seconds", "file", "path", "id", "age", "expires", "name"}
)
_ENVIRONMENTS = frozenset({"env", "environ", "environment"})


def clean(value: Any) -> Any:
    """A copy of the value that JSON can say: secrets removed, sizes bounded, nothing shared with the original.

    Mappings and sequences stay such, numbers and truths as they are, all else becomes text. Never raises for what a
    value is (an object that cannot be printed is named by its type).
    """
    return _Cleaner().value(value, 0)


def text(value: str, limit: int = TEXT_LIMIT) -> str:
    """The text with secrets removed, at most `limit` characters and a mark that says how many are missing."""
    known = value[: limit + BEYOND_THE_CUT]
    for pattern, instead in _PATTERNS:
        known = pattern.sub(instead, known)
    if len(value) > limit + BEYOND_THE_CUT or len(known) > limit:
        known = f"{known[:limit]}…[{len(value)} characters]"
    # A lone surrogate cannot be written as UTF-8: shown as the escape it is.
    return known.encode("utf-8", "backslashreplace").decode("utf-8")


def is_secret_name(name: str) -> bool:
    """Whether something of this name is a secret whatever it looks like: api_key, HM_TOKEN, dbPassword."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[:NAME_LIMIT])
    words = [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]
    if not words or words[-1] in _HARMLESS_ENDS:
        return False
    return any(word.endswith(_SECRET_ENDS) for word in words) or not _SECRET_PAIRS.isdisjoint(itertools.pairwise(words))


class _Cleaner:
    """One value's cleaning, with what it may still cost."""

    def __init__(self) -> None:
        self._values = VALUES_LIMIT
        self._characters = CHARACTERS_LIMIT

    def value(self, value: Any, depth: int) -> Any:
        self._values -= 1
        if isinstance(value, Mapping):
            return self._mapping(value, depth) if depth < DEPTH_LIMIT else "{…}"
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._several(value, depth) if depth < DEPTH_LIMIT else "[…]"
        if value is None or isinstance(value, bool):
            return value
        if type(value) is int and value.bit_length() <= 64:
            return value
        if type(value) is float and math.isfinite(value):
            return value
        return self._text(_printed(value))

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        cleaned: dict[str, Any] = {}
        for key, inside in value.items():
            if self._spent():
                cleaned["…"] = f"{len(value) - len(cleaned)} more"
                break
            name = self._text(_printed(key), NAME_LIMIT)
            if is_secret_name(_printed(key)):
                cleaned[name] = REMOVED
            elif name.lower() in _ENVIRONMENTS:
                cleaned[name] = self._environment(inside, depth + 1)
            else:
                cleaned[name] = self.value(inside, depth + 1)
        return cleaned

    def _several(self, value: Iterable[Any], depth: int) -> list[Any]:
        several = list(value)
        cleaned: list[Any] = []
        for inside in several:
            if self._spent():
                cleaned.append(f"… {len(several) - len(cleaned)} more")
                break
            cleaned.append(self.value(inside, depth + 1))
        return cleaned

    def _environment(self, value: Any, depth: int) -> Any:
        """Variables keep their names alone: which of them are secret is known to their owner only."""
        if isinstance(value, Mapping):
            return self._mapping({_printed(name): REMOVED for name in list(value)[:VALUES_LIMIT]}, depth)
        if isinstance(value, (list, tuple)):
            return self._several(
                [f"{_printed(each).partition('=')[0]}={REMOVED}" for each in value[:VALUES_LIMIT]], depth
            )
        return REMOVED if value else self.value(value, depth)

    def _text(self, value: str, limit: int = TEXT_LIMIT) -> str:
        shown = text(value, min(limit, max(0, self._characters)))
        self._characters -= len(shown)
        return shown

    def _spent(self) -> bool:
        return self._values <= 0 or self._characters <= 0


def _printed(value: Any) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value[: TEXT_LIMIT + BEYOND_THE_CUT]).decode("utf-8", "backslashreplace")
    try:
        return str(value)
    except Exception:  # noqa: BLE001  (whatever an object does when printed, the event is written)
        return f"<{type(value).__name__} that cannot be printed>"
