from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import capsules
import pytest

from hivemind_worker.runtime.capsule import messages as m

Start = Callable[..., capsules.Capsule]


def collected(
    start: Start, workspace: Path, script: str = "true", seconds: float = 30, **limits: int
) -> capsules.Heard:
    capsule = start(workspace)
    capsule.begin(capsules.shell(script, capsule.workspace, limits=m.Limits(**limits)))
    return capsule.finish(seconds)


def test_links_and_special_files_are_named_and_not_followed(start: Start, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "shadow").symlink_to("/etc/shadow")
    (results / "out").symlink_to("../..")
    (results / "loop").symlink_to(".")
    (results / "self").symlink_to("self")
    os.mkfifo(results / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(results / "socket"))
    if os.geteuid() == 0:
        os.mknod(results / "device", 0o666 | 0o020000, os.makedev(1, 5))
    else:
        (results / "device").symlink_to("/dev/zero")
    (results / "good").write_bytes(b"good")
    (results / "setuid").write_bytes(b"s")
    (results / "setuid").chmod(0o4755)
    heard = collected(start, tmp_path)
    assert heard.results == {b"good": b"good", b"setuid": b"s"}
    assert heard.modes[b"setuid"] == 0o4755
    links = {b"shadow", b"out", b"loop", b"self"}
    assert links <= {path for path, why in heard.skipped.items() if why is m.Skipped.SYMLINK}
    assert heard.skipped[b"fifo"] is m.Skipped.FIFO
    assert heard.skipped[b"socket"] is m.Skipped.SOCKET
    assert heard.skipped[b"device"] in {m.Skipped.DEVICE, m.Skipped.SYMLINK}
    assert heard.one(m.Done).skipped == 7


@pytest.mark.parametrize("target", ["/etc", ".."])
def test_a_results_directory_turned_into_a_link_is_not_walked(start: Start, tmp_path: Path, target: str) -> None:
    heard = collected(start, tmp_path, f"rmdir results; ln -s {target} results")
    assert heard.results == {}
    assert "results directory" in heard.one(m.Done).error


def test_a_removed_results_directory_is_no_results(start: Start, tmp_path: Path) -> None:
    heard = collected(start, tmp_path, "rmdir results")
    assert heard.one(m.Done) == m.Done(0, 0)


def test_both_names_of_a_hard_link_come(start: Start, tmp_path: Path) -> None:
    heard = collected(start, tmp_path, "echo same > results/a; ln results/a results/b")
    assert heard.results == {b"a": b"same\n", b"b": b"same\n"}


def test_names_come_byte_for_byte_in_order(start: Start, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    names = [b"\xff\xfe", b"new\nline", b" ", b"-rf", b"..x", b"a\\b", b"caf\xc3\xa9", b"x" * 255]
    for name in names:
        (results / os.fsdecode(name)).write_bytes(name)
    heard = collected(start, tmp_path)
    assert heard.results == {name: name for name in names}
    assert list(heard.results) == sorted(names)


def test_a_sparse_file_is_sent_as_its_data(start: Start, tmp_path: Path) -> None:
    script = "truncate -s 30M results/s; printf start | dd of=results/s conv=notrunc 2>/dev/null; "
    script += "printf end | dd of=results/s conv=notrunc bs=1 seek=20000000 2>/dev/null"
    heard = collected(start, tmp_path, script)
    whole = bytearray(30 << 20)
    whole[:5] = b"start"
    whole[20_000_000:20_000_003] = b"end"
    assert heard.results == {b"s": whole}
    assert heard.one(m.Done).content_bytes < 1 << 20


def test_a_sparse_terabyte_is_stopped_in_seconds(start: Start, tmp_path: Path) -> None:
    script = "truncate -s 1T results/huge; echo x > results/small; echo y > results/zmall"
    heard = collected(start, tmp_path, script, seconds=5)
    assert heard.results == {b"small": b"x\n", b"zmall": b"y\n"}
    assert heard.skipped == {b"huge": m.Skipped.BYTES}
    assert heard.one(m.Done).capped is m.Capped.BYTES


def test_a_sparse_terabyte_that_is_allowed_costs_no_time(start_shipped: Start, tmp_path: Path) -> None:
    capsule = start_shipped(tmp_path, discard=True)
    limits = m.Limits(results_apparent=1 << 41)
    capsule.begin(capsules.shell("truncate -s 1T results/huge", tmp_path, limits=limits))
    done = capsule.finish(seconds=5).one(m.Done)
    assert (done.files, done.content_bytes) == (1, 0)


def test_a_file_over_the_byte_cap_is_left_out_whole_and_the_same_each_time(start: Start, tmp_path: Path) -> None:
    script = "for n in e d c b a; do head -c 400 /dev/zero > results/$n; done; echo x > results/z"
    seen = [collected(start, tmp_path, script, results_bytes=1000) for _ in range(2)]
    for heard in seen:
        assert heard.results == {b"a": bytes(400), b"b": bytes(400), b"z": b"x\n"}
        assert set(heard.skipped) == {b"c", b"d", b"e"}
        assert heard.one(m.Done).capped is m.Capped.BYTES


def test_the_count_cap_keeps_the_first_by_name(start: Start, tmp_path: Path) -> None:
    script = "cd results; i=0; while [ $i -lt 300 ]; do : > f$i; i=$((i+1)); done"
    heard = collected(start, tmp_path, script, results_count=7)
    assert list(heard.results) == sorted(b"f%d" % i for i in range(300))[:7]
    assert heard.one(m.Done).capped is m.Capped.COUNT


def test_a_huge_directory_is_cut_to_the_smallest_names(start: Start, tmp_path: Path) -> None:
    # 6,000 names against a budget of 4 x 10 + 1,024 entries: only links, so the count of files never ends the walk.
    results = tmp_path / "results"
    results.mkdir()
    names = [f"{n * 7919 % 6_000:05d}" for n in range(6_000)]
    for name in names:
        (results / name).symlink_to("x")
    heard = collected(start, tmp_path, results_count=10)
    done = heard.one(m.Done)
    assert done.capped is m.Capped.COUNT
    assert done.skipped == 1064
    assert list(heard.skipped) == [name.encode() for name in sorted(names)[:1000]]


def test_deep_trees_end_at_the_depth_cap(start: Start, tmp_path: Path) -> None:
    script = "cd results; for i in $(seq 600); do mkdir d; cd d || break; : > f; done"
    heard = collected(start, tmp_path, script, results_depth=5)
    assert list(heard.results) == [b"d/d/d/d/f", b"d/d/d/f", b"d/d/f", b"d/f"]
    assert heard.skipped == {b"d/d/d/d/d": m.Skipped.DEPTH}
    assert heard.one(m.Done).capped is m.Capped.DEPTH


def test_the_deepest_tree_allowed_is_walked(start: Start, tmp_path: Path) -> None:
    script = "cd results; for i in $(seq 600); do mkdir d; cd d || break; done"
    heard = collected(start, tmp_path, script, results_depth=10_000)
    assert heard.one(m.Done).capped is m.Capped.DEPTH


def test_a_name_too_long_is_skipped(start: Start, tmp_path: Path) -> None:
    long = "n" * 250
    # Built from the inside out: no shell has to name the whole of it, however long the path to here is already.
    script = f"cd results; : > {long}; for i in $(seq 17); do mkdir m; mv {long} m; mv m {long}; done"
    heard = collected(start, tmp_path, script)
    assert m.Skipped.NAME in heard.skipped.values()


def test_the_time_cap_says_so(start_shipped: Start, tmp_path: Path) -> None:
    script = "head -c 300000000 /dev/zero > results/a; echo x > results/b"
    heard = collected(start_shipped, tmp_path, script, results_ms=20)
    assert heard.one(m.Done).capped is m.Capped.TIME
    assert heard.skipped == {b"a": m.Skipped.TIME}
    assert heard.results == {}


@pytest.mark.sandbox
def test_what_the_task_locked_away_is_skipped_as_unreadable(start_pid1: Start, tmp_path: Path) -> None:
    script = "echo x > results/locked; chmod 000 results/locked; mkdir results/dir; echo y > results/dir/f; "
    script += "chmod 000 results/dir; echo good > results/open"
    heard = collected(start_pid1, tmp_path, script)
    assert heard.results == {b"open": b"good\n"}
    assert heard.skipped == {b"dir": m.Skipped.UNREADABLE, b"locked": m.Skipped.UNREADABLE}
    (tmp_path / "results" / "dir").chmod(0o700)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_million_files_leave_memory_flat_and_give_the_first(start_shipped: Start, tmp_path: Path) -> None:
    script = "import os; os.chdir('results'); [open(f'{n:07d}', 'w').close() for n in range(10**6)]"
    capsule = start_shipped(tmp_path)
    spec = m.Spec(argv=(b"python3", b"-c", script.encode()), env=capsules.ENVIRONMENT, workspace=bytes(tmp_path))
    capsule.begin(spec)
    capsule.hear(lambda message: isinstance(message, m.Done), seconds=500)
    status = Path(f"/proc/{capsule.process.pid}/status").read_text()
    assert int(status.split("VmHWM:")[1].split()[0]) < 12 << 10
    capsule.close()
    assert list(capsule.heard.results) == [b"%07d" % n for n in range(10_000)]
    assert capsule.heard.one(m.Done).capped is m.Capped.COUNT
