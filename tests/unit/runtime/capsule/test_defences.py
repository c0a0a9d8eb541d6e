"""From a probe's report to the verdicts: a whole report holds, each fault in it breaks its defence, silence all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from hivemind_worker.runtime.capsule import defence_checks, defence_spec, defences, system_calls
from hivemind_worker.tasks import outcome

MIB = 1024 * 1024
SAMPLE = (Path(__file__).parent / "samples" / "probe_docker.txt").read_text()
"""What hivemind-probe printed in a container of Docker 20.10 on cgroup v1."""

SPEC = defence_spec.DefenceSpec(
    machine="x86_64",
    limits=outcome.Limits(memory_bytes=48 * MIB, cpu_quota=50_000, timeout_seconds=6, disk_bytes=MIB, pids=24),
    memory_folders={
        "/tmp": defence_spec.MemoryFolder(MIB, 256),
        "/run": defence_spec.MemoryFolder(MIB, 256),
        "/workspace": defence_spec.MemoryFolder(MIB, 256),
        "/dev/shm": defence_spec.MemoryFolder(12 * MIB, 0),
    },
    mounts=frozenset({"/proc", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys", "/sys/fs/cgroup"}),
    files=frozenset({"/.hivemind", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts"}),
    file_bytes=2 * MIB,
    masks=True,
    oom_score=500,
    fresh_namespaces=frozenset({"cgroup", "ipc", "mnt", "net", "pid", "uts"}),
    own_namespaces={"net": 4026531833},
    absent=("/var/run/docker.sock",),
    allowed_calls=frozenset(system_calls.allowed("x86_64")),
)


def _broken(text: str, spec: defence_spec.DefenceSpec = SPEC, throttled: float | None = 0.4) -> set[str]:
    return {each.id for each in defences.judge(text, spec, throttled) if each.state is defence_spec.State.BROKEN}


def test_all_holds_where_all_was_tried_in_vain() -> None:
    verdicts = defences.judge(SAMPLE, SPEC, 0.4)
    assert {each.state for each in verdicts} == {defence_spec.State.HOLDS}, verdicts
    assert {each.id for each in verdicts} == {*defence_checks.CHECKS, "processor"} - {"label"}


def test_silence_proves_nothing() -> None:
    held = {each.id for each in defences.judge("end 0\n", SPEC) if each.state is defence_spec.State.HOLDS}
    assert held <= {"devices", "variables", "mounts"}, "nothing seen is what they promise; a whole report has more"
    assert "mounts" not in held


@pytest.mark.parametrize(
    ("line", "instead", "broken"),
    [
        ("status self Uid: 65534", "status self Uid: 0", "user"),
        ("status self Gid: 65534 65534", "status self Gid: 65534 0", "user"),
        ("status self CapEff: 0000000000000000", "status self CapEff: 0000000000000020", "capabilities"),
        ("status self CapInh: 0000000000000000", "status self CapInh: 00000000a80425fb", "capabilities"),
        ("status self CapBnd: 0000000000000000", "status self CapBnd: 00000000a80425fb", "bounding_set"),
        ("status self NoNewPrivs: 1", "status self NoNewPrivs: 0", "no_new_privileges"),
        ("call io_uring_setup 1", "call io_uring_setup 14", "system_calls"),
        ("call 32-bit-getpid 1031", "call 32-bit-getpid 0", "system_calls"),
        ("call clone-user-namespace 1", "call clone-user-namespace 0", "system_calls"),
        ("family 38 1", "family 38 97", "system_calls"),
        ("write  30", "write  13", "root"),
        ("write  30", "write  0", "root"),
        ("write /proc/sys/kernel/core_pattern 13", "write /proc/sys/kernel/core_pattern 0", "kernel_settings"),
        ("/sys /proc/sys ro,", "/sys /proc/sys rw,", "masks"),
        ("interface     lo:", "interface   eth0:", "network"),
        ("network 169.254.169.254 101", "network 169.254.169.254 0", "network"),
        ("/ /tmp rw,nosuid,", "/ /tmp rw,", "mounts"),
        ("/ /dev/mqueue rw,nosuid,nodev,noexec,relatime - mqueue", "/ /mnt rw,relatime - ext4", "mounts"),
        ("/hosts /etc/hosts ro,", "/hosts /etc/hosts rw,", "mounts"),
        ("fill /tmp 1048576 28", "fill /tmp 2621440 0", "memory_folders"),
        ("inodes /workspace 253 28", "inodes /workspace 320 0", "memory_folders"),
        ("host capsule", "host farm-7", "namespaces"),
        ("namespace pid 40265", "namespace pid 4026531836 40265", "namespaces"),
        ("process 1 65534 hivemind-init", "process 1 0 systemd", "processes"),
        ("own ", "own 1", "processes"),
        ("first ptrace 1", "first ptrace 0", "first_process"),
        ("first memory 13", "first name 0", "first_process"),
        ("first scheduler 1", "first scheduler 0", "first_process"),
        ("family netlink-9 1", "family netlink-9 0", "system_calls"),
        ("device tty c 5 0", "device sda b 8 0", "devices"),
        ("file 2 pipe", "file 5 /etc/shadow", "open_files"),
        ("variable HOME", "variable HIVEMIND_TOKEN", "variables"),
        ("path 2 /var/run/docker.sock", "path 0 /var/run/docker.sock", "host_paths"),
        ("forks 22 11", "forks 40 0", "processes_limit"),
        ("opened 1021 24", "opened 1088 0", "file_limits"),
        ("limit core 0 0", "limit core 0 1", "file_limits"),
        ("oom-first 500", "oom-first 0", "oom_score"),
    ],
)
def test_each_fault_breaks_its_defence(line: str, instead: str, broken: str) -> None:
    assert line in SAMPLE, "the sample has the line that is changed"
    assert _broken(SAMPLE.replace(line, instead)) == {broken}


def test_memory_must_end_within_the_cap_by_whatever_keeps_it() -> None:
    (line,) = (line for line in SAMPLE.splitlines() if line.startswith("memory "))
    assert _broken(SAMPLE.replace(line, f"memory {144 * MIB} 0 0")) == {"memory"}
    assert _broken(SAMPLE.replace(line, f"memory {49 * MIB} 9 0")) == {"memory"}
    assert _broken(SAMPLE.replace(line, f"memory {40 * MIB} 0 12")) == set()


def test_a_quota_is_told_from_a_busy_machine() -> None:
    (line,) = (line for line in SAMPLE.splitlines() if line.startswith("processor "))
    silent = SAMPLE.replace("quota ", "quiet ")
    for words, throttled, state in (
        ("processor 590000 300000 2", 0.4, defence_spec.State.BROKEN),
        ("processor 150000 300000 2", 0.4, defence_spec.State.HOLDS),
        ("processor 150000 300000 2", 0.0, defence_spec.State.UNTRIED),
        ("processor 20000 300000 2", None, defence_spec.State.UNTRIED),
    ):
        verdicts = {each.id: each for each in defences.judge(silent.replace(line, words), SPEC, throttled)}
        assert verdicts["processor"].state is state, words
    assert "processor" in _broken(SAMPLE.replace(line, "processor 9000 300000 2").replace("quota 50000", "quota -1"))


def test_another_user_for_the_first_process_is_required_where_it_is_promised() -> None:
    spec = dataclasses.replace(SPEC, first_apart=True)
    assert _broken(SAMPLE, spec) == {"first_process"}
    assert _broken(SAMPLE.replace("status first Uid: 65534", "status first Uid: 65533"), spec) == set()


def test_what_no_control_group_keeps_is_not_promised() -> None:
    spec = dataclasses.replace(SPEC, enforced=frozenset())
    ids = {each.id for each in defences.judge(SAMPLE, spec)}
    assert not ids & {"memory", "processes_limit", "processor"}


def test_the_calls_that_must_be_refused_are_tried() -> None:
    tried = {line.split()[1] for line in SAMPLE.splitlines() if line.startswith("call ")}
    assert tried >= {"io_uring_setup", "bpf", "keyctl", "userfaultfd", "perf_event_open", "unshare", "mount", "setns"}
    assert not tried & set(system_calls.allowed("x86_64")), "one that is allowed proves nothing"


@hypothesis.given(strategies.text(max_size=200), strategies.integers(0, 7000))
def test_no_report_is_too_odd(text: str, place: int) -> None:
    defences.judge(text, SPEC)
    defences.judge(f"{SAMPLE[:place]}{text}{SAMPLE[place:]}", SPEC)
