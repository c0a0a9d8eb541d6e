"""Names that a task may use: ids, images, paths of inputs, variables, labels."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hivemind_worker import errors, image_names
from hivemind_worker.tasks import checks

PATH_BYTES = 4_000
"""Longest relative path, in bytes: below the kernel's PATH_MAX of 4,096 with the workspace in front."""

PART_BYTES = 255
"""Longest single name in a path, in bytes: NAME_MAX of every common file system."""

PATH_DEPTH = 64
"""Deepest path, in parts. A number of ours: deeper trees are attacks, not data."""

RESERVED = frozenset({"task.json", "results"})
"""First parts of paths that belong to the worker itself."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_./-]{0,126}[A-Za-z0-9])?", re.ASCII)

REQUIREMENTS = 500
"""Most requirements of one task. A number of ours: lock files of large projects have a few hundred."""

REQUIREMENT_CHARACTERS = 1_000
"""Longest requirement. A number of ours: markers for many platforms take some hundred."""

# PEP 508: name [extras] specifiers [; marker]. No URLs, no paths, no options: an index is the node owner's to choose.
_EXTRA = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?"
_SPECIFIER = r"(?:===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9][A-Za-z0-9.*+!_-]{0,62}"
_FACT = (
    "(?:python_version|python_full_version|os_name|sys_platform|implementation_(?:name|version)|extra"
    "|platform_(?:machine|python_implementation|release|system|version))"
)
_VALUE = r"""(?:'[A-Za-z0-9_.*+ -]{0,60}'|"[A-Za-z0-9_.*+ -]{0,60}")"""
_COMPARED = r"\s*(?:===?|~=|!=|<=?|>=?|not\s+in\b|in\b)\s*"
_TERM = rf"(?:\(\s*){{0,9}}(?:{_FACT}{_COMPARED}{_VALUE}|{_VALUE}{_COMPARED}{_FACT})(?:\s*\)){{0,9}}"
_MARKER = rf"{_TERM}(?:\s*\b(?:and|or)\s+{_TERM}){{0,19}}"
_REQUIREMENT = re.compile(
    rf"({_EXTRA})\s*(?:\[\s*({_EXTRA}(?:\s*,\s*{_EXTRA}){{0,19}})\s*\])?"
    rf"\s*\(?\s*({_SPECIFIER}(?:\s*,\s*{_SPECIFIER}){{0,19}})?\s*\)?\s*(?:;\s*({_MARKER}))?",
    re.ASCII,
)


def task_id(value: object) -> str:
    """Require an id that the pool and the node can carry about: 1 to 64 plain characters."""
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise errors.InvalidTask("id", "must be 1 to 64 of A-Z a-z 0-9 _ . - and begin with a letter or digit")
    return value


def image(value: object) -> str:
    """Require an image reference and nothing else, so that no option can ride on it."""
    found = checks.text("docker_image", value, most=image_names.MAX_BYTES)
    if not image_names.is_reference(found):
        raise errors.InvalidTask("docker_image", f"{found[:80]!r} is no image reference such as 'python:3.11-slim'")
    return found


def input_path(field: str, path: str) -> str:
    """Require a relative path that stays inside the workspace, whatever else is strange about it."""
    checks.text(field, path, most=PATH_BYTES)
    parts = path.split("/")
    if path.startswith("/"):
        raise errors.InvalidTask(field, "is absolute; paths are relative to the workspace")
    if any(part in {"", ".", ".."} for part in parts):
        raise errors.InvalidTask(field, "has an empty part, '.' or '..' in it")
    if len(parts) > PATH_DEPTH:
        raise errors.InvalidTask(field, f"is {len(parts)} parts deep; at most {PATH_DEPTH}")
    if any(len(part.encode()) > PART_BYTES for part in parts):
        raise errors.InvalidTask(field, f"has a part of more than {PART_BYTES} bytes")
    if parts[0] in RESERVED:
        raise errors.InvalidTask(field, f"{parts[0]!r} belongs to the worker")
    return path


def no_collisions(field: str, paths: Iterable[str]) -> None:
    """Refuse a set of paths in which one is a file and a folder at once."""
    files = set(paths)
    for path in files:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder in files:
                raise errors.InvalidTask(field, f"{folder[:60]!r} is a file, and {path[:60]!r} needs it as a folder")


def environment(value: object) -> dict[str, str]:
    """Require variables with ordinary names and text values."""
    found: dict[str, str] = {}
    for name, content in checks.mapping("environment", value, most=1_000).items():
        if _VARIABLE.fullmatch(name) is None:
            raise errors.InvalidTask(f"environment[{name[:60]!r}]", "is no variable name")
        if name.startswith("HIVEMIND_"):
            raise errors.InvalidTask(f"environment[{name[:60]!r}]", "HIVEMIND_ variables belong to the worker")
        found[name] = checks.text(f"environment[{name!r}]", content, checks.ARGUMENT_BYTES)
    if sum(len(name) + len(content.encode()) for name, content in found.items()) > checks.ARGUMENTS_BYTES:
        raise errors.InvalidTask("environment", f"is larger than {checks.ARGUMENTS_BYTES} bytes")
    return found


def secrets(value: object) -> dict[str, str]:
    """Require variables as `environment` does. No refusal shows a value."""
    found: dict[str, str] = {}
    for name, content in checks.mapping("secrets", value, most=100).items():
        if _VARIABLE.fullmatch(name) is None:
            raise errors.InvalidTask(f"secrets[{name[:60]!r}]", "is no variable name")
        if name.startswith("HIVEMIND_"):
            raise errors.InvalidTask(f"secrets[{name[:60]!r}]", "HIVEMIND_ variables belong to the worker")
        found[name] = checks.text(f"secrets[{name!r}]", content, checks.ARGUMENT_BYTES)
    if sum(len(name) + len(content.encode()) for name, content in found.items()) > checks.ARGUMENTS_BYTES // 2:
        raise errors.InvalidTask("secrets", f"are larger than {checks.ARGUMENTS_BYTES // 2} bytes")
    return found


def labels(field: str, value: object) -> dict[str, str]:
    """Require labels: short plain keys, short text values."""
    found: dict[str, str] = {}
    for key, content in checks.mapping(field, value, most=64).items():
        if _LABEL.fullmatch(key) is None:
            raise errors.InvalidTask(f"{field}[{key[:60]!r}]", "is no label: letters, digits and _ . / - within")
        found[key] = checks.text(f"{field}[{key!r}]", content, most=256)
    return found


def requirements(field: str, value: object) -> tuple[str, ...]:
    """Require package names as PEP 508 writes them, no URLs, no paths; returned sorted, each once, in one spelling.

    The same list in another order, case or spacing gives the same answer, so that it finds the same environment.
    """
    given = checks.words(field, value)
    if len(given) > REQUIREMENTS:
        raise errors.InvalidTask(field, f"has {len(given)} entries; at most {REQUIREMENTS}")
    return tuple(sorted({_requirement(f"{field}[{at}]", said) for at, said in enumerate(given)}))


def _requirement(field: str, said: str) -> str:
    found = _REQUIREMENT.fullmatch(said.strip(" "))
    if found is None or "\n" in said or said.count("(") != said.count(")") or len(said) > REQUIREMENT_CHARACTERS:
        raise errors.InvalidTask(
            field, f"{said[:60]!r} is no requirement such as 'numpy>=2,<3'; URLs, paths and options are not taken"
        )
    name, extras, specifiers, marker = found.groups()
    written = re.sub(r"[-_.]+", "-", name).lower()
    if extras:
        each = sorted({re.sub(r"[-_.]+", "-", extra.strip()).lower() for extra in extras.split(",")})
        written += f"[{','.join(each)}]"
    if specifiers:
        written += ",".join(sorted("".join(specifier.split()) for specifier in specifiers.split(",")))
    return f"{written}; {' '.join(marker.split())}" if marker else written
