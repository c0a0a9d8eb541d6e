"""What a project says of its own build, and what its build gives: held to what was asked for."""

from __future__ import annotations

import pytest

from hivemind_worker import errors
from hivemind_worker.runtime.environments import building, locks, target

PYTHON = target.Target("3.11.2", "x86_64", "glibc", (2, 36), "/usr/bin/python3.11", "a70d0d0a")
WHEEL = locks.Wheel("hm-source", "1.0", "hm_source-1.0-py3-none-any.whl", "file:///x", "")


@pytest.mark.parametrize(
    ("file", "suits"),
    [
        ("hm_source-1.0-py3-none-any.whl", True),
        ("hm_source-1.0-cp311-cp311-linux_x86_64.whl", True),
        ("six-1.17.0-py3-none-any.whl", False),
        ("hm_source-2.0-py3-none-any.whl", False),
        ("hm_source-1.0-cp312-cp312-linux_x86_64.whl", False),
        ("../hm_source-1.0-py3-none-any.whl", False),
        ("/etc/hm_source-1.0-py3-none-any.whl", False),
        ("hm_source-1.0-py3-none-any.whl\n", False),
    ],
)
def test_a_build_speaks_for_its_own_project_and_version_alone(file: str, suits: bool) -> None:
    assert locks.suits(file, WHEEL, PYTHON) is suits


def test_what_a_project_does_not_say_of_its_build_is_the_standards() -> None:
    requires, order = building._order("", "x==1")
    assert requires == ("setuptools>=40.8.0", "wheel")
    assert order == {"backend": "setuptools.build_meta:__legacy__", "path": []}


@pytest.mark.parametrize(
    "text",
    [
        "broken", "build-system = 1", '[build-system]\nrequires = ["-e git+https://x"]',
        '[build-system]\nrequires = ["six @ http://169.254.169.254/x"]', "[build-system]\nrequires = 1",
        '[build-system]\nrequires = []\nbuild-backend = "os; system"',
        '[build-system]\nrequires = []\nbuild-backend = "b"\nbackend-path = ["../../opt"]',
    ],
)  # fmt: skip
def test_an_odd_project_is_refused(text: str) -> None:
    with pytest.raises(errors.DependencyFailed, match="x==1"):
        building._order(text, "x==1")


def test_what_a_failed_build_complains_of_is_fit_for_a_log() -> None:
    assert "\x1b" not in str(building.failed("no compiler \x1b[31m here"))
