"""An executor that fences nothing: plain child processes in a throw-away folder. For tests of the node alone.

It keeps the Protocol's promises (phases, output as it arrives, stop levels, time limit, results into the store) so
that a node's tests need neither an engine nor a sandbox. Commands must use paths relative to the workspace.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from hivemind_worker.artifacts import store
from hivemind_worker.concurrency import clock, stopping
from hivemind_worker.runtime import checkpoint, executor, undead
from hivemind_worker.runtime.capsule import accounts, defence_spec
from hivemind_worker.tasks import outcome, plan, state


class SubprocessExecutor:
    """Runs plans as child processes of the test. ``prepare_gate`` holds every run in its preparing phase while set."""

    isolation = "sandbox"
    images: tuple[str, ...] = ()
    undead: tuple[undead.Undead, ...] = ()

    def __init__(self, files: store.Store) -> None:
        self._files = files
        self.preloaded: list[str] = []
        self.ran: list[tuple[str, int]] = []
        self.running = 0
        self.most_at_once = 0
        self.prepare_gate: asyncio.Event | None = None
        self.raises: Exception | None = None
        self.plans: list[plan.RunPlan] = []
        self.used: dict[tuple[str, int], accounts.Usage] = {}
        self.unfit = ""
        self.opened = False

    def preload(self, references: Iterable[str]) -> None:
        self.preloaded += list(references)

    async def open(self, covered: Collection[Mapping[str, str]] = ()) -> None:  # noqa: ARG002  (the Protocol's)
        """Nothing to open, and nothing of an earlier life to be kept."""
        self.opened = True

    async def usage(self) -> Mapping[tuple[str, int], accounts.Usage]:
        """What the test says."""
        return self.used

    async def fitness(self) -> executor.Fitness:
        """Unfenced; as fit as the test says."""
        return executor.Fitness(usable=not self.unfit, isolation=self.isolation, runtime="subprocess", why=self.unfit)

    async def promises(self, plan: plan.RunPlan) -> defence_spec.DefenceSpec | None:  # noqa: ARG002  (the Protocol's)
        """Nothing, unless the test says so."""
        return None

    async def close(self) -> None:
        """Nothing to close."""

    async def run(
        self,
        plan: plan.RunPlan,
        stop: stopping.Stop,
        observer: executor.Observer,
        custody: checkpoint.Custody | None = None,
    ) -> outcome.Outcome:
        """Run one attempt to its end."""
        assert custody is None or custody.after is None, "no process of this executor outlives it"
        self.plans.append(plan)
        self.ran.append((plan.task_id, plan.attempt))
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        folder = Path(tempfile.mkdtemp(prefix="node-test-"))
        try:
            observer.phase(state.Phase.PREPARING)
            if self.raises is not None:
                raise self.raises
            if self.prepare_gate is not None:
                await stop.until(stopping.StopLevel.CANCEL, _passed(self.prepare_gate))
            return await _Run(self._files, folder, plan, stop, observer, custody).through()
        except stopping.Stopped as stopped:
            return _stopped(stopped.reason)
        finally:
            self.running -= 1
            shutil.rmtree(folder)


async def _passed(gate: asyncio.Event) -> None:
    await gate.wait()


class _Run:
    def __init__(
        self,
        files: store.Store,
        folder: Path,
        ready: plan.RunPlan,
        stop: stopping.Stop,
        observer: executor.Observer,
        custody: checkpoint.Custody | None,
    ) -> None:
        self._custody = custody
        self._files, self._folder, self._plan, self._stop, self._observer = files, folder, ready, stop, observer
        self._kept = bytearray()
        self._bytes = dict.fromkeys(executor.Stream, 0)

    async def through(self) -> outcome.Outcome:
        (self._folder / "results").mkdir()
        for file in self._plan.files:
            path = self._folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if file.artifact is not None:
                assert file.artifact.size == self._files.size(file.artifact.sha256)
                path.write_bytes(b"".join(self._files.read(file.artifact.sha256)))
            else:
                path.write_bytes(file.content or b"")
        self._observer.phase(state.Phase.STARTING)
        if self._custody is not None:
            await self._custody.keeper.placed({})
        started = clock.now()
        process = await asyncio.create_subprocess_exec(
            *self._plan.argv,
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], **self._plan.environment, **self._plan.secrets},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._observer.phase(state.Phase.RUNNING)
        readers = [
            asyncio.create_task(self._read(executor.Stream.STDOUT, process.stdout)),
            asyncio.create_task(self._read(executor.Stream.STDERR, process.stderr)),
        ]
        try:
            why = await self._until_ended(process)
            await asyncio.gather(*readers)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            await stopping.settle(*readers)
        self._observer.phase(state.Phase.COLLECTING)
        results = await asyncio.to_thread(self._collect)
        code = process.returncode or 0
        return self._outcome(why, code, results, clock.now() - started)

    async def _read(self, stream: executor.Stream, pipe: asyncio.StreamReader | None) -> None:
        assert pipe is not None
        while data := await pipe.read(65_536):
            self._observer.output(stream, self._bytes[stream], data)
            self._bytes[stream] += len(data)
            room = self._plan.caps.output_head_bytes - len(self._kept)
            self._kept += data[: max(room, 0)]

    async def _until_ended(self, process: asyncio.subprocess.Process) -> outcome.Reason | None:
        why: outcome.Reason | None = None
        try:
            async with asyncio.timeout(self._plan.limits.timeout_seconds):
                await self._stop.until(stopping.StopLevel.CANCEL, _exit_of(process))
        except TimeoutError:
            why = outcome.Reason.TIMEOUT
        except stopping.Stopped as stopped:
            why = outcome.Reason(stopped.reason)
        if why is not None and self._stop.level < stopping.StopLevel.KILL:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError, stopping.Stopped):
                async with asyncio.timeout(self._plan.grace_seconds):
                    await self._stop.until(stopping.StopLevel.KILL, _exit_of(process))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        return why

    def _collect(self) -> list[outcome.ResultFile]:
        found = []
        top = self._folder / "results"
        for path in sorted(top.rglob("*")):
            if not stat.S_ISREG(path.lstat().st_mode):
                continue
            writer = self._files.writer()
            try:
                with path.open("rb") as file:
                    while piece := file.read(store.CHUNK):
                        writer.write(piece)
                artifact = self._files.commit([writer])[0]
            except OSError:
                writer.abort()
                raise
            found.append(outcome.ResultFile(str(path.relative_to(top)), artifact))
        return found

    def _outcome(
        self, why: outcome.Reason | None, code: int, results: list[outcome.ResultFile], seconds: float
    ) -> outcome.Outcome:
        if why is None and code != 0:
            why = outcome.Reason.NONZERO_EXIT
        status = outcome.Status.FAILED if why else outcome.Status.COMPLETED
        if why is outcome.Reason.CANCELLED:
            status = outcome.Status.CANCELLED
        return outcome.Outcome(
            status=status,
            reason=why,
            exit_code=code if code >= 0 else 128 - code,
            signal=-code if code < 0 else None,
            logs=outcome.Logs(
                bytes(self._kept), self._bytes[executor.Stream.STDOUT], self._bytes[executor.Stream.STDERR]
            ),
            results=tuple(results),
            usage=outcome.Usage(wall_seconds=seconds),
            limits=self._plan.limits,
            isolation=SubprocessExecutor.isolation,
            runtime="subprocess",
        )


async def _exit_of(process: asyncio.subprocess.Process) -> None:
    await process.wait()


def _stopped(why: str) -> outcome.Outcome:
    if why == outcome.Reason.NODE_SHUTDOWN:
        return outcome.Outcome(outcome.Status.FAILED, outcome.Reason.NODE_SHUTDOWN)
    return outcome.Outcome(outcome.Status.CANCELLED, outcome.Reason.CANCELLED)
