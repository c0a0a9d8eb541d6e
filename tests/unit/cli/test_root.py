"""The verbs are what the help says they are, and none is imported before it is asked for."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from hivemind_worker.cli import commands, root


@pytest.mark.parametrize("verb", list(root.VERBS))
def test_the_line_in_the_list_is_the_verb_s_own(verb: str) -> None:
    found = root.command.get_command(click.Context(root.command), verb)
    assert found is not None
    assert " ".join((found.help or "").split()).startswith(root.VERBS[verb][1].rstrip("."))


def test_every_file_is_a_verb() -> None:
    files = {path.stem for path in Path(commands.__file__).parent.glob("*.py")}
    assert files - {"__init__"} == {module for module, _ in root.VERBS.values()}


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom hivemind_worker.cli import root\n"
        f"try:\n    root.run({arguments!r})\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "heavy = {'grpc', 'pydantic', 'rich', 'asyncio', 'aiodocker', 'structlog'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_verb_is_none() -> None:
    assert root.command.get_command(click.Context(root.command), "fly") is None
