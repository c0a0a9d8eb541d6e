"""The store in one SQLite file: requests to the one writer, questions to the readers, the file locked as ours."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from hivemind_worker import errors
from hivemind_worker.pool.store import (
    attempts,
    clocks,
    database,
    direct,
    expiry,
    handing_out,
    history_mark,
    locks,
    moves,
    reading,
    records,
    reports,
    schema,
    sessions,
    soundness,
    staging,
    submissions,
    writing,
)
from hivemind_worker.tasks import state
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)

_ASSIGNED = state.TaskState.ASSIGNED

T = TypeVar("T")


class SqliteStore:
    """A `store.Store` in the file ``path``, for one pool. Opened, used and closed on one event loop.

    ``lease_seconds`` is how long a node may be silent. ``clock`` counts seconds and is never set back; ``wall`` is
    seconds since the Unix epoch, and may be set.
    """

    def __init__(
        self,
        path: Path,
        lease_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._lease = lease_seconds
        self._locks: list[locks.InodeLock] = []
        self._heard: list[Callable[[Sequence[records.Change]], None]] = []
        self._answered: list[Callable[[records.Poll, records.Given], None]] = []
        self._on_unusable: list[Callable[[str], None]] = []
        self._waiting = handing_out.WaitingPolls()
        self._writer: writing.Writer | None = None
        self._sound = soundness.Soundness(path)
        self._submitter: staging.Submitter | None = None
        self._reader: reading.Reader | None = None
        self._times = clocks.Clocks(clock, wall)
        self._leases_since = 0.0
        self._has_assigned = False
        """Whether attempts were assigned since the generation was last advanced."""

    def now(self) -> float:
        """See :meth:`store.Store.now`."""
        return self._times.now()

    def lease_time(self) -> float:
        """See :meth:`store.Store.lease_time`."""
        return self._times.lease_time()

    @property
    def epoch(self) -> str:
        """See :attr:`store.Store.epoch`."""
        return "" if self._writer is None and self.damage else self._write.epoch

    @property
    def damage(self) -> str:
        """See :attr:`store.Store.damage`."""
        return self._sound.damage

    def on_unusable(self, callback: Callable[[str], None]) -> None:
        """See :meth:`store.Store.on_unusable`."""
        self._on_unusable.append(callback)
        if self._unusable:
            callback(self._unusable)

    async def failed(self) -> None:
        """See :meth:`store.Store.failed`."""
        if self._writer is None:  # a damaged store is no defect of ours: it waits for its restore
            await asyncio.get_running_loop().create_future()
        else:
            await self._writer.failed()

    @property
    def _unusable(self) -> str:
        return self.damage or ((self._writer.failure or self._writer.trouble) if self._writer is not None else "")

    def _report_unusable(self) -> None:
        for callback in self._on_unusable:
            callback(self._unusable)

    def listen(self, heard: Callable[[Sequence[records.Change]], None]) -> None:
        """See :meth:`store.Store.listen`."""
        self._heard.append(heard)

    async def open(self) -> None:
        """See :meth:`store.Store.open`."""
        self._path = await asyncio.to_thread(database.prepare, self._path)
        self._lock()
        waiting = self._waiting = handing_out.WaitingPolls()
        try:
            database.check_one_name(self._path)
            loop = asyncio.get_running_loop()

            def report_damage() -> None:
                with contextlib.suppress(RuntimeError):  # the loop is gone: its process ends
                    loop.call_soon_threadsafe(self._report_unusable)

            sound = self._sound = soundness.Soundness(self._path, report_damage)
            await sound.begin()
            if sound.damage:
                # Nothing is written into it, not even what every opening writes.
                self._reader = reading.Reader(self._path, sound.look_at)
                return
            await asyncio.to_thread(history_mark.check, self._path, self.now())
            writer = writing.Writer(
                self._path,
                self._times,
                self._tell,
                lambda on: handing_out.answer_waiting(on, waiting, self._lease),
                sound,
                self._report_unusable,
            )
            try:
                await writer.start()
                await writer.do(staging.recover)
                self._times.continue_from(await writer.do(expiry.saved_clock))
                await writer.do(lambda tx: expiry.opened(tx, self._lease))
                await self._advance(writer)
                self._leases_since = self.lease_time()
            except BaseException:
                await writer.close()
                raise
        except BaseException:
            await self._sound.end()
            self._unlock()
            raise
        database.record_created(self._path, writer.epoch)
        self._writer = writer
        self._submitter = staging.Submitter(writer)
        self._reader = reading.Reader(self._path, sound.look_at)

    async def close(self) -> None:
        """See :meth:`store.Store.close`."""
        submitter, self._submitter = self._submitter, None
        if submitter is not None:
            await submitter.close()
        reader, self._reader = self._reader, None
        writer, self._writer = self._writer, None
        await self._sound.end()
        damaged = bool(self.damage)
        if reader is not None and not damaged:
            # Before the writer: the last connection to close must be the one that may write.
            await asyncio.to_thread(reader.close)
        if writer is not None:
            with contextlib.suppress(errors.Unavailable):  # a full disk: a rest is then longer by a lease
                await writer.do(expiry.save_clock)
                await self._advance(writer)
            await writer.close()
        if reader is not None and damaged:
            # After the writer: the last one would else bring its log into the damaged file.
            await asyncio.to_thread(reader.close)
        self._unlock()

    async def _advance(self, writer: writing.Writer) -> None:
        """Begin a generation, and mark it. A copy of the store that was made before is seen from now on."""
        self._has_assigned = False
        generation = await writer.do(lambda tx: schema.advance_generation(tx.sql))
        try:
            await asyncio.to_thread(history_mark.write, self._path, history_mark.Mark(writer.epoch, generation))
        except OSError as error:  # the mark before stays: it is no newer than the store
            details = {"path": str(history_mark.path_of(self._path))}
            log.log_system_event("store_not_marked", details, level="warning", error=error)

    def _lock(self) -> None:
        """Have the file alone: by its inode, and by its name, as pools of older versions do."""
        if self._path.is_dir():
            raise errors.BadSettings(f"pool_store {self._path} is a folder: name a file in it (--store)")
        try:
            self._take(database.lock_file(self._path))
            database.check_restored(self._path)
            database.forget_removed(self._path)
            self._take(self._path)
        except BaseException:
            self._unlock()
            raise

    def _take(self, path: Path) -> None:
        lock = locks.InodeLock(path, "give this one a store of its own (--store)")
        lock.take()
        self._locks.append(lock)

    def _unlock(self) -> None:
        # After SQLite has closed the file: see `locks`.
        while self._locks:
            self._locks.pop().release()

    async def submit(self, tasks: Sequence[records.NewTask], key: str = "", key_digest: str = "") -> tuple[str, ...]:
        """See :meth:`store.Store.submit`."""
        if len(tasks) > staging.SLICE_TASKS:
            return await self._submitting.submit(staging.slices(tasks), key, key_digest)
        brief = direct.is_brief_submission(tasks)
        return await self._write.do(lambda on: submissions.submit(on, tasks, key, key_digest), brief=brief)

    async def retry(self, task_ids: Sequence[str], key: str = "") -> tuple[str, ...]:
        """See :meth:`store.Store.retry`."""
        if len(task_ids) <= staging.SLICE_TASKS:
            return await self._write.do(lambda on: submissions.retry(on, task_ids, key))
        return await self._submitting.submit(self._again(task_ids), key, submissions.digest_of_retry(task_ids))

    async def _again(self, task_ids: Sequence[str]) -> AsyncIterator[Sequence[records.NewTask]]:
        part, size = list[records.NewTask](), 0
        for task_id in task_ids:
            task = await self._read.ask(functools.partial(submissions.again, task_id=task_id))
            if staging.end_of_slice(len(part), size, len(task.body)):
                yield part
                part, size = [], 0
            part.append(task)
            size += len(task.body)
        yield part

    async def cancel(self, task_ids: Sequence[str]) -> tuple[records.Task, ...]:
        """See :meth:`store.Store.cancel`."""
        await self._read.ask(lambda sql: reading.need_all(sql, task_ids))  # where one is not there none is cancelled
        for start in range(0, len(task_ids), staging.SLICE_TASKS):
            part = task_ids[start : start + staging.SLICE_TASKS]
            await self._write.do(functools.partial(submissions.cancel, task_ids=part))
        return await self.tasks(task_ids, max_result_bytes=0)

    async def register(
        self, node: records.NewNode, held: Sequence[records.Ref], silent_session: str = ""
    ) -> records.Registration:
        """See :meth:`store.Store.register`."""
        return await self._write.do(lambda on: sessions.register(on, node, held, self._leases, silent_session))

    async def heartbeat(self, beat: records.Beat) -> records.Directives:
        """See :meth:`store.Store.heartbeat`."""
        return await self._write.do(lambda on: sessions.heartbeat(on, beat, self._leases))

    async def verify(self, node_id: str, session_id: str) -> None:
        """See :meth:`store.Store.verify`."""
        await self._read.ask(lambda sql: sessions.check(sql, node_id, session_id))

    async def hand_out(self, polls: Sequence[records.Poll]) -> list[records.Given]:
        """See :meth:`store.Store.hand_out`."""
        brief = direct.is_brief_question(polls)
        return await self._write.do(lambda on: handing_out.hand_out(on, polls, self._lease, self._waiting), brief=brief)

    def answer(self, answered: Callable[[records.Poll, records.Given], None]) -> None:
        """See :meth:`store.Store.answer`."""
        self._answered.append(answered)

    def withdraw(self, poll: records.Poll) -> None:
        """See :meth:`store.Store.withdraw`."""
        self._waiting.withdraw(poll)

    async def report(self, report: records.Report) -> records.Answer:
        """See :meth:`store.Store.report`."""
        brief = len(report.body) <= direct.MAX_BRIEF_BYTES
        return await self._write.do(lambda on: reports.report(on, report, self._lease), brief=brief)

    async def accept_output(self, node_id: str, session_id: str, ref: records.Ref) -> records.Assignment:
        """See :meth:`store.Store.accept_output`."""
        epoch = self.epoch

        def check(sql: database.Connection) -> tuple[int, records.Assignment]:
            sessions.check(sql, node_id, session_id)
            number: int = moves.need(sql, ref.task_id)["number"]
            return number, attempts.check_output(sql, epoch, number, ref, node_id)

        number, assigned = await self._read.ask(check)
        if ref.run_id in ("", assigned.run_id):
            return assigned  # nothing to write: the rule, as each batch of output asks
        return await self._write.do(lambda tx: attempts.bind_output(tx, number, ref, node_id))

    async def expire(self, as_of: float | None = None) -> records.Lost:
        """See :meth:`store.Store.expire`."""
        if self._write.trouble:
            # Whoever watches must hear that the disk still takes nothing, although nothing may have run out yet.
            await self._write.do(expiry.keep_clock)
        if self._has_assigned:
            await self._advance(self._write)
        return await self._write.do(lambda on: expiry.expire(on, self._lease, as_of))

    async def begin_leases_anew(self) -> None:
        """See :meth:`store.Store.begin_leases_anew`."""
        await self._write.do(functools.partial(expiry.begin_leases_anew, lease_seconds=self._lease))
        self._leases_since = self.lease_time()

    async def drain(self, node_id: str, *, draining: bool) -> None:
        """See :meth:`store.Store.drain`."""
        await self._write.do(lambda on: sessions.drain(on, node_id, draining=draining))

    async def tasks(self, task_ids: Sequence[str], *, max_result_bytes: int | None = None) -> tuple[records.Task, ...]:
        """See :meth:`store.Store.tasks`."""
        return await self._read.ask(lambda sql: reading.tasks(sql, task_ids, max_result_bytes=max_result_bytes))

    async def story(self, task_id: str) -> tuple[records.Event, ...]:
        """See :meth:`store.Store.story`."""
        return await self._read.ask(lambda sql: reading.story(sql, task_id))

    async def assignment(self, task_id: str, attempt: int) -> records.Assignment | None:
        """See :meth:`store.Store.assignment`."""
        return await self._read.ask(lambda sql: attempts.find(sql, moves.need(sql, task_id)["number"], attempt))

    async def body(self, task_id: str) -> bytes:
        """See :meth:`store.Store.body`."""
        return await self._read.ask(lambda sql: reading.body(sql, task_id))

    async def find(self, wanted: records.Filter) -> tuple[records.Task, ...]:
        """See :meth:`store.Store.find`."""
        return await self._read.ask(lambda sql: reading.find(sql, wanted))

    async def nodes(
        self, *, alive_only: bool = False, after: str = "", max_count: int = -1, max_bytes: int = 0
    ) -> tuple[records.Node, ...]:
        """See :meth:`store.Store.nodes`."""
        return await self._read.ask(
            functools.partial(
                reading.nodes,
                lease_time=self.lease_time(),
                alive_only=alive_only,
                after=after,
                max_count=max_count,
                max_bytes=max_bytes,
            )
        )

    async def survey(self, fold: Callable[[Iterator[records.Node]], T]) -> T:
        """See :meth:`store.Store.survey`."""
        return await self._read.ask(lambda sql: reading.survey(sql, self.lease_time(), fold))

    async def living_nodes(self) -> int:
        """See :meth:`store.Store.living_nodes`."""
        return await self._read.ask(reading.living_nodes)

    async def lost_nodes(self) -> int:
        """See :meth:`store.Store.lost_nodes`."""
        return await self._read.ask(reading.lost_nodes)

    async def oldest_queued(self) -> float:
        """See :meth:`store.Store.oldest_queued`."""
        return await self._read.ask(reading.oldest_queued)

    async def counts(self) -> dict[str, int]:
        """See :meth:`store.Store.counts`."""
        return await self._read.ask(reading.counts)

    @property
    def _leases(self) -> sessions.Leases:
        return sessions.Leases(self._lease, self._leases_since)

    @property
    def _write(self) -> writing.Writer:
        if self._writer is None:
            raise errors.Unavailable(self.damage) if self.damage else errors.Unavailable("the pool's store is not open")
        return self._writer

    @property
    def _submitting(self) -> staging.Submitter:
        if self._submitter is None:
            raise errors.Unavailable("the pool's store is not open")
        return self._submitter

    @property
    def _read(self) -> reading.Reader:
        if self._reader is None:
            raise errors.Unavailable("the pool's store is not open")
        return self._reader

    def _tell(self, changes: Sequence[records.Change], answers: Sequence[tuple[records.Poll, records.Given]]) -> None:
        self._has_assigned = self._has_assigned or any(change.state is _ASSIGNED for change in changes)
        for poll, given in answers:
            for answered in self._answered:
                answered(poll, given)
        for heard in self._heard if changes else ():
            heard(changes)
