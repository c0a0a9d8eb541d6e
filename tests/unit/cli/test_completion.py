"""TAB after any verb, with nothing, a dash or a word typed, offers words or nothing, and never ends in an error."""

from __future__ import annotations

import pytest
from click import shell_completion

from hivemind_worker.cli import root


@pytest.mark.parametrize("incomplete", ["", "--", "x"])
@pytest.mark.parametrize("verb", root.VERBS)
def test_each_verb_completes(verb: str, incomplete: str) -> None:
    kind = shell_completion.get_completion_class("bash")
    assert kind is not None
    completing = kind(root.command, {}, "hivemind", "_HIVEMIND_COMPLETE")
    found = completing.get_completions([verb], incomplete)
    if incomplete == "--":
        assert "--help" in {item.value for item in found}
