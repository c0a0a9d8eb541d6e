"""Images whose configuration an engine takes and we cannot rely on: refused in words, nothing is made of them."""

from __future__ import annotations

from typing import Any

import pytest

from hivemind_worker import errors
from hivemind_worker.runtime.docker import images


def _read(**config: Any) -> Any:
    return images._image("an/image:1", {"Id": "sha256:1", "Architecture": "amd64", "Config": config}, "amd64")


@pytest.mark.parametrize("path", ["/", "/proc", "/proc/", "//proc", "/x/../proc", "/dev", "/dev/shm/", "relative", ""])
def test_a_volume_that_we_cannot_cover_is_refused(path: str) -> None:
    with pytest.raises(errors.ImageUnavailable, match="an/image:1 declares VOLUME"):
        _read(Volumes={path: {}})


@pytest.mark.parametrize("entries", [["X"], ["=y"], ["A=1", "A=2"], ["A=1", "A"]])
def test_variables_that_are_not_clear_are_refused(entries: list[str]) -> None:
    with pytest.raises(errors.ImageUnavailable, match="an/image:1 sets variables"):
        _read(Env=entries)


def test_what_is_usual_is_read_as_the_engine_reads_it() -> None:
    image = _read(Volumes={"/data/": {}, "/a//b": {}}, Env=["PATH=/bin", "EMPTY=", "EQUALS=a=b"])
    assert image.volumes == ("/data", "/a/b")
    assert image.environment == {"PATH": "/bin", "EMPTY": "", "EQUALS": "a=b"}
