"""The golden container on paper: nothing of a task's words in it, every limit in it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from hivemind_worker.runtime.capsule import system_calls
from hivemind_worker.runtime.docker import hardening
from hivemind_worker.tasks import outcome, plan

MIB = 1024 * 1024
AROUND = hardening.Surroundings("node-1", "boot-1", "program-volume", "v1")
IMAGE = hardening.Image("sha256:abc", "sha256:def", "amd64", {"PATH": "/bin"})
PLAN = plan.RunPlan(
    task_id="task-1",
    attempt=2,
    image="evil --privileged",
    argv=("SENTINEL",),
    limits=outcome.Limits(256 * MIB, 50_000, 10.0, 64 * MIB, 32),
    caps=plan.Caps(1, 1, 1, 1, 1, 1.0),
    files=(plan.InputFile("SENTINEL", content=b"SENTINEL"),),
    environment={"SENTINEL": "SENTINEL"},
)


def test_nothing_a_task_says_goes_into_the_container() -> None:
    said = json.dumps(hardening.body(AROUND, PLAN, IMAGE))
    assert "SENTINEL" not in said
    assert "evil" not in said


def test_a_name_tells_nothing_and_is_never_given_twice() -> None:
    names = {hardening.name(AROUND, PLAN, number) for number in range(3)}
    names.add(hardening.name(AROUND, dataclasses.replace(PLAN, attempt=3), 0))
    assert len(names) == 4
    assert not any("task" in name for name in names)


@pytest.mark.parametrize(
    ("memory", "disk", "inside"),
    [(256, 128, True), (256, 129, False), (1024, 1024, False), (64, 1, True)],
)
def test_a_workspace_is_in_memory_only_where_it_fits_well(memory: int, disk: int, inside: bool) -> None:
    limits = dataclasses.replace(PLAN.limits, memory_bytes=memory * MIB, disk_bytes=disk * MIB)
    asked = dataclasses.replace(PLAN, limits=limits)
    assert hardening.workspace_in_memory(limits) is inside
    if inside:
        assert f"size={disk * MIB}," in hardening.body(AROUND, asked, IMAGE)["HostConfig"]["Tmpfs"]["/workspace"]
        return
    with pytest.raises(ValueError, match="memory"):
        hardening.body(AROUND, asked, IMAGE)
    host = hardening.body(AROUND, asked, IMAGE, "some-volume")["HostConfig"]
    assert "/workspace" not in host["Tmpfs"]
    assert host["Mounts"][1]["Source"] == "some-volume"


def test_egress_is_no_network_of_the_container_but_where_the_owner_wants_a_bridge() -> None:
    asked = dataclasses.replace(PLAN, network=plan.Network.EGRESS)
    assert hardening.body(AROUND, asked, IMAGE)["HostConfig"]["NetworkMode"] == "none"
    allowed = dataclasses.replace(AROUND, network="id-of-it")
    assert hardening.body(allowed, asked, IMAGE)["HostConfig"]["NetworkMode"] == "id-of-it"
    assert hardening.body(allowed, PLAN, IMAGE)["HostConfig"]["NetworkMode"] == "none"


def test_volumes_of_an_image_become_small_and_lie_in_memory() -> None:
    image = dataclasses.replace(IMAGE, volumes=("/data", "/workspace", "/tmp/", "/.hivemind"))
    folders = hardening.body(AROUND, PLAN, image)["HostConfig"]["Tmpfs"]
    assert set(folders) == {"/data", "/dev/shm", "/tmp", "/run", "/workspace"}


@pytest.mark.parametrize("machine", ["amd64", "arm64"])
def test_the_profile_refuses_by_default_and_what_is_dangerous_by_name(machine: str) -> None:
    profile = json.loads(hardening.profile(machine))
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    named = {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    dangerous = {
        "io_uring_setup",
        "bpf",
        "keyctl",
        "userfaultfd",
        "perf_event_open",
        "mount",
        "unshare",
        "setns",
        "kexec_load",
        "init_module",
        "process_vm_readv",
        "pivot_root",
        "open_by_handle_at",
    }
    assert not named & dangerous
    assert named >= {"read", "write", "openat", "execve", "futex", "clone", "socket", "mmap", "exit_group"}


def test_both_renderings_of_the_table_speak_of_the_same_calls() -> None:
    assert set(system_calls.allowed("arm64")) <= set(system_calls.allowed("amd64"))
    assert len(system_calls.filter_program("amd64")) % 8 == 0
    with pytest.raises(LookupError, match="riscv"):
        system_calls.filter_program("riscv64")


def test_tasks_of_two_slots_share_no_user() -> None:
    bodies = [hardening.body(AROUND, PLAN, IMAGE, slot=slot) for slot in (0, 1, 255, 256, 9_999)]
    uids = [uid for body in bodies for uid in body["Cmd"][-2:]]
    assert len(set(uids)) == len(uids)
    assert all(0 < int(uid) < 65_536 for uid in uids[:6]), "an engine's user namespace has no more"
    for body in bodies:
        assert f"uid={body['Cmd'][-1]}," in body["HostConfig"]["Tmpfs"]["/workspace"]
    with pytest.raises(ValueError, match="slot"):
        hardening.body(AROUND, PLAN, IMAGE, slot=10_000)


def test_the_gpus_that_were_reserved_and_no_others() -> None:
    wanted = dataclasses.replace(PLAN, gpus=2, gpu_devices=("GPU-a", "GPU-c"))
    host = hardening.body(AROUND, wanted, IMAGE, "volume")["HostConfig"]
    assert host["DeviceRequests"] == [{"DeviceIDs": ["GPU-a", "GPU-c"], "Capabilities": [["gpu"]]}]
    assert "DeviceRequests" not in hardening.body(AROUND, PLAN, IMAGE, "volume")["HostConfig"]
    with pytest.raises(ValueError, match="no devices were reserved"):
        hardening.body(AROUND, dataclasses.replace(PLAN, gpus=1), IMAGE, "volume")


def test_what_asks_an_image_what_it_is_is_as_fenced_as_a_task_and_holds_nothing_of_ours() -> None:
    golden = hardening.body(AROUND, PLAN, IMAGE)
    asking = hardening.inspector(AROUND, IMAGE, ("python3", "-I", "-c", "probe"))
    sizes = {"Memory", "MemorySwap", "CpuQuota", "PidsLimit", "Ulimits", "Tmpfs", "Mounts", "CapAdd"}
    for key, value in golden["HostConfig"].items():
        assert key in sizes or asking["HostConfig"][key] == value, key
    assert asking["HostConfig"]["Mounts"] == []
    assert asking["HostConfig"]["NetworkMode"] == "none"
    assert asking["Env"] == []
    assert "task-1" not in json.dumps(asking)


def test_what_runs_by_an_authors_program_has_no_right_from_the_start() -> None:
    inspector = hardening.inspector(AROUND, IMAGE, ("python3",))
    assert inspector["User"] == "65534:65534"
    assert (inspector["Cmd"], inspector["HostConfig"]["CapAdd"], inspector["HostConfig"]["CapDrop"]) == (
        [],
        [],
        ["ALL"],
    )
    assert "60601" not in json.dumps(inspector)
