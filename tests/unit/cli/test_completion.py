"""TAB after any verb or option, with nothing, a dash or a word typed, offers words and never ends in an error."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click import shell_completion

from hivemind_worker.cli import root


def lines(command: click.Command, words: list[str]) -> Iterator[list[str]]:
    """What may stand before the word that is completed: a verb, below it others, after each one of its options."""
    yield words
    if words and "--" not in words:
        yield [*words, "--"]
    context = click.Context(command)
    for option in command.get_params(context):
        if isinstance(option, click.Option):
            yield [*words, option.opts[0]]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from lines(found, [*words, name])


@pytest.mark.parametrize("incomplete", ["", "-", "x"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_whatever_stands_before_it(shell: str, incomplete: str) -> None:
    kind = shell_completion.get_completion_class(shell)
    assert kind is not None
    completing = kind(root.command, {}, "hivemind", "_HIVEMIND_COMPLETE")
    before = list(lines(root.command, []))
    assert len(before) > 200
    for words in before:
        for item in completing.get_completions(words, incomplete):
            assert completing.format_completion(item)


@pytest.mark.parametrize("incomplete", ["", "--", "x"])
@pytest.mark.parametrize("verb", root.VERBS)
def test_each_verb_completes(verb: str, incomplete: str) -> None:
    kind = shell_completion.get_completion_class("bash")
    assert kind is not None
    completing = kind(root.command, {}, "hivemind", "_HIVEMIND_COMPLETE")
    found = completing.get_completions([verb], incomplete)
    if incomplete == "--":
        assert "--help" in {item.value for item in found}
