"""What a data_processing task says beyond the common fields: which processing, of which files, how. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hivemind_worker import errors
from hivemind_worker.tasks import checks, processing_options

PROCESSING_TYPES = ("csv_analysis", "image_processing", "text_analysis")
"""The reference document's three."""

FIELDS = frozenset({"processing_type", "input_data", "steps", "group_by", "queries", "options"})
"""The fields of a data_processing task."""

TEXT_BYTES = 1024 * 1024
"""Most bytes of text inside ``input_data``: a quarter of a message; longer texts are input files."""

_FIELDS_OF_ONE = {"steps": "image_processing", "group_by": "csv_analysis", "queries": "csv_analysis"}
_PATTERNS = 50
_WILDCARDS = 10  # in one pattern: each multiplies the work of a match that fails
_ANY_FOLDERS = 2  # `**` in one pattern: each multiplies it by the depth of a path
_QUERY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_OUR_RESULTS = frozenset({"data", "group_by", "summary", "report"})


@dataclass(frozen=True, slots=True)
class Processing:
    """The data part of a task. ``input_data`` is a path, several paths and patterns, or ``{"text": …}``."""

    processing_type: str
    input_data: str | tuple[str, ...] | Mapping[str, str] = ""
    steps: tuple[Mapping[str, object], ...] = ()
    group_by: tuple[str, ...] = ()
    queries: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)


def parse(said: Mapping[str, object]) -> Processing:
    """Read the data fields of a task. Raises :class:`errors.InvalidTask`, naming the field.

    ``said`` is the whole task: what ``input_data`` names must be among its ``input_files``.
    """
    kind = said.get("processing_type")
    if not isinstance(kind, str) or kind not in PROCESSING_TYPES:
        raise errors.InvalidTask("processing_type", f"{str(kind)[:40]!r} is not one of {', '.join(PROCESSING_TYPES)}")
    for name, owner in _FIELDS_OF_ONE.items():
        if name in said and kind != owner:
            raise errors.InvalidTask(name, f"belongs to {owner}, and this is {kind}")
    if "input_data" not in said:
        raise errors.InvalidTask("input_data", "missing: the path of an input file, a list of paths, or {'text': …}")
    input_data = _input_data(said["input_data"], kind)
    given = said.get("input_files", {})
    files(input_data, given if isinstance(given, Mapping) else {})
    steps = said.get("steps", ())
    return Processing(
        processing_type=kind,
        input_data=input_data,
        steps=processing_options.steps(steps) if kind == "image_processing" else (),
        group_by=_group_by(said.get("group_by", ())),
        queries=_queries(said.get("queries", {})),
        options=processing_options.options(kind, said.get("options", {})),
    )


def files(input_data: object, given: Iterable[str]) -> tuple[str, ...]:
    """Return the paths among ``given`` that ``input_data`` names, each once; none for text inside the task.

    Files of a pattern come in the order of their names, patterns and paths in the order in which they were said.
    Raises :class:`errors.InvalidTask` for a path or a pattern that names no input file.
    """
    if isinstance(input_data, Mapping):
        return ()
    there = sorted(map(str, given))
    exactly = frozenset(there)
    found: dict[str, None] = {}
    for said in (input_data,) if isinstance(input_data, str) else input_data if isinstance(input_data, tuple) else ():
        matches = [said] if said in exactly else [path for path in there if _matches(path.split("/"), said.split("/"))]
        if not matches:
            what = "matches" if _is_pattern(said) else "is"
            raise errors.InvalidTask("input_data", f"{said[:80]!r} {what} none of the task's input_files{_some(there)}")
        found.update(dict.fromkeys(matches))
    return tuple(found)


def _input_data(value: object, kind: str) -> str | tuple[str, ...] | Mapping[str, str]:
    if isinstance(value, Mapping):
        if kind == "image_processing" or value.keys() != {"text"}:
            also = "" if kind == "image_processing" else ", or {'text': …}"
            raise errors.InvalidTask("input_data", f"must be the path of an input file, a list of paths{also}")
        return {"text": checks.text("input_data.text", value["text"], most=TEXT_BYTES)}
    if isinstance(value, str):
        return _path("input_data", value)
    if not isinstance(value, (list, tuple)):
        raise errors.InvalidTask("input_data", f"must be a path or a list of paths, not {type(value).__name__}")
    paths = tuple(_path(f"input_data[{at}]", path) for at, path in enumerate(checks.words("input_data", value)))
    if not paths:
        raise errors.InvalidTask("input_data", "is an empty list; name at least one input file")
    if sum(map(_is_pattern, paths)) > _PATTERNS:
        raise errors.InvalidTask("input_data", f"has more than {_PATTERNS} patterns")
    return paths


def _path(where: str, value: str) -> str:
    checks.text(where, value, most=4_000)
    if not value:
        raise errors.InvalidTask(where, "is empty; name an input file")
    if value.count("*") + value.count("?") + value.count("[") > _WILDCARDS:
        raise errors.InvalidTask(where, f"has more than {_WILDCARDS} wildcards")
    if value.count("**") > _ANY_FOLDERS:
        raise errors.InvalidTask(where, f"has more than {_ANY_FOLDERS} times '**'")
    return value


def _is_pattern(said: str) -> bool:
    return any(sign in said for sign in "*?[")


def _matches(path: list[str], pattern: list[str]) -> bool:
    """``*``, ``?`` and ``[…]`` stay within one folder; ``**`` is any number of folders."""
    if not pattern or not path:
        return not pattern and not path
    if pattern[0] == "**" and len(pattern) > 1:
        return any(_matches(path[skip:], pattern[1:]) for skip in range(len(path)))
    if pattern[0] == "**":
        return True
    return fnmatch.fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])


def _some(there: list[str]) -> str:
    shown = ", ".join(repr(path[:40]) for path in there[:5])
    return f": {shown}{', …' if len(there) > 5 else ''}" if there else ", of which there are none"


def _group_by(value: object) -> tuple[str, ...]:
    found = checks.words("group_by", value)
    if len(found) > 20:
        raise errors.InvalidTask("group_by", f"has {len(found)} columns; at most 20")
    for name in found:
        if not name:
            raise errors.InvalidTask("group_by", "holds an empty name; name columns of the table")
    if len(set(found)) < len(found):
        raise errors.InvalidTask("group_by", "names a column twice")
    return found


def _queries(value: object) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, sql in checks.mapping("queries", value, most=100).items():
        where = f"queries[{name[:60]!r}]"
        if _QUERY.fullmatch(name) is None:
            raise errors.InvalidTask(where, "the name becomes a file's: letters, digits, _ and -, at most 64")
        if name.lower() in _OUR_RESULTS:
            raise errors.InvalidTask(where, f"results already have a file of the name {name.lower()}; choose another")
        if name.lower() in {other.lower() for other in found}:
            raise errors.InvalidTask(where, "another query has the same name but for capital letters")
        found[name] = checks.text(where, sql, most=100_000)
        if not found[name].strip():
            raise errors.InvalidTask(where, "is empty; write a SELECT over the table data")
    return found
