"""What an image says of its Python, and which wheels that chooses: each field by its grammar, nothing believed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from hivemind_worker import errors
from hivemind_worker.runtime.environments import locks, target

GOOD: dict[str, Any] = {
    "implementation": "cpython", "version": "3.13.1", "free_threaded": False, "machine": "x86_64",
    "libc": "glibc 2.36", "executable": "/usr/local/bin/python3.13", "magic": "f30d0d0a", "packages": {"six": "1.17.0"},
}  # fmt: skip


def parsed(**fields: object) -> target.Target:
    return target.parse(json.dumps({**GOOD, **fields}).encode(), "amd64")


def test_the_python_of_these_tests_is_read_by_the_probe() -> None:
    told = subprocess.run([sys.executable, "-I", "-c", target.PROBE], capture_output=True, check=True).stdout
    python = target.parse(b"a line of sitecustomize\n" + told)
    assert python.minor == sys.version_info.minor
    assert python.folder == f"python3.{sys.version_info.minor}"


def test_a_python_decides_what_uv_is_told_and_which_tags_suit() -> None:
    python = parsed()
    assert python.uv_flags() == ("--python-version", "3.13.1", "--python-platform", "x86_64-manylinux_2_36")
    assert parsed(libc="glibc 2.27").uv_flags()[3] == "x86_64-manylinux_2_17"
    assert parsed(libc="musl 1.2").uv_flags()[3] == "x86_64-unknown-linux-musl"
    tags = list(python.tags())
    assert tags[0] == "cp313-cp313-manylinux_2_36_x86_64"
    for tag in (
        "cp313-cp313-manylinux2014_x86_64",
        "cp38-abi3-manylinux_2_17_x86_64",
        "py3-none-any",
        "py2.py3-none-any",
    ):
        assert (tag in tags) is (tag != "py2.py3-none-any")
    assert "cp312-cp312-manylinux_2_17_x86_64" not in tags
    assert "cp313-cp313-manylinux_2_37_x86_64" not in tags
    free = list(parsed(free_threaded=True).tags())
    assert free[0] == "cp313-cp313t-manylinux_2_36_x86_64"
    assert not any("abi3" in tag for tag in free)
    assert "cp313-cp313-musllinux_1_2_x86_64" in list(parsed(libc="musl 1.2").tags())


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "3.7.1"}, {"version": "3.13.1 --index-url=x"}, {"version": None}, {"machine": "aarch64"},
        {"machine": "sparc"}, {"libc": "glibc 2.99999"}, {"libc": "bionic 1.0"}, {"executable": "python3"},
        {"executable": "/usr/../etc/x"}, {"executable": "/a b"}, {"executable": "/x\n"}, {"magic": "zz"},
        {"implementation": "pypy"}, {"packages": [1]}, {"packages": {f"p{at}": "1" for at in range(6000)}},
    ],
)  # fmt: skip
def test_an_odd_answer_is_refused_as_the_images_fault(fields: dict[str, object]) -> None:
    with pytest.raises(errors.DependencyFailed, match="for this image"):
        parsed(**fields)


@pytest.mark.parametrize("answer", [b"", b"[]", b"\xff\xfe", b"[" * 100_000, b"x" * 3_000_000])
def test_what_is_no_answer_is_refused(answer: bytes) -> None:
    with pytest.raises(errors.DependencyFailed, match="does not say"):
        target.parse(answer)


def test_packages_without_proper_names_and_versions_are_unknown() -> None:
    odd = {"six": "1.0", "x\n": "1", "-e": "1", "a": "1; import os", "b": '1"\n[[packages]]', "c": None, "UP": "1"}
    assert parsed(packages=odd).packages == (("six", "1.0"),)


BOTH = "manylinux_2_17_x86_64.manylinux2014_x86_64"
A, B, C = "a" * 64, "b" * 64, "c" * 64
LOCK = f"""
[[packages]]
name = "hm-probe"
version = "1.2"
wheels = [
    {{ url = "http://h/hm_probe-1.2-cp312-cp312-manylinux_2_17_x86_64.whl", hashes = {{ sha256 = "{A}" }} }},
    {{ url = "http://h/hm_probe-1.2-py3-none-any.whl", hashes = {{ sha256 = "{B}" }} }},
    {{ url = "http://h/hm_probe-1.2-cp313-cp313-{BOTH}.whl", hashes = {{ sha256 = "{C}" }} }},
    {{ url = "http://h/other-1.2-cp313-cp313-manylinux_2_36_x86_64.whl", hashes = {{ sha256 = "{C}" }} }},
    {{ url = "ftp://h/hm_probe-1.2-cp313-cp313-manylinux_2_36_x86_64.whl" }},
]

[[packages]]
name = "six"
version = "1.17.0"
wheels = [{{ url = "http://h/six-1.17.0-py2.py3-none-any.whl" }}]
"""


def test_of_a_lock_the_wheel_that_suits_best_is_chosen_and_what_is_there_is_left_out() -> None:
    (wheel,) = locks.wheels(LOCK, parsed())
    assert (wheel.pin, wheel.sha256) == ("hm-probe==1.2", "c" * 64)
    assert locks.pins(LOCK) == ("hm-probe==1.2", "six==1.17.0")
    probe, six = locks.wheels(LOCK, parsed(packages={}, version="3.9.1"))
    assert probe.file == "hm_probe-1.2-py3-none-any.whl"
    assert (six.file, six.sha256) == ("six-1.17.0-py2.py3-none-any.whl", "")


@pytest.mark.parametrize(
    "text", ["no lock", "packages = 1", "packages = [1]", '[[packages]]\nname = "../x"\nversion = "1"', "[[packages]]"]
)
def test_what_is_no_lock_is_a_fault_of_the_node(text: str) -> None:
    with pytest.raises(errors.CapsuleFault):
        locks.wheels(text, parsed())


def test_a_package_without_a_wheel_that_suits_is_named() -> None:
    with pytest.raises(errors.DependencyFailed, match=r"hm-probe 1\.2"):
        locks.wheels(LOCK.replace("py3-none-any", "py3-none-win32"), parsed(libc="musl 1.2", packages={}))


def test_preferences_are_a_lock() -> None:
    assert locks.pins(locks.preferences((("six", "1.0"),))) == ("six==1.0",)
    assert locks.pins(locks.preferences(())) == ()
