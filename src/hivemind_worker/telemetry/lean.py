"""structlog without rich, which it imports wherever that is installed, to draw traces that we never draw.

A tenth of a second of every command's start, where nothing is compiled yet.
"""

from __future__ import annotations

import sys

__all__ = ["structlog"]

_UNSEEN = "rich"

if _UNSEEN in sys.modules:
    import structlog
else:
    sys.modules[_UNSEEN] = None  # type: ignore[assignment]  # what the import system itself writes for "not there"
    try:
        import structlog
    finally:
        del sys.modules[_UNSEEN]
