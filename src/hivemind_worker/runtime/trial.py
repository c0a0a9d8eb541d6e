"""Whether an executor can start a capsule at all: one with nothing of a task's in it, to tell a failure's cause."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection
from typing import Final

from hivemind_worker import errors, units
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import executor
from hivemind_worker.runtime.docker import hardening, own_image
from hivemind_worker.tasks import outcome, plan, state

TASK_ID: Final = "hivemind-trial"
"""Under which attempts of ours run; whoever looks for the cause of a failure must not look for theirs by a trial."""

SECONDS: Final = 10.0
"""Longest that a trial takes. 0.3 s usually; a machine that is busy with other things needs longer."""


class Output:
    """An observer that keeps what our own program says."""

    def __init__(self) -> None:
        self.data = b""

    def phase(self, phase: state.Phase) -> None:
        """Ignore it."""

    def output(self, stream: executor.Stream, offset: int, data: bytes) -> None:  # noqa: ARG002 - both streams, in order
        """Keep it: the plan's caps bound how much comes."""
        self.data += data

    def note(self, text: str) -> None:
        """Ignore it."""

    def stored(self, artifacts: Collection[outcome.Artifact]) -> None:
        """Ignore it: our program leaves no results."""


def own_plan(argv: tuple[str, ...], limits: outcome.Limits, files: tuple[plan.InputFile, ...] = ()) -> plan.RunPlan:
    """Return a plan that runs a program of ours in a capsule of the very kind that tasks get, in our own image."""
    return plan.RunPlan(
        task_id=TASK_ID,
        attempt=1,
        image=own_image.REFERENCE,
        argv=argv,
        limits=limits,
        caps=plan.Caps(256 * 1024, 0, 0, 1, 1, 1.0),
        files=files,
        grace_seconds=0.5,
    )


async def fault(runs: executor.Executor, like: plan.RunPlan | None = None) -> str:
    """Run our own program in a capsule without anything of a task's; why that fails, empty where it works.

    Of the plan ``like``, if any, the capsule has the network and the sort of workspace, and nothing that its task says.
    Where it works, a capsule that does not start is its image's fault or its task's. It takes 0.3 s, at most `SECONDS`;
    whoever asks often keeps the answer for a while. Raises nothing but the cancellation of the asyncio task it runs in.
    """
    limits = outcome.Limits(64 * units.MIB, 100_000, SECONDS / 2, units.MIB, 16)
    if like is not None and not hardening.workspace_in_memory(like.limits):
        limits = dataclasses.replace(limits, disk_bytes=limits.memory_bytes)
    trial = own_plan((hardening.PROGRAM, "--version"), limits)
    if like is not None:
        trial = dataclasses.replace(trial, network=like.network)
    stop = stopping.Stop()
    try:
        async with asyncio.timeout(SECONDS):
            ended = await runs.run(trial, stop, Output())
    except TimeoutError:
        return f"our own capsule did not start and end within {SECONDS:g} s"
    except errors.HiveMindError as error:
        return f"our own capsule could not be run: {error}"
    if ended.status is outcome.Status.COMPLETED:
        return ""
    return f"our own capsule ended as {ended.reason}: {ended.error or 'it gives no reason'}"
