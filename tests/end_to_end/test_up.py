"""`hivemind up`, and every verb of the submitter and the operator against it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import fences
import pytest
import waiting
from installed import Shell, Up

from hivemind_worker.client.client import Client
from hivemind_worker.tasks import state

TASK_KEYS = [
    *("id", "type", "status", "reason", "exit_code", "signal", "attempt", "disruptions", "node_id", "image_digest"),
    *(
        "isolation",
        "node_check",
        "limits",
        "limits_hit",
        "flags",
        "usage",
        "timings",
        "results",
        "skipped",
        "error",
        "truncated",
    ),
]


def test_from_task_files_to_result_files(up: Up, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    content = os.urandom(5_000_000)
    (tmp_path / "tasks" / "data.bin").write_bytes(content)
    tasks = [
        {"id": "copy", "command": ["cp", "in/data.bin", "results/out.bin"],
         "input_files": {"in/data.bin": {"file": "data.bin"}}, "labels": {"set": "one"}},
        {"id": "script", "code": "import sys\nprint(sys.argv[1])\nsys.exit(4)", "args": ["hello"]},
    ]  # fmt: skip
    (tmp_path / "tasks" / "both.json").write_text(json.dumps(tasks))
    submitted = up.ask("submit", "tasks/both.json", "--json")
    assert submitted.objects == [{"id": "copy"}, {"id": "script"}], submitted.err

    waited = up.ask("wait", "copy", "script", "--timeout", "50", "--json")
    assert waited.code == 1
    copy, script = waited.objects
    assert (copy["status"], script["status"], script["reason"]) == ("completed", "failed", "nonzero_exit")
    assert [result["name"] for result in copy["results"]] == ["out.bin"]
    assert up.ask("wait", "script").code == 4

    shown = up.ask("status", "copy", "--json").objects[0]
    assert list(shown) == TASK_KEYS
    assert shown["isolation"] == up.shell.flags[1]
    assert shown["node_id"] == up.node
    assert [list(task) for task in up.ask("tasks", "--json").objects] == [TASK_KEYS, TASK_KEYS]
    assert up.ask("tasks", "--status", "failed", "-q").text == "script\n"
    assert up.ask("tasks", "--label", "set=one", "-q").text == "copy\n"
    assert up.ask("logs", "script").out == b"hello\n"

    fetched = up.ask("results", "copy", "-o", "out", "--json")
    assert fetched.objects[0]["size"] == len(content)
    assert (tmp_path / "out" / "out.bin").read_bytes() == content
    assert "out.bin" in up.ask("results", "copy").text

    again = up.ask("retry", "script", "--json").objects[0]["id"]
    assert again != "script"
    assert up.ask("wait", again).code == 4


# What an operator sees is the pool's and the node's. That a container stops is proved in tests/faults and contracts.
@fences.ANY
def test_the_operator_s_view_and_cancelling(up: Up) -> None:
    assert "\nwatch:   http://127.0.0.1:" in (up.shell.home / "up.log").read_text()
    assert up.ask("tasks").err == "the pool has no tasks yet\n"
    task_id = up.submit(command=["sleep", "600"])
    waiting.wait_for(
        lambda: up.ask("status", task_id, "-q").text == "running\n", description="the task runs", seconds=30
    )
    (node,) = up.ask("nodes", "--json").objects
    assert list(node) == ["node_id", "status", "capacity", "free", "attempts", "message", "readings", "truncated"]
    assert [(held["task_id"], held["attempt"]) for held in node["attempts"]] == [(task_id, 1)]
    assert up.ask("wait", task_id, "--timeout", "0.2").code == 75
    assert up.ask("results", task_id).err == f"task {task_id} has not ended\n"
    assert up.ask("results", task_id, "-o", "nothing").code == 1
    assert up.ask("cancel", task_id).text == f"{task_id} running, and will be stopped\n"
    assert up.ask("wait", task_id, "--timeout", "40").code == 130
    assert up.ask("cancel", task_id).text == f"{task_id} cancelled\n"
    nothing = up.ask("results", task_id)
    assert (nothing.code, nothing.out, nothing.err) == (0, b"", f"task {task_id} has no result files\n")
    assert up.ask("tasks", "--status", "failed").err == "no task is like that\n"
    assert up.ask("node drain", up.node).code == 0
    held = up.submit(command=["true"])
    assert up.ask("wait", held, "--timeout", "1").code == 75
    assert up.ask("node resume", up.node).code == 0
    assert up.ask("wait", held, "--timeout", "40").code == 0
    endless, quick = up.submit(command=["sleep", "600"]), up.submit(command=["true"])
    with up.shell.start("wait", endless, quick, "--timeout", "40", "--node-pool", up.address) as waits:
        assert waits.stdout is not None
        assert waits.stdout.readline().decode() == f"{quick} completed\n"
        assert up.ask("cancel", endless).code == 0
        assert waits.communicate()[0].decode() == f"{endless} cancelled\n"
    assert waits.returncode == 1


@pytest.mark.long
@fences.ANY
def test_a_link_among_the_results_is_told_wherever_results_are(up: Up) -> None:
    task_id = up.submit(command="echo v3 > results/model-v3.bin; ln -s model-v3.bin results/latest.bin")
    told = "not among the results: latest.bin: symlink"
    assert f"{task_id} {told}\n" in up.ask("wait", task_id, "--timeout", "40").err
    (waited,) = up.ask("wait", task_id, "--json").objects
    (status,) = up.ask("status", task_id, "--json").objects
    assert waited["skipped"] == status["skipped"] == [{"name": "latest.bin", "reason": "symlink"}]
    assert "latest.bin: symlink" in up.ask("status", task_id).text
    listed = up.ask("results", task_id)
    assert "model-v3.bin" in listed.text
    assert told in listed.err
    assert told in up.ask("results", task_id, "-o", "fetched").err


def test_following_output_while_it_comes(lasting: Up) -> None:
    task_id = lasting.submit(command="for n in 1 2 3; do echo $n; sleep 0.2; done; echo end >&2")
    said = lasting.ask("logs", "-f", task_id)
    assert (said.code, said.out, said.err) == (0, b"1\n2\n3\n", "end\n")


@fences.ANY_LASTING
def test_run_against_a_pool_that_is_there(lasting: Up) -> None:
    script = "echo hi; echo r > results/r; exit 7"
    said = lasting.shell.hivemind(
        "run", "--node-pool", lasting.address, "--results", "got", "--", "/bin/sh", "-c", script
    )
    assert (said.code, said.out) == (7, b"hi\n"), said.err
    assert (lasting.shell.home / "got" / "r").read_text() == "r\n"


@fences.ANY_LASTING
def test_what_the_pool_refuses_is_one_line(lasting: Up) -> None:
    for words in (["status", "nobody"], ["logs", "nobody"], ["cancel", "nobody"], ["results", "nobody", "-o", "x"]):
        said = lasting.ask(*words)
        assert said.code == 1
        assert "nobody" in said.err
        assert len(said.err.splitlines()) == 1
    lasting.submit(id="mine", command=["true"])
    again = lasting.ask("submit", "-", stdin=b'{"id": "mine", "command": ["false"]}')
    assert again.code == 1
    assert "mine" in again.err


@fences.ANY
def test_stopping_lets_the_task_finish(up: Up) -> None:
    with Client(up.address) as client:  # told of each change: a command that asks again and again may come too late
        (task_id,) = client.submit({"command": "sleep 1; echo done > results/done"})
        watching = client.watch(task_id)
        assert any(seen.status is state.TaskState.RUNNING for seen in watching)
        watching.close()  # type: ignore[attr-defined]
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(timeout=30) == 130
    assert task_id in (up.shell.home / "up.log").read_text()


@fences.ANY
def test_a_second_signal_is_at_once(up: Up) -> None:
    task_id = up.submit(command="trap '' TERM; sleep 600")
    waiting.wait_for(
        lambda: up.ask("status", task_id, "-q").text == "running\n", description="the task runs", seconds=30
    )
    log = up.shell.home / "up.log"
    up.process.send_signal(signal.SIGTERM)
    waiting.wait_for(lambda: "once more stops at once" in log.read_text(), description="the first was heard")
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(timeout=30) == 0


@fences.ANY_LASTING
def test_a_second_worker_on_one_folder_is_refused(lasting: Up) -> None:
    said = lasting.shell.hivemind(
        *(
            "worker",
            "--state-dir",
            str(lasting.shell.home / "state"),
            "--log-dir",
            str(lasting.shell.home / "log"),
            *lasting.shell.flags,
        ),
        *("--node-pool", lasting.address),
    )
    assert said.code == 75
    assert "another worker" in said.err


@fences.ANY_LASTING
def test_a_taken_port_is_the_owner_s_to_change(lasting: Up) -> None:
    other = Shell(lasting.shell.home, *lasting.shell.flags)
    said = other.hivemind("pool", "--listen", lasting.address, "--state-dir", "other", "--log-dir", "log")
    assert said.code == 78
    assert lasting.address in said.err


@fences.ANY_LASTING
def test_running_what_no_node_can_take_says_why_it_waits(lasting: Up) -> None:
    process = lasting.shell.start("run", "--node-pool", lasting.address, "--cpu", "5000", "--", "true")
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        said = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
    assert b"it waits: no node is large enough" in said
    assert b"wants 5000 cores" in said
