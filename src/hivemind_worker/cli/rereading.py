"""SIGHUP: reads the settings anew, and gives those that a running service takes over to whoever works by them."""

from __future__ import annotations

from collections.abc import Callable

from hivemind_worker import errors
from hivemind_worker.settings import reference, schema
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)


class Rereading:
    """The settings in force, and what follows when they are read anew.

    ``read`` gives them anew, and may raise BadSettings: then all stays as it is, and the log says why.
    """

    def __init__(self, settings: schema.Settings, read: Callable[[], schema.Settings]) -> None:
        self.settings = settings
        self.takers: list[Callable[[schema.Settings], None]] = []
        """Each is given the settings in force once they have changed."""
        self._read = read

    def again(self) -> None:
        """Read them, take over what can be, and say what was and what needs a new start."""
        try:
            found = self._read()
        except errors.BadSettings as error:
            log.log_system_event("settings_refused", {"why": str(error)}, level="error")
            return
        changed = reference.changed(self.settings, found)
        self.settings = reference.adopted(self.settings, found)
        for take in self.takers:
            take(self.settings)
        told = {each.key: reference.show(reference.value(found, each)) for each in changed if each.live}
        waiting = [each.key for each in changed if not each.live]
        details = {"taken_over": told, "need_a_new_start": waiting}
        log.log_system_event("settings_read", details, level="warning" if waiting else "info")
