"""Bubblewrap's command line, the host's folders inside, and control groups, over made-up machines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hivemind_worker.runtime.capsule import accounts, users
from hivemind_worker.runtime.sandbox import launch, limits, probe

FDS = launch.Fds(10, 11, 12, 13, 14, 15, 16, 17, 18)
FURNISHING = launch.Furnishing(("/usr",), {"/bin": "usr/bin"}, ("/etc/ld.so.cache",), "/usr/bin")


def test_everything_is_unshared_and_nothing_is_writable_but_memory() -> None:
    said = launch.arguments(FURNISHING, launch.Room(1000, 500), FDS)
    for namespace in ("user", "ipc", "pid", "net", "uts"):
        assert f"--unshare-{namespace}" in said
    assert {"--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"} <= set(said)
    assert "--bind" not in said
    assert said[said.index("--cap-drop") + 1] == "ALL"
    init = said[said.index("--") + 1 :]
    assert init[0] == launch.PROGRAM
    assert init[-2:] == ["--filter", launch.FILTER]
    assert "--tmpfs" not in said[: said.index("--")], "bubblewrap's have no cap of files"
    mounts = {init[at + 1]: init[at + 2] for at, word in enumerate(init) if word == "--tmpfs"}
    assert mounts["/workspace"] == "size=1000,nr_inodes=64,mode=0700,uid=65534,gid=65534"
    assert set(mounts) == {"/workspace", "/tmp", "/dev/shm"}


def test_only_a_worker_that_is_root_gives_the_first_process_a_user_of_its_own() -> None:
    alone = launch.arguments(FURNISHING, launch.Room(1000, 500), FDS)
    added = [alone[at + 1] for at, word in enumerate(alone) if word == "--cap-add"]
    assert added == ["CAP_SYS_ADMIN", "CAP_SETPCAP"]
    assert "--users" not in alone
    separate = launch.arguments(FURNISHING, launch.Room(1000, 500), FDS, separate=True)
    assert separate[separate.index("--userns-block-fd") + 1] == "16"
    at = separate.index("--users")
    assert separate[at + 1 : at + 3] == ["0", "65534"]
    assert users.of_slot(3).id_map == "0 60606 1\n65534 60607 1\n"


def test_the_way_to_what_is_shown_is_open_to_the_task() -> None:
    shown = launch.Furnishing(("/usr", "/opt/python"), {}, ("/etc/ssl/certs",), "", {"/opt/x/y": "/somewhere"})
    words = launch.arguments(shown, launch.Room(1000, 500), FDS)
    ways = [words[at + 3] for at in range(len(words)) if words[at : at + 3] == ["--perms", "0755", "--dir"]]
    assert ways == ["/etc", "/etc/ssl", "/opt", "/opt/x"]


def test_a_workspace_on_a_disk_is_the_only_folder_bound_for_writing(tmp_path: Path) -> None:
    said = launch.arguments(FURNISHING, launch.Room(1000, 500, tmp_path), FDS)
    assert said.count("--bind") == 1
    at = said.index("--bind")
    assert said[at + 1 : at + 3] == [str(tmp_path), "/workspace"]


def test_of_etc_only_what_programs_need_is_shown(tmp_path: Path) -> None:
    for name in ("shadow", "ld.so.cache", "ssl/certs/x", "ssl/private/key", "passwd"):
        path = tmp_path / "etc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "lib").mkdir()
    found, _ = probe.furnish(tmp_path, None)
    assert found.links == {"/bin": "usr/bin"}
    assert "/lib" in found.folders
    assert found.files == ("/etc/ld.so.cache", "/etc/ssl/certs")


def test_groups_of_v1_are_made_beneath_our_own(tmp_path: Path) -> None:
    for folder in ("memory/mine", "pids", "cpu"):
        (tmp_path / folder).mkdir(parents=True)
    found = limits.probe(tmp_path, "4:memory:/mine\n8:pids:/\n1:cpu:/elsewhere\n0::/\n")
    assert found.folders == {"memory": tmp_path / "memory/mine", "pids": tmp_path / "pids", "cpu": tmp_path / "cpu"}
    assert found.enforced == {"memory", "pids", "cpu"}


def test_where_no_group_can_be_made_it_is_said(tmp_path: Path) -> None:
    found = limits.probe(tmp_path, "4:memory:/mine\n")
    assert found.enforced == frozenset()
    assert "no right" in found.why_not


def test_groups_of_v2_need_their_controllers_handed_down(tmp_path: Path) -> None:
    own = tmp_path / "service"
    own.mkdir()
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (own / "cgroup.controllers").write_text("cpu memory pids\n")
    (own / "cgroup.subtree_control").write_text("")
    (own / "cgroup.procs").write_text("")
    found = limits.probe(tmp_path, "0::/service\n")
    assert found.folders == {"": own}
    assert found.enforced == {"memory", "pids", "cpu"}
    assert (own / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"


def test_accounts_of_both_versions_are_read_alike() -> None:
    one = {
        ("memory", "memory.max_usage_in_bytes"): "1000\n",
        ("memory", "memory.oom_control"): "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        ("cpuacct", "cpuacct.usage"): "1500000000\n",
        ("cpu", "cpu.stat"): "nr_periods 5\nthrottled_time 250000000\n",
        ("pids", "pids.events"): "max 7\n",
        ("pids", "pids.peak"): "4\n",
        ("blkio", "blkio.throttle.io_service_bytes"): "8:0 Read 10\n8:0 Write 20\n8:16 Read 1\nTotal 31\n",
    }
    two = {
        ("", "memory.peak"): "1000\n",
        ("", "memory.events"): "low 0\noom 3\noom_kill 2\n",
        ("", "cpu.stat"): "usage_usec 1500000\nthrottled_usec 250000\n",
        ("", "pids.events"): "max 7\n",
        ("", "pids.peak"): "4\n",
        ("", "io.stat"): "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=0\n",
    }
    expected = accounts.Reading(1000, 1.5, 0.25, 4, 11, 20, 2, 7)
    assert accounts.read(lambda *where: one.get(where)) == expected
    assert accounts.read(lambda *where: two.get(where)) == expected
    assert accounts.read(lambda *_: None) == accounts.Reading()


def test_groups_of_dead_workers_are_removed_and_none_that_another_container_may_just_have_made(tmp_path: Path) -> None:
    gone, ours = 2**22 + 1, Path("/proc/self/ns/pid").stat().st_ino  # no kernel gives so high a number
    names = {
        "ours, dead": f"{gone}-{ours}-aa", "ours, alive": f"{os.getpid()}-{ours}-aa",
        "another's, new": f"{gone}-1-aa", "another's, old": f"{gone}-1-bb",
        "an older version's, new": f"{gone}-aa", "an older version's, old": f"{gone}-bb",
    }  # fmt: skip
    for name, rest in names.items():
        (tmp_path / f"hivemind-task-{rest}").mkdir()
        if name.endswith("old"):
            os.utime(tmp_path / f"hivemind-task-{rest}", (1, 1))
    limits.sweep(limits.Parents({"": tmp_path}, frozenset()))
    left = {name for name, rest in names.items() if (tmp_path / f"hivemind-task-{rest}").exists()}
    assert left == {"ours, alive", "another's, new", "an older version's, new"}
    limits.sweep(limits.Parents({"": tmp_path}, frozenset()), own_too=True)
    assert not (tmp_path / f"hivemind-task-{names['ours, alive']}").exists()


LEAVER = """
import sys
from pathlib import Path
from hivemind_worker.runtime.sandbox import limits
for folder in limits.Group.planned(limits.Parents({"": Path(sys.argv[1])}, frozenset())).folders.values():
    folder.mkdir()
"""


def test_groups_of_a_dead_worker_are_removed_though_its_parent_has_not_waited_for_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", LEAVER, tmp_path]) as worker:
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        assert [*tmp_path.iterdir()]
        limits.sweep(limits.Parents({"": tmp_path}, frozenset()))
        assert not [*tmp_path.iterdir()]


def test_groups_of_a_dead_worker_are_removed_though_another_process_has_its_number(tmp_path: Path) -> None:
    parents = limits.Parents({"": tmp_path}, frozenset())
    ours = limits.Group.planned(parents).folders[""]
    prefix, pid, namespace, began, name = ours.name.rsplit("-", 4)
    theirs = tmp_path / "-".join([prefix, pid, namespace, str(int(began) - 1), name])
    for folder in (ours, theirs):
        folder.mkdir()
    limits.sweep(parents)
    assert [*tmp_path.iterdir()] == [ours]
