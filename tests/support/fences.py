"""Which isolations a test of a whole program runs under."""

from __future__ import annotations

import pytest

_SANDBOX = pytest.param("sandbox", marks=pytest.mark.sandbox)

BOTH = (_SANDBOX, pytest.param("docker", marks=pytest.mark.docker))
"""For what each executor does in its own way."""

_HERE_ONE = (_SANDBOX, pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.long]))

ANY = pytest.mark.parametrize("fenced", _HERE_ONE, indirect=True)
"""For what the command, the worker or the pool does, whatever fences the task; `make test-long` runs it under both."""

ANY_LASTING = pytest.mark.parametrize("lasting", _HERE_ONE, indirect=True)
"""`ANY`, for tests that take the fixture `lasting`."""
