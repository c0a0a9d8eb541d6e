"""The command, imported once for all that is struck."""

from __future__ import annotations

from collections.abc import Iterator

import installed
import pytest


@pytest.fixture(scope="session", autouse=True)
def _command() -> Iterator[None]:
    """Let processes that are to be struck be forks of one that has imported the command."""
    with installed.preloaded():
        yield
