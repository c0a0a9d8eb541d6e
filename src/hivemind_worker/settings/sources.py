"""Finds each setting's value: flag, then HIVEMIND_<NAME>, then the plain name, then the TOML file, then the default.

An empty value counts as unset. Everything wrong is told at once, each in one line that names the setting, where the
value stood, what is wrong with it and what to do.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pydantic

from hivemind_worker import errors
from hivemind_worker.settings import paths, reference, schema

CONFIG_VARIABLE = "HIVEMIND_CONFIG"
# Alike enough to be a slip of the finger rather than another word.
LIKENESS = 0.75


@dataclasses.dataclass(frozen=True, slots=True)
class Explained:
    """One row of `hivemind config show`: the setting, the value in force as one would type it, and its source."""

    setting: reference.Setting
    value: str
    source: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    raw: Any
    source: str


def load(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    toml_path: Path | None = None,
) -> schema.Settings:
    """All settings from their sources.

    `flags` by `Setting.key` (None or empty: not given), `environ` is the process's own unless given, `toml_path` is
    the file that `find_file` chose (None: no file). Raises `errors.BadSettings`, one line for each thing wrong.
    """
    return _load(flags or {}, os.environ if environ is None else environ, toml_path)[0]


def explain(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    toml_path: Path | None = None,
) -> list[Explained]:
    """Every setting with its value and where that came from. Raises as `load`."""
    settings, found = _load(flags or {}, os.environ if environ is None else environ, toml_path)
    return [
        Explained(
            setting,
            reference.show(_in_force(settings, setting)),
            found[setting.key].source if setting.key in found else "default",
        )
        for setting in reference.settings()
    ]


def find_file(given: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    """The settings file: the one given by flag, by HIVEMIND_CONFIG, or the first of the usual places that is there.

    Raises `errors.BadSettings` when one was named that is not there; none of the usual ones need be (None).
    """
    named = given or environ.get(CONFIG_VARIABLE, "").strip()
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            said_by = "--config" if given else CONFIG_VARIABLE
            raise errors.BadSettings(f"{said_by} names {path}, where there is no file: create it or name another")
        return path
    return next((path for path in paths.config_files() if path.is_file()), None)


def doubts(environ: Mapping[str, str]) -> list[str]:
    """Variables that look like a setting misspelt, one line each; they are ignored, so somebody should be told."""
    prefix = "HIVEMIND_"
    known = {setting.variables[0].removeprefix(prefix) for setting in reference.settings()}
    ours = known | {CONFIG_VARIABLE.removeprefix(prefix)}
    suspects = sorted(name.removeprefix(prefix) for name in environ if name.startswith(prefix))
    # Compared without the prefix, which would make everything alike.
    close = [
        (name, difflib.get_close_matches(name, known, n=1, cutoff=LIKENESS)) for name in suspects if name not in ours
    ]
    return [
        f"{prefix}{name} is no setting and is ignored; did you mean {prefix}{near[0]}?" for name, near in close if near
    ]


def _load(
    flags: Mapping[str, Any], environ: Mapping[str, str], toml_path: Path | None
) -> tuple[schema.Settings, dict[str, _Found]]:
    problems: list[str] = []
    in_file = _read_file(toml_path, problems)
    found = {
        setting.key: place
        for setting in reference.settings()
        if (place := _find(setting, flags, environ, in_file)) is not None
    }
    values: dict[str, dict[str, Any]] = {}
    for setting in reference.settings():
        if setting.key in found:
            values.setdefault(setting.group, {})[setting.field] = found[setting.key].raw
    try:
        settings = schema.Settings.model_validate(values)
    except pydantic.ValidationError as error:
        problems += [_problem(detail, found) for detail in error.errors()]
        settings = None
    if problems or settings is None:
        raise errors.BadSettings("\n".join(dict.fromkeys(problems)))
    return settings, found


def _in_force(settings: schema.Settings, setting: reference.Setting) -> Any:
    """The setting's value; where it is unset and another one decides (`Settings.pool_store`), what comes of that."""
    value = reference.value(settings, setting)
    return getattr(settings, setting.key, None) if value is None else value


def _find(
    setting: reference.Setting, flags: Mapping[str, Any], environ: Mapping[str, str], in_file: Mapping[str, _Found]
) -> _Found | None:
    """The value of the strongest source that says anything."""
    given = flags.get(setting.key)
    if given is not None and given not in ("", (), {}):
        return _Found(given, setting.flag)
    for variable in setting.variables:
        text = environ.get(variable, "").strip()
        if text:
            return _Found(text, variable)
    return in_file.get(setting.place)


def _read_file(path: Path | None, problems: list[str]) -> dict[str, _Found]:
    """What the TOML file says, by `group.field`; what it says wrongly goes to the problems."""
    if path is None:
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(f"{path}: cannot be read as TOML ({error}): correct it or name another file")
        return {}
    fields: dict[str, list[str]] = {}
    for setting in reference.settings():
        fields.setdefault(setting.group, []).append(setting.field)
    found: dict[str, _Found] = {}
    for group, table in tables.items():
        if group not in fields:
            problems.append(_unknown(path, group, [*fields, *(s.place for s in reference.settings())]))
        elif not isinstance(table, dict):
            problems.append(f"{path}: {group} is a table of settings: write [{group}] and the settings beneath it")
        else:
            problems += [_unknown(path, f"{group}.{name}", _places()) for name in table if name not in fields[group]]
            found |= {f"{group}.{name}": _Found(raw, str(path)) for name, raw in table.items() if raw != ""}
    return found


def _places() -> list[str]:
    return [setting.place for setting in reference.settings()]


def _unknown(path: Path, name: str, known: Iterable[str]) -> str:
    """The line for a name in the file that means nothing, with the one that was probably meant."""
    names = {each: each for each in known}
    names |= {place.rpartition(".")[2]: place for place in _places()}  # written outside its table
    tail = name.rpartition(".")[2]
    near = (
        [names[tail]]
        if tail in names
        else [names[each] for each in difflib.get_close_matches(name, names, n=1, cutoff=LIKENESS)]
    )
    hint = f"did you mean {near[0]}?" if near else "`hivemind config show` lists all there are"
    return f"{path}: there is no setting {name}; {hint}"


def _problem(detail: Mapping[str, Any], found: Mapping[str, _Found]) -> str:
    """One thing wrong, as one line."""
    place = [str(part) for part in detail["loc"]]
    setting = next((each for each in reference.settings() if place[:2] == [each.group, each.field]), None)
    said = detail["msg"].removeprefix("Value error, ")
    said = said[:1].lower() + said[1:]
    if setting is None:  # settings of one group that do not go together: the text names them
        return f"{'.'.join(place) or 'settings'}: {said}"
    where = found.get(setting.key)
    if where is None:
        return f"{setting.key} (default): {said}; set {setting.flag} or {setting.variables[0]}"
    return f"{setting.key} (from {where.source}): {reference.show(where.raw)!r} will not do: {said}; {setting.help}"
