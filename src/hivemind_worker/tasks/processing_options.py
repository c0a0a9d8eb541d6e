"""The options of data_processing tasks and the steps of image processing: tables, each entry with its check. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hivemind_worker import errors
from hivemind_worker.tasks import checks

Check = Callable[[str, object], object]
"""Takes the field's name and its value, and returns the value or raises InvalidTask."""

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}", re.ASCII)
_LANGUAGE = re.compile(r"[a-z]{2,3}", re.ASCII)
MOST_STEPS = 50
SIDE = 30_000
"""Longest side of a picture that a step may ask for: what most viewers still open."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one operation takes: its parameters with their checks, and of which at least one must be there."""

    parameters: Mapping[str, Check]
    one_of: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()


def _whole(least: int, most: int) -> Check:
    return lambda field, value: checks.whole(field, value, least, most)


def _number(least: float, most: float) -> Check:
    def check(field: str, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise errors.InvalidTask(field, f"must be a number between {least:g} and {most:g}, not {str(value)[:40]!r}")
        return value

    return check


def _choice(*choices: str) -> Check:
    def check(field: str, value: object) -> object:
        if not isinstance(value, str) or value not in choices:
            raise errors.InvalidTask(field, f"{str(value)[:40]!r} is not one of {', '.join(choices)}")
        return value

    return check


def _text(most: int) -> Check:
    def check(field: str, value: object) -> object:
        if not checks.text(field, value, most):
            raise errors.InvalidTask(field, "is empty")
        return value

    return check


def _flag(field: str, value: object) -> object:
    if not isinstance(value, bool):
        raise errors.InvalidTask(field, f"must be true or false, not {str(value)[:40]!r}")
    return value


def _words(field: str, value: object) -> object:
    return list(checks.words(field, value))


def _stop_words(field: str, value: object) -> object:
    return value if isinstance(value, bool) else _words(field, value)


def _character(field: str, value: object) -> object:
    if not isinstance(value, str) or len(value) != 1 or not value.isascii() or value in "\n\r\0":
        raise errors.InvalidTask(field, f"must be one ASCII character, not {str(value)[:40]!r}")
    return value


def _comment(field: str, value: object) -> object:
    """What begins a comment; empty where nothing does."""
    return checks.text(field, value, most=10)


def _encoding(field: str, value: object) -> object:
    name = checks.text(field, value, most=40)
    try:
        "".encode(name)  # unlike codecs.lookup, it knows only encodings of text
    except (LookupError, UnicodeError):
        raise errors.InvalidTask(field, f"{name!r} is no encoding that Python knows, such as utf-8 or cp1252") from None
    return value


def _colour(field: str, value: object) -> object:
    if not isinstance(value, str) or _COLOUR.fullmatch(value) is None:
        raise errors.InvalidTask(field, f"must be a colour such as '#ffffff', not {str(value)[:40]!r}")
    return value


def _language(field: str, value: object) -> object:
    if not isinstance(value, str) or _LANGUAGE.fullmatch(value) is None:
        raise errors.InvalidTask(field, f"must be a code such as 'en' or 'zh', not {str(value)[:40]!r}")
    return value


def _types(field: str, value: object) -> object:
    found = checks.mapping(field, value, most=10_000)
    check = _choice("text", "integer", "number", "boolean", "date", "timestamp")
    return {
        checks.text(field, name, most=10_000): check(f"{field}[{name[:60]!r}]", kind) for name, kind in found.items()
    }


OPTIONS: Mapping[str, Mapping[str, Check]] = {
    "csv_analysis": {
        "bad_rows": _choice("skip", "pad", "refuse"),
        "bins": _whole(2, 200),
        "columns": _words,
        "comment": _comment,
        "date_format": _text(100),
        "decimal": _choice(".", ","),
        "delimiter": _character,
        "encoding": _encoding,
        "escape": _character,
        "header": _flag,
        "header_row": _whole(1, 100_000),
        "null_values": _words,
        "parquet": _flag,
        "query_format": _choice("csv", "parquet"),
        "quote": _character,
        "sheet": _text(200),
        "skip": _whole(0, 100_000),
        "thousands": _choice(",", ".", " ", "'", ""),
        "title": _text(200),
        "top": _whole(1, 1_000),
        "types": _types,
    },
    "image_processing": {
        "background": _colour,
        "frames": _choice("all", "first", "refuse"),
        "max_pixels": _whole(1, 2**30),
        "quality": _whole(1, 100),
    },
    "text_analysis": {
        "encoding": _encoding,
        "format": _choice("text", "html", "pdf", "docx"),
        "keywords": _whole(1, 1_000),
        "language": _language,
        "min_length": _whole(1, 50),
        "ngrams": _whole(1, 5),
        "stop_words": _stop_words,
        "title": _text(200),
        "top": _whole(1, 10_000),
    },
}
"""The options of each processing type."""

_SIDE = _whole(1, SIDE)

STEPS: Mapping[str, Step] = {
    "resize": Step(
        {
            "width": _SIDE,
            "height": _SIDE,
            "percent": _number(0.1, 1_000),
            "fit": _choice("inside", "cover", "stretch", "pad"),
            "enlarge": _flag,
        },
        one_of=("width", "height", "percent"),
    ),
    "crop": Step(
        {
            "width": _SIDE,
            "height": _SIDE,
            "left": _whole(0, 2**20),
            "top": _whole(0, 2**20),
        },
        all_of=("width", "height"),
    ),
    "convert": Step(
        {
            "format": _choice("jpeg", "png", "webp", "gif", "tiff", "bmp"),
            "quality": _whole(1, 100),
            "lossless": _flag,
            "max_bytes": _whole(100, 2**31 - 1),
        },
        all_of=("format",),
    ),
    "rotate": Step({"degrees": _number(-360, 360), "expand": _flag}, all_of=("degrees",)),
    "flip": Step({"direction": _choice("horizontal", "vertical")}, all_of=("direction",)),
    "blur": Step({"radius": _number(0.1, 200)}),
    "sharpen": Step({"radius": _number(0.1, 50), "percent": _whole(1, 1_000)}),
    "grayscale": Step({}),
    "strip_exif": Step({}),
    "watermark": Step(
        {
            "text": _text(200),
            "position": _choice("top_left", "top_right", "bottom_left", "bottom_right", "center"),
            "opacity": _number(0.01, 1),
            "size": _whole(4, 1_000),
            "colour": _colour,
        },
        all_of=("text",),
    ),
    "thumbnail": Step({"size": _whole(8, 2_000)}),
    "contact_sheet": Step(
        {"columns": _whole(1, 50), "size": _whole(16, 1_000), "labels": _flag, "format": _choice("jpeg", "pdf")}
    ),
}
"""The operations of image processing, by the name in a step's ``op``."""


def options(kind: str, value: object) -> Mapping[str, object]:
    """Require options that ``kind`` knows, each checked. Raises :class:`errors.InvalidTask` naming the option."""
    table = OPTIONS[kind]
    found: dict[str, object] = {}
    for name, said in checks.mapping("options", value, most=100).items():
        where = f"options.{name[:60]}"
        if name not in table:
            raise errors.InvalidTask(where, f"{kind} has no such option; it has {', '.join(table)}")
        found[name] = table[name](where, said)
    _no_clash(found)
    return found


_READING = frozenset(
    {
        *("bad_rows", "comment", "date_format", "decimal", "delimiter", "encoding", "escape", "header", "header_row"),
        *("null_values", "quote", "sheet", "skip", "thousands", "types"),
    }
)
"""Those of csv_analysis that say how a table is read: an ml task has them too."""


def reading(value: object) -> Mapping[str, object]:
    """Require options of reading a table, each checked. Raises :class:`errors.InvalidTask` naming the option."""
    for name in checks.mapping("options", value, most=100):
        if name not in _READING:
            raise errors.InvalidTask(
                f"options.{name[:60]}", f"an ml task has no such option; it has {', '.join(sorted(_READING))}"
            )
    return options("csv_analysis", value)


def steps(value: object) -> tuple[Mapping[str, object], ...]:
    """Require a list of operations that we know, each with its parameters. Raises InvalidTask naming the step."""
    if not isinstance(value, (list, tuple)):
        raise errors.InvalidTask("steps", f"must be a list of objects, not {type(value).__name__}")
    if not value:
        raise errors.InvalidTask("steps", "missing: a list of operations such as {'op': 'resize', 'width': 800}")
    if len(value) > MOST_STEPS:
        raise errors.InvalidTask("steps", f"has {len(value)} operations; at most {MOST_STEPS}")
    found = tuple(_step(f"steps[{at}]", step) for at, step in enumerate(value))
    if sum(step["op"] == "contact_sheet" for step in found) > 1:
        raise errors.InvalidTask("steps", "asks for two contact sheets; there is one")
    return found


def _step(where: str, value: object) -> Mapping[str, object]:
    said = checks.mapping(where, value, most=20)
    operation = said.get("op")
    if not isinstance(operation, str) or operation not in STEPS:
        raise errors.InvalidTask(f"{where}.op", f"{str(operation)[:40]!r} is not one of {', '.join(STEPS)}")
    step = STEPS[operation]
    found: dict[str, object] = {"op": operation}
    for name, parameter in said.items():
        if name == "op":
            continue
        if name not in step.parameters:
            takes = f"it takes {', '.join(step.parameters)}" if step.parameters else "it takes nothing"
            raise errors.InvalidTask(f"{where}.{name[:60]}", f"{operation} has no such parameter; {takes}")
        found[name] = step.parameters[name](f"{where}.{name}", parameter)
    missing = [name for name in step.all_of if name not in found]
    if missing:
        raise errors.InvalidTask(f"{where}.{missing[0]}", f"missing: {operation} needs it")
    if step.one_of and not found.keys() & set(step.one_of):
        raise errors.InvalidTask(where, f"{operation} needs one of {', '.join(step.one_of)}")
    _no_odd_pairs(where, found)
    return found


def _no_odd_pairs(where: str, step: Mapping[str, object]) -> None:
    if "percent" in step and step["op"] == "resize" and step.keys() & {"width", "height", "fit"}:
        raise errors.InvalidTask(f"{where}.percent", "says the size already; leave out width, height and fit")
    if step.get("fit") in {"cover", "stretch", "pad"} and not {"width", "height"} <= step.keys():
        raise errors.InvalidTask(f"{where}.fit", f"{step['fit']} needs width and height")
    if ("left" in step) != ("top" in step):
        raise errors.InvalidTask(where, "crop needs both left and top, or neither for the middle")
    if step.get("lossless") and "max_bytes" in step:
        raise errors.InvalidTask(f"{where}.max_bytes", "is reached by a lower quality, which lossless has none of")
    if step.get("lossless") and step.get("format") != "webp":
        raise errors.InvalidTask(f"{where}.lossless", "is webp's alone")


def _no_clash(found: Mapping[str, object]) -> None:
    marks = [(name, found[name]) for name in ("delimiter", "quote", "decimal", "thousands") if found.get(name)]
    for at, (name, mark) in enumerate(marks):
        for other, same in marks[at + 1 :]:
            if mark == same:
                raise errors.InvalidTask(f"options.{other}", f"{same!r} is the {name} already")
