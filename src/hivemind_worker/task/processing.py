"""What a data_processing task says beyond the common fields: which processing, of which files, how. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hivemind_worker.task import checks, errors

PROCESSING_TYPES = ("csv_analysis", "image_processing", "text_analysis")
"""The reference document's three."""

FIELDS = frozenset({"processing_type", "input_data", "steps", "group_by", "queries", "options"})
"""The fields of a data_processing task."""


@dataclass(frozen=True, slots=True)
class Processing:
    """The data part of a task."""

    processing_type: str
    input_data: object = None
    steps: tuple[Mapping[str, object], ...] = ()
    group_by: tuple[str, ...] = ()
    queries: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)


def parse(said: Mapping[str, object]) -> Processing:
    """Read the data fields of a task. Raises :class:`errors.InvalidTask`, naming the field."""
    kind = said.get("processing_type")
    if kind not in PROCESSING_TYPES:
        raise errors.InvalidTask("processing_type", f"{str(kind)[:40]!r} is not one of {', '.join(PROCESSING_TYPES)}")
    if "input_data" not in said:
        raise errors.InvalidTask("input_data", "missing: the path of an input file, a list of paths, or text")
    steps = said.get("steps", ())
    if not isinstance(steps, (list, tuple)):
        raise errors.InvalidTask("steps", "must be a list of objects")
    queries = checks.mapping("queries", said.get("queries", {}), most=100)
    return Processing(
        processing_type=str(kind),
        input_data=said["input_data"],
        steps=tuple(checks.mapping("steps", step, most=20) for step in steps),
        group_by=checks.words("group_by", said.get("group_by", ())),
        queries={name: checks.text(f"queries[{name[:60]!r}]", sql, most=100_000) for name, sql in queries.items()},
        options=checks.mapping("options", said.get("options", {}), most=100),
    )
