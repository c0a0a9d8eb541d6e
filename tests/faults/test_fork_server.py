"""A program that runs in a fork of the tests' fork server does what one of its own does."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fork_server
import pytest

SAYS = """
import os, resource, sys, time
print(oct(os.umask(0)), resource.getrlimit(resource.RLIMIT_NOFILE), time.localtime(0).tm_hour, repr(sys.stdin.read()))
"""
DRAWS = """
import numpy
from hivemind_worker.concurrency import backoff
print(backoff.RANDOM.random())
print(numpy.random.random())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[fork_server.ForkServer]:
    modules = ["hivemind_worker.concurrency.backoff", "numpy.random"]
    with fork_server.ForkServer(modules, {**os.environ, "OPENBLAS_NUM_THREADS": "1", "TZ": "UTC"}) as found:
        yield found


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return tmp_path / "program.py"


@pytest.mark.parametrize("umask", [-1, 0o027])
def test_it_has_the_umask_limits_time_zone_and_input_of_one(
    server: fork_server.ForkServer, program: Path, umask: int
) -> None:
    program.write_text(SAYS)
    options: dict[str, Any] = {"env": {**os.environ, "TZ": "Asia/Tokyo"}, "umask": umask}
    ours, limits = os.umask(0o013), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[0] - 1, limits[1]))
    try:
        forked = server.run([program], stdin=b"a\r\nb", **options)
        own = subprocess.run([sys.executable, program], input=b"a\r\nb", capture_output=True, check=True, **options)
    finally:
        os.umask(ours)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert forked.stderr == b""
    assert forked.stdout == own.stdout


def test_no_two_draw_the_same_random_numbers(server: fork_server.ForkServer, program: Path) -> None:
    program.write_text(DRAWS)
    drawn = [server.run([program]).stdout.split() for _ in range(2)]
    assert not set(drawn[0]) & set(drawn[1])
    assert all(len(each) == 2 for each in drawn)


def test_what_it_cannot_give_a_fork_is_refused(server: fork_server.ForkServer, program: Path) -> None:
    program.write_text("")
    with pytest.raises(AssertionError, match="process group"):
        server.popen([program], process_group=0)
