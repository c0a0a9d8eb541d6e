"""What `hivemind doctor` looks at: each probe returns rows, and none takes longer than its share of ten seconds."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hivemind_worker import errors, units
from hivemind_worker.cli import words
from hivemind_worker.runtime import executor, proving
from hivemind_worker.runtime.capsule import defences
from hivemind_worker.runtime.docker import image_access
from hivemind_worker.settings import schema
from hivemind_worker.wiring import clients, executors

Row = executor.Defence

FENCE_SECONDS = 9.0
"""Longest that the look at what fences tasks may take: the whole stays below ten seconds."""

LEAST_DISK = units.GIB
"""Bytes that must be free for work: below that a single default task does not fit."""


async def within(seconds: float, name: str, probe: Awaitable[list[Row]]) -> list[Row]:
    """Return what ``probe`` finds, or a row that says that it found no end."""
    try:
        async with asyncio.timeout(seconds):
            return await probe
    except TimeoutError:
        return [Row(name, in_force=False, why=f"no answer within {seconds:g} s", fix="look why it hangs; try again")]


@dataclass(frozen=True, slots=True)
class Fence:
    """What fences tasks here, empty for nothing; whether all that must hold does; and the rows that tell it."""

    isolation: str
    holds: bool
    rows: tuple[Row, ...]


async def fence(settings: schema.Settings, folder: Path) -> Fence:
    """Look at what would fence tasks here, and try each defence in a capsule of the kind that tasks get."""
    notes: list[str] = []
    try:
        # Beside another that looks, neither is a former life of the other.
        node_id = f"doctor-{secrets.token_hex(4)}"
        chosen = await executors.build(settings, executors.build_store(folder), node_id, notes.append)
    except errors.IsolationMissing as error:
        fix = "install Docker or the package bubblewrap"
        return Fence("", holds=False, rows=(Row("isolation", in_force=False, why=str(error), fix=fix),))
    try:
        fit = await chosen.fitness()
        if not fit.usable:
            return Fence(fit.isolation, holds=False, rows=(Row("isolation", in_force=False, why=fit.why),))
        await chosen.open()
        verdicts = await proving.prove(chosen)
    except errors.HiveMindError as error:
        row = Row("isolation", in_force=False, why=str(error), fix="look why the engine fails; try again")
        return Fence(chosen.isolation, holds=False, rows=(row,))
    finally:
        await chosen.close()
    note = "; ".join(notes)
    why = f"{fit.isolation}: {fit.runtime}" + (f" ({note})" if note else "")
    accepted = frozenset(settings.monitoring.accept_missing_defences)
    return Fence(
        fit.isolation,
        holds=proving.is_proved(verdicts) and not proving.broken(verdicts, accepted),
        rows=(
            Row("isolation", in_force=True, why=why),
            *(
                dataclasses.replace(row, check=f"{fit.isolation}: {row.check}")
                for row in proving.merged(fit.defences, proving.rows(verdicts))
            ),
            *_images(fit.isolation, settings),
            *misspelt(accepted),
        ),
    )


def misspelt(accepted: Iterable[str]) -> list[Row]:
    """Say which ids of accept_missing_defences are no defence's: they accept nothing."""
    unknown = sorted(set(accepted) - set(defences.IDS))
    if not unknown:
        return []
    fix = f"name some of {', '.join(sorted(defences.IDS))}"
    return [Row("accept_missing_defences", in_force=False, why=f"no defence has the id {', '.join(unknown)}", fix=fix)]


def _images(isolation: str, settings: schema.Settings) -> list[Row]:
    """Say which images tasks may run, where they run in any."""
    if isolation != "docker":
        return []
    rules = image_access.of(settings.images, settings.docker.default_image)
    return [Row("docker: images", in_force=True, why=rules.describe())]


_ROOM = "do what it says on the pool's machine; it goes on by itself"


async def pool(settings: schema.Settings) -> list[Row]:
    """Ask the pool who it is."""
    try:
        async with clients.build(settings) as client:
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
