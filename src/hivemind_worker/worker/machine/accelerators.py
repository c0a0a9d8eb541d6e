"""The machine's GPUs by NVIDIA's own library, where both it and the driver are there; without either there are none.

`pip install hivemind-worker[gpu]` brings the library. It is imported when it is first asked, and never again once it
has said that there is no driver.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device. ``id`` is its UUID, by which a container is given it; ``use_ratio`` is 1 when busy all the time."""

    id: str
    name: str
    memory_total_bytes: int
    memory_used_bytes: int
    use_ratio: float | None = None

    def as_json(self) -> dict[str, object]:
        """Return it as part of the machine's metrics."""
        return {
            "id": self.id,
            "name": self.name,
            "percent": None if self.use_ratio is None else 100.0 * self.use_ratio,
            "memory": {"total": self.memory_total_bytes, "used": self.memory_used_bytes},
        }


class Accelerators:
    """Asks the library. Blocks briefly; one thread at a time."""

    def __init__(self) -> None:
        self._library: Any = None
        self.why_none = ""

    def measure(self) -> tuple[Gpu, ...]:
        """Return every device as it is now, in the driver's order; none where there is no library or no driver.

        A device that has fallen off its bus is left out: the driver names it no more or cannot tell its memory.
        """
        library = self._ready()
        if library is None:
            return ()
        found = []
        for index in range(_or(library, 0, library.nvmlDeviceGetCount)):
            gpu = _or(library, None, lambda index=index: _gpu(library, index))  # type: ignore[misc]
            if gpu is not None:
                found.append(gpu)
        return tuple(found)

    def close(self) -> None:
        """Let go of the driver."""
        library, self._library = self._library, None
        if library is not None:
            _or(library, None, library.nvmlShutdown)

    def _ready(self) -> Any:
        if self._library is None and not self.why_none:
            try:
                pynvml = importlib.import_module("pynvml")  # an extra that most machines have no use for
            except ImportError:
                self.why_none = "nvidia-ml-py is not installed: pip install hivemind-worker[gpu]"
                return None
            try:
                pynvml.nvmlInit()
            except pynvml.NVMLError as error:
                self.why_none = f"no NVIDIA driver answers: {error}"
                return None
            self._library = pynvml
        return self._library


def _gpu(library: Any, index: int) -> Gpu:
    handle = library.nvmlDeviceGetHandleByIndex(index)
    memory = library.nvmlDeviceGetMemoryInfo(handle)
    use = _or(library, None, lambda: library.nvmlDeviceGetUtilizationRates(handle))  # unknown to some virtual devices
    return Gpu(
        id=_text(library.nvmlDeviceGetUUID(handle)),
        name=_text(library.nvmlDeviceGetName(handle)),
        memory_total_bytes=int(memory.total),
        memory_used_bytes=int(memory.used),
        use_ratio=None if use is None else use.gpu / 100.0,
    )


def _or(library: Any, otherwise: Any, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except library.NVMLError:
        return otherwise


def _text(said: str | bytes) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said
