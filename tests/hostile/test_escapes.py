"""Tasks that try to get out, take too much, or hand back what is not theirs (cases of the promises, by their ids)."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import platform
from pathlib import Path

import attempts
import pytest
import waiting

from hivemind_worker.concurrency import stopping
from hivemind_worker.tasks import outcome, plan

MIB = 1024 * 1024

C01 = r"""
import ctypes, errno, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
found = {}

def attempt(name, work):
    try:
        result = work()
        failed = isinstance(result, int) and result == -1
        found[name] = errno.errorcode.get(ctypes.get_errno(), "?") if failed else "done"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]

attempt("setuid", lambda: os.setuid(0))
attempt("mknod", lambda: os.mknod("/workspace/disk", 0o60600, os.makedev(8, 0)))
attempt("mount", lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))
attempt("umount", lambda: libc.umount2(b"/proc", 2))
attempt("unshare", lambda: libc.unshare(0x10000000))
attempt("clone namespaces", lambda: libc.syscall({CLONE}, 0x10000000 | 17, 0, 0, 0, 0))
attempt("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close())
attempt("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close())
attempt("chroot", lambda: os.chroot("/tmp"))
attempt("ptrace 1", lambda: libc.ptrace(16, 1, None, None))
attempt("kill 1", lambda: os.kill(1, 9))
attempt("write /", lambda: open("/escaped", "w"))
attempt("write /usr", lambda: open("/usr/escaped", "w"))
attempt("write the program", lambda: open("/.hivemind/hivemind-init", "w"))
attempt("write /proc/sys", lambda: open("/proc/sys/kernel/core_pattern", "w"))
attempt("read 1's memory", lambda: open("/proc/1/mem", "rb"))
attempt("read 1's files", lambda: os.listdir("/proc/1/fd"))
attempt("read 1's variables", lambda: open("/proc/1/environ").read())
attempt("sethostname", lambda: socket.sethostname("x"))
print(json.dumps(found))
"""

CALLS = {
    "x86_64": {"clone": 56, "io_uring_setup": 425, "userfaultfd": 323, "keyctl": 250, "add_key": 248, "bpf": 321,
               "perf_event_open": 298, "kexec_load": 246, "open_by_handle_at": 304, "setns": 308},
    "aarch64": {"clone": 220, "io_uring_setup": 425, "userfaultfd": 282, "keyctl": 219, "add_key": 217, "bpf": 280,
                "perf_event_open": 241, "kexec_load": 104, "open_by_handle_at": 265, "setns": 268},
}[platform.machine()]  # fmt: skip


async def test_c01_a_task_has_no_right_that_leads_out(bench: attempts.Bench) -> None:
    ended = await bench.python(C01.replace("{CLONE}", str(CALLS["clone"])))
    assert ended.status is outcome.Status.COMPLETED, (ended.error, ended.logs.text)
    found = json.loads(ended.logs.text)
    assert "done" not in found.values(), found


async def test_c02_dangerous_calls_are_refused(bench: attempts.Bench) -> None:
    calls = {name: number for name, number in CALLS.items() if name != "clone"}
    script = f"""
import ctypes, json, socket
libc = ctypes.CDLL(None, use_errno=True)
found = {{}}
for name, number in {calls!r}.items():
    found[name] = ctypes.get_errno() if libc.syscall(number, 0, 0, 0, 0, 0) == -1 else 0
for name, family in (("alg", 38), ("vsock", 40), ("bluetooth", 31)):
    try:
        socket.socket(family, socket.SOCK_SEQPACKET if name == "alg" else socket.SOCK_STREAM)
        found[name] = 0
    except OSError as error:
        found[name] = error.errno
print(json.dumps(found))
"""
    ended = await bench.python(script)
    assert set(json.loads(ended.logs.text).values()) == {errno.EPERM}, ended.logs.text


async def test_c05_neither_engine_nor_host_nor_worker_is_to_be_seen(
    bench: attempts.Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sentinel = tmp_path / "sentinel"
    sentinel.write_text("hunter2")
    monkeypatch.setenv("HIVEMIND_TOKEN", "hunter2")
    script = f"""
import os
print([path for path in ("/var/run/docker.sock", "/run/docker.sock", {str(sentinel)!r}, "/root/.ssh", "/etc/shadow")
       if os.access(path, os.R_OK)])
print([name for name in os.environ if name.startswith("HIVEMIND")])
print([pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) > 50])
hidden = b"hunter" + b"2"
for pid in filter(str.isdigit, os.listdir("/proc")):
    for file in ("environ", "cmdline"):
        try:
            if hidden in open(f"/proc/{{pid}}/{{file}}", "rb").read():
                print("leaked", pid, file)
        except OSError:
            pass
"""
    ended = await bench.python(script)
    assert ended.logs.text == b"[]\n[]\n[]\n", ended.logs.text
    assert sentinel.read_text() == "hunter2"


async def test_r01_a_fork_bomb_is_capped_and_gone_after_the_kill(bench: attempts.Bench) -> None:
    stop, watcher = stopping.Stop(), attempts.Watcher()
    bomb = "import os\nprint('up', flush=True)\nwhile True:\n try: os.fork()\n except OSError: pass"
    running = asyncio.create_task(bench.python(bomb, stop=stop, watcher=watcher, limits={"pids": 64}))
    await waiting.wait_until(lambda: b"up" in watcher.text(), description="the bomb is up", seconds=30)
    beside = await bench.run(["echo", "beside"])
    assert beside.logs.text == b"beside\n"
    stop.request(stopping.StopLevel.KILL, "enough")
    async with asyncio.timeout(5):
        ended = await running
    assert ended.status is outcome.Status.CANCELLED


async def test_d02_a_million_files_meet_a_cap(bench: attempts.Bench) -> None:
    script = """
import errno
made = 0
try:
    for made in range(1_000_000):
        open(f"/workspace/{made}", "w").close()
except OSError as error:
    print(made, errno.errorcode[error.errno])
"""
    ended = await bench.python(script, limits={"disk_bytes": 16 * MIB, "memory_bytes": 64 * MIB, "timeout_seconds": 20})
    capped = ended.logs.text.endswith(b"ENOSPC\n") or ended.reason in {outcome.Reason.OOM, outcome.Reason.TIMEOUT}
    assert capped, (ended.reason, ended.logs.text)


async def test_h01_links_are_not_followed(bench: attempts.Bench) -> None:
    script = """
cd results
ln -s /etc/shadow shadow; ln -s ../../../.. out; ln -s loop loop; ln -s /proc/1/environ env
mkdir real; echo mine > real/file; ln -s real folder; ln real/file hard
"""
    ended = await bench.shell(script)
    assert ended.status is outcome.Status.COMPLETED
    assert {file.name for file in ended.results} == {"real/file", "hard"}
    assert bench.content(ended, "hard") == b"mine\n"
    assert {(skipped.name, skipped.why) for skipped in ended.skipped} == {
        (name, "symlink") for name in ("shadow", "out", "loop", "env", "folder")
    }


async def test_h02_what_is_no_file_is_passed_over_without_hanging(bench: attempts.Bench) -> None:
    script = """
import os, socket
os.chdir("results")
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
open("secret", "w").write("x"); os.chmod("secret", 0)
open("setuid", "w").write("y"); os.chmod("setuid", 0o6755)
open("plain", "w").write("z")
os.mkdir("closed"); open("closed/in", "w").write("w"); os.chmod("closed", 0)
"""
    ended = await bench.python(script)
    assert ended.status is outcome.Status.COMPLETED, ended.error
    modes = {file.name: file.mode for file in ended.results}
    assert modes["setuid"] == 0o755
    assert modes["plain"] == 0o644
    assert {skipped.name: skipped.why for skipped in ended.skipped}.items() >= {("fifo", "fifo"), ("socket", "socket")}


async def test_results_that_were_made_a_link_are_rejected_and_not_followed(bench: attempts.Bench) -> None:
    ended = await bench.shell("rmdir results && ln -s /etc results")
    assert not ended.results
    assert ended.reason is outcome.Reason.RESULTS_REJECTED


async def test_h05_a_sparse_terabyte_is_stopped_in_seconds(bench: attempts.Bench) -> None:
    async with asyncio.timeout(20):
        ended = await bench.shell("truncate -s 1T results/huge; echo tried; echo x > results/small")
    assert bench.content(ended, "small") == b"x\n"
    assert sum(file.artifact.size for file in ended.results) < 200 * MIB


async def test_h06_names_that_no_client_could_write_are_skipped(bench: attempts.Bench) -> None:
    script = "import os; os.chdir(b'results'); open(b'\\xff\\xfe', 'w').write('x'); open('good', 'w').write('y')"
    ended = await bench.python(script)
    assert [file.name for file in ended.results] == ["good"]
    assert len(ended.skipped) == 1


async def test_i01_odd_but_safe_names_arrive_whatever_they_look_like(bench: attempts.Bench) -> None:
    names = ["...", "-", "--help", "a\\b", "a:b", "%2e%2e", "\u202e", "\t", "*", "~", "$(id)", "/".join("d" * 60)]
    files = tuple(plan.InputFile(name, content=name.encode()) for name in names)
    script = "import os,sys,json; print(json.dumps([open(n).read() == n for n in sys.argv[1:]]))"
    ended = await bench.python(script, *names, files=files)
    assert json.loads(ended.logs.text) == [True] * len(names), ended.error


async def test_i01_a_name_that_leads_out_never_reaches_the_capsule(bench: attempts.Bench) -> None:
    for name in ("../out", "/etc/cron.d/x", "a/../../b", "", "a//b", "nul\0"):
        ended = await bench.run(["true"], files=(plan.InputFile(name, content=b"x"),))
        assert ended.status is outcome.Status.FAILED, name


@pytest.mark.sandbox
async def test_the_hosts_root_is_never_a_tasks(tmp_path: Path) -> None:
    async with attempts.process_bench(tmp_path) as bench:
        watcher, stop, others = attempts.Watcher(), stopping.Stop(), set(_children(os.getpid()))
        running = asyncio.create_task(bench.shell("echo up; sleep 100", watcher=watcher, stop=stop))
        await waiting.wait_until(lambda: b"up" in watcher.text(), description="the task is up")
        uids = [_uid(pid) for pid in _children(os.getpid()) if pid not in others]
        stop.request(stopping.StopLevel.KILL, "seen")
        await running
    assert uids
    assert 0 not in uids


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *_children(child)]
    return found


def _uid(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid if Path(f"/proc/{pid}/exe").is_symlink() else -1
