"""A container compared with what was asked: whatever is otherwise is told, options that nobody knows included."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from hivemind_worker.runtime import trial
from hivemind_worker.runtime.docker import golden, hardening
from hivemind_worker.tasks import outcome

MIB = 1024 * 1024
IMAGE = hardening.Image("sha256:1", "sha256:1", "amd64", {"PATH": "/bin"})


def _body() -> dict[str, Any]:
    context = hardening.Surroundings("node", "boot", "volume", "version")
    limits = outcome.Limits(memory_bytes=64 * MIB, cpu_quota=50_000, timeout_seconds=5, disk_bytes=MIB, pids=16)
    return hardening.body(context, trial.own_plan(("x",), limits), IMAGE)


def _inspected(body: dict[str, Any]) -> dict[str, Any]:
    """As Docker 20.10 says it: the defaults of each option filled in, the image's variables and labels added."""
    asked = copy.deepcopy(body)
    host = {
        "Binds": None,
        "CapAdd": None,
        "Cgroup": "",
        "ConsoleSize": [0, 0],
        "CpuShares": 0,
        "Devices": None,
        "Isolation": "",
        "KernelMemory": 0,
        "MemorySwappiness": None,
        "OomKillDisable": False,
        "UsernsMode": "",
        **asked.pop("HostConfig"),
        "Runtime": "runc",
        "MaskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
        "ReadonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    }
    config = {**asked, "Domainname": "", "Env": ["PATH=/bin"], "OnBuild": None, "Volumes": {"/data": {}}}
    config["Labels"] = {**config["Labels"], "maintainer": "somebody"}
    mount = {"Type": "volume", "Name": "volume", "Source": "/v", "Destination": "/.hivemind", "RW": False}
    return {
        "Image": "sha256:1",
        "Path": hardening.PROGRAM,
        "Args": asked["Cmd"],
        "AppArmorProfile": "docker-default",
        "ExecIDs": None,
        "HostConfig": host,
        "Config": config,
        "Mounts": [mount],
        "NetworkSettings": {"Networks": {"none": {}}},
    }


def _differences(change: Any) -> tuple[str, ...]:
    body = _body()
    seen = _inspected(body)
    change(seen)
    return golden.differences(body, seen, "runc", IMAGE.environment)


def test_what_was_asked_is_no_difference() -> None:
    assert _differences(lambda _: None) == ()


@pytest.mark.parametrize("key", sorted(_body()["HostConfig"]))
def test_every_option_of_ours_is_compared(key: str) -> None:
    """Those that are off are switched on, and those that are on are taken away."""
    off = _body()["HostConfig"][key] in ("", False, None)
    (difference, *_) = _differences(lambda seen: seen["HostConfig"].update({key: "host" if off else None}))
    assert key in difference


@pytest.mark.parametrize("key", sorted(set(_body()) - {"HostConfig", "Image", "Env", "Cmd"}))
def test_every_word_of_the_configuration_is_compared(key: str) -> None:
    off = not _body()[key]
    assert any(key in each for each in _differences(lambda seen: seen["Config"].update({key: ["x"] if off else None})))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Binds", ["/:/host"]),
        ("CapAdd", ["SYS_ADMIN", *hardening.RIGHTS]),
        ("CapAdd", []),
        ("Devices", [{"PathOnHost": "/dev/sda"}]),
        ("DeviceCgroupRules", ["a *:* rwm"]),
        ("GroupAdd", ["docker"]),
        ("VolumesFrom", ["other"]),
        ("ExtraHosts", ["x:1.2.3.4"]),
        ("Sysctls", {"net.ipv4.ip_forward": "1"}),
        ("UsernsMode", "host"),
        ("OomKillDisable", True),
        ("CgroupParent", "/"),
        ("Runtime", "other"),
        ("MaskedPaths", []),
        ("MaskedPaths", None),
        ("ReadonlyPaths", ["/proc/bus"]),
        ("AnOptionOfTheYear2040", {"unsafe": True}),
    ],
)
def test_what_was_not_asked_for_is_a_difference(key: str, value: Any) -> None:
    (difference,) = _differences(lambda seen: seen["HostConfig"].update({key: value}))
    assert key in difference


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda seen: seen["Mounts"].append({"Type": "bind", "Source": "/", "Destination": "/h"}), "mounted at /h"),
        (lambda seen: seen["Mounts"][0].update(RW=True), "/.hivemind is writable"),
        (lambda seen: seen["Mounts"][0].update(Name="another"), "not volume"),
        (lambda seen: seen["Mounts"].clear(), "not mounted"),
        (lambda seen: seen.update(Image="sha256:2"), "image"),
        (lambda seen: seen.update(Path="/bin/sh"), "runs"),
        (lambda seen: seen.update(ExecIDs=["1"]), "something else"),
        (lambda seen: seen.update(AppArmorProfile="unconfined"), "AppArmor"),
        (lambda seen: seen["NetworkSettings"]["Networks"].update(bridge={}), "bridge"),
        (lambda seen: seen["Config"].update(Env=["PATH=/bin", "LD_PRELOAD=/x"]), "LD_PRELOAD"),
        (lambda seen: seen.update(HostConfig={}), "does not say"),
    ],
)
def test_what_lies_around_it_is_compared(change: Any, words: str) -> None:
    assert any(words in difference for difference in _differences(change))


def test_a_difference_is_told_in_a_line() -> None:
    for difference in _differences(lambda seen: seen["HostConfig"].update(SecurityOpt=["seccomp=" + "x" * 9000])):
        assert len(difference) < 500
        assert "\n" not in difference
