"""Images that a pool wants its nodes to have ready, and those of the node's owner: said, heard, begun."""

from __future__ import annotations

from pathlib import Path

import node_parts
import pool_parts
import waiting

POOLS = ("example/announced:1", "example/announced:2")


async def test_a_node_prepares_what_its_owner_lists_and_what_the_pool_announces(tmp_path: Path) -> None:
    async with (
        pool_parts.running(tmp_path / "pool", preload_images=POOLS) as pool,
        node_parts.running(pool.pool.address, tmp_path / "node", preload_images=("example/own:1",)) as node,
    ):
        await waiting.wait_until(lambda: node.runs.preloaded.count(POOLS[1]) > 1, description="it is announced again")
    own = "example/own:1"
    assert node.runs.preloaded[:4] == [own, own, *POOLS]  # at the start, and at the registration
    assert set(node.runs.preloaded) == {"example/own:1", *POOLS}
    assert node.node.announced_images == set(POOLS)  # which housekeeping asks, before it removes one


async def test_an_owner_may_want_none_of_what_the_pool_announces(tmp_path: Path) -> None:
    async with (
        pool_parts.running(tmp_path / "pool", preload_images=POOLS) as pool,
        node_parts.running(pool.pool.address, tmp_path / "node", preload_announced=False) as node,
    ):
        first = await pool.submit()
        await waiting.wait_until(lambda: node.runs.ran, description="the node works")
    assert first
    assert node.runs.preloaded == []
