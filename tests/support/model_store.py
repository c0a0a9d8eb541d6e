"""The delivery model's backend over a store: a clock that is told to go on, and crashes between two statements."""

from __future__ import annotations

import asyncio
import queue
import shutil
import tempfile
import types
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import model_calls as calls
from gated_queue import GatedQueue
from model_calls import Answer, Call, Key, Refusal
from model_ledger import is_nodes_fault

from hivemind_worker import errors
from hivemind_worker.pool.matching import assignment
from hivemind_worker.pool.store import database, records, snapshot, sqlite, writing
from hivemind_worker.tasks import outcome, resources

T = TypeVar("T")
LEASE = 10.0

REFUSALS: tuple[tuple[type[errors.HiveMindError], Refusal], ...] = (
    (errors.UnknownNode, Refusal.UNKNOWN_NODE),
    (errors.StateInUse, Refusal.REPLACED),
    (errors.Conflict, Refusal.CONFLICT),
    (errors.NoSuchTask, Refusal.NO_SUCH_TASK),
    (errors.Rejected, Refusal.REJECTED),
    (errors.Unavailable, Refusal.UNAVAILABLE),
)


class Killed(BaseException):
    """The process dies here: nothing that it would have done any more is done."""


class Mortal:
    """The writing connection. Once armed, the process dies before (or, of a COMMIT, after) the n-th statement."""

    def __init__(self, connection: database.Connection, die: Callable[[], None]) -> None:
        self._connection = connection
        self._die = die
        self.left: int | None = None
        self.after_commit = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *values: Any) -> Any:
        last = self._count()
        if last and not (sql == "COMMIT" and self.after_commit):
            self._end()
        cursor = self._connection.execute(sql, *values)
        if last:
            self._end()
        return cursor

    def executemany(self, sql: str, values: Any) -> Any:
        if self._count():
            self._end()
        return self._connection.executemany(sql, values)

    def _count(self) -> bool:
        if self.left is None:
            return False
        self.left -= 1
        return self.left < 0

    def _end(self) -> None:
        self._die()
        raise Killed


class StoreBackend:
    """One SQLite store, reopened when it is told to."""

    lease = LEASE
    can_crash = True
    can_restore = True
    asks_incumbent = False
    looks_itself = False
    store_type: type[sqlite.SqliteStore] = sqlite.SqliteStore

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        # In memory where that can be: what a disk loses in a power cut is not this model's matter.
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self._path = Path(self._folder.name) / "pool" / "pool.sqlite"
        self._corpse = Path(self._folder.name) / "corpse"
        self._seconds = 1_000.0
        self._wall = 1_700_000_000.0
        self._connection: Mortal | None = None
        self._backups = 0
        self._open_real = database.writing
        self._patch = mock.patch.object(database, "writing", self._writing)
        self._patch.start()
        self.store = self._open()

    def _writing(self, path: Path) -> Any:
        if path != self._path:  # a backup being made
            return self._open_real(path)
        self._connection = self.wrap(self._open_real(path))
        return self._connection

    def wrap(self, connection: database.Connection) -> Mortal:
        return Mortal(connection, self._fall_silent)

    def _open(self) -> sqlite.SqliteStore:
        store = self.store_type(self._path, LEASE, lambda: self._seconds, lambda: self._wall + self._seconds)
        # How many calls the writer takes at once must not depend on which thread is faster: examples are repeated.
        gated = types.SimpleNamespace(SimpleQueue=GatedQueue, Empty=queue.Empty)
        with mock.patch.object(writing, "queue", gated):
            self._runner.run(store.open())
        return store

    def close(self) -> None:
        self._runner.run(self.store.close())
        self._patch.stop()
        self._runner.close()
        self._folder.cleanup()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        # `Runner.run` installs a handler of SIGINT each time, which takes as long as a short call.
        return self._runner.get_loop().run_until_complete(work)

    # -- time, crashes -------------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        self._seconds += seconds

    def set_clock(self, step: float) -> None:
        self._wall += step

    def reopen(self) -> None:
        self._run(self.store.close())
        self.store = self._open()

    def _die(self) -> None:
        """What the disk shows at this moment is what the next process will find."""
        shutil.rmtree(self._corpse, ignore_errors=True)
        shutil.copytree(self._path.parent, self._corpse)

    def _fall_silent(self) -> None:
        """A dead process answers nobody, not even that it has died."""
        self._die()
        setattr(self.store._write, "_say", lambda *_: None)  # noqa: B010  (a method, for mypy)

    def crash_in(self, *made: Call, statement: int) -> list[Answer]:
        assert self._connection is not None
        self._connection.left, self._connection.after_commit = statement, statement % 2 == 1
        with mock.patch.object(writing, "log"):
            answers = self._run(self._until_dead(made))
        self._connection.left = None
        if not any(answer.lost for answer in answers):
            self._die()
        self._run(self._bury())
        shutil.rmtree(self._path.parent)
        self._corpse.rename(self._path.parent)
        self.store = self._open()
        return answers

    async def _bury(self) -> None:
        """Let go of what the dead process had open, without doing anything that it would have done on its way out."""
        store = self.store
        assert store._reader is not None
        await asyncio.to_thread(store._reader.close)
        if store._write._thread.is_alive():
            await store._write.close()
        store._unlock()

    async def _until_dead(self, made: tuple[Call, ...]) -> list[Answer]:
        work = await self._begun(made)
        thread = self.store._write._thread
        while thread.is_alive() and not all(task.done() for task in work):
            await asyncio.wait(work, timeout=0.002)
        await asyncio.sleep(0)
        for task in work:
            task.cancel()
        await asyncio.wait(work)
        answers: dict[int, Answer] = {}
        for task in work:
            if not task.cancelled():
                answers |= task.result()
        return [answers.get(number, Answer(lost=True)) for number in range(len(made))]

    def save(self) -> object:
        self._backups += 1
        target = Path(self._folder.name) / f"backup-{self._backups}.sqlite"
        snapshot.take(self._path, target, self.store.now())
        return target

    def restore(self, backup: object | None) -> None:
        """As `hivemind pool restore` does it; its commands read messages, which the bodies here are not."""
        now = self.store.now()
        self._run(self.store.close())
        shutil.rmtree(self._path.parent)
        if isinstance(backup, Path):
            self._path.parent.mkdir()
            new = database.restoring(self._path)
            shutil.copy(backup, new)
            snapshot.renew(new, now, "restored by the model")
            new.rename(self._path)
        self.store = self._open()

    # -- calls ---------------------------------------------------------------------------------------------------------

    def make(self, *made: Call) -> list[Answer]:
        return self._run(self._all(made))

    async def _all(self, made: tuple[Call, ...]) -> list[Answer]:
        answers: dict[int, Answer] = {}
        for found in await asyncio.gather(*await self._begun(made)):
            answers |= found
        return [answers[number] for number in range(len(made))]

    async def _begun(self, made: tuple[Call, ...]) -> list[asyncio.Task[dict[int, Answer]]]:
        """Have all of them begin; what they ask of the writer first is one batch."""
        requests: Any = self.store._write._requests
        with requests.gate():
            work = [asyncio.create_task(part) for part in self._parts(made)]
            await asyncio.sleep(0)
        return work

    def _parts(self, made: tuple[Call, ...]) -> list[Coroutine[Any, Any, dict[int, Answer]]]:
        """Polls that wait together are answered in one batch; every other call is its own."""
        polls = {number: call for number, call in enumerate(made) if isinstance(call, calls.Poll)}
        parts = [self._one(number, call) for number, call in enumerate(made) if number not in polls]
        return [*parts, self._polls(polls)] if polls else parts

    async def _one(self, number: int, call: Call) -> dict[int, Answer]:
        try:
            return {number: await self._make(call)}
        except errors.HiveMindError as error:
            return {number: Answer(refusal=refusal(error))}

    async def _make(self, call: Call) -> Answer:
        store = self.store
        match call:
            case calls.Submit():
                key_digest = "|".join(f"{spec.id} {spec.digest}" for spec in call.specs)
                tasks = [new_task(spec) for spec in call.specs]
                return Answer(ids=await store.submit(tasks, call.request_key, key_digest))
            case calls.Retry():
                return Answer(ids=await store.retry(call.ids, call.request_key))
            case calls.Cancel():
                await store.cancel(call.ids)
            case calls.Drain():
                await store.drain(call.node, draining=call.draining)
            case calls.Register():
                opened = await store.register(self._new_node(call), self._refs(call.listed))
                return Answer(session=opened.session_id, epoch=self._epoch(), drop=self._keys(opened.drop))
            case calls.Beat():
                listed = None if call.listed is None else self._refs(call.listed)
                orders = await store.heartbeat(self._beat(call, listed))
                cancel, drop = self._keys(orders.cancel), self._keys(orders.drop)
                return Answer(cancel=cancel, drop=drop, draining=orders.draining)
            case calls.Report():
                return await self._report(call)
            case calls.Expire():
                await store.expire()
            case calls.BeginAnew():
                await store.begin_leases_anew()
        return Answer()

    async def _polls(self, polls: dict[int, calls.Poll]) -> dict[int, Answer]:
        waiting = [
            records.Poll(
                poll.node,
                poll.session,
                poll.free,
                most=poll.max_tasks,
                paused=poll.paused,
                held=frozenset((item.key.task, item.key.attempt) for item in poll.listed if self._is_own(item.key)),
            )
            for poll in polls.values()
        ]
        answers = await self.store.hand_out(waiting)
        return {number: self._poll_answer(answer) for number, answer in zip(polls, answers, strict=True)}

    def _is_own(self, key: Key) -> bool:
        return key.epoch in {"", self._epoch()}

    def _poll_answer(self, given: records.Given) -> Answer:
        if given.refused is not None:
            return Answer(refusal=refusal(given.refused))
        assigned = tuple(
            calls.Assigned(Key(self._epoch(), handed.task_id, handed.attempt), (handed.body or b"").decode())
            for handed in given.tasks
        )
        return Answer(assigned=assigned, cancel=self._keys(given.cancel), rests=given.again_in)

    def _beat(self, call: calls.Beat, listed: tuple[records.Ref, ...] | None) -> records.Beat:
        return records.Beat(call.node, call.session, status="offline" if call.offline else "busy", held=listed)

    async def _report(self, call: calls.Report) -> Answer:
        answer = await self.store.report(
            records.Report(
                call.key.task,
                call.node,
                call.session,
                call.key.attempt,
                outcome.Status(call.status) if call.status else None,
                reason=call.reason,
                try_again=is_nodes_fault(call.reason),
                body=call.body.encode(),
                epoch=call.key.epoch,
                run_id=call.run,
                node_check=outcome.NodeCheck(call.check or outcome.NodeCheck.NOT_NEEDED),
            )
        )
        return Answer(verdict=str(answer.verdict))

    # -- values --------------------------------------------------------------------------------------------------------

    def _epoch(self) -> str:
        return self.store.epoch

    def _new_node(self, call: calls.Register) -> records.NewNode:
        return records.NewNode(
            call.node,
            call.capacity,
            call.boot,
            labels={"zone": call.zone} if call.zone else {},
            max_concurrent_tasks=call.max_tasks,
            state_lock_id=call.lock,
        )

    def _refs(self, listed: tuple[calls.Listed, ...]) -> tuple[records.Ref, ...]:
        return tuple(
            records.Ref(
                item.key.task, item.key.attempt, "running" if item.run else "accepted", item.key.epoch, item.run
            )
            for item in listed
        )

    def _keys(self, refs: tuple[records.Ref, ...]) -> tuple[Key, ...]:
        return tuple(Key(ref.epoch or self._epoch(), ref.task_id, ref.attempt) for ref in refs)

    def view(self) -> calls.View:
        return self._run(self._view())

    async def _view(self) -> calls.View:
        tasks = await self.store.find(records.Filter(most=1_000))
        nodes = await self.store.nodes()
        return calls.View(
            self._epoch(),
            {task.id: self._task(task) for task in tasks},
            {node.node_id: self._node(node) for node in nodes},
        )

    def _task(self, task: records.Task) -> calls.TaskView:
        return calls.TaskView(
            task.id,
            str(task.state),
            task.attempt,
            task.node_id,
            task.max_attempts,
            task.cancel_requested,
            None if task.result is None else task.result.decode(),
            task.disruptions,
            retry_of=task.retry_of,
            reason=task.reason,
        )

    def _node(self, node: records.Node) -> calls.NodeView:
        return calls.NodeView(
            node.node_id,
            node.alive,
            node.draining,
            node.capacity,
            node.max_concurrent_tasks,
            (node.capacity - node.used).at_least(resources.Resources()),
            frozenset((ref.task_id, ref.attempt) for ref in node.attempts),
        )


def refusal(error: errors.HiveMindError) -> Refusal:
    for kind, word in REFUSALS:
        if isinstance(error, kind):
            return word
    raise error


def new_task(spec: calls.Spec) -> records.NewTask:
    selector = (("zone", spec.zone),) if spec.zone else ()
    shape = assignment.Shape("command", spec.needs, selector)
    return records.NewTask(spec.id, spec.digest.encode(), spec.digest, shape, "", spec.priority, spec.max_attempts)
