"""What takes over settings while it runs."""

from __future__ import annotations

from collections.abc import Callable

from hivemind_worker.settings import schema

Handler = Callable[[schema.Settings], None]
"""Takes over settings while it runs: those marked as live; the others are what they were."""
