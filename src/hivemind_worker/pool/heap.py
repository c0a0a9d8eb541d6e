"""How the C library gives memory back in a pool's process: `hivemind pool` calls it once, before anything else.

Most of what a call takes are a few blocks of up to 4 MiB, and they are freed with the call. By default glibc keeps such
blocks: it raises its own limits with each one that is freed, up to 32 MiB, and does so in one heap for each thread.
"""

from __future__ import annotations

import ctypes
from typing import Final

MAX_HEAPS: Final = 2
"""Heaps of all threads together: one for the event loop, one for the threads of store and files."""

MMAP_BYTES: Final = 256 * 1024
"""A block of this size or larger goes back to the machine when it is freed. One costs two calls of the kernel."""

TRIM_BYTES: Final = 1024**2
"""What stays free at the end of the heap."""

# From <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def give_back_what_is_free() -> bool:
    """Have this process give back large blocks at once; whether its C library can: musl gives them back anyway."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    limits = ((_M_ARENA_MAX, MAX_HEAPS), (_M_MMAP_THRESHOLD, MMAP_BYTES), (_M_TRIM_THRESHOLD, TRIM_BYTES))
    accepted = [mallopt(name, value) == 1 for name, value in limits]
    return all(accepted)
