"""aiodocker, aiohttp and yarl, imported when the first of them is used.

To import them takes a third of a second of processor time, and a worker whose tasks run in the sandbox uses none of
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["aiodocker", "aiohttp", "yarl"]

if TYPE_CHECKING:
    import aiodocker
    import aiodocker.stream
    import aiohttp
    import yarl


def _modules() -> dict[str, Any]:
    import aiodocker  # noqa: PLC0415 - a third of a second, which the sandbox need not pay
    import aiodocker.stream  # noqa: PLC0415 - a third of a second, which the sandbox need not pay
    import aiohttp  # noqa: PLC0415 - a third of a second, which the sandbox need not pay
    import yarl  # noqa: PLC0415 - a third of a second, which the sandbox need not pay

    return {"aiodocker": aiodocker, "aiohttp": aiohttp, "yarl": yarl}


def __getattr__(name: str) -> Any:
    """Import all of them as the first is named; later looks find them at once."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals().update(_modules())
    return globals()[name]
