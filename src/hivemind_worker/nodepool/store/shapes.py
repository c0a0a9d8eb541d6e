"""Shapes of tasks in the store: each stands there once, as a text, and is read from it once."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable

from hivemind_worker.nodepool import assignment
from hivemind_worker.nodepool.store import database
from hivemind_worker.task import resources

CACHED = 16_384
"""Parsed shapes that are remembered, about 1 KB each."""


@functools.lru_cache(CACHED)
def shape_text(shape: assignment.Shape) -> str:
    """Return the one text that stands for a shape."""
    return json.dumps(dataclasses.asdict(shape), sort_keys=True, separators=(",", ":"))


@functools.lru_cache(CACHED)
def shape_from(text: str) -> assignment.Shape:
    """Return the shape that a text stands for."""
    fields = json.loads(text)
    return assignment.Shape(
        fields["kind"],
        resources.Resources(**fields["needs"]),
        tuple((key, value) for key, value in fields["selector"]),
        fields["network"],
    )


def shapes(sql: database.Connection, numbers: Iterable[int]) -> dict[int, assignment.Shape]:
    """Return these shapes by number."""
    return {number: shape(sql, number) for number in set(numbers)}


def shape(sql: database.Connection, number: int) -> assignment.Shape:
    """Return the shape of this number."""
    return shape_from(sql.execute("SELECT wants FROM shapes WHERE number = ?", (number,)).fetchone()[0])
