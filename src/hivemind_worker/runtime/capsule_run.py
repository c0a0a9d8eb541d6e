"""One attempt's conversation with its capsule, over any stream of bytes: from READY to DONE, or as far as it goes.

The capsule is not trusted: what it says is checked by `capsule.conversation`, every wait has an end here as well, and
when it breaks its word it is killed from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from hivemind_worker import errors
from hivemind_worker.artifacts import store as stores
from hivemind_worker.concurrency import clock, stopping
from hivemind_worker.runtime import (
    checkpoint,
    deadlines,
    executor,
    inputs,
    logs,
    outbound,
    redaction,
    results,
    session_result,
    watchdog,
)
from hivemind_worker.runtime.capsule import conversation, messages, table
from hivemind_worker.runtime.capsule import tunnel_messages as t
from hivemind_worker.tasks import plan, state

_STREAMS: Final = {messages.Stream.OUT: executor.Stream.STDOUT, messages.Stream.ERR: executor.Stream.STDERR}

_SLICE_BYTES: Final = 4096
"""Taken in at once: 130 frames of two bytes of output each, some 5 ms on a slow machine."""

_TURN_SECONDS: Final = 0.005
"""So long one capsule is listened to before others have their turn."""


class Pipe(Protocol):
    """The two directions of a capsule's stream."""

    async def read(self) -> bytes:
        """Return the next bytes, empty at the end."""

    async def write(self, data: bytes) -> None:
        """Write `data`; its bytes are in order when calls are begun in order. Waits while nothing is taken."""


class CapsuleRun:
    """One attempt. `kill` ends the capsule from outside, at once, and may be called more than once.

    In `custody` it is written down before the task begins that it does, and where its capsule is. Where another
    process can go on with that, nothing is acknowledged before it is safe; where an earlier process had come so far,
    the conversation is entered again.
    """

    def __init__(  # noqa: PLR0913 - each is another part of the node, and the last two are there or not
        self,
        *,
        pipe: Pipe,
        plan: plan.RunPlan,
        spec: messages.Spec,
        store: stores.Store,
        stop: stopping.Stop,
        observer: executor.Observer,
        kill: Callable[[], Awaitable[None]],
        custody: checkpoint.Custody | None = None,
        relay: outbound.Relay | None = None,
    ) -> None:
        self._pipe = pipe
        self._plan = plan
        self._relay = relay
        self._spec = spec if relay is None else dataclasses.replace(spec, proxy_port=outbound.PORT)
        self._store = store
        self._stop = stop
        self._observer = observer
        self._kill = kill
        self._custody = custody
        self._again = custody is not None and custody.after is not None
        after = (custody and custody.after) or checkpoint.Checkpoint()
        self.reached = custody.after if custody is not None else None
        """From where another may go on, in this process or the next: None before the task may have begun."""
        self._talk = conversation.Conversation(
            spec=self._spec if self._again else None, after=after.after, inside_file=after.inside_file
        )
        self._redactor = redaction.Redactor(plan.secrets)
        self._kept = logs.Kept(plan.caps, after.output)
        self._receiver = results.Receiver(store, plan.caps, after.results, observer.stored)
        self._heard = session_result.SessionResult(exited=after.exited, ended_first=after.exited is not None)
        self._ready = asyncio.Event()
        self._feed_error: Exception | None = None
        times = deadlines.Times(plan.limits.timeout_seconds, plan.grace_seconds, plan.caps.results_seconds)
        self._watchdog = watchdog.Watchdog(times)
        self._kill_job: asyncio.Task[None] | None = None
        self._mark = self._turn_began = clock.now()
        self.began: float | None = None
        """When the task was told to start, on the loop's clock; None before, and where nobody knows."""

    async def run(self) -> session_result.SessionResult:
        """Hold the conversation to its end. Raises OSError when our disk broke, NoSuchArtifact for a missing input.

        Whatever it raises, the store has no half-written file of this attempt but what a checkpoint names, and no task
        of ours goes on.
        """
        # Before anything is read: what was on its way to the process before us is passed over up to the answer.
        resume = b""
        if self._again:
            resume = self._talk.resume(secrets.token_bytes(messages.NONCE_BYTES), self._spec.resume_key)
        if self._relay is not None:
            self._relay.attach(self._talk, self._pipe.write)
        feed = asyncio.create_task(self._enter(resume) if self._again else self._feed(), name="feed capsule")
        watch = asyncio.create_task(self._obey(), name="watch stop")
        try:
            await self._listen()
            if self._heard.done is not None:  # all of it has come: a stop in this moment must not make a part of it
                self._heard.results = await self._receiver.finish()
                self._time("collect")
        finally:
            try:
                await stopping.settle(feed, watch, *filter(None, [self._kill_job]))
            finally:
                self._heard.traffic = await self._detach()
                await self._receiver.abort()
        if self.began is not None and self._heard.elapsed_seconds is None:
            self._heard.elapsed_seconds = clock.now() - self.began
        self._pass_on(self._redactor.flush())
        self._heard.logs = self._kept.logs()
        self._heard.truncated = self._kept.truncated
        return self._heard

    async def _listen(self) -> None:
        try:
            while not self._over():
                data = await self._watchdog.in_time(self._pipe.read)
                if not data:
                    self._heard.cut = True
                    self._heard.fault = "the capsule ended without a word"
                    break
                received_at = clock.now()
                await self._take(data)
                said = await self._acknowledgement()
                self._watchdog.progress(clock.now() - received_at)
                if said is not None:
                    await self._watchdog.in_time(functools.partial(self._pipe.write, said))
        except TimeoutError:
            self._heard.overtime = self._watchdog.state is deadlines.State.RUNNING
            # What reads the results is our own program, out of the task's reach: its silence is nobody's result.
            self._heard.cut = self._watchdog.state is deadlines.State.COLLECTING
            self._heard.fault = f"{self._watchdog.expiry}. The story: {self._talk.story()}"
            self._end()
            self._heard.undead = not await self._has_died()
        except errors.CapsuleFault as error:
            self._heard.fault = str(error)
            self._end()
            if not self._heard.not_begun:
                self._heard.undead = not await self._has_died()
            elif not await self._ended_in_silence():
                self._heard.not_begun = False
                self._heard.fault = "the task began after all, by a word of the worker before this one that came late"
        except errors.EngineLost as error:
            self._heard.cut = True
            self._heard.lost = not self._heard.stopped
            self._heard.fault = str(error)
        if self._feed_error is not None:
            raise self._feed_error

    async def _ended_in_silence(self) -> bool:
        """Whether a capsule that had not begun said nothing more until its end: START may still have been under way."""
        with contextlib.suppress(TimeoutError, errors.EngineLost):
            async with asyncio.timeout(deadlines.OVERTIME_SECONDS):
                return not await self._pipe.read()
        return False

    async def _acknowledgement(self) -> bytes | None:
        if self._custody is None or not self._custody.reattachable:
            return self._talk.acknowledgement()
        if not self._talk.crowded:
            return None
        self._pass_on(self._redactor.flush())  # what is acknowledged must be kept
        reached = checkpoint.Checkpoint(
            after=self._talk.heard,
            inside_file=self._talk.phase is table.Phase.RECEIVING,
            output=self._kept.progress(),
            results=await self._receiver.progress(),
            exited=self._heard.exited,
        )
        try:
            await self._custody.keeper.save(reached)
            self.reached = reached
        except (errors.NodeFault, OSError):
            return None  # the capsule keeps it for us, and the next piece tries again
        return self._talk.acknowledgement(force=True)

    async def _take(self, data: bytes) -> None:
        """Take in what was read, and let others have their turn: a flood of output must not keep the loop to itself.

        A read returns at once while there is more, so nothing here would ever wait; a piece of 64 KiB can be thousands
        of tiny frames, and took 0.3 s. With 100 secrets of 5 kB one slice took 2 s.
        """
        for start in range(0, len(data), _SLICE_BYTES):
            try:
                messages_of_slice = self._talk.receive(data[start : start + _SLICE_BYTES])
            except errors.CapsuleFault:
                for message in self._talk.salvaged:  # said before it broke its word
                    await self._hear(message)
                raise
            for message in messages_of_slice:
                await self._hear(message)
                if clock.now() - self._turn_began > _TURN_SECONDS:  # one frame may take long: secrets are looked for
                    await asyncio.sleep(0)
                    self._turn_began = clock.now()

    def _over(self) -> bool:
        # Nobody waits for the results of a stopped task: gone within the grace time is what counts.
        return self._heard.done is not None or (self._heard.stopped and self._heard.exited is not None)

    async def _hear(self, message: messages.FromCapsule) -> None:
        match message:
            case messages.Ready() if self._again:
                self._entered(message)
            case messages.Ready():
                self._time("ready")
                self._watchdog.enter(deadlines.State.LOADING)
                self._ready.set()
            case messages.Output():
                self._pass_on(self._redactor.take(message))
            case messages.Exited():
                self._pass_on(self._redactor.flush())
                self._exited(message)
                self._heard.traffic = await self._detach()
                self._kept.missed(messages.Stream.OUT, message.out_total)
                self._kept.missed(messages.Stream.ERR, message.err_total)
                self._time("run")
                self._observer.phase(state.Phase.COLLECTING)
            case messages.Done():
                self._heard.done = message
            case messages.Error():
                if message.code is messages.ErrorCode.FILE:
                    self._heard.refused_file = message.text
                raise errors.CapsuleFault(f"the capsule says: {message.text}")
            case messages.Taken():
                pass  # tasks have no stdin
            case t.TunnelOpened() | t.TunnelUpload() | t.TunnelDownloadCredit() | t.TunnelClosed():
                assert self._relay is not None  # else no port, and the conversation lets none of these through
                self._relay.receive(message)
            case _:
                await self._receiver.take(message)

    async def _detach(self) -> outbound.Traffic | None:
        return None if self._relay is None else await self._relay.detach()

    def _exited(self, message: messages.Exited) -> None:
        self._heard.exited = message
        self._heard.ended_first, self._heard.killed_first = not self._heard.stopped, self._kill_job is not None
        if self.began is not None:
            self._heard.elapsed_seconds = clock.now() - self.began
        self._watchdog.enter(deadlines.State.COLLECTING)

    def _pass_on(self, outputs: Sequence[messages.Output]) -> None:
        for output in outputs:
            self._kept.take(output)
            self._observer.output(_STREAMS[output.stream], output.offset, output.data)

    async def _enter(self, resume: bytes) -> None:
        """Go on with a capsule that another process had talked to."""
        with contextlib.suppress(errors.EngineLost):  # the listener learns why
            await self._pipe.write(resume)

    def _entered(self, ready: messages.Ready) -> None:
        if ready.state in {messages.State.IDLE, messages.State.LOADING}:
            self._heard.not_begun = True
            raise errors.CapsuleFault("the task had not begun when the worker before this one ended")
        self._time("resume")
        assert self._custody is not None
        self.began = self._custody.start_time()
        self._heard.started, self._heard.reattached = True, self._custody.began is None
        if ready.state is messages.State.RUNNING:
            self._watchdog.reattach(self.began, by_other_process=self._custody.began is None)
        else:
            self._watchdog.enter(deadlines.State.COLLECTING)
        if self._heard.exited is None:
            self._observer.phase(state.Phase.RUNNING)

    async def _feed(self) -> None:
        """Say what to run, with its files, and begin."""
        await self._ready.wait()
        try:
            await self._say_files()
        except errors.EngineLost:
            pass  # the listener learns why
        except (stores.NoSuchArtifact, errors.NodeFault, OSError, ValueError) as error:
            self._feed_error = error
            self._end()

    async def _say_files(self) -> None:
        waiting = self._talk.send(self._spec)
        async with contextlib.aclosing(inputs.pieces(self._plan.files, self._store)) as pieces:
            async for piece in pieces:
                if len(waiting) + len(piece.data) > inputs.PIECE:
                    await self._pipe.write(waiting)
                    self._watchdog.progress()
                    waiting = b""
                waiting += self._talk.send(piece)
        if not self._may_begin():
            return
        self._time("files")
        if self._custody is not None:
            capsule = self._custody.as_started(clock.now(), self._spec.resume_key)
            await self._custody.keeper.placed(capsule if self._custody.reattachable else {})
            self.reached = checkpoint.Checkpoint() if self._custody.reattachable else None
            self._time("journal")
            if not self._may_begin():
                return
        self._watchdog.enter(deadlines.State.RUNNING)
        self.began = clock.now()
        self._heard.started = True
        self._observer.phase(state.Phase.RUNNING)
        await self._pipe.write(waiting + self._talk.send(messages.Start()))

    def _may_begin(self) -> bool:
        """Whether it is neither being killed, nor an ERROR has been heard."""
        return not self._heard.stopped and self._talk.phase is table.Phase.LOADING

    async def _obey(self) -> None:
        """Pass a stop on: politely while the task runs, else at once; a kill always at once."""
        await self._stop.wait(stopping.StopLevel.CANCEL)
        self._heard.stopped = True
        if self._stop.level < stopping.StopLevel.KILL and self._talk.phase is table.Phase.RUNNING:
            grace = self._plan.grace_seconds
            left = self._stop.remaining()
            grace = grace if left is None else min(grace, left)
            self._watchdog.stop(grace)
            with contextlib.suppress(errors.EngineLost, conversation.ConversationError, TimeoutError):
                said = self._talk.send(messages.Stop(round(grace * 1000)))
                async with asyncio.timeout(grace + deadlines.OVERTIME_SECONDS):
                    await self._pipe.write(said)
            await self._stop.wait(stopping.StopLevel.KILL, timeout=self._watchdog.remaining)
        self._end()

    def _end(self) -> None:
        """Have it killed. Its death shows by the end of its stream, and the watchdog waits no longer than usual."""
        self._watchdog.enter(deadlines.State.KILLING)
        if self._kill_job is None:
            self._kill_job = asyncio.create_task(self._killed(), name="kill capsule")

    async def _has_died(self) -> bool:
        """Whether the stream of a capsule that is being killed ends in time; what it still says counts no more."""
        with contextlib.suppress(errors.EngineLost):  # its driver asks the engine
            try:
                while await self._watchdog.in_time(self._pipe.read):  # noqa: ASYNC110  (the kill needs its turn)
                    await asyncio.sleep(0)
            except TimeoutError:
                return False
        return True

    async def _killed(self) -> None:
        with contextlib.suppress(errors.NodeFault):
            await self._kill()

    def _time(self, step: str) -> None:
        now = clock.now()
        self._heard.timings[step] = now - self._mark
        self._mark = now

    def goodbye(self) -> bytes:
        """Return the last bytes for a capsule that is not to be killed: what it said is safe, it may end."""
        said = self._talk.acknowledgement(force=True) or b""
        return said + self._talk.send(messages.Close())
