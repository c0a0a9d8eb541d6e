"""Which content a registry has under a name now: `Images` asks it by way of the engine, which reaches the registry."""

from __future__ import annotations

from hivemind_worker.runtime.docker import engine as engines


async def ask(engine: engines.Engine, reference: str, credentials: str = "") -> str:
    """Return the digest. ``credentials`` as X-Registry-Auth has them; empty: what everybody is told.

    Raises engine.Refused or engine.NotThere with the registry's words, EngineLost.
    """
    path, headers = f"distribution/{reference}/json", {"X-Registry-Auth": credentials} if credentials else {}
    with engines._worded("ask a registry"):  # noqa: SLF001 - the engine's own call, which has no room in its file
        async with engine._open._query(path, headers=headers) as response:  # noqa: SLF001 - as above
            return str((await response.json())["Descriptor"]["digest"])
