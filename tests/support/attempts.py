"""One executor with its store, and attempts made on it: what the contract suite and the hostile cases share."""

from __future__ import annotations

import dataclasses
import itertools
import os
import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import own_images

from hivemind_worker.artifacts import store as stores
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import executor
from hivemind_worker.runtime.docker import docker_executor, leftovers, pulled
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.egress import gateway
from hivemind_worker.runtime.environments import answers
from hivemind_worker.runtime.environments import sources as sourcing
from hivemind_worker.runtime.sandbox import sandbox_executor
from hivemind_worker.settings import schema
from hivemind_worker.tasks import outcome, plan, state

MIB = 1024 * 1024
CAPS = plan.Caps(
    output_head_bytes=64 * 1024,
    output_tail_bytes=64 * 1024,
    results_bytes=2048 * MIB,
    results_count=1000,
    results_depth=16,
    results_seconds=120.0,
)
LIMITS = outcome.Limits(memory_bytes=256 * MIB, cpu_quota=200_000, timeout_seconds=60.0, disk_bytes=128 * MIB, pids=64)


@dataclasses.dataclass
class Watcher:
    """Remembers what an executor tells while an attempt runs."""

    phases: list[state.Phase] = dataclasses.field(default_factory=list)
    pieces: list[tuple[executor.Stream, int, bytes]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def phase(self, phase: state.Phase) -> None:
        """Be told."""
        self.phases.append(phase)

    def output(self, stream: executor.Stream, offset: int, data: bytes) -> None:
        """Be given."""
        self.pieces.append((stream, offset, data))

    def note(self, text: str) -> None:
        """Be told a line."""
        self.notes.append(text)

    def stored(self, artifacts: Collection[outcome.Artifact]) -> None:
        """Be told of result files in the store."""

    def text(self, stream: executor.Stream = executor.Stream.STDOUT) -> bytes:
        """All that came of one stream."""
        return b"".join(data for name, _, data in self.pieces if name is stream)


@dataclasses.dataclass
class Bench:
    """An open executor, and where its results go."""

    executor: executor.Executor
    store: stores.Store
    image: str
    _numbers: itertools.count[int] = dataclasses.field(default_factory=lambda: itertools.count(1))

    def plan(
        self,
        argv: Sequence[str],
        *,
        limits: Mapping[str, object] | None = None,
        caps: Mapping[str, object] | None = None,
        **more: object,
    ) -> plan.RunPlan:
        """A plan that runs `argv`; `limits` and `caps` change single fields of the usual ones."""
        return plan.RunPlan(
            task_id=f"task-{next(self._numbers)}",
            attempt=1,
            image=str(more.pop("image", self.image)),
            argv=tuple(argv),
            limits=dataclasses.replace(LIMITS, **(limits or {})),  # type: ignore[arg-type]  # replace checks the names
            caps=dataclasses.replace(CAPS, **(caps or {})),  # type: ignore[arg-type]
            grace_seconds=float(str(more.pop("grace_seconds", 1.0))),
            **more,  # type: ignore[arg-type]
        )

    async def run(
        self,
        argv: Sequence[str],
        *,
        stop: stopping.Stop | None = None,
        watcher: Watcher | None = None,
        **more: object,
    ) -> outcome.Outcome:
        """Run one attempt to its end."""
        asked = self.plan(argv, **more)  # type: ignore[arg-type]
        return await self.executor.run(asked, stop or stopping.Stop(), watcher or Watcher())

    async def shell(self, script: str, **more: object) -> outcome.Outcome:
        """Run a script with /bin/sh."""
        return await self.run(["/bin/sh", "-c", script], **more)  # type: ignore[arg-type]

    async def python(self, script: str, *args: str, **more: object) -> outcome.Outcome:
        """Run a script with python3."""
        return await self.run(["python3", "-c", script, *args], **more)  # type: ignore[arg-type]

    def content(self, ended: outcome.Outcome, name: str) -> bytes:
        """What a result file holds."""
        found = next(file for file in ended.results if file.name == name)
        return b"".join(self.store.read(found.artifact.sha256))


@asynccontextmanager
async def docker_bench(
    url: str,
    image: str,
    folder: Path,
    sources: sourcing.Sources | None = None,
    *,
    keep: bool = False,
    supply: docker_executor.Supply | None = None,
    policy: schema.PullPolicy = schema.PullPolicy.IF_MISSING,
    way: gateway.Gateway | None = None,
    access: pulled.Access = own_images.ANY,
) -> AsyncIterator[Bench]:
    """A Docker executor under a node id of its own; nothing of it stays at the engine.

    Environments it made do with `keep`: others find them, a session may use one throughout. ``HIVEMIND_TEST_RUNTIME``
    names the runtime of the engine to try, such as runsc.
    """
    node_id = f"test-{uuid.uuid4().hex[:12]}"
    store = stores.Store(folder / "artifacts")
    store.prepare()
    from_where = sources or sourcing.Sources()
    under_test = docker_executor.DockerExecutor(
        engine=engines.Engine(url),
        store=store,
        node_id=node_id,
        boot_id="boot-1",
        pull_policy=policy,
        runtime=os.environ.get("HIVEMIND_TEST_RUNTIME", ""),
        supply=dataclasses.replace(
            supply or docker_executor.Supply(from_where, answers.Answers(folder), way=way), access=access
        ),
    )
    await under_test.open()
    try:
        yield Bench(under_test, store, image)
    finally:
        await under_test.close()
        store.close()
        engine = engines.Engine(url)
        await engine.connect()
        try:
            left = await engine.containers(f"io.hivemind.node-id={node_id}")
            removed = await leftovers.remove(engine, node_id, all_boots=True)
            for made in [] if keep else await engine.images(f"io.hivemind.keeper={node_id}"):
                await engine.remove_image(made["Id"])
        finally:
            await engine.close()
        assert not left, f"left behind: containers {left}"
        assert not removed.volumes, f"left behind: volumes {removed.volumes}"


@asynccontextmanager
async def process_bench(
    folder: Path,
    sources: sourcing.Sources | None = None,
    cache: Path | None = None,
    way: gateway.Gateway | None = None,
) -> AsyncIterator[Bench]:
    """A sandbox executor; nothing of it stays on this machine but environments in `cache`.

    For a worker that is root that must be a folder which everyone may enter, as no folder of pytest's is.
    """
    store = stores.Store(folder / "artifacts")
    store.prepare()
    under_test = sandbox_executor.ProcessExecutor(
        store=store, sources=sources, cache=cache or folder / "cache", way=way
    )
    await under_test.open()
    before = traces()
    try:
        yield Bench(under_test, store, "no-image")
    finally:
        await under_test.close()
        store.close()
        left = traces() - before
        assert not left, f"left behind: {left}"


def traces() -> set[str]:
    """What sandboxes of this process could leave on this machine: control groups, and workspaces it still holds."""
    mine = f"hivemind-task-{os.getpid()}-"
    folders = (f"{at}/{name}" for at, names, _ in os.walk("/sys/fs/cgroup") for name in names)
    groups = {path for path in folders if mine in path}
    held = {str(Path(entry.path).readlink()) for entry in os.scandir("/proc/self/fd") if Path(entry.path).is_dir()}
    return groups | {path for path in held if "hivemind-workspace-" in path}
