"""When the engine is asked whether a container was killed for want of memory."""

from __future__ import annotations

import pytest

from hivemind_worker.runtime import session_result
from hivemind_worker.runtime.capsule import messages
from hivemind_worker.runtime.docker import inquest

OWN = messages.Exited(status=0, signal=None, why=messages.Why.OWN, wall_us=1)
FAILED = messages.Exited(status=3, signal=None, why=messages.Why.OWN, wall_us=1)
DONE = messages.Done(files=0, content_bytes=0)


@pytest.mark.parametrize(
    ("heard", "is_suspicious"),
    [
        (session_result.SessionResult(), True),
        (session_result.SessionResult(exited=FAILED, done=DONE), True),
        (
            session_result.SessionResult(exited=OWN, cut=True),
            True,
        ),  # files in memory left no room for reading the results
        (session_result.SessionResult(exited=OWN, done=DONE), False),
        (session_result.SessionResult(exited=OWN, stopped=True), False),
        (session_result.SessionResult(overtime=True), False),
    ],
)
def test_whatever_may_have_died_of_memory_is_looked_into(
    heard: session_result.SessionResult, *, is_suspicious: bool
) -> None:
    assert inquest.suspicious(heard) is is_suspicious
