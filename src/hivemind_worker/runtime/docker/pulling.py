"""An image fetched from its registry: watched for a standstill, tried again where that can help, in words where not."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hivemind_worker import errors
from hivemind_worker.concurrency import clock, sharing
from hivemind_worker.runtime.docker import credentials, pull_progress
from hivemind_worker.runtime.docker import engine as engines

PAUSES: Final = (1.0, 4.0, 15.0)
"""Seconds before the second, third and fourth, last try; each up to half as long again, so that nodes part."""


class Cause(enum.Enum):
    """Why a pull failed, as far as it decides what to do."""

    FINAL = "another try will say the same"
    NETWORK = "the registry, or the way to it, is not well"
    OURS = "this machine cannot take it"


# What registries and engines say, in small letters. Looked for in this order: the engine wraps one in another's words.
_OURS: Final = ("no space left on device", "disk quota exceeded", "read-only file system")
_FINAL: Final = (
    "not found", "manifest unknown", "does not exist", "access denied", "unauthorized", "authentication required",
    "no basic auth credentials", "no matching manifest", "invalid reference", "name unknown", "denied:",
    "incorrect username or password", "unsupported media type", "server gave http response to https client",
    "certificate signed by unknown authority", "unknown blob", "manifest invalid",
)  # fmt: skip
_LOGIN: Final = ("unauthorized", "authentication required", "no basic auth credentials", "access denied", "denied:")


@dataclass(frozen=True, slots=True)
class Terms:
    """How patient a pull is. Seconds; ``config`` is the folder of the owner's Docker configuration, None: no logins."""

    seconds: float = 3600.0
    stall_seconds: float = 60.0
    config: Path | None = None
    pauses: tuple[float, ...] = field(default=PAUSES)


def cause(said: str) -> Cause:
    """Return why a pull failed that the engine has refused with these words."""
    lower = said.lower()
    if any(word in lower for word in _OURS):
        return Cause.OURS
    return Cause.FINAL if any(word in lower for word in _FINAL) else Cause.NETWORK


class Pulling:
    """Pulls images of one engine."""

    def __init__(self, *, engine: engines.Engine, terms: Terms) -> None:
        self._engine = engine
        self._terms = terms
        self._credentials = credentials.Credentials(terms.config)

    async def header(self, reference: str) -> str:
        """Return the credentials for an image's registry, as the engine takes them; empty where there are none."""
        return await self._credentials.header(reference)

    async def pull(self, reference: str, tell: sharing.Tell, credentials: str = "") -> str:
        """Have the image, and return its digest; `tell` is told how far it is.

        Cancelled, the engine gives up what is half fetched. Raises ImageUnavailable with the registry's words,
        EngineLost.
        """
        began = clock.now()
        tell(f"pulling {reference}")
        try:
            async with asyncio.timeout(self._terms.seconds):
                digest = await self._tries(reference, tell, credentials)
        except TimeoutError as error:
            said = f"image {reference} was not pulled within {self._terms.seconds:.0f} s (pull_timeout)"
            raise errors.ImageUnavailable(said) from error
        tell(f"pulled {reference} in {clock.now() - began:.1f} s")
        return digest

    async def _tries(self, reference: str, tell: sharing.Tell, credentials: str) -> str:
        for pause in (*self._terms.pauses, None):
            try:
                return await self._try(reference, tell, credentials)
            except engines.Refused as refused:
                said = refused.said.strip()[:500]
                why = cause(said)
                if why is Cause.OURS:
                    raise errors.EngineLost(f"image {reference} cannot be kept here: {said}") from refused
                if why is Cause.FINAL or pause is None:
                    raise errors.ImageUnavailable(self._worded(reference, said)) from refused
            except _Stalled as stalled:
                said = str(stalled)
                if pause is None:
                    raise errors.ImageUnavailable(f"image {reference} cannot be pulled: {said}") from stalled
            seconds = pause * random.uniform(1.0, 1.5)  # noqa: S311 - spreads load
            tell(f"pulling {reference} failed: {said}; trying again in {seconds:.0f} s")
            await asyncio.sleep(seconds)
        raise AssertionError("the last try has no pause behind it")

    async def _try(self, reference: str, tell: sharing.Tell, credentials: str) -> str:
        digest = ""
        progress = pull_progress.Progress(reference, clock.now())
        async with contextlib.aclosing(self._engine.pull(reference, credentials)) as lines:
            while True:
                try:
                    # Cancelled in the middle of a line the generator ends, and with it the engine's own work.
                    async with asyncio.timeout_at(progress.moved + self._terms.stall_seconds):
                        line = await _next(lines)
                except TimeoutError:
                    raise _Stalled(f"nothing came for {self._terms.stall_seconds:.0f} s (pull_stall_seconds)") from None
                if line is None:
                    return digest
                digest = pull_progress.digest(line) or digest
                if told := progress.take(line, clock.now()):
                    tell(told)

    def _worded(self, reference: str, said: str) -> str:
        hint = ""
        if any(word in said.lower() for word in _LOGIN):
            found = self._credentials.trouble or (
                "the node's owner lets tasks in with `docker login` as the worker's user, and its registry in "
                "registry_logins"
            )
            hint = f"; if it is private: {found}"
        return f"image {reference} cannot be pulled: {said}{hint}"


class _Stalled(Exception):
    """Nothing came for too long."""


async def _next(lines: AsyncIterator[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return await anext(lines, None)
