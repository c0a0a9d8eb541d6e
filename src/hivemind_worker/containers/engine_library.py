"""aiodocker, aiohttp and yarl, imported when the first of them is used.

To import them takes a third of a second of processor time, and a worker whose tasks run in the sandbox uses none of
them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["aiodocker", "aiohttp", "yarl"]

if TYPE_CHECKING:
    import aiodocker
    import aiodocker.stream
    import aiohttp
    import yarl
else:
    _NEEDED = {"aiodocker": ("aiodocker.stream", "aiodocker"), "aiohttp": ("aiohttp",), "yarl": ("yarl",)}

    def __getattr__(name: str) -> Any:
        """Import what was named; later looks find it at once."""
        if name not in _NEEDED:
            raise AttributeError(name)
        *_, found = (importlib.import_module(each) for each in _NEEDED[name])
        globals()[name] = found
        return found
