"""The store's Protocol: every step of a task's life as one atomic, durable call.

What holds for every method: it takes effect as a whole or not at all; when it returns, what it did survives a crash of
process and machine; several may be under way at once and take effect in some order. What is shown has the wall's time
(:meth:`Store.now`); leases, rests and deadlines are due by the lease clock (:meth:`Store.lease_time`). A store that
cannot be written raises :class:`errors.Unavailable`: nothing happened, the same call may be made again. Moves go by
`tasks/state.py`; each leaves an event in the task's story.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from hivemind_worker.pool.store import records

T = TypeVar("T")


class Store(Protocol):
    """What the pool remembers."""

    def now(self) -> float:
        """Seconds since the Unix epoch by the wall's clock. It follows every step of it: nothing is due by it."""

    def lease_time(self) -> float:
        """Seconds on the lease clock: for how long the store has been open, in all its lives.

        It never goes back or jumps, whatever is done to the wall's clock, and stands still while the store is closed.
        After a crash it may go on from where it stood a lease before.
        """

    @property
    def epoch(self) -> str:
        """The store's epoch while it is open: 32 hexadecimal characters, made with it and renewed by a restore.

        The identity of an attempt is (epoch, task id, attempt). A ref, a report or output that names another epoch is
        never taken for this store's; one that names none is taken to be of this epoch.
        """

    @property
    def damage(self) -> str:
        """What is wrong with the store's file and how to restore it; empty where nothing is known to be wrong.

        It is looked into when it is opened: of a large file the rest while the store is open. From the moment on that
        damage was found every call that would write raises :class:`errors.Unavailable`, nothing is handed out, and the
        file stays as it is; calls that only read answer for as long as they can.
        """

    def on_unusable(self, callback: Callable[[str], None]) -> None:
        """Have ``callback`` called on the event loop with the reason once nothing can be written.

        That is damage, a defect that ended the writing, or a disk that takes nothing; at once where it is so already.
        It is called with an empty reason once the disk takes something again. It must not raise or wait.
        """

    async def failed(self) -> None:
        """Wait until the store is closed. Raises :class:`errors.Unavailable` once a defect has ended the writing.

        Then every call that writes raises that as well, those under way included: what they did may be there or not,
        and each may be made again once the store was opened anew.
        """

    def listen(self, heard: Callable[[Sequence[records.Change]], None]) -> None:
        """Have ``heard`` called on the event loop after each commit with what changed. It must not raise or wait."""

    async def open(self) -> None:
        """Open it. All leases begin anew: nobody could have renewed one meanwhile.

        What is held by nodes that are not alive, or not known, is given up. No node rests for longer than 60 s more, no
        attempt may be held for longer than one that was handed out now.

        A damaged file is opened for reading alone: see :attr:`damage`. One that is older than the store which was last
        open in its place gets a new epoch first, as by a restore.

        Raises :class:`errors.StateInUse` where another pool has it, :class:`errors.BadSettings` where it cannot be
        used: a network file system, another program's file, a newer version's.
        """

    async def close(self) -> None:
        """Finish what is under way and let go of it."""

    async def submit(self, tasks: Sequence[records.NewTask], key: str = "", key_digest: str = "") -> tuple[str, ...]:
        """Keep all of these tasks, queued, or none; return their ids in order.

        Idempotent: a ``key`` used before with the same ``key_digest`` returns the ids of then; a task whose id is
        there with the same digest is that task. Raises :class:`errors.Conflict` where a key or an id stands for
        something else.
        """

    async def retry(self, task_ids: Sequence[str], key: str = "") -> tuple[str, ...]:
        """Submit ended tasks anew under new ids; return those.

        Idempotent with a ``key``: used before for the same tasks it returns the ids of then. Raises
        :class:`errors.NoSuchTask`, :class:`errors.Conflict` for a task that has not ended, or a key that stands for
        something else.
        """

    async def cancel(self, task_ids: Sequence[str]) -> tuple[records.Task, ...]:
        """Cancel queued tasks at once, ask the nodes of others to stop; return how all stand then, without results.

        Idempotent.

        Each task is a step of its own where there are many: a crash may leave a part, and the same call does the rest.

        Raises :class:`errors.NoSuchTask` before anything is cancelled.
        """

    async def register(
        self, node: records.NewNode, held: Sequence[records.Ref], silent_session: str = ""
    ) -> records.Registration:
        """Open a session for a node and close its former one, unless that may live.

        It may while its lease is in force, where it was opened with a boot id and its last heartbeat was not "offline".
        Then another process is let in with the ``state_lock_id`` that the session was opened with (not empty), or where
        ``silent_session`` names the session: its caller has asked it, and nothing was heard. Otherwise
        :class:`takeover.SessionLives` is raised, and nothing has happened. What a process of another state folder
        displaces (both ids are there and differ) is lost by a disruption.

        The same ``boot_id`` again keeps its session: idempotent. Of the attempts that are the node's, those in
        ``held`` go on; the others are given up at once when the process is a new one, or unknown. An attempt whose
        lease was lost but that nobody else was given becomes the node's again, unless its deadline has passed
        (:meth:`expire`). What is of another epoch, or of another run than the first that was seen of its attempt, is
        in ``drop`` and counts as not listed; an attempt that no run was seen of is bound to the one that is listed.
        """

    async def heartbeat(self, beat: records.Beat) -> records.Directives:
        """Renew the leases of a session. Idempotent.

        What the session was given more than a lease ago and does not name among what it holds is given up; not before
        leases have run for as long as one, if they began anew. What a session does not name that says "offline", its
        last word before it stops in order, is given up at once, by a disruption; its node is given nothing after that
        word until it says another. Epochs and runs as in :meth:`register`. Listed attempts
        become the node's again as in :meth:`register`; what it lists and is not its own is in ``drop``.

        Raises :class:`errors.UnknownNode`, also where a node that registered with a boot id shows no session, and
        :class:`errors.StateInUse` for a session that another has replaced.
        """

    async def verify(self, node_id: str, session_id: str) -> None:
        """Raise what :meth:`heartbeat` would for such a session; changes nothing."""

    async def hand_out(self, polls: Sequence[records.Poll]) -> list[records.Given]:
        """Answer all waiting polls in one batch, in order. Raises for none of them alone.

        Each renews its node's lease where less than three quarters of one are left: after a poll that much is left at
        least. Heartbeats renew it whole.

        An attempt that was handed to a session, has not started and is not among what the session says it holds is
        in the answer again: its first answer was lost. A node whose attempts failed by its own fault rests for a
        while: it is given nothing, and told when to be looked at again.

        A poll that ``stays``, gets nothing and could be given something waits in the store, until another of its node
        comes: the commit that queues a task for it hands it out as well, and the answer comes by :meth:`answer`.
        """

    def answer(self, answered: Callable[[records.Poll, records.Given], None]) -> None:
        """Have ``answered`` called on the event loop with each poll that waited in the store, and its answer.

        The poll is the very object that was given to :meth:`hand_out`. It waits no more then. Must not raise or wait.
        """

    def withdraw(self, poll: records.Poll) -> None:
        """Let this very poll wait no more. What it was given in this moment comes again with its node's next poll."""

    async def report(self, report: records.Report) -> records.Answer:
        """Take a report by the attempt's fence: exactly one end per task is ever accepted. Idempotent.

        The end of an attempt whose lease was lost counts as long as no newer attempt was handed out. The start of one
        (``status`` of ``None``) makes it the node's again and renews the node's lease, unless its deadline has passed:
        then it is stale.
        A report of another epoch is UNKNOWN. An attempt is bound to the first run that was seen of it, by any call:
        then a report of another run, or of none, is STALE, is not stored and changes nothing.

        A failure by the node's fault (``try_again``) queues the task again while fewer than ``max_attempts`` of its
        attempts are used up; the task fails with the last of them. A disruption (the reason node_shutdown) uses up
        none: ``attempt - disruptions`` are used up. The disruption with the number ``moves.MAX_DISRUPTIONS`` (30) fails
        the task. A stale one of an attempt that was given up for its node's lease alone gives it back, unless the task
        has ended. An attempt that goes on after all, or reports another end, is not counted as disrupted. Raises
        :class:`errors.Rejected` with the reason MISSING_ARTIFACT for an end that would count but names files that are
        missing; :class:`errors.UnknownNode` and :class:`errors.StateInUse` as :meth:`heartbeat`.
        """

    async def accept_output(self, node_id: str, session_id: str, ref: records.Ref) -> records.Assignment:
        """Return the record of an attempt that this session may send output of, bound to ``ref``'s run.

        A ref without a run is output from before it began, or of a worker that knows none: it binds nothing. Raises
        :class:`errors.NoSuchTask`, :class:`errors.UserError` for an attempt that was never assigned,
        :class:`errors.Rejected` for one of another node, epoch or run; :class:`errors.UnknownNode` and
        :class:`errors.StateInUse` as :meth:`heartbeat`. Idempotent.
        """

    async def expire(self, as_of: float | None = None) -> records.Lost:
        """Give up what has run out by ``as_of``, a moment of the lease clock that is not to come, or by now.

        It is queued again, failed, or cancelled. Idempotent. By a disruption where the node's last heartbeat
        said "offline", or where nothing was heard of it since this store was closed in order (:meth:`close`).

        That is whatever is held by nodes that are not alive (their lease has run out) or not known, and each attempt
        that its node has had for too long, however often it lists it: `deadlines` has the numbers. The time counts from
        when the attempt was first handed out, by the lease clock. Such an attempt never becomes its node's again, is in
        ``drop`` from then on, and its end still counts while nobody else was handed the task.

        Nodes that hold nothing are forgotten, with their sessions, a day after their lease ran out; drained ones after
        30 days. Raises :class:`errors.Unavailable` for as long as the disk takes nothing, also where nothing ran out.
        """

    async def begin_leases_anew(self) -> None:
        """Give every living node, and every attempt, a whole lease from now on.

        To be called when the pool was away and nobody could renew one.
        """

    async def drain(self, node_id: str, *, draining: bool) -> None:
        """Give a node no further tasks, or tasks again. Idempotent. Raises :class:`errors.UnknownNode`.

        What is shown follows at once: a node that says "draining" only because its last heartbeat was answered so is
        shown as busy or idle once it is resumed.
        """

    async def tasks(self, task_ids: Sequence[str], *, max_result_bytes: int | None = None) -> tuple[records.Task, ...]:
        """Return these tasks, in order. Raises :class:`errors.NoSuchTask`.

        ``max_result_bytes``: larger results are not read, and have their size in ``result_bytes`` alone.
        """

    async def story(self, task_id: str) -> tuple[records.Event, ...]:
        """Return what happened to a task, oldest first. Raises :class:`errors.NoSuchTask`."""

    async def assignment(self, task_id: str, attempt: int) -> records.Assignment | None:
        """Return the record of an attempt, ``None`` where it was never assigned. Raises :class:`errors.NoSuchTask`."""

    async def body(self, task_id: str) -> bytes:
        """Return a task's message as it is handed out. Raises :class:`errors.NoSuchTask`."""

    async def find(self, wanted: records.Filter) -> tuple[records.Task, ...]:
        """Return a page of tasks, newest first."""

    async def nodes(
        self, *, alive_only: bool = False, after: str = "", max_count: int = -1, max_bytes: int = 0
    ) -> tuple[records.Node, ...]:
        """Return every node, or those alone that are alive, by name. The latter costs nothing for lost ones.

        ``after``: those whose names come behind it; ``max_count``: so many of them at most, -1 for all. They end where
        they have come to ``max_bytes`` (0: they do not), with at least one.
        """

    async def survey(self, fold: Callable[[Iterator[records.Node]], T]) -> T:
        """Return what ``fold`` makes of the living nodes, by name, in one snapshot: one is in memory at a time.

        ``fold`` runs on another thread, and need not read them all. What it raises is raised here.
        """

    async def living_nodes(self) -> int:
        """Return how many nodes are alive."""

    async def lost_nodes(self) -> int:
        """Return how many nodes are known and not alive."""

    async def oldest_queued(self) -> float:
        """Return when, by the wall's time, the task queued longest was submitted; 0 where none is queued."""

    async def counts(self) -> dict[str, int]:
        """Return how many tasks are in which state; every state is named."""
