"""The one connection that writes: all that waits goes into one transaction, and each hears of it after the commit.

A thread has it, and the loop while the thread has nothing to do: see `direct`.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hivemind_worker import errors
from hivemind_worker.pool.store import clocks, database, direct, records, schema, soundness, task_queue
from hivemind_worker.telemetry import logs

T = TypeVar("T")

log = logs.StructuredLogger(__name__)

MOST_AT_ONCE = 256
"""Most requests in one transaction: beyond it a commit's cost is spread thin enough, and nobody waits for the rest."""


@dataclass(slots=True)
class Transaction:
    """What a request works with: the connection, the times, the store's epoch, and what it has changed so far.

    ``now`` is the wall's time, for what is shown; ``lease_time`` is what leases, rests and deadlines are due by.
    """

    sql: database.Connection
    now: float
    lease_time: float
    epoch: str
    queue: task_queue.TaskQueue = field(default_factory=task_queue.TaskQueue)
    changes: list[records.Change] = field(default_factory=list)
    answers: list[tuple[records.Poll, records.Given]] = field(default_factory=list)
    """Of polls that waited since an earlier transaction."""
    undo: list[tuple[Callable[[Any], object], Any]] = field(default_factory=list)
    """What in memory must be done, with its argument, should this be rolled back; the last first."""


@dataclass(slots=True)
class _Request:
    work: Callable[[Transaction], Any]
    future: asyncio.Future[Any] | None
    result: Any = None
    error: Exception | None = None


Heard = Callable[[Sequence[records.Change], Sequence[tuple[records.Poll, records.Given]]], None]
"""Takes what a transaction has changed, and the answers to polls that waited."""


class Writer:
    """Runs requests one after the other on one connection. Made, used and closed on one event loop."""

    def __init__(
        self,
        path: Path,
        times: clocks.Clocks,
        heard: Heard,
        finish: Callable[[Transaction], None],
        sound: soundness.Soundness,
        failed: Callable[[], None],
    ) -> None:
        """``finish`` is done at the end of each transaction in which a queue has grown. Where ``sound`` knows of
        damage nothing is done. ``failed`` is called on the loop if the thread has died, and each time that
        :attr:`trouble` comes or goes.
        """
        self._failed = failed
        self._sound = sound
        self._path = path
        self._times = times
        self._heard = heard
        self._finish = finish
        self._queue = task_queue.TaskQueue()
        self._requests: queue.SimpleQueue[_Request | BaseException | None] = queue.SimpleQueue()
        """What the thread does next: ``None`` ends it, an exception makes it end of that."""
        self._connection: database.Connection | None = None
        """The loop's while the thread has nothing to do."""
        self._direct = direct.Direct()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="pool-store", daemon=True)
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._batch: list[_Request] = []
        self._closing = False
        self.epoch = ""
        """The store's epoch, from ``start`` on."""
        self.failure = ""
        """Why nothing is written any more, where a defect of ours has ended the thread; empty while there is none."""
        self.trouble = ""
        """Why the last transaction could not be written; empty again once one that changed something was."""

    async def start(self) -> None:
        """Open the database on the writer's thread.

        Raises :class:`errors.BadSettings`, :class:`errors.Unavailable` where the thread died.
        """
        self._thread.start()
        await self._opened

    async def do(self, work: Callable[[Transaction], T], *, brief: bool = False) -> T:
        """Have ``work`` done in a transaction, and return what it returned, once that is durable.

        What ``work`` raises undoes its own writes alone and is raised here. A caller that is cancelled meanwhile does
        not undo it. The loop may do what is ``brief`` by itself. Raises :class:`errors.Unavailable` where the store
        cannot be written.
        """
        if self.failure or self._closing:
            raise errors.Unavailable(self.failure or "the pool is closing")
        future: asyncio.Future[T] = self._loop.create_future()
        request = _Request(work, future)
        if brief and not self.trouble and self._connection is not None and self._direct.is_allowed():
            await self._do_here(self._connection, request)
        else:
            self._direct.handed_over()
            self._requests.put(request)
        result: T = await future
        return result

    async def _do_here(self, connection: database.Connection, request: _Request) -> None:
        began = time.monotonic()
        try:
            transaction = self._commit(connection, [request])
        except BaseException as error:  # noqa: BLE001  (a defect of ours, of which the thread dies as of its own)
            self._direct.handed_over()
            self._requests.put(error)
            await self.failed()
        else:
            self._direct.done(time.monotonic() - began)
            self._loop.call_soon(self._tell, [request], transaction)  # as where the thread has done it

    async def close(self) -> None:
        """Do what was asked for, then end the thread."""
        self._closing = True
        if self._thread.ident is not None:
            self._requests.put(None)
            await asyncio.shield(self._ended)  # others wait for it, too
            self._thread.join()

    async def failed(self) -> None:
        """Wait until the thread has ended. Raises :class:`errors.Unavailable` where it died by a defect of ours."""
        await asyncio.shield(self._ended)
        if self.failure:
            raise errors.Unavailable(self.failure)

    def _run(self) -> None:
        problem: BaseException | None = None
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001  (whatever it is, those who wait must hear that nobody works)
            problem = error
            log.log_system_event("store_failed", {"path": str(self._path)}, level="error", error=error)
        finally:
            self._say(self._end, problem)

    def _end(self, problem: BaseException | None) -> None:
        """On the loop, as `do`: the thread takes nothing more. What is still asked of it is answered with an error."""
        if problem is not None:
            self.failure = (
                f"the thread that writes the pool's store {self._path} has died ({type(problem).__name__}: {problem}): "
                "a defect of the pool, whose log says more; start the pool again"
            )
        reason = self.failure or "the pool is closing"
        _fail(self._opened, errors.Unavailable(reason))
        left = list(self._batch)
        with contextlib.suppress(queue.Empty):
            while True:
                if isinstance(request := self._requests.get_nowait(), _Request):
                    left.append(request)
        for request in left:
            if request.future is not None:
                _fail(request.future, errors.Unavailable(reason))
        _resolve(self._ended)
        if problem is not None:
            self._failed()

    def _serve(self) -> None:
        try:
            connection = database.writing(self._path)
        except errors.HiveMindError as error:
            self._say(_fail, self._opened, error)
            return
        with contextlib.closing(connection):
            try:
                schema.migrate(connection, self._times.now())
                self.epoch = schema.epoch(connection)
                self._queue.load(connection)
            except (errors.HiveMindError, database.Error) as error:
                named = errors.BadSettings(f"{self._path}: {error}")
                named.__cause__ = error
                self._say(_fail, self._opened, named)
                return
            self._connection = connection
            self._say(_resolve, self._opened)
            self._work(connection)
            if not self._sound.damage:
                database.checkpoint(connection)

    def _work(self, connection: database.Connection) -> None:
        is_last = False
        while not is_last:
            batch, is_last = self._gather(self._requests.get())
            if not batch:
                continue
            with database.checkpointing(connection):
                transaction = self._commit(connection, batch)
            # Before they are answered: then the loop may have the connection.
            if self._direct.take_turn() and not self._sound.damage:
                database.checkpoint(connection, "PASSIVE")
            self._say(self._tell_of_batch, batch, transaction)

    def _gather(self, first: _Request | BaseException | None) -> tuple[list[_Request], bool]:
        """Return what is done now, and whether the thread is to end after it."""
        batch = self._batch = list[_Request]()
        following = first
        with contextlib.suppress(queue.Empty):
            while following is not None:
                if isinstance(following, BaseException):
                    raise following
                batch.append(following)
                if len(batch) == MOST_AT_ONCE:
                    break
                following = self._requests.get_nowait()
        return batch, following is None

    def _commit(self, connection: database.Connection, batch: list[_Request]) -> Transaction:
        now, lease_time = self._times.now(), self._times.lease_time()
        transaction = Transaction(connection, now, lease_time, self.epoch, self._queue)
        if self._sound.damage:
            for request in batch:
                request.error = errors.Unavailable(self._sound.damage)
            return transaction
        changes = connection.total_changes
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._queue.settle(connection)
            if len(batch) == 1:
                _do_alone(transaction, batch[0])
            else:
                for request in batch:
                    _do(transaction, request)
            if self._queue.grown:
                _do(transaction, _Request(self._finish, None))
            began = time.monotonic()
            connection.execute("COMMIT")
            self._direct.committed(time.monotonic() - began)
        except database.Error as error:
            with contextlib.suppress(database.Error):
                connection.execute("ROLLBACK")
            _undo(transaction, 0)
            reason = self._sound.look_at(error)
            if not reason:
                reason = f"the pool's store cannot be written: {error}"
                self._set_trouble(f"{reason}; look at the disk of {self._path}: it is tried again and again")
            for request in batch:
                request.error = errors.Unavailable(reason)
            return Transaction(connection, now, lease_time, self.epoch)
        if connection.total_changes > changes:  # one that changes nothing is no proof: it writes nothing
            self._set_trouble("")
        return transaction

    def _set_trouble(self, reason: str) -> None:
        has_changed = bool(reason) is not bool(self.trouble)
        self.trouble = reason
        if has_changed:
            self._say(self._failed)

    def _say(self, said: Callable[..., None], *arguments: object) -> None:
        # The loop may be gone when its process is ending: then nobody is left to be told.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(said, *arguments)

    def _tell_of_batch(self, batch: list[_Request], transaction: Transaction) -> None:
        self._direct.answered(len(batch))
        self._tell(batch, transaction)

    def _tell(self, batch: list[_Request], transaction: Transaction) -> None:
        try:
            # First those who carry the changes on to someone who waits for them, then those who made them.
            if transaction.changes or transaction.answers:
                self._heard(transaction.changes, transaction.answers)
        finally:
            for request in batch:
                if request.future is None or request.future.done():  # its caller was cancelled
                    continue
                if request.error is not None:
                    request.future.set_exception(request.error)
                else:
                    request.future.set_result(request.result)


def _do(transaction: Transaction, request: _Request) -> None:
    """One request of a batch: what it raises is its own, unless the database itself has failed."""
    changes, answers, undo = len(transaction.changes), len(transaction.answers), len(transaction.undo)
    transaction.sql.execute("SAVEPOINT request")
    _try(transaction, request)
    if request.error is not None:
        del transaction.changes[changes:]
        del transaction.answers[answers:]
        transaction.sql.execute("ROLLBACK TO request")
        _undo(transaction, undo)
    transaction.sql.execute("RELEASE request")
    transaction.queue.settle(transaction.sql)


def _do_alone(transaction: Transaction, request: _Request) -> None:
    """The only request of its batch: the transaction itself is its savepoint, which saves a lonely one two steps."""
    _try(transaction, request)
    if request.error is not None:
        transaction.changes.clear()
        transaction.answers.clear()
        transaction.sql.execute("ROLLBACK")
        _undo(transaction, 0)
        transaction.sql.execute("BEGIN IMMEDIATE")  # for those who wait, and may have to be looked at again
    transaction.queue.settle(transaction.sql)


def _try(transaction: Transaction, request: _Request) -> None:
    """Do it, and note what it raises, unless that is the database's own failure."""
    try:
        request.result = request.work(transaction)
    except database.Trouble:
        raise
    except database.Error as error:
        if database.is_damage(error):
            raise
        request.error = error
    except Exception as error:  # noqa: BLE001  (it is raised where the request was made)
        request.error = error


def _undo(transaction: Transaction, since: int) -> None:
    while len(transaction.undo) > since:
        step, argument = transaction.undo.pop()
        step(argument)
        transaction.queue.grown = True  # whoever was looked at may have to be looked at again


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
