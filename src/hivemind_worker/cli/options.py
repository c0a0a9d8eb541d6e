"""Options made from the settings: each setting's flag, its type and its help come from the one place that has them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hivemind_worker.settings import reference, sources

if TYPE_CHECKING:
    from hivemind_worker.settings import schema

F = TypeVar("F", bound=Callable[..., Any])

TO_POOL = ("node_pool_address", "tls_ca_file", "insecure")
"""The settings of whoever calls a pool."""

_TYPES: dict[reference.Kind, click.ParamType[Any]] = {
    reference.Kind.WHOLE: click.INT,
    reference.Kind.NUMBER: click.FLOAT,
}


def of(*keys: str, groups: Iterable[str] = ()) -> Callable[[F], F]:
    """Add the options of these settings, and of these groups of settings, and --config for the settings file.

    The function gets them as keyword arguments; hand those on to :func:`load`.
    """
    wanted = [setting for setting in reference.settings() if setting.key in keys or setting.group in frozenset(groups)]

    def add(function: F) -> F:
        for setting in reversed(wanted):
            function = _option(setting)(function)
        text = "The settings file; otherwise HIVEMIND_CONFIG or the first of the usual places."
        return click.option("--config", "config", metavar="FILE", help=text)(function)

    return add


def load(given: dict[str, Any]) -> schema.Settings:
    """Return the settings in force, with the options among ``given`` before every other source.

    Raises :class:`errors.BadSettings`.
    """
    return sources.load(flags(given), os.environ, file(given))


def flags(given: dict[str, Any]) -> dict[str, Any]:
    """Return those of a function's arguments that are settings."""
    known = {setting.key for setting in reference.settings()}
    return {key: value for key, value in given.items() if key in known}


def file(given: dict[str, Any]) -> Path | None:
    """Return the settings file that counts, as --config, HIVEMIND_CONFIG or the usual places name it."""
    return sources.find_file(given.get("config"), os.environ)


def _option(setting: reference.Setting) -> Callable[[F], F]:
    text = f"{setting.help} [default: {setting.default or 'unset'}]"
    names = (setting.flag, setting.key)
    if setting.kind is reference.Kind.BOOLEAN:
        return click.option(f"{setting.flag}/--no-{setting.flag[2:]}", setting.key, default=None, help=text)
    if setting.kind is reference.Kind.PAIRS:
        return click.option(*names, multiple=True, metavar="NAME=VALUE", help=text)
    if setting.kind is reference.Kind.CHOICE:
        return click.option(*names, type=click.Choice(setting.choices), help=text)
    kind = _TYPES.get(setting.kind, click.STRING)
    return click.option(*names, type=kind, metavar=setting.kind.name, help=text)
