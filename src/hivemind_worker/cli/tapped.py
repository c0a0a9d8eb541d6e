"""An executor that is listened to: its tasks' output goes to us at once, beside its way through the pool.

What `hivemind run` shows with a worker of its own: complete however much it is, where the pool keeps a bounded part.
"""

from __future__ import annotations

import asyncio
import dataclasses
import queue
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from hivemind_worker.client import following
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import checkpoint, executor, undead
from hivemind_worker.runtime.capsule import accounts, defence_spec
from hivemind_worker.tasks import outcome, plan, state

WAITING_BYTES = 64 * 1024 * 1024
"""Most output that waits for whoever reads ours. A task is never held back: beyond this its output is left out."""

LIVE_BYTES = 2**50
"""Output that is told while the task runs: all of it, a petabyte being more than any has written here."""


class Tap:
    """Writes output in a thread of its own, in the order it came, from :meth:`open` on until :meth:`close`.

    ``write`` may block; where it raises, nothing more is written and ``gone`` is called on the event loop.
    """

    def __init__(self, write: Callable[[following.Output], None], gone: Callable[[OSError], None]) -> None:
        self._write = write
        self._gone = gone
        self._waiting: queue.SimpleQueue[following.Output | None] = queue.SimpleQueue()
        self._bytes = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ends: dict[tuple[int, str], int] = {}
        self.left_out_bytes = 0

    def add(self, output: following.Output) -> None:
        """Take output that has just come. Never waits."""
        where = (output.attempt, output.stream)
        known = self._ends.get(where, 0)
        if output.stream != executor.Stream.SYSTEM:  # the node's own lines are not counted in it
            if known > output.offset:  # a capsule that is entered again repeats itself
                skip = known - output.offset
                output = dataclasses.replace(output, offset=known, data=output.data[skip:])
            # A jump is what the capsule had to give up because we were slower than the task.
            self.left_out_bytes += output.offset - known
            self._ends[where] = max(known, output.offset + len(output.data))
        with self._lock:
            if self._bytes + len(output.data) > WAITING_BYTES:
                self.left_out_bytes += len(output.data)
                return
            self._bytes += len(output.data)
        self._waiting.put(output)

    def open(self) -> None:
        """Begin to write. To be called on the event loop."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._pump, args=(loop,), name="task output", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Write what waits, and be done. Not called where the rest is given up: the thread ends with the process."""
        if self._thread is not None:
            self._waiting.put(None)
            await asyncio.to_thread(self._thread.join)

    def _pump(self, loop: asyncio.AbstractEventLoop) -> None:
        broken = False
        while (output := self._waiting.get()) is not None:
            try:
                if not broken:
                    self._write(output)
            except OSError as error:
                broken = True
                loop.call_soon_threadsafe(self._gone, error)
            with self._lock:
                self._bytes -= len(output.data)


@dataclass(slots=True)
class _Both:
    """Tells two: the one who must know, and the tap."""

    observer: executor.Observer
    tap: Tap
    attempt: int
    noted: int = 0

    def phase(self, phase: state.Phase) -> None:
        self.observer.phase(phase)

    def output(self, stream: executor.Stream, offset: int, data: bytes) -> None:
        self.tap.add(following.Output(str(stream), offset, bytes(data), self.attempt))
        self.observer.output(stream, offset, data)

    def note(self, text: str) -> None:
        line = f"{text}\n".encode()
        self.tap.add(following.Output(str(executor.Stream.SYSTEM), self.noted, line, self.attempt))
        self.noted += len(line)
        self.observer.note(text)

    def stored(self, artifacts: Collection[outcome.Artifact]) -> None:
        self.observer.stored(artifacts)


class TappedExecutor:
    """``inner``, with the output of what it runs going to ``tap`` as well."""

    def __init__(self, inner: executor.Executor, tap: Tap) -> None:
        self._inner = inner
        self._tap = tap

    @property
    def isolation(self) -> str:
        """What fences a task."""
        return self._inner.isolation

    @property
    def images(self) -> tuple[str, ...]:
        """References of images that are here."""
        return self._inner.images

    def preload(self, references: Iterable[str]) -> None:
        """Have these images ready."""
        self._inner.preload(references)

    async def open(self, covered: Collection[Mapping[str, str]] = ()) -> None:
        """Make ready to run plans."""
        await self._inner.open(covered)

    async def run(
        self,
        plan: plan.RunPlan,
        stop: stopping.Stop,
        observer: executor.Observer,
        custody: checkpoint.Custody | None = None,
    ) -> outcome.Outcome:
        """Run one attempt, listened to."""
        live = dataclasses.replace(plan, caps=dataclasses.replace(plan.caps, output_live_bytes=LIVE_BYTES))
        return await self._inner.run(live, stop, _Both(observer, self._tap, plan.attempt), custody)

    async def usage(self) -> Mapping[tuple[str, int], accounts.Usage]:
        """What the capsules that run use."""
        return await self._inner.usage()

    @property
    def undead(self) -> tuple[undead.Undead, ...]:
        """Capsules that could not be killed yet."""
        return self._inner.undead

    async def fitness(self) -> executor.Fitness:
        """Probe this machine."""
        return await self._inner.fitness()

    async def promises(self, plan: plan.RunPlan) -> defence_spec.DefenceSpec | None:
        """What a task is promised."""
        return await self._inner.promises(plan)

    async def close(self) -> None:
        """Finish removals that are under way."""
        await self._inner.close()
