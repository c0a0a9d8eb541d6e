"""The programs' libraries, imported once for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import program_runs
import pytest


@pytest.fixture(scope="module", autouse=True)
def _libraries(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep a process with the file's ``LIBRARIES`` at hand, where it names some."""
    if not (names := getattr(request.module, "LIBRARIES", ())):
        yield
        return
    fonts = tmp_path_factory.getbasetemp() / "fonts"  # matplotlib's list of them; it takes a second to make
    with program_runs.libraries(names, tmp_path_factory.mktemp("fork_server"), {"MPLCONFIGDIR": str(fonts)}):
        yield
