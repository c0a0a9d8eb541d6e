from __future__ import annotations

import pytest

from hivemind_worker.telemetry import logs, rationed


def test_so_many_of_each_kind_in_a_window_and_the_next_says_how_many_were_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    log = rationed.RationedLogger(logs.StructuredLogger("test"), most=2, seconds=60.0, now=lambda: now)
    for number in range(10):
        log.log_system_event("lost", {"number": number}, level="warning")
    log.log_system_event("found", level="warning")
    assert caplog.text.count("'lost'") == 2
    assert caplog.text.count("'found'") == 1
    now = 60.0
    log.log_system_event("lost", {"number": 10}, level="warning")
    assert caplog.text.count("'lost'") == 3
    assert "'number': 10, 'left_out': 8" in caplog.text
