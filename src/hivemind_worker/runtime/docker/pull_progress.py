"""How far a pull is: the engine's many lines about layers become one line now and then. Pure; it is told the time."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

EVERY_SECONDS: Final = 3.0
"""Seconds between two lines for the task's log: a pull of minutes tells some dozens."""

_DIGEST: Final = re.compile(r"Digest: (sha256:[0-9a-f]{64})")

_THERE: Final = ("Already exists", "Pull complete")
_LAYER_STATES: Final = (
    "Pulling fs layer", "Waiting", "Downloading", "Verifying Checksum", "Download complete", "Extracting", *_THERE,
)  # fmt: skip


def parse(line: bytes) -> Mapping[str, Any]:
    """Return what the engine says in one line; nothing where it is no object."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def digest(line: Mapping[str, Any]) -> str:
    """Return the digest of what was pulled, where a line says it."""
    found = _DIGEST.fullmatch(str(line.get("status", ""))[:100])
    return found[1] if found else ""


class Progress:
    """Takes the engine's lines one by one. `moved` is when something last came nearer to its end."""

    def __init__(self, reference: str, now: float) -> None:
        self.moved = now
        self._reference = reference
        self._layers: dict[str, tuple[str, int, int]] = {}
        self._told = now

    def take(self, line: Mapping[str, Any], now: float) -> str:
        """Take a line; return what to tell now, empty for nothing."""
        layer, state = str(line.get("id", ""))[:64], str(line.get("status", ""))[:64]
        if state not in _LAYER_STATES:
            self.moved = now
            return ""
        detail = line.get("progressDetail")
        current, total = _amounts(detail if isinstance(detail, Mapping) else {})
        before = self._layers.get(layer, ("", 0, 0))
        known = max(total, before[2]) if state in {"Downloading", *_THERE, "Download complete"} else before[2]
        new = (state, current, known)
        if new != before:  # the same said again is no progress
            self.moved = now
        if len(self._layers) < 1000 or layer in self._layers:
            self._layers[layer] = new
        if now - self._told < EVERY_SECONDS:
            return ""
        self._told = now
        return self.text()

    def text(self) -> str:
        """How far it is, in a line."""
        ready = sum(state in _THERE for state, _, _ in self._layers.values())
        parts = [f"{ready} of {len(self._layers)} layers"]
        total = sum(amount for _, _, amount in self._layers.values())
        if total:
            here = sum(
                current if state == "Downloading" else amount
                for state, current, amount in self._layers.values()
                if state not in {"Pulling fs layer", "Waiting"}
            )
            parts.append(f"{here / 1e6:.1f} of {total / 1e6:.1f} MB")
        return f"pulling {self._reference}: {', '.join(parts)}"


def _amounts(detail: Mapping[str, Any]) -> tuple[int, int]:
    current, total = detail.get("current"), detail.get("total")
    return (current if isinstance(current, int) else 0, total if isinstance(total, int) else 0)
