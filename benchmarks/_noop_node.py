"""A whole worker node with an executor that does nothing, so that dispatch alone is measured."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from hivemind_worker import units
from hivemind_worker.artifacts import outbox, store
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import checkpoint, executor, undead
from hivemind_worker.runtime.capsule import accounts, defence_spec
from hivemind_worker.settings import state_lock
from hivemind_worker.tasks import outcome, plan, resources, state
from hivemind_worker.tasks.kinds import kind
from hivemind_worker.worker import worker_node
from hivemind_worker.worker.journal import writer
from hivemind_worker.worker.pool_link import channel, client

SLOTS = 8
PLENTY = resources.Resources(1024, 1024 * units.GIB, 1024 * units.GIB, 0)


class NoopExecutor:
    """Says that everything completed."""

    isolation = "none"
    images: tuple[str, ...] = ()
    undead: tuple[undead.Undead, ...] = ()

    def preload(self, references: Iterable[str]) -> None:
        """There are no images."""

    async def open(self, covered: Collection[Mapping[str, str]] = ()) -> None:
        """Nothing to make ready."""

    async def run(
        self,
        plan: plan.RunPlan,
        stop: stopping.Stop,
        observer: executor.Observer,
        custody: checkpoint.Custody | None = None,
    ) -> outcome.Outcome:
        """Complete at once, through the same phases as a real run."""
        del stop
        if custody is not None:
            await custody.keeper.placed({})  # as every driver does before it starts anything
        for phase in (state.Phase.PREPARING, state.Phase.STARTING, state.Phase.RUNNING, state.Phase.COLLECTING):
            observer.phase(phase)
        return outcome.Outcome(outcome.Status.COMPLETED, exit_code=0, limits=plan.limits, isolation=self.isolation)

    async def usage(self) -> Mapping[tuple[str, int], accounts.Usage]:
        """Nothing is used."""
        return {}

    async def promises(self, plan: plan.RunPlan) -> defence_spec.DefenceSpec | None:
        """Nothing is fenced."""
        del plan
        return None

    async def fitness(self) -> executor.Fitness:
        """Fit, of course."""
        return executor.Fitness(usable=True, isolation=self.isolation, runtime="none")

    async def close(self) -> None:
        """Nothing to let go of."""


async def main(address: str, folder: Path) -> None:
    """Work for the pool at ``address`` until SIGTERM."""
    caps = plan.Caps(2**20, 2**16, 2**30, 1000, 32, 60.0)
    terms = worker_node.Terms(
        node_id="bench-noop",
        version="bench",
        limits=kind.NodeLimits("none", 60.0, 1.0, caps, PLENTY),
        capacity=PLENTY,
        max_concurrent_tasks=SLOTS,
    )
    pool = client.NodePoolClient(channel.Access(address, None, insecure=False))
    node = worker_node.WorkerNode(
        terms,
        pool=pool,
        runs=NoopExecutor(),
        files=store.Store(folder),
        journal=writer.Journal(folder / "worker.journal", state_lock.boot_id()),
        unsent=outbox.Outbox(folder / "outbox"),
        watched=None,
    )
    stop = stopping.Stop()
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, lambda: stop.request(stopping.StopLevel.DRAIN, "SIGTERM")
    )
    await node.run(stop)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--node-pool", required=True)
    given = parser.parse_args()
    asyncio.run(main(given.node_pool, given.folder))
