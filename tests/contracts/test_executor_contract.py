"""What every executor must do, whatever fences its tasks: files in, the command, its output, its end, results out."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time

import attempts
import pytest
import waiting

from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import executor
from hivemind_worker.tasks import outcome, plan, state

MIB = 1024 * 1024
OUT, ERR = executor.Stream.STDOUT, executor.Stream.STDERR
CANCEL, KILL = stopping.StopLevel.CANCEL, stopping.StopLevel.KILL


async def test_argv_arrives_word_for_word(bench: attempts.Bench) -> None:
    words = ["", " ", "a b", "$HOME", "`id`", "--x", "ü€\n", "'\"\\", "*" * 5000]
    ended = await bench.python("import sys,json; print(json.dumps(sys.argv[1:]))", *words)
    assert json.loads(ended.logs.text) == words
    assert ended.status is outcome.Status.COMPLETED
    assert ended.exit_code == 0


async def test_the_environment_is_the_tasks_own_and_nothing_else(
    bench: attempts.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_SECRET", "hunter2")
    ended = await bench.run(["env", "-0"], environment={"A": "1", "B": "two\nlines", "LANG": "C.UTF-8"})
    seen = dict(entry.split("=", 1) for entry in ended.logs.text.decode().split("\0") if entry)
    assert {name: seen.pop(name) for name in ("A", "B", "LANG")} == {"A": "1", "B": "two\nlines", "LANG": "C.UTF-8"}
    assert set(seen) == {"PATH", "HOME"}


async def test_a_plans_own_path_wins(bench: attempts.Bench) -> None:
    ended = await bench.run(["sh", "-c", "echo $PATH $HOME"], environment={"PATH": "/bin:/usr/bin", "HOME": "/tmp"})
    assert ended.logs.text == b"/bin:/usr/bin /tmp\n"


async def test_input_files_arrive_byte_for_byte(bench: attempts.Bench) -> None:
    odd = ["plain.txt", "a/b/c/deep", "with space", "new\nline", "-rf", "ü€", "quote'\"", "..hidden", "x" * 255]
    files = {name: os.urandom(100 + at) for at, name in enumerate(odd)} | {"empty": b"", "large": os.urandom(3 * MIB)}
    stored = os.urandom(2 * MIB + 1)
    artifact = await asyncio.to_thread(bench.store.put, stored)
    nothing = await asyncio.to_thread(bench.store.put, b"")
    given = (
        *(plan.InputFile(name, content=content) for name, content in files.items()),
        plan.InputFile("from/store", artifact=artifact, mode=0o755),
        plan.InputFile("from/nothing", artifact=nothing),
    )
    script = """
import hashlib, json, os
found = {}
for folder, _, names in os.walk("."):
    for name in names:
        path = os.path.join(folder, name)
        found[path[2:]] = [hashlib.sha256(open(path, "rb").read()).hexdigest(), oct(os.stat(path).st_mode & 0o777)]
print(json.dumps(found))
"""
    ended = await bench.python(script, files=given)
    expected = {name: [hashlib.sha256(content).hexdigest(), "0o644"] for name, content in files.items()}
    expected["from/store"] = [artifact.sha256, "0o755"]
    expected["from/nothing"] = [hashlib.sha256(b"").hexdigest(), "0o644"]
    assert json.loads(ended.logs.text) == expected, ended.error


async def test_an_artifact_that_is_not_in_the_store_is_the_nodes_fault(bench: attempts.Bench) -> None:
    missing = plan.InputFile("x", artifact=outcome.Artifact("0" * 64, 5))
    ended = await bench.shell("true", files=(missing,))
    assert ended.reason is outcome.Reason.INTERNAL
    assert "0" * 64 in ended.error


# Two pipes have no common clock: of two writes that both wait to be read nobody can say which came first. So the task
# writes the next one when the last was read, however late its reader comes to run.
IN_TURN = """
import array, fcntl, os, termios, time

def say(fd, line):
    os.write(fd, line)
    unread = array.array("i", [1])
    while unread[0]:
        time.sleep(0.001)
        fcntl.ioctl(fd, termios.FIONREAD, unread)

for i in range(1, 6):
    say(1, b"out %d\\n" % i)
    say(2, b"err %d\\n" % i)
"""


async def test_stdout_and_stderr_are_apart_and_in_order(bench: attempts.Bench) -> None:
    watcher = attempts.Watcher()
    ended = await bench.python(IN_TURN, watcher=watcher)
    assert watcher.text(OUT) == b"".join(b"out %d\n" % i for i in range(1, 6))
    assert watcher.text(ERR) == b"".join(b"err %d\n" % i for i in range(1, 6))
    assert ended.logs.text == b"".join(b"out %d\nerr %d\n" % (i, i) for i in range(1, 6))
    assert (ended.logs.stdout_bytes, ended.logs.stderr_bytes) == (30, 30)


@pytest.mark.parametrize("code", [0, 1, 3, 125, 126, 127, 137, 255])
async def test_exit_codes_are_the_tasks_own(bench: attempts.Bench, code: int) -> None:
    ended = await bench.shell(f"exit {code}")
    assert ended.exit_code == code
    assert ended.signal is None
    assert ended.reason is (outcome.Reason.NONZERO_EXIT if code else None)


@pytest.mark.parametrize("number", [6, 9, 11, 15])
async def test_a_signal_is_told_and_137_alone_is_not_oom(bench: attempts.Bench, number: int) -> None:
    ended = await bench.shell(f"kill -{number} $$")
    assert (ended.signal, ended.exit_code) == (number, 128 + number)
    assert ended.reason is outcome.Reason.NONZERO_EXIT


async def test_a_command_that_is_not_there_is_127_and_says_so(bench: attempts.Bench) -> None:
    ended = await bench.run(["no-such-command"])
    assert (ended.exit_code, ended.reason) == (127, outcome.Reason.NONZERO_EXIT)
    assert "no-such-command" in ended.error


async def test_results_come_back_with_their_bytes_and_modes(bench: attempts.Bench) -> None:
    script = """
import os, hashlib
os.makedirs("results/a/b")
sums = {}
files = (("empty", 0, 0o644), ("a/kilo", 1024, 0o600), ("a/b/large", 50 << 20, 0o755), ("ü \\n", 5, 0o640))
for name, size, mode in files:
    data = os.urandom(min(size, 1 << 20)) * max(1, size >> 20)
    with open(os.path.join("results", name), "wb") as file:
        file.write(data)
    os.chmod(os.path.join("results", name), mode)
    sums[name] = [hashlib.sha256(data).hexdigest(), len(data), mode]
import json; print(json.dumps(sums))
"""
    ended = await bench.python(script)
    assert ended.status is outcome.Status.COMPLETED, ended.error
    said = json.loads(ended.logs.text)
    assert {f.name: [f.artifact.sha256, f.artifact.size, f.mode] for f in ended.results} == said
    for file in ended.results:
        assert hashlib.sha256(bench.content(ended, file.name)).hexdigest() == file.artifact.sha256


async def test_a_failed_task_keeps_its_results(bench: attempts.Bench) -> None:
    ended = await bench.shell("echo partial > results/x; exit 7")
    assert ended.exit_code == 7
    assert bench.content(ended, "x") == b"partial\n"


async def test_a_sparse_result_is_whole(bench: attempts.Bench) -> None:
    ended = await bench.shell("truncate -s 20M results/sparse; printf end >> results/sparse")
    whole = bytes(20 * MIB) + b"end"
    assert ended.results[0].artifact == outcome.Artifact(hashlib.sha256(whole).hexdigest(), len(whole)), ended.error


async def test_the_time_limit_ends_a_task_politely(bench: attempts.Bench) -> None:
    script = "trap 'echo asked; exit 3' TERM; echo kept > results/x; while true; do sleep 0.05; done"
    ended = await bench.shell(script, limits={"timeout_seconds": 0.5}, grace_seconds=10.0)
    assert (ended.status, ended.reason) == (outcome.Status.FAILED, outcome.Reason.TIMEOUT)
    assert b"asked" in ended.logs.text
    assert "timeout" in ended.limits_hit
    assert bench.content(ended, "x") == b"kept\n"


async def test_x01_a_task_that_ignores_sigterm_is_gone_after_the_grace(bench: attempts.Bench) -> None:
    began = time.monotonic()
    ended = await bench.shell(
        "trap '' TERM; (trap '' TERM; sleep 1000) & sleep 1000", limits={"timeout_seconds": 1.0}, grace_seconds=1.0
    )
    assert ended.reason is outcome.Reason.TIMEOUT
    starting = 5.0  # a container, on a busy machine
    assert time.monotonic() - began < starting + 1.0 + 1.0 + 2.0  # X01: timeout + grace + 2 s


@pytest.mark.parametrize("phase", [state.Phase.PREPARING, state.Phase.STARTING, state.Phase.RUNNING])
async def test_a_cancel_is_heard_in_every_phase(bench: attempts.Bench, phase: state.Phase) -> None:
    watcher, stop = attempts.Watcher(), stopping.Stop()
    running = asyncio.create_task(bench.shell("echo up; sleep 1000", watcher=watcher, stop=stop))
    await waiting.wait_until(lambda: phase in watcher.phases, description=f"phase {phase}")
    began = time.monotonic()
    stop.request(CANCEL, "the submitter wants it no more")
    ended = await running
    assert (ended.status, ended.reason) == (outcome.Status.CANCELLED, outcome.Reason.CANCELLED)
    assert "submitter" in ended.error
    assert time.monotonic() - began < 10  # it would sleep for 1000


async def test_a_cancel_is_polite_while_the_task_runs(bench: attempts.Bench) -> None:
    watcher, stop = attempts.Watcher(), stopping.Stop()
    script = "trap 'echo asked; exit 0' TERM; echo up; while true; do sleep 0.02; done"
    running = asyncio.create_task(bench.shell(script, watcher=watcher, stop=stop, grace_seconds=10.0))
    await waiting.wait_until(lambda: b"up" in watcher.text(), description="the task is up")
    stop.request(CANCEL, "enough")
    ended = await running
    assert ended.status is outcome.Status.CANCELLED
    assert b"asked" in ended.logs.text


async def test_a_stop_for_the_nodes_own_sake_makes_the_pool_try_again(bench: attempts.Bench) -> None:
    watcher, stop = attempts.Watcher(), stopping.Stop()
    running = asyncio.create_task(bench.shell("echo up; sleep 1000", watcher=watcher, stop=stop))
    await waiting.wait_until(lambda: b"up" in watcher.text(), description="the task is up")
    stop.request(CANCEL, "node_shutdown: the drain time is over")
    ended = await running
    assert ended.reason is outcome.Reason.NODE_SHUTDOWN
    assert ended.try_again


async def test_a_kill_is_at_once(bench: attempts.Bench) -> None:
    watcher, stop = attempts.Watcher(), stopping.Stop()
    script = "trap '' TERM; echo up; while true; do sleep 0.02; done"
    running = asyncio.create_task(bench.shell(script, watcher=watcher, stop=stop, grace_seconds=60.0))
    await waiting.wait_until(lambda: b"up" in watcher.text(), description="the task is up")
    began = time.monotonic()
    stop.request(KILL, "now")
    ended = await running
    assert ended.status is outcome.Status.CANCELLED
    assert time.monotonic() - began < 10  # of the 60 that it had to end in order


async def test_a_cancelled_asyncio_task_cleans_up(bench: attempts.Bench) -> None:
    watcher = attempts.Watcher()
    running = asyncio.create_task(bench.shell("echo up; sleep 1000", watcher=watcher))
    await waiting.wait_until(lambda: b"up" in watcher.text(), description="the task is up")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_phases_come_in_order(bench: attempts.Bench) -> None:
    watcher = attempts.Watcher()
    await bench.shell("true", watcher=watcher)
    assert watcher.phases == [
        state.Phase.PREPARING,
        state.Phase.STARTING,
        state.Phase.RUNNING,
        state.Phase.COLLECTING,
    ]


async def test_two_at_once_never_mix(bench: attempts.Bench) -> None:
    async def one(word: str) -> outcome.Outcome:
        script = f"for i in $(seq 2000); do echo {word}; done; echo {word} > results/{word}"
        return await bench.shell(script)

    words = ["alpha", "beta", "gamma"]
    ended = await asyncio.gather(*map(one, words))
    for word, each in zip(words, ended, strict=True):
        assert set(each.logs.text.split()) == {word.encode()}
        assert each.logs.stdout_bytes == 2000 * (len(word) + 1)
        assert [file.name for file in each.results] == [word]


async def test_there_is_no_network(bench: attempts.Bench) -> None:
    script = """
import socket
print(sorted(name for _, name in socket.if_nameindex()))
for address in (("1.1.1.1", 53), ("169.254.169.254", 80), ("172.17.0.1", 22), ("10.0.0.1", 80)):
    try:
        socket.create_connection(address, 1)
        print("connected", address)
    except OSError as error:
        print("refused")
"""
    ended = await bench.python(script)
    assert b"connected" not in ended.logs.text
    assert ended.logs.text.count(b"refused") == 4


async def test_a_task_can_look_up_its_own_host(bench: attempts.Bench) -> None:
    script = """
import socket
print(socket.getaddrinfo(socket.gethostname(), None)[0][4][0], socket.gethostbyname("localhost"))
"""
    ended = await bench.python(script)
    assert ended.logs.text == b"127.0.0.1 127.0.0.1\n"


async def test_a_task_leaves_no_process_behind(bench: attempts.Bench) -> None:
    ended = await bench.shell("(sleep 1000 &) ; (setsid sleep 1000 &) ; echo done")
    assert ended.status is outcome.Status.COMPLETED
    assert ended.logs.text == b"done\n"


async def test_the_task_runs_as_a_user_without_any_right(bench: attempts.Bench) -> None:
    ended = await bench.shell("id -u; id -g; grep -E 'CapEff|CapBnd|CapPrm|NoNewPrivs|Seccomp:' /proc/self/status")
    lines = ended.logs.text.decode().split("\n")
    assert lines[0] == lines[1]
    assert int(lines[0]) > 60_000, "a user that nobody else is"
    status = dict(line.split(":\t") for line in lines[2:] if line)
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


async def test_fitness_says_that_it_works_and_by_what(bench: attempts.Bench) -> None:
    fit = await bench.executor.fitness()
    assert fit.usable, fit.why
    assert fit.isolation == bench.executor.isolation
    assert fit.defences


@pytest.mark.parametrize("times", [8, pytest.param(100, marks=pytest.mark.long)])
async def test_a_task_of_a_millisecond_is_complete_every_time(bench: attempts.Bench, times: int) -> None:
    for number in range(times):
        ended = await bench.run(["echo", f"number {number}"])
        assert ended.status is outcome.Status.COMPLETED, ended.error
        assert ended.logs.text == f"number {number}\n".encode()
