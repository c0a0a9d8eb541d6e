"""Who we are to the pool, and what when it forgets us: register, again and again, and keep what we hold.

`keep` is the loop that registers; every other call goes through `call`, which waits for a session, and hands back to
that loop when the pool does not know it any more. A pool that answers without a session id knows the reference
document's four calls alone: `plain` says so, and what needs more is then left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hivemind_worker import errors
from hivemind_worker.concurrency import backoff, clock, stopping
from hivemind_worker.telemetry import logs, rationed
from hivemind_worker.wire import calls
from hivemind_worker.worker.pool_link import client

T = TypeVar("T")

LEAST_SECONDS = 1.0
"""Between two tries to register: a pool that comes back finds a thousand workers, one try a second each at most."""

CAP_SECONDS = 15.0
"""Longest mean gap is half of this: how late a worker may notice that its pool is back."""

REPEAT_LOG_SECONDS = 60.0
"""How often the same trouble is told again."""

log = logs.StructuredLogger(__name__)


class Session:
    """A session with the pool, renewed for as long as `keep` runs."""

    def __init__(self, pool: client.NodePoolClient) -> None:
        self._pool = pool
        self._there = asyncio.Event()
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._renewals = 0
        self._replaced: errors.StateInUse | None = None
        self._told: tuple[str, float] = ("", 0.0)
        self._log = rationed.RationedLogger(log)
        self._answered = asyncio.Event()
        self._answered_at = 0.0
        self.id = ""
        self.store_epoch = ""
        """The life of the pool's store in which the session is; empty where the pool knows none."""
        self.plain = False
        self.heartbeat_seconds = 0.0
        self.lease_seconds = 0.0
        self.heard_at = 0.0
        """When the pool last answered a call of a session, by the loop's clock: each such call renews the leases."""
        self.renewed_at = 0.0
        """When a call that the pool answered was begun, by `clock.boottime`: it renews the leases when it is asked."""
        self.trouble = ""

    @property
    def established(self) -> bool:
        """Whether the pool knows us now, as far as we know."""
        return self._there.is_set()

    async def keep(
        self,
        stop: stopping.Stop,
        request: Callable[[], calls.pb.RegisterNodeRequest],
        registered: Callable[[calls.pb.RegisterNodeResponse], None],
    ) -> None:
        """Register, and again whenever the pool has forgotten us, until the stop.

        ``request`` makes what is said each time (with the attempts held at that moment); ``registered`` is told the
        answer before any other call is made in the new session.

        Raises :class:`errors.StateInUse` when another process lives or has registered under our node id.
        """
        pauses = backoff.Backoff(stop, base=2 * LEAST_SECONDS, cap=CAP_SECONDS, least=LEAST_SECONDS)
        while await self._until_wanted(stop):
            if self._replaced is not None:
                raise self._replaced
            renewals, asked = self._renewals, clock.boottime()
            try:
                answer = await stop.until(stopping.StopLevel.DRAIN, self._pool.register_node(request()))
            except stopping.Stopped:
                return
            except errors.StateInUse:
                raise
            except errors.HiveMindError as error:
                self._tell(str(error))
            else:
                if answer.success:
                    pauses.reset()
                    self._begin(answer, asked)
                    registered(answer)
                    self._there.set()
                    if renewals != self._renewals:  # what was said has changed meanwhile
                        self.renew()
                else:
                    self._tell(f"register: the pool refuses this node: {answer.message or 'no reason given'}")
            # After a success too: a pool that forgets us at once must not make us spin.
            if not await pauses.pause():
                return

    async def claim(self, stop: stopping.Stop, request: calls.pb.RegisterNodeRequest) -> bool:
        """Register once, before ``keep``, however long that takes; false where the stop came first.

        Raises :class:`errors.StateInUse` when another process lives under our node id.
        """
        pauses = backoff.Backoff(stop, base=2 * LEAST_SECONDS, cap=CAP_SECONDS, least=LEAST_SECONDS)
        while True:
            try:
                answer = await stop.until(stopping.StopLevel.DRAIN, self._pool.register_node(request))
            except stopping.Stopped:
                return False
            except errors.StateInUse:
                raise
            except errors.HiveMindError as error:
                self._tell(str(error))
            else:
                if answer.success:
                    return True
                self._tell(f"register: the pool refuses this node: {answer.message or 'no reason given'}")
            if not await pauses.pause():
                return False

    async def call(self, doing: Callable[[str], Awaitable[T]]) -> T:
        """Do one call in the session in force, given its id; again in the next one if the pool has forgotten this one.

        Waits, without end, while there is none: the caller's own deadline or stop limits that. Raises what ``doing``
        raises, ``UnknownNode`` apart.
        """
        while True:
            await self._there.wait()
            session_id = self.id
            # The pool renews when it is asked, so a lost answer must not lengthen our own count.
            asked, renewed = clock.now(), clock.boottime()
            try:
                answer = await doing(session_id)
            except errors.UnknownNode as error:
                self.forget(session_id, str(error))
            except errors.StateInUse as error:
                if session_id == self.id:
                    self._replaced = error
                    self._wanted.set()
                    raise
                # An answer to a call of the session before: our own new registration replaced that one.
            else:
                self.heard_at = max(self.heard_at, asked)
                self.renewed_at = max(self.renewed_at, renewed)
                self._hear()
                return answer

    async def pause(self, pauses: backoff.Backoff) -> bool:
        """As `backoff.Backoff.pause`, but over after a second once the pool has answered somebody: it is back."""
        since = clock.now()
        pausing = asyncio.create_task(pauses.pause(), name="session/pause")
        back = asyncio.create_task(self._back(since), name="session/back")
        try:
            await asyncio.wait({pausing, back}, return_when=asyncio.FIRST_COMPLETED)
            return pausing.result() if pausing.done() else True
        finally:
            await stopping.settle(pausing, back)

    async def _back(self, since: float) -> None:
        await asyncio.sleep(LEAST_SECONDS)
        while self._answered_at <= since:
            await self._answered.wait()

    def _hear(self) -> None:
        """The pool has answered: whoever waits for that is woken, and who comes later waits for the next time."""
        self._answered_at = clock.now()
        self._answered.set()
        self._answered.clear()

    async def known(self) -> None:
        """Wait until the pool knows us, and what we hold."""
        await self._there.wait()

    def forget(self, session_id: str, why: str) -> None:
        """Take note that the pool does not know ``session_id``; does nothing when a newer one is in force."""
        if session_id == self.id and self._there.is_set():
            self._log.log_system_event("session_lost", {"why": why}, level="warning")
            self._there.clear()
            self._wanted.set()

    def renew(self) -> None:
        """Register anew: what is to be said of this node has changed."""
        self._renewals += 1
        self._there.clear()
        self._wanted.set()

    async def _until_wanted(self, stop: stopping.Stop) -> bool:
        try:
            await stop.until(stopping.StopLevel.DRAIN, self._wanted.wait())
        except stopping.Stopped:
            return False
        return True

    def _begin(self, answer: calls.pb.RegisterNodeResponse, asked: float) -> None:
        self.id = answer.session_id
        self.store_epoch = answer.store_epoch
        self.plain = not answer.session_id
        self.heartbeat_seconds = max(answer.heartbeat_seconds, 0.0)
        self.lease_seconds = max(answer.lease_seconds, 0.0)
        self.heard_at = clock.now()
        self.renewed_at = asked
        self.trouble = ""
        self._told = ("", 0.0)
        self._wanted.clear()
        details = {"pool": self._pool.access.address, "lease_seconds": self.lease_seconds, "plain": self.plain}
        self._hear()
        self._log.log_system_event("registered", details)

    def _tell(self, trouble: str) -> None:
        self.trouble = trouble
        told, at = self._told
        if trouble != told or clock.now() - at >= REPEAT_LOG_SECONDS:
            self._told = (trouble, clock.now())
            details = {"pool": self._pool.access.address, "why": trouble}
            self._log.log_system_event("pool_unreachable", details, level="warning")
