"""A full disk of the node is told from a task that fills its own: the one is the node's to hand back, by no outcome."""

from __future__ import annotations

from pathlib import Path

import attempts
import pytest
import small_disk

from hivemind_worker import errors
from hivemind_worker.tasks import outcome

pytestmark = pytest.mark.skipif(not small_disk.can_mount(), reason="NO RIGHT TO MOUNT: a full disk is not tested")

MIB = 1024**2
MAKES = f"head -c {2 * MIB} /dev/zero > results/file"
MAKES_TOO_MUCH = f"head -c {80 * MIB} /dev/zero > results/file"


async def test_results_that_the_nodes_disk_does_not_take_are_no_outcome(bench: attempts.Bench, tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "artifacts", 32) as disk:
        bench.store.prepare()
        disk.fill()
        with pytest.raises(errors.NoRoom, match="No space left"):
            await bench.shell(MAKES)
        disk.clear()
        own = await bench.shell(MAKES_TOO_MUCH, limits={"disk_bytes": 16 * MIB})
        assert own.reason in {outcome.Reason.NONZERO_EXIT, outcome.Reason.DISK_LIMIT}
        assert (await bench.shell(MAKES)).status is outcome.Status.COMPLETED
