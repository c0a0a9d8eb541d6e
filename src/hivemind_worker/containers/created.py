"""Each container that was created, looked at before it is started: one that differs from what was asked never runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hivemind_worker.containers import engine as engines
from hivemind_worker.containers import golden, hardening
from hivemind_worker.task import errors


class Inspector:
    """Compares containers with what was asked of one engine. ``differences``: those last seen; none where all is well.

    They stay until a container for a program of ours is as it was asked: whatever stands between us and the engine may
    change one container of two.
    """

    def __init__(self, engine: engines.Engine) -> None:
        self._engine = engine
        self._runtime: str | None = None
        self.differences: tuple[str, ...] = ()

    async def check(self, container: str, body: Mapping[str, Any], image: hardening.Image, *, is_own: bool) -> None:
        """Raise SpecMismatch where the container is another than ``body`` says; EngineLost, engine.Refused.

        One that ``is_own``, for a program of ours that tries the defences, is only taken note of.
        """
        if self._runtime is None:
            self._runtime = str((await self._engine.info()).get("DefaultRuntime") or "")
        inspected = await self._engine.inspect(container)
        found = golden.differences(body, inspected, self._runtime, image.environment)
        if is_own:
            kept = "what a task writes is kept by the engine's log driver"
            self.differences = (*found, *((kept,) if await self._keeps_log(container, body) else ()))
        elif found:
            self.differences = found
            raise errors.SpecMismatch(
                "the container engine made another container than it was told to, so the task was not started: "
                f"{'; '.join(found)[:1000]}. Look what stands between the worker and the engine, and at the engine's "
                "own configuration"
            )

    async def _keeps_log(self, container: str, body: Mapping[str, Any]) -> bool:
        """Whether it does although it was told not to: a deed, where `inspect` gives but a word."""
        told = ((body.get("HostConfig") or {}).get("LogConfig") or {}).get("Type")
        return told == "none" and await self._engine.keeps_log(container)
