"""Shapes of tasks in the store: each stands there once, as a text, and is read from it once."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable

from hivemind_worker.pool.matching import assignment
from hivemind_worker.pool.store import database
from hivemind_worker.tasks import resources

NO_IMAGE = "-"
"""Stands for the image of a task that names none."""

CACHED = 16_384
"""Parsed shapes that are remembered, about 1 KB each."""


@functools.lru_cache(CACHED)
def shape_text(shape: assignment.Shape) -> str:
    """Return the one text that stands for a shape."""
    fields = dataclasses.asdict(shape)
    if not shape.suspect_image:  # as versions wrote it that knew of no suspects
        del fields["suspect_image"]
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


@functools.lru_cache(CACHED)
def shape_from(text: str) -> assignment.Shape:
    """Return the shape that a text stands for."""
    fields = json.loads(text)
    return assignment.Shape(
        fields["kind"],
        resources.Resources(**fields["needs"]),
        tuple((key, value) for key, value in fields["selector"]),
        fields["network"],
        fields.get("suspect_image", ""),
    )


def intern(sql: database.Connection, shape: assignment.Shape) -> int:
    """Return the number of a shape, which gets one where it has none."""
    text = shape_text(shape)
    known = sql.execute("SELECT number FROM shapes WHERE wants = ?", (text,)).fetchone()
    if known is not None:
        return int(known["number"])
    return int(sql.execute("INSERT INTO shapes (wants) VALUES (?)", (text,)).lastrowid or 0)


def suspect(sql: database.Connection, task: database.Row) -> int:
    """Return the number of the shape of a task that has failed, nobody knows why: as its own, and of one image."""
    return intern(sql, dataclasses.replace(shape(sql, task["shape"]), suspect_image=task["image"] or NO_IMAGE))


def shapes(sql: database.Connection, numbers: Iterable[int]) -> dict[int, assignment.Shape]:
    """Return these shapes by number."""
    return {number: shape(sql, number) for number in set(numbers)}


def shape(sql: database.Connection, number: int) -> assignment.Shape:
    """Return the shape of this number."""
    return shape_from(sql.execute("SELECT wants FROM shapes WHERE number = ?", (number,)).fetchone()[0])
