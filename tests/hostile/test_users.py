"""The first process of a capsule and its task are two users, without rights; each task has users of its own."""

from __future__ import annotations

import asyncio
import json

import attempts
import waiting

from hivemind_worker.concurrency import stopping
from hivemind_worker.tasks import outcome, plan

MIB = 1024 * 1024

LOOK = r"""
import json, os

def status(pid):
    rows = dict(line.rstrip("\n").split(":\t", 1) for line in open(f"/proc/{pid}/status") if ":\t" in line)
    return {name: rows[name].split() for name in rows
            if name in ("Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp") or name.startswith("Cap")}

def fill(folder):
    made = 0
    try:
        while made < 40_000:
            open(f"{folder}/{made}", "w").close()
            made += 1
    except OSError:
        pass
    for at in range(made):
        os.unlink(f"{folder}/{at}")
    return made

def write(file, text):
    try:
        with open(file, "w") as opened:
            opened.write(text)
        return "done"
    except OSError as error:
        return "refused"

folders = [folder for folder in ("/tmp", "/run", "/dev/shm", "/workspace") if os.access(folder, os.W_OK)]
os.makedirs("a"); open("a/b", "w").close(); os.rename("a/b", "results/b")  # between folders
print(json.dumps({
    "init": status(1), "task": status("self"), "owner": os.stat("/workspace").st_uid, "input": os.stat("in").st_uid,
    "files": {folder: [fill(folder), os.statvfs(folder).f_files, os.statvfs(folder).f_blocks] for folder in folders},
    "scores": [write(f"/proc/self/oom_score_adj", score) for score in ("0", "500", "-1000", "799")],
    "score": [int(open(f"/proc/{pid}/oom_score_adj").read()) for pid in (1, "self")],
    "others": [write("/proc/1/oom_score_adj", "1000"), write("/dev/null", "x"), write("/dev/stdout", "")],
}))
"""


async def test_a_task_is_another_user_than_the_first_process_and_has_no_right(bench: attempts.Bench) -> None:
    files = (plan.InputFile("in", content=b"x"),)
    ended = await bench.python(LOOK, files=files, limits={"disk_bytes": 64 * MIB})
    assert ended.status is outcome.Status.COMPLETED, (ended.error, ended.logs.text)
    seen = json.loads(ended.logs.text)
    init, task = seen["init"], seen["task"]
    for name in ("Uid", "Gid"):
        assert len(set(task[name])) == 1
        assert task[name][0] not in init[name][:3], "the fourth is for files alone, and there it is the task"
        assert init[name][3] == task[name][0]
    assert seen["owner"] == seen["input"] == int(task["Uid"][0])
    assert task["Groups"] == init["Groups"] == []
    assert {name: int(value[0], 16) for name, value in task.items() if name.startswith("Cap")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0
    )
    assert int(init["CapEff"][0], 16) == 1 << 5, "KILL, and nothing that reaches a file"
    assert int(init["CapBnd"][0], 16) == 0
    assert (task["NoNewPrivs"], task["Seccomp"]) == (["1"], ["2"])
    assert {file.name for file in ended.results} == {"b"}
    for folder, (made, inodes, blocks) in seen["files"].items():
        assert made < inodes <= max(64, blocks), folder
    assert {"/tmp", "/dev/shm", "/workspace"} <= set(seen["files"])
    assert set(seen["scores"]) == {"refused"}
    assert seen["score"][0] < seen["score"][1]
    assert seen["others"] == ["refused", "done", "done"]


async def test_what_was_written_survives_when_a_task_runs_out_of_memory_by_files(bench: attempts.Bench) -> None:
    script = """
import os
open("results/early", "w").write("kept")
os.setpriority(os.PRIO_PROCESS, 0, 19)
try: open("/proc/self/oom_score_adj", "w").write("0")
except OSError: pass
block = b"x" * 65536
for folder in ("/dev/shm", "/tmp"):  # pages that are no process's own
    try:
        with open(folder + "/fill", "wb") as file:
            while True: file.write(block)
    except OSError: pass
held = []
while True: held.append(bytearray(65536))
"""
    ended = await bench.python(script, limits={"memory_bytes": 48 * MIB, "disk_bytes": 8 * MIB})
    assert ended.reason is outcome.Reason.OOM, (ended.reason, ended.error)
    assert bench.content(ended, "early") == b"kept"
    assert ended.usage is not None
    assert (ended.usage.peak_memory_bytes or 0) > 32 * MIB


async def test_tasks_that_run_at_the_same_time_share_no_user(bench: attempts.Bench) -> None:
    stop, watchers = stopping.Stop(), [attempts.Watcher() for _ in range(2)]
    # Two names of one uid inside a sandbox: the kernel tells by the uid that has the map.
    script = "read _ host _ < /proc/self/uid_map; tail -n 1 /proc/self/uid_map; id -u; echo up; sleep 100"
    running = [asyncio.create_task(bench.shell(script, watcher=watcher, stop=stop)) for watcher in watchers]
    try:
        for watcher in watchers:
            await waiting.wait_until(lambda w=watcher: b"up" in w.text(), description="both run")  # type: ignore[misc]
    finally:
        stop.request(stopping.StopLevel.KILL, "seen")
        await asyncio.gather(*running)
    uids = [watcher.text() for watcher in watchers]
    assert uids[0] != uids[1], uids
