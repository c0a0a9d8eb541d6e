"""A queue whose items come in the groups in which they were put: the model's calls at once are one batch, always."""

from __future__ import annotations

import collections
import queue
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class GatedQueue:
    """As :class:`queue.SimpleQueue` for one consumer, which sees the end of each group as an empty queue."""

    def __init__(self) -> None:
        self._groups: queue.SimpleQueue[Iterable[Any]] = queue.SimpleQueue()
        self._group: collections.deque[Any] = collections.deque()
        self._closed: list[Any] | None = None

    def put(self, item: Any) -> None:
        """Add an item: a group of its own, but for those that are put while the gate is closed."""
        if self._closed is None:
            self._groups.put([item])
        else:
            self._closed.append(item)

    @contextmanager
    def gate(self) -> Iterator[None]:
        """Close it for a while: what is put meanwhile is one group. Only the thread that puts may do this."""
        self._closed = []
        try:
            yield
        finally:
            group, self._closed = self._closed, None
            if group:
                self._groups.put(group)

    def get(self) -> Any:
        """Take the next item. Blocks."""
        while not self._group:
            self._group.extend(self._groups.get())
        return self._group.popleft()

    def get_nowait(self) -> Any:
        """Take the next item of this group. Raises :class:`queue.Empty` at its end."""
        if not self._group:
            raise queue.Empty
        return self._group.popleft()
