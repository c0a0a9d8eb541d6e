"""HiveMind Worker: runs tasks on your own machines, each in its own container or sandbox.

`Client` and `AsyncClient` submit tasks to a Node Pool and fetch their results; `errors` has what they raise. Each is
imported when it is first used, so that `import hivemind_worker` alone costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hivemind_worker import errors
    from hivemind_worker.client.asynchronous import AsyncClient
    from hivemind_worker.client.client import Client

__version__ = "0.1.0"

__all__ = ["AsyncClient", "Client", "__version__", "errors"]

_PLACES: Final = {"AsyncClient": "client.asynchronous", "Client": "client.client"}


def __getattr__(name: str) -> object:
    """Import what the public API names (PEP 562)."""
    if name == "errors":
        return importlib.import_module("hivemind_worker.errors")
    if name in _PLACES:
        return getattr(importlib.import_module(f"hivemind_worker.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name the public API."""
    return sorted({*globals(), *__all__})
