"""What `hivemind doctor` looks at: each probe returns rows, and none takes longer than its share of ten seconds."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Collection, Iterable
from pathlib import Path

from hivemind_worker import wiring
from hivemind_worker.cli import words
from hivemind_worker.concurrency import stopping
from hivemind_worker.executors import executor
from hivemind_worker.settings import schema
from hivemind_worker.task import errors, outcome, plan, resources, state

Row = executor.Defence

PROBE_SECONDS = 4.0
"""Longest that one probe may take: with two after one another the whole stays below ten seconds."""

LEAST_DISK = resources.GIB
"""Bytes that must be free for work: below that a single default task does not fit."""

# Plain sh, for the smallest of images: what the kernel says of this process, and two things it must not be able to do.
_LOOK = (
    "cat /proc/self/status; "
    "if (: > /hivemind-probe) 2>/dev/null; then echo 'Root: writable'; else echo 'Root: read-only'; fi; "
    "echo Interfaces: $(sed -n 's/^ *\\([^:]*\\):.*/\\1/p' /proc/net/dev)"
)


class Seen:
    """An observer that keeps what a probe's task says."""

    def __init__(self) -> None:
        self.text = b""

    def phase(self, phase: state.Phase) -> None:
        """Nothing to tell anybody."""

    def output(self, stream: executor.Stream, offset: int, data: bytes) -> None:  # noqa: ARG002
        """Keep it: the task is ours, and says little."""
        self.text += data

    def note(self, text: str) -> None:
        """Nothing to tell anybody."""

    def stored(self, artifacts: Collection[outcome.Artifact]) -> None:
        """Nothing to tell anybody: the probe's store goes with it."""


async def within(seconds: float, name: str, probe: Awaitable[list[Row]]) -> list[Row]:
    """Return what ``probe`` finds, or a row that says that it found no end."""
    try:
        async with asyncio.timeout(seconds):
            return await probe
    except TimeoutError:
        return [Row(name, in_force=False, why=f"no answer within {seconds:g} s", fix="look why it hangs; try again")]


async def fence(settings: schema.Settings, folder: Path) -> tuple[str, list[Row]]:
    """Look at what would fence tasks here, and run one to see whether it does; returns its name, empty for nothing."""
    notes: list[str] = []
    quiet = settings.model_copy(
        update={"docker": settings.docker.model_copy(update={"pull_policy": schema.PullPolicy.NEVER})}
    )
    try:
        # Beside another that looks, neither is a former life of the other.
        node_id = f"doctor-{secrets.token_hex(4)}"
        chosen = await wiring.build_executor(quiet, wiring.build_store(folder), node_id, notes.append)
    except errors.IsolationMissing as error:
        return "", [Row("isolation", in_force=False, why=str(error), fix="install Docker or the package bubblewrap")]
    try:
        fit = await chosen.fitness()
        note = "; ".join(notes)
        rows = [
            Row("isolation", fit.usable, fit.why or f"{fit.isolation}: {fit.runtime}" + (f" ({note})" if note else ""))
        ]
        rows += [Row(f"{fit.isolation}: {each.check}", each.in_force, each.why, each.fix) for each in fit.defences]
        if fit.usable:
            rows += await _trial(chosen, settings)
        return fit.isolation if fit.usable else "", rows
    finally:
        await chosen.close()


async def _trial(chosen: executor.Executor, settings: schema.Settings) -> list[Row]:
    """Run a task that looks at its own fence."""
    seen = Seen()
    limits = outcome.Limits(64 * resources.MIB, 100_000, PROBE_SECONDS, 16 * resources.MIB, 16)
    asked = plan.RunPlan(
        task_id="doctor",
        attempt=1,
        image=settings.docker.default_image,
        argv=("/bin/sh", "-c", _LOOK),
        limits=limits,
        caps=plan.Caps(64 * 1024, 0, 1024, 1, 1, 1.0),
        grace_seconds=0.5,
    )
    await chosen.open()
    ended = await chosen.run(asked, stopping.Stop(), seen)
    name = f"{chosen.isolation}: a task runs"
    if ended.reason is outcome.Reason.IMAGE_UNAVAILABLE:
        fix = f"docker pull {asked.image}, or set default_image; the first task would fetch it"
        return [Row(name, in_force=False, why=f"not tried: the image {asked.image} is not here", fix=fix)]
    if ended.status is not outcome.Status.COMPLETED:
        why = ended.error or f"it ended as {ended.reason}"
        return [Row(name, in_force=False, why=why, fix="see the log of the engine or the kernel")]
    return [Row(name, in_force=True), *judged(chosen.isolation, seen.text.decode("utf-8", "replace"))]


_Test = Callable[[list[str]], bool]

# What a task must see of its own fence: the row's name, the field that it said, and what it has to be.
_WANTED: tuple[tuple[str, str, _Test], ...] = (
    ("not root", "Uid", lambda value: value[:1] not in ([], ["0"])),
    ("no capabilities", "CapEff", lambda value: bool(value) and set(value[0]) == {"0"}),
    ("no new privileges", "NoNewPrivs", lambda value: value == ["1"]),
    ("system calls filtered", "Seccomp", lambda value: value == ["2"]),
    ("read-only root", "Root", lambda value: value == ["read-only"]),
    ("no network", "Interfaces", lambda value: value in ([], ["lo"])),
)

MUST = tuple(check for check, _, _ in _WANTED)
"""Rows of a task's own look that must be in force for a machine to run the tasks of others."""


def judged(isolation: str, said: str) -> list[Row]:
    """Return what a task's own look at its fence comes to; what is missing from it is not in force."""
    found = {name.strip(): value.split() for name, _, value in (line.partition(":") for line in said.splitlines())}
    rows = []
    for check, field, test in _WANTED:
        holds = field in found and test(found[field])
        why = "" if holds else f"the task saw {field}: {' '.join(found.get(field, ['nothing']))}"
        fix = "" if holds else "do not run the tasks of others here before this is understood"
        rows.append(Row(f"{isolation}: {check}", holds, why, fix))
    return rows


_ROOM = "do what it says on the pool's machine; it goes on by itself"


async def pool(settings: schema.Settings) -> list[Row]:
    """Ask the pool who it is."""
    try:
        async with wiring.build_client(settings) as client:
            info = await client.info()
    except errors.HiveMindError as error:
        return [Row("pool", in_force=False, why=str(error), fix="start it, or set node_pool_address")]
    if info.unready_reasons:
        return [Row("pool", in_force=False, why=f"hands out nothing: {'; '.join(info.unready_reasons)}", fix=_ROOM)]
    return [Row("pool", in_force=True, why=f"{settings.node.node_pool_address}: version {info.version}")]


def folders(settings: schema.Settings) -> list[Row]:
    """Try to write where things are kept, and look how much room there is. Blocks."""
    its = settings.storage
    named = {"state_dir": its.state_dir, "work_dir": its.work_dir, "temp_dir": its.temp_dir, "log_dir": its.log_dir}
    return [row for name, path in named.items() for row in _folder(name, path)]


def _folder(name: str, path: Path) -> Iterable[Row]:
    there = next(each for each in (path, *path.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        yield Row(f"{name} writable", in_force=False, why=f"{there}: {error.strerror}",
                  fix=f"make it writable for uid {os.geteuid()}, or set {name}")  # fmt: skip
        return
    yield Row(f"{name} writable", in_force=True, why=str(path))
    if name == "work_dir":
        enough = free >= LEAST_DISK
        yield Row("disk space", enough, f"{words.size(free)} free at {there}", "" if enough else "make room there")
