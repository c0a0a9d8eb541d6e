"""The command line and the docs agree: each setting can be given as a flag, and each command in the docs exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from hivemind_worker.cli import root
from hivemind_worker.settings import reference

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TYPED = re.compile(r"^hivemind .+$|`(hivemind [^`]+)`", re.MULTILINE)


def flags_of(command: click.Command) -> set[str]:
    own = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return own.union(*(flags_of(each) for each in below))


@pytest.fixture(scope="module")
def verbs() -> dict[str, set[str]]:
    context = click.Context(root.command)
    found = {verb: root.command.get_command(context, verb) for verb in root.command.list_commands(context)}
    return {verb: flags_of(command) for verb, command in found.items() if command is not None}


def typed() -> list[str]:
    found = [match for page in PAGES for match in TYPED.finditer(page.read_text(encoding="utf-8"))]
    return sorted({match[1] or match[0] for match in found})


def test_every_setting_is_a_flag_of_some_verb(verbs: dict[str, set[str]]) -> None:
    flags = set().union(*verbs.values())
    assert [row.key for row in reference.settings() if row.flag not in flags] == []


def test_every_command_in_the_docs_exists(verbs: dict[str, set[str]]) -> None:
    lines = typed()
    assert len(lines) > 20
    for line in lines:
        _, verb, *rest = shlex.split(line)
        assert verb in verbs, line
        own = rest[: rest.index("--")] if "--" in rest else rest
        flags = {word.partition("=")[0] for word in own if word.startswith("-")}
        assert flags - verbs[verb] == set(), line
