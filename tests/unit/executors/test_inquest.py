"""When the engine is asked whether a container was killed for want of memory."""

from __future__ import annotations

import pytest

from hivemind_worker.capsule import messages
from hivemind_worker.executors import capsule_run, inquest

OWN = messages.Exited(status=0, signal=None, why=messages.Why.OWN, wall_us=1)
FAILED = messages.Exited(status=3, signal=None, why=messages.Why.OWN, wall_us=1)
DONE = messages.Done(files=0, content_bytes=0)


@pytest.mark.parametrize(
    ("heard", "is_suspicious"),
    [
        (capsule_run.Heard(), True),
        (capsule_run.Heard(exited=FAILED, done=DONE), True),
        (capsule_run.Heard(exited=OWN, cut=True), True),  # files in memory left no room for reading the results
        (capsule_run.Heard(exited=OWN, done=DONE), False),
        (capsule_run.Heard(exited=OWN, stopped=True), False),
        (capsule_run.Heard(overtime=True), False),
    ],
)
def test_whatever_may_have_died_of_memory_is_looked_into(heard: capsule_run.Heard, *, is_suspicious: bool) -> None:
    assert inquest.suspicious(heard) is is_suspicious
