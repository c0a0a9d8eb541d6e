"""Acts of a chaos run that set the pool's memory back: its store is wiped, or restored from a backup. Once each."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import chaos_clients
import chaos_plan
import chaos_world
import installed

MIN_TASKS = 50
"""In a smaller run there is nothing to be set back to."""


@dataclass(frozen=True, slots=True)
class Act:
    """One act, once so many tasks were submitted. ``kind``: backup, restore or wipe."""

    after_tasks: int
    kind: str

    async def do(self, world: chaos_world.World, clients: chaos_clients.Clients) -> None:
        """Do it, and let the clients submit again what may be gone."""
        if self.kind == "backup":
            await _back_up(world)
            return
        async with clients.gate.closed():
            await _set_back(world, clients, self.kind)
        await _submit_again(world, clients, self.kind)


def acts(seed: int, tasks: int) -> list[Act]:
    """A wipe in runs of odd seeds; in those of even ones a restore, where this version can do that."""
    if tasks < MIN_TASKS:
        return []
    if seed % 2 or not can_restore():
        return [Act(tasks // 2, "wipe")]
    return [Act(tasks // 3, "backup"), Act(2 * tasks // 3, "restore")]


def can_restore() -> bool:
    """Whether the command has a way to restore a pool's store."""
    words = [str(installed.HIVEMIND), "pool", "--help"]
    return b"restore" in subprocess.run(words, check=False, capture_output=True).stdout


async def _back_up(world: chaos_world.World) -> None:
    """Back the pool up while it works; tried again where it is struck meanwhile."""
    target = world.folder / "backup"
    for _ in range(30):
        shutil.rmtree(target, ignore_errors=True)
        begin = time.monotonic()
        words = [str(installed.HIVEMIND), "pool", "backup", str(target), f"--state-dir={world.folder / 'pool'}"]
        process = await asyncio.create_subprocess_exec(
            *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env=_plain(world)
        )
        _, errors = await process.communicate()
        if process.returncode == 0:
            world.counts["backups"] += 1
            (world.folder / "backup-begun").write_text(str(begin))
            return
        world.counts["backups that failed"] += 1
        (world.folder / "backup-errors").write_bytes(errors)
        await asyncio.sleep(1.0)
    world.complaints.append(f"no backup could be made, see {world.folder / 'backup-errors'}")


async def _set_back(world: chaos_world.World, clients: chaos_clients.Clients, kind: str) -> None:
    await world.pace.wait_until(lambda: "pool" not in world.busy, "the pool is not struck", 300)
    world.busy.add("pool")
    began, begin = time.time(), time.monotonic()
    saved = float("-inf")
    try:
        world.pool.signal(signal.SIGTERM if kind == "restore" else signal.SIGKILL)
        process = world.pool.process
        assert process is not None
        await world.pace.wait_until(lambda: process.poll() is not None, "the pool ends", 60)
        if kind == "wipe":
            await asyncio.to_thread(_empty, world.folder / "pool")
        else:
            saved = float((world.folder / "backup-begun").read_text())
            await asyncio.to_thread(_restore, world)
        world.pool.old = None
        world.epoch_at = time.time()  # no pool runs now: from here on all is of its new store
        await world.until_ready(world.pool)
    finally:
        world.busy.discard("pool")
        world.note_fault(kind, "pool", began, begin)
    world.counts[f"{kind} of the pool's store"] += 1
    more = {"saved_begin": saved} if kind == "restore" else {}
    world.recorder.write("rollback", begin=begin, end=time.monotonic(), what=kind, **more)
    clients.era += 1


async def _submit_again(world: chaos_world.World, clients: chaos_clients.Clients, kind: str) -> None:
    """After a restore everything once more as it was; after a wipe the same ids with other commands."""
    before = dict(clients.current)
    plans = [plan for plan in before.values() if plan.client.label.startswith(plan.client.task)]
    clients.current.clear()
    clients.ended.clear()
    if kind == "restore":
        chosen = {plan.client.task for plan in plans}
        clients.restored = {task_id: plan for task_id, plan in before.items() if task_id not in chosen}
    if kind == "wipe":
        numbers = [int(plan.client.task.rpartition("-")[2]) for plan in plans][-2 * chaos_clients.WAVE :]
        # Seconds of work, half a minute of a busy machine: all lines between pool and nodes go through this loop.
        count = max(numbers, default=0) + 1
        fresh = await asyncio.to_thread(chaos_plan.tasks, world.seed, count, generation=1)
        plans = [chaos_plan.in_era(fresh[number], clients.era) for number in numbers]
    for start in range(0, len(plans), chaos_clients.WAVE):
        wave = plans[start : start + chaos_clients.WAVE]
        await clients.submit(wave, f"{world.seed} era {clients.era} wave {start}")


def _empty(folder: Path) -> None:
    """All files below, mounts stay."""
    for path in folder.rglob("*"):
        if not path.is_dir():
            path.unlink()


def _restore(world: chaos_world.World) -> None:
    folder = world.folder / "pool"
    _empty(folder)
    words = [str(installed.HIVEMIND), "pool", "restore", str(world.folder / "backup"), f"--state-dir={folder}"]
    done = subprocess.run(words, check=False, capture_output=True, text=True, env=_plain(world))
    if done.returncode:
        world.complaints.append(f"the restore failed: {done.stderr.strip()[-500:]}")


def _plain(world: chaos_world.World) -> dict[str, str]:
    return {key: value for key, value in world.pool.environment.items() if key != "LD_PRELOAD"}
