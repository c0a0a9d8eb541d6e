"""`hivemind completion`: the script that makes a shell complete verbs and options."""

from __future__ import annotations

import click
from click import shell_completion

from hivemind_worker.cli import look


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@look.options(json=False)
def command(shell: str) -> None:
    """Print the completion script of a shell.

    For bash: `hivemind completion bash > ~/.local/share/bash-completion/completions/hivemind`. For zsh: put it into a
    folder of $fpath as `_hivemind`. For fish: into ~/.config/fish/completions/hivemind.fish.
    """
    kind = shell_completion.get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion is known for {shell}")
    click.echo(kind(click.get_current_context().find_root().command, {}, "hivemind", "_HIVEMIND_COMPLETE").source())
