"""Every setting as a row: its flag, its environment names, its type, its default and its help.

The command line makes its options from these rows, the documentation its table, and `sources` its search.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import inspect
import itertools
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
from pydantic.fields import FieldInfo

from hivemind_worker.settings import fields, schema


class Kind(enum.StrEnum):
    """What a value looks like to whoever types it."""

    TEXT = "text"
    BOOLEAN = "true or false"
    WHOLE = "whole number"
    NUMBER = "number"
    SIZE = "size"
    PATH = "path"
    CHOICE = "choice"
    PAIRS = "NAME=VALUE, …"
    LIST = "one, two, …"


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as its users see it.

    `key` is its one name (HIVEMIND_<KEY>, the command line's parameter); `group` and `field` are its place in
    `Settings` and in the TOML file. `variables` are its environment names, the strongest first. `live`: a running
    service takes over another value when it reads its settings anew; otherwise it has to be started anew.
    """

    key: str
    group: str
    field: str
    flag: str
    variables: tuple[str, ...]
    kind: Kind
    choices: tuple[str, ...]
    default: str
    help: str
    live: bool = False

    @property
    def place(self) -> str:
        """Where the TOML file has it: `group.field`."""
        return f"{self.group}.{self.field}"


@functools.cache
def settings() -> tuple[Setting, ...]:
    """Every setting, in the order of the schema."""
    defaults = schema.Settings()
    return tuple(
        _row(group, name, info, getattr(getattr(defaults, group), name))
        for group, model in groups().items()
        for name, info in model.model_fields.items()
    )


def groups() -> Mapping[str, type[fields.Group]]:
    """The groups by name, in the order of the schema."""
    found = {}
    for name, info in schema.Settings.model_fields.items():
        model = info.annotation
        if not (isinstance(model, type) and issubclass(model, fields.Group)):
            raise TypeError(f"Settings.{name} is no group")
        found[name] = model
    return found


def value(of: schema.Settings, setting: Setting) -> Any:
    """The setting's value."""
    return getattr(getattr(of, setting.group), setting.field)


def changed(old: schema.Settings, new: schema.Settings) -> list[Setting]:
    """The settings that have another value in `new`."""
    return [each for each in settings() if value(old, each) != value(new, each)]


def adopted(old: schema.Settings, new: schema.Settings) -> schema.Settings:
    """The old settings with those of the new that a running service takes over; `Setting.live` tells which."""
    taken: dict[str, dict[str, Any]] = {}
    for each in changed(old, new):
        if each.live:
            taken.setdefault(each.group, {})[each.field] = value(new, each)
    groups_taken = {group: getattr(old, group).model_copy(update=values) for group, values in taken.items()}
    return old.model_copy(update=groups_taken)


def show(value: Any) -> str:
    """A value the way one would type it; empty for what is unset."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, pydantic.ByteSize):
        return value.human_readable(separator=" ") if value % 1024 == 0 else str(int(value))
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ",".join(f"{name}={text}" for name, text in value.items())
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)


def _text(model: type[fields.Group], name: str) -> str:
    """What stands below a field in its source; empty where nothing does."""
    return _texts(model.__module__).get((model.__name__, name), "")


@functools.cache
def _texts(module: str) -> Mapping[tuple[str, str], str]:
    """The text below each field of the classes of a module, by class and field.

    pydantic reads the same, by `use_attribute_docstrings`; but class by class, which takes every command longer than
    all else that it does with settings.
    """
    try:
        classes = [
            node for node in ast.parse(inspect.getsource(sys.modules[module])).body if isinstance(node, ast.ClassDef)
        ]
    except OSError:
        return {}
    return {
        (owner.name, above.target.id): inspect.cleandoc(below.value.value)
        for owner in classes
        for above, below in itertools.pairwise(owner.body)
        if isinstance(above, ast.AnnAssign)
        and isinstance(above.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def _row(group: str, name: str, info: FieldInfo, default: Any) -> Setting:
    text = _text(groups()[group], name)
    if not text:
        # Only where the sources are missing from a frozen build: the texts are read from beneath the fields.
        raise RuntimeError(f"no text beneath the setting {group}.{name}: is schema.py there as source?")
    key = groups()[group].prefix + name
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    variables = (f"HIVEMIND_{key.upper()}", *([str(extra["plain"])] if "plain" in extra else []))
    kind, choices = _kind(info.annotation)
    return Setting(
        key=key,
        group=group,
        field=name,
        flag=str(extra.get("flag", f"--{key.replace('_', '-')}")),
        variables=variables,
        kind=kind,
        choices=choices,
        default=show(default),
        help=" ".join(text.split()),
        live=bool(extra.get("live")),
    )


# The first that fits decides, so a subclass stands before its base.
_KINDS: tuple[tuple[type, Kind], ...] = (
    (bool, Kind.BOOLEAN),
    (pydantic.ByteSize, Kind.SIZE),
    (int, Kind.WHOLE),
    (float, Kind.NUMBER),
    (Path, Kind.PATH),
    (dict, Kind.PAIRS),
    (tuple, Kind.LIST),
    (str, Kind.TEXT),
)


def _kind(annotation: Any) -> tuple[Kind, tuple[str, ...]]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(arguments[0])
    if origin in (types.UnionType, typing.Union):
        return _kind(next(each for each in arguments if each is not types.NoneType))
    if origin is typing.Literal:
        return Kind.CHOICE, tuple(str(each) for each in arguments)
    plain = origin or annotation
    if issubclass(plain, enum.Enum):
        return Kind.CHOICE, tuple(str(each.value) for each in plain)
    return next(kind for known, kind in _KINDS if issubclass(plain, known)), ()
