"""A worker reduced to one conversation with a capsule on two pipes, to be killed: `capsule_worker.py FOLDER R W`.

Run again, it takes the same capsule up from its last checkpoint. Ends by writing FOLDER/ended.json.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from hivemind_worker.artifacts import store as stores
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import capsule_run, capsule_spec, checkpoint, executor
from hivemind_worker.runtime.capsule import messages
from hivemind_worker.tasks import outcome, plan, state

MIB = 1024 * 1024


class Pipe:
    """Two pipes as a capsule's stream."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing

    async def read(self) -> bytes:
        return await asyncio.to_thread(os.read, self._reading, 65536)

    async def write(self, data: bytes) -> None:
        while data:
            data = data[await asyncio.to_thread(os.write, self._writing, data) :]


class Files:
    """Keeps the one attempt in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def accepted(self) -> None:
        """It is."""

    async def placed(self, capsule: Mapping[str, str]) -> None:
        self._put("placed", json.dumps(dict(capsule)).encode())

    async def save(self, reached: checkpoint.Checkpoint) -> None:
        self._put("checkpoint", checkpoint.encode(reached))

    async def ended(self, ended: outcome.Outcome) -> None:
        raise AssertionError(ended)

    def _put(self, name: str, data: bytes) -> None:
        beside = self._folder / f"{name}.new"
        beside.write_bytes(data)
        beside.replace(self._folder / name)


class Quiet:
    """Wants to know nothing."""

    def phase(self, phase: state.Phase) -> None: ...

    def output(self, stream: executor.Stream, offset: int, data: bytes) -> None: ...

    def note(self, text: str) -> None: ...

    def stored(self, artifacts: Collection[outcome.Artifact]) -> None: ...


async def main(folder: Path, reading: int, writing: int) -> None:
    """Hold the conversation to its end, from wherever it stands."""
    end = folder / "end.json"
    if end.exists():  # a worker before us was killed around its last word, which the capsule may have heard
        _part(end, writing)
        return
    asked = plan.RunPlan(
        "t",
        1,
        "",
        ("/bin/sh", "-c", (folder / "script").read_text()),
        outcome.Limits(256 * MIB, 100_000, 60.0, 512 * MIB, 64),
        plan.Caps(MIB, MIB, 512 * MIB, 1000, 8, 60.0),
    )
    placed, saved = folder / "placed", folder / "checkpoint"
    key = bytes.fromhex(json.loads(placed.read_text())["resume_key"]) if placed.exists() else b""
    after = None
    if placed.exists():
        after = checkpoint.decode(saved.read_bytes()) if saved.exists() else checkpoint.Checkpoint()
    store = stores.Store(folder / "store")
    await asyncio.to_thread(store.prepare, after.staged_names if after else ())
    spec = capsule_spec.spec_of(asked, {"PATH": os.environ["PATH"]}, messages.OnDisconnect.KEEP, key)
    workspace = os.fsencode(folder / "workspace")

    async def kill() -> None:
        raise AssertionError("the capsule was to be killed")

    run = capsule_run.CapsuleRun(
        pipe=Pipe(reading, writing),
        plan=asked,
        spec=dataclasses.replace(spec, workspace=workspace),
        store=store,
        stop=stopping.Stop(),
        observer=Quiet(),
        kill=kill,
        custody=checkpoint.Custody(Files(folder), {}, after),
    )
    heard = await run.run()
    said = {
        "goodbye": run.goodbye().hex(),
        "fault": heard.fault,
        "status": heard.exited and heard.exited.status,
        "output": heard.logs.text.decode(),
        "truncated": heard.truncated,
        "results": {file.name: file.artifact.sha256 for file in heard.results.files},
        "skipped": [skipped.name for skipped in heard.results.skipped],
    }
    beside = end.with_suffix(".new")
    beside.write_text(json.dumps(said))
    beside.replace(end)  # as a worker's journal: before the capsule is let go
    _part(end, writing)


def _part(end: Path, writing: int) -> None:
    """Say the last word, and that it is said."""
    with contextlib.suppress(BrokenPipeError):
        os.write(writing, bytes.fromhex(json.loads(end.read_text())["goodbye"]))
    end.replace(end.with_name("ended.json"))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
