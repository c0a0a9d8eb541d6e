from __future__ import annotations

from hivemind_worker.cli.commands import nodes
from hivemind_worker.client import shapes
from hivemind_worker.tasks import resources


def test_a_node_of_which_something_was_cut_says_so_in_text_json_and_python() -> None:
    node = shapes.Node("n", "idle", resources.Resources(), resources.Resources(), (), message="full", truncated=True)
    assert nodes._row(node)[-1].startswith("full; a message has no room for all")
    assert node.as_json()["truncated"] is True
    whole = shapes.Node("n", "idle", resources.Resources(), resources.Resources(), ())
    assert nodes._row(whole)[-1] == ""
    assert whole.as_json()["truncated"] is False
