"""Asks whether a session lives before another process takes it over. In memory, as polls: of one pool process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hivemind_worker import errors
from hivemind_worker.concurrency import clock
from hivemind_worker.pool.scheduling import dispatch
from hivemind_worker.pool.store import records, store, takeover
from hivemind_worker.telemetry import logs

CHALLENGE_SECONDS = 10.0
"""How long a session may be silent when it is asked. A worker polls again within half a second of an empty answer;
the rest is for machines that are busy. Less than the 15 s that a worker waits for the answer to its registration."""

RECONNECT_SECONDS = 30.0
"""For so long after the pool's return nobody is taken for silent: a worker tries again within 15 s, twice that."""

SLICE_SECONDS = 0.25
"""A silence is counted in such pieces: one that took twice as long proves nothing, for the pool itself stood still."""

ROUNDS = 3
"""Challenges in one registration: each is of a session that was opened during the one before."""

log = logs.StructuredLogger(__name__)


class Challenges:
    """Registers nodes, asking living sessions first. Used on one event loop."""

    def __init__(self, kept: store.Store, polls: dispatch.Dispatch, lease_seconds: float) -> None:
        self._store = kept
        self._polls = polls
        self._lease_seconds = lease_seconds
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}

    def heard(self, node_id: str, session_id: str) -> None:
        """Take note of a call in a session."""
        for event in self._waiting.get((node_id, session_id), ()):
            event.set()

    async def register(self, node: records.NewNode, held: Sequence[records.Ref]) -> records.Registration:
        """Open a session for a node, unless another process has one that answers.

        Raises :class:`errors.StateInUse` where it does, :class:`errors.Unavailable` where that cannot be told yet.
        """
        silent_session = ""
        for _ in range(ROUNDS):
            try:
                opened = await self._store.register(node, held, silent_session)
            except takeover.SessionLives as lives:
                await self._challenge(node.node_id, lives)
                silent_session = lives.session_id
            else:
                if silent_session:
                    log.log_system_event("session_taken_over", {"node": node.node_id}, level="warning")
                self.heard(node.node_id, opened.session_id)
                return opened
        raise errors.Unavailable(f"{node.node_id!r} is being registered by several processes: try again")

    async def _challenge(self, node_id: str, lives: takeover.SessionLives) -> None:
        """Return if nothing is heard in a session that was asked. Raises as `register`."""
        seconds = min(CHALLENGE_SECONDS, self._lease_seconds)
        if await self._heard(node_id, lives.session_id, seconds):
            log.log_system_event("registration_refused", {"node": node_id}, level="warning")
            raise lives
        if lives.returning + seconds < min(RECONNECT_SECONDS, self._lease_seconds):
            raise errors.Unavailable(
                f"{node_id!r} is another worker's id, which may be on its way back to a pool that has just returned: "
                "try again"
            )

    async def _heard(self, node_id: str, session_id: str, seconds: float) -> bool:
        event = asyncio.Event()
        key = (node_id, session_id)
        self._waiting.setdefault(key, set()).add(event)
        try:
            # A living worker asks again at once; its next heartbeat would be too long to wait for.
            self._polls.answer_empty(node_id, session_id)
            return await _set_within(event, seconds)
        finally:
            self._waiting[key].discard(event)
            if not self._waiting[key]:
                del self._waiting[key]


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event for so many seconds in which this process was able to hear of it."""
    while seconds > 0:
        began, piece = clock.now(), min(SLICE_SECONDS, seconds)
        try:
            async with asyncio.timeout(piece):
                await event.wait()
        except TimeoutError:
            if clock.now() - began < 2 * piece:
                seconds -= piece
        else:
            return True
    return event.is_set()
