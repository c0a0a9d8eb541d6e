"""A machine whose sandboxes break: it says so of itself, and goes on once they can be made again."""

from __future__ import annotations

import os
from pathlib import Path

import attempts
import pytest

from hivemind_worker.runtime import node_check
from hivemind_worker.tasks import outcome

pytestmark = pytest.mark.sandbox


async def test_a_sandbox_that_cannot_be_made_is_the_nodes_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with attempts.process_bench(tmp_path) as bench:
        checked = attempts.Bench(node_check.checked(bench.executor), bench.store, bench.image)
        assert (await checked.shell("echo ran")).logs.text == b"ran\n"
        broken = tmp_path / "bin"
        broken.mkdir()
        (broken / "bwrap").write_text("#!/bin/sh\nexit 1\n")
        (broken / "bwrap").chmod(0o755)
        with monkeypatch.context() as patched:
            patched.setenv("PATH", f"{broken}:{os.environ['PATH']}")
            bench.executor._ground = None  # type: ignore[attr-defined]  # what it found before the machine broke
            ended = await checked.shell("echo ran")
        assert (ended.reason, ended.node_check) == (outcome.Reason.INTERNAL, outcome.NodeCheck.FAILED)
        assert "it is this node" in ended.error
        assert (await checked.shell("echo ran")).logs.text == b"ran\n", "and it is found out when it is mended"
