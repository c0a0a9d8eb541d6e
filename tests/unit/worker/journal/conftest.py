"""What the tests of the journal share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each wait for the disk."""
    waits: list[int] = []
    real = os.fdatasync

    def counted(fd: int) -> None:
        waits.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", counted)
    return waits
