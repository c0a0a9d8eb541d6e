"""A container found again, by its name: after its engine was away, or after the worker that made it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hivemind_worker import errors
from hivemind_worker.concurrency import backoff, clock, stopping
from hivemind_worker.runtime.docker import engine as engines

CAP_SECONDS: Final = 5.0
"""Longest mean gap between two questions to an engine that does not answer is half of this."""


@dataclass(frozen=True, slots=True)
class Found:
    """The stream to it, or why there is none; ``away``: the engine did not answer at least once."""

    stream: engines.Attached | None
    why: str = ""
    away: bool = False


async def attach(engine: engines.Engine, container: str, stop: stopping.Stop) -> Found:
    """Ask again and again, for as long as it is worth, until the engine tells what is with the container.

    Raises :class:`stopping.Stopped` at level cancel.
    """
    pauses = backoff.Backoff(stop, cap=CAP_SECONDS, level=stopping.StopLevel.CANCEL)
    until = clock.now() + engine.patience
    away = False
    while True:
        try:
            known = (await stop.until(stopping.StopLevel.CANCEL, engine.inspect(container))).get("State") or {}
            if known.get("Paused"):  # the engine refuses to attach to one without a word
                raise engines.Refused("attach to a container", engines.CONFLICT, "somebody has paused it; unpause it")
            if known.get("Running"):
                return Found(await stop.until(stopping.StopLevel.CANCEL, engine.attach(container)), away=away)
        except engines.NotThere:
            return Found(None, "its container is gone", away)
        except errors.NodeFault as error:
            away = True
            if clock.now() >= until:
                return Found(None, f"{error}; it was asked for {engine.patience:g} s", away)
            await pauses.pause()
        else:
            said = " ".join(str(part) for part in (known.get("Status"), known.get("Error")) if part)
            return Found(None, f"its container runs no more: {said}, exit code {known.get('ExitCode')}", away)
