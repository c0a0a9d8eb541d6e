"""Why the pool hands out nothing at present: reasons by cause, and whoever wants to know when that changes."""

from __future__ import annotations

from collections.abc import Callable

from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)


class Readiness:
    """Ready while there is no reason against it. For one event loop."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._listeners: list[Callable[[bool], None]] = []

    @property
    def unready_reasons(self) -> tuple[str, ...]:
        """Each reason, in words for people; empty while tasks are handed out."""
        return tuple(self._reasons.values())

    def listen(self, listener: Callable[[bool], None]) -> None:
        """Have ``listener`` called with whether the pool is ready, each time that changes."""
        self._listeners.append(listener)

    def set_unready(self, cause: str, reason: str) -> None:
        """Hand out nothing for as long as this holds."""
        was_ready = not self._reasons
        is_new = cause not in self._reasons
        self._reasons[cause] = reason
        if is_new:
            log.log_system_event("pool_unready", {"cause": cause, "reason": reason}, level="error")
        if was_ready:
            self._tell(is_ready=False)

    def set_ready(self, cause: str) -> None:
        """That reason holds no more."""
        if self._reasons.pop(cause, None) is None:
            return
        log.log_system_event("pool_cause_gone", {"cause": cause, "left": sorted(self._reasons)})
        if not self._reasons:
            self._tell(is_ready=True)

    def _tell(self, *, is_ready: bool) -> None:
        for listener in self._listeners:
            listener(is_ready)
