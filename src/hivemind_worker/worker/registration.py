"""Registers this node, and again when the pool has forgotten it: what is said, and what the answer brings about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from hivemind_worker import units
from hivemind_worker.concurrency import stopping
from hivemind_worker.tasks import resources
from hivemind_worker.wire import budget, calls
from hivemind_worker.worker.attempts import roster
from hivemind_worker.worker.pool_link import session


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is, for as long as its process lives. ``boot_id`` is new at every start.

    ``former_state_lock_ids``: of the same state folder before the machine was started anew; empty where it was not.
    """

    node_id: str
    boot_id: str
    version: str
    capacity: resources.Resources
    max_concurrent_tasks: int
    capabilities: tuple[str, ...]
    labels: Mapping[str, str]
    state_lock_id: str = ""
    former_state_lock_ids: tuple[str, ...] = ()


class Registration:
    """Makes the request, with the attempts held at that moment, and takes the answer."""

    def __init__(
        self,
        identity: Identity,
        line: session.Session,
        attempts: roster.Roster,
        announced: Callable[[Iterable[str]], None],
        boot_heard: Callable[[], None],
    ) -> None:
        """``boot_heard`` is called once the pool has heard of the machine's former boot, each time it is named."""
        self.identity = identity
        """What is said from the next registration on."""
        self._line = line
        self._attempts = attempts
        self._announced = announced
        self._boot_heard = boot_heard
        self.ip_address = ""

    async def run(self, stop: stopping.Stop) -> None:
        """Keep this node registered until the stop.

        Raises :class:`hivemind_worker.errors.StateInUse` when another worker has taken over its node id.
        """
        await self._line.keep(stop, self.request, self.registered)

    async def claim(self, stop: stopping.Stop, held: Iterable[calls.pb.AttemptRef]) -> bool:
        """Have the pool take this process as the node, which holds these attempts, before anything of it is touched.

        False where the stop came first. Raises :class:`hivemind_worker.errors.StateInUse` where another lives.
        """
        request = self.request()
        request.held.extend(held)
        return await self._line.claim(stop, request)

    def request(self) -> calls.pb.RegisterNodeRequest:
        """Return what is said; port 0: a worker listens nowhere."""
        its = self.identity
        request = calls.pb.RegisterNodeRequest(
            node_id=its.node_id,
            ip_address=self.ip_address,
            port=0,
            cpu_cores=its.capacity.cpu_cores,
            memory_gb=its.capacity.memory_bytes / units.GIB,
            disk_gb=its.capacity.disk_bytes / units.GIB,
            gpus=its.capacity.gpus,
            capabilities=its.capabilities,
            labels=its.labels,
            version=its.version,
            boot_id=its.boot_id,
            max_concurrent_tasks=its.max_concurrent_tasks,
            held=self._attempts.held(),
            protocol_version=calls.PROTOCOL_VERSION,
            state_lock_id=its.state_lock_id,
            former_state_lock_ids=its.former_state_lock_ids,
        )
        budget.fit_held(request)
        return request

    def registered(self, answer: calls.pb.RegisterNodeResponse) -> None:
        """Let go of what is not ours any more, by the pool's word or its store's; hear which images it wants here."""
        self._attempts.drop_other_epochs(answer.store_epoch)
        self._attempts.drop(answer.drop)
        self._announced(answer.preload_images)
        if self.identity.former_state_lock_ids:
            self._boot_heard()
