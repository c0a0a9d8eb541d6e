"""Each container that was created, looked at before it is started: one that differs from what was asked never runs."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from hivemind_worker import errors
from hivemind_worker.runtime.docker import golden, hardening, user_files

REMEMBERED: Final = 1000
"""Containers that were created and not started, as those through which volumes are filled."""


class Engine(user_files.Engine, Protocol):
    """What is asked of `engine.Engine`."""

    async def info(self) -> Mapping[str, Any]:
        """What it says of its machine."""

    async def inspect(self, container: str) -> Mapping[str, Any]:
        """All it knows of a container."""

    async def keeps_log(self, container: str) -> bool:
        """Whether what the container writes is kept."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What was asked. ``image``, where it is known: no other variables than its own may be there.

    ``is_own``: for a program of ours that tries the defences; it runs in whatever was made.
    """

    body: Mapping[str, Any]
    image: hardening.Image | None = None
    is_own: bool = False


class Inspector:
    """Compares containers with what was asked of one engine. ``differences``: those last seen; none where all is well.

    They stay until a container for a program of ours is as it was asked: whatever stands between us and the engine may
    change one container of two.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._user_files = user_files.UserFiles(engine)
        self._runtime: str | None = None
        self._expected: collections.OrderedDict[str, Expected] = collections.OrderedDict()
        self.differences: tuple[str, ...] = ()

    def expect(self, container: str, expected: Expected) -> None:
        """Compare this container before it is started, if it bears a node's label as all of ours do."""
        if hardening.NODE_LABEL in (expected.body.get("Labels") or {}):
            self._expected[container] = expected
        while len(self._expected) > REMEMBERED:
            self._expected.popitem(last=False)

    async def check(self, container: str) -> None:
        """Raise SpecMismatch where the container is another than was asked; ImageUnavailable, EngineLost, Refused."""
        expected = self._expected.pop(container, None)
        if expected is None:
            return
        if self._runtime is None:
            self._runtime = str((await self._engine.info()).get("DefaultRuntime") or "")
        variables = None if expected.image is None else expected.image.environment
        inspected = await self._engine.inspect(container)
        found = golden.differences(expected.body, inspected, self._runtime, variables)
        if expected.is_own:
            kept = "what a task writes is kept by the engine's log driver"
            self.differences = (*found, *((kept,) if await self._keeps_log(container, expected.body) else ()))
        elif found:
            self.differences = found
            raise errors.SpecMismatch(
                "the container engine made another container than it was told to, so it was not started: "
                f"{'; '.join(found)[:1000]}. Look what stands between the worker and the engine, and at the engine's "
                "own configuration"
            )
        await self._user_files.check(container, str(inspected.get("Image") or ""), expected.image)

    async def _keeps_log(self, container: str, body: Mapping[str, Any]) -> bool:
        """Whether it does although it was told not to: a deed, where `inspect` gives but a word."""
        told = ((body.get("HostConfig") or {}).get("LogConfig") or {}).get("Type")
        return told == "none" and await self._engine.keeps_log(container)
