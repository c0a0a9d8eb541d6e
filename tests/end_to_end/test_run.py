"""`hivemind run` as a user types it: nothing else running, the task's own output and exit code."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import fences
import pytest
import waiting
from installed import HIVEMIND, Shell


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return path.name


def test_a_script_with_arguments_and_its_exit_code(fenced: Shell, tmp_path: Path) -> None:
    script = write(tmp_path / "x.py", "import sys\nprint('hi', *sys.argv[1:])\nprint('oh', file=sys.stderr)\nexit(3)\n")
    said = fenced.run(script, "--flag", "b c", "--")
    assert (said.code, said.text, said.err) == (3, "hi --flag b c --\n", "oh\n")


def test_a_command_and_bytes_that_are_no_text(fenced: Shell) -> None:
    said = fenced.run("--", "/bin/sh", "-c", r"printf '\000\377\r\n'; printf end >&2")
    assert (said.code, said.out, said.err) == (0, b"\x00\xff\r\n", "end")


@pytest.mark.long
@fences.ANY
def test_much_output_is_whole(fenced: Shell) -> None:
    said = fenced.run("--", "/bin/sh", "-c", "seq 1 1000000")
    assert said.code == 0
    assert said.text == "".join(f"{number}\n" for number in range(1, 1_000_001))


def test_inputs_variables_and_results(fenced: Shell, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("A")
    (tmp_path / "big.bin").write_bytes(os.urandom(300_000))
    said = fenced.run(
        *("--input", "data", "--input", "big.bin", "--env", "NAME=value", "--env", "FROM_HERE", "--results", "out"),
        *("--", "/bin/sh", "-c", 'mkdir results/d; cp big.bin results/d/; echo "$NAME $FROM_HERE $(cat data/a.txt)"'),
        FROM_HERE="there",
    )
    assert (said.code, said.text) == (0, "value there A\n"), said.err
    assert (tmp_path / "out/d/big.bin").read_bytes() == (tmp_path / "big.bin").read_bytes()


@fences.ANY
def test_results_left_behind_are_told(fenced: Shell) -> None:
    said = fenced.run("--", "/bin/sh", "-c", "echo x > results/x")
    assert said.code == 0
    assert "--results" in said.err


@fences.ANY
def test_results_that_are_not_taken_are_told(fenced: Shell, tmp_path: Path) -> None:
    said = fenced.run("--results", "out", "--", "/bin/sh", "-c", "echo x > results/x; ln -s /etc/passwd results/link")
    assert said.code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x"]
    assert "not among the results: link" in said.err


@fences.ANY
def test_results_that_are_not_taken_are_told_to_programs(fenced: Shell) -> None:
    made = r': > f; ln -s /etc/passwd link; : > "$(printf "x\377y")"'
    task = fenced.run("--json", "--", "/bin/sh", "-c", f"cd results; {made}").objects[-1]
    assert [file["name"] for file in task["results"]] == ["f"]
    reasons = {file["name"]: file["reason"] for file in task["skipped"]}
    assert reasons.pop("link") == "symlink"
    assert list(reasons.values()) == ["name: not UTF-8"]


@fences.ANY
def test_a_program_that_is_not_there_is_told(fenced: Shell) -> None:
    said = fenced.run("--", "no-such-program")
    assert (said.code, said.out) == (127, b"")
    assert "no-such-program" in said.err


@fences.ANY
def test_more_than_this_machine_has_is_refused_and_not_waited_for(fenced: Shell) -> None:
    said = fenced.run("--cpu", "5000", "--", "true")
    assert said.code == 2
    assert "wants 5000 cores" in said.err


@fences.ANY
def test_output_that_cannot_be_written_is_told(fenced: Shell) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [HIVEMIND, "run", *fenced.flags, "--", "echo", "x"], stdout=full, stderr=subprocess.PIPE, check=False,
            env=fenced.environment, stdin=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
    assert done.returncode != 0
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr


@fences.ANY
def test_with_its_output_closed_it_still_runs(fenced: Shell) -> None:
    words = " ".join([str(HIVEMIND), "run", *fenced.flags, "--results", "out", "--", "/bin/sh", "-c"])
    done = subprocess.run(
        ["/bin/sh", "-c", f"{words} 'echo x; echo y > results/y' >&- 2>err"], check=False,
        cwd=fenced.home, env=fenced.environment, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    assert (done.returncode, (fenced.home / "err").read_text()) == (0, "")
    assert (fenced.home / "out" / "y").read_text() == "y\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--timeout", "0.5", "--", "/bin/sleep", "60"], 124),
        (["--", "/bin/sh", "-c", "kill -9 $$"], 137),
        (["--", "/bin/sh", "-c", "kill -15 $$"], 143),
        (["--", "no-such-program"], 127),
        (["--", "/etc"], 126),
        (["--", "/bin/sh", "-c", "exit 69"], 69),
    ],
)
@fences.ANY
def test_exit_codes(fenced: Shell, words: list[str], code: int) -> None:
    assert fenced.run(*words).code == code


@fences.ANY
def test_json_gives_the_id_first_and_the_task_last(fenced: Shell) -> None:
    said = fenced.run("--json", "--", "/bin/echo", "hello")
    first, *middle, last = said.objects
    assert list(first) == ["id"]
    assert "".join(each["data"] for each in middle) == "hello\n"
    assert (last["id"], last["status"], last["exit_code"]) == (first["id"], "completed", 0)
    assert last["isolation"] == fenced.flags[1]


def interrupted(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """^C once the task speaks; the exit code, and what it still said."""
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        left = process.stdout.read()
        return process.wait(timeout=30), left


def test_interrupting_ends_the_task_in_order_and_leaves_nothing(fenced: Shell, tmp_path: Path) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    process = fenced.start("run", *fenced.flags, "--", "/bin/sh", "-c", script)
    assert interrupted(process) == (130, b"bye\n")
    assert not list(tmp_path.glob("hivemind-run-*"))


@pytest.mark.long
@fences.ANY
def test_a_reader_who_goes_away_ends_the_task(fenced: Shell) -> None:
    process = fenced.start("run", *fenced.flags, "--", "/bin/sh", "-c", "while :; do echo y; done")
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stderr:
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        waiting.wait_for(lambda: process.poll() is not None, description="run ended", seconds=30)
        assert process.returncode != 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.py"], "missing.py"),
        (["script.sh"], "script.sh"),
        ([], "SCRIPT.py"),
        (["--cpu", "0", "--", "true"], "--cpu"),
        (["--memory", "lots", "--", "true"], "memory_limit"),
        (["--timeout", "-1", "--", "true"], "timeout"),
        (["--env", "NOT_SET_ANYWHERE", "--", "true"], "NOT_SET_ANYWHERE"),
        (["-r", "./numpy", "here.py"], "requirements"),
        (["--input", "nowhere", "--", "true"], "nowhere"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_what_is_wrong_with_the_line_is_said_before_anything_starts(
    shell: Shell, words: list[str], said: str, tmp_path: Path
) -> None:
    write(tmp_path / "here.py", "pass\n")
    done = shell.hivemind("run", *words)
    assert done.code == 2
    assert said.lower() in done.err.lower()
    assert "Traceback" not in done.err
    assert done.out == b""


def test_nothing_to_fence_with_is_told_and_nothing_runs(shell: Shell, tmp_path: Path) -> None:
    engine = f"unix://{tmp_path}/none.sock"
    for isolation in ("docker", "auto"):
        done = shell.hivemind(
            *("run", "--isolation", isolation, "--docker-host", engine, "--", "/usr/bin/touch", str(tmp_path / "ran")),
            PATH="/nonexistent",
        )
        assert done.code == 69
        assert "docker" in done.err.lower()
        assert not (tmp_path / "ran").exists()


@pytest.mark.sandbox
def test_falling_back_to_the_sandbox_is_told(shell: Shell, tmp_path: Path) -> None:
    done = shell.hivemind("run", "--docker-host", f"unix://{tmp_path}/none.sock", "--", "/bin/echo", "hi")
    assert (done.code, done.out) == (0, b"hi\n")
    assert "sandbox, not in containers" in done.err
