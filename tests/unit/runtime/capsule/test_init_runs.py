from __future__ import annotations

import dataclasses
import hashlib
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import capsules
import pytest
import waiting

from hivemind_worker.runtime.capsule import messages as m

Start = Callable[..., capsules.Capsule]


def test_files_in_output_apart_status_and_results_out(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    files = [
        m.File(b"a/b/in put\n", b"data\n"),
        m.File(b"big", b"x" * 700_000, begin=True, end=False),
        m.File(b"big", b"y" * 700_000, offset=700_000, begin=False, end=True, mode=0o755),
        m.File(b"\xff\xfe", b""),
    ]
    script = "cat a/b/in*; echo err >&2; wc -c < big; stat -c %a big; mkdir results/d; cp big results/d/; exit 3"
    capsule.begin(capsules.shell(script, tmp_path), files)
    heard = capsule.finish()
    assert heard.output() == b"data\n1400000\n755\n"
    assert heard.output(m.Stream.ERR) == b"err\n"
    exited = heard.one(m.Exited)
    assert (exited.status, exited.signal, exited.why) == (3, None, m.Why.OWN)
    assert exited.maxrss_bytes > 0
    assert heard.results == {b"d/big": b"x" * 700_000 + b"y" * 700_000}
    assert heard.one(m.Done) == m.Done(1, 1_400_000)
    assert (tmp_path / os.fsdecode(b"\xff\xfe")).exists()


def test_the_environment_is_exactly_what_was_asked(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    env = ((b"A", b"1=2"), (b"B", b""), (b"PATH", b"/usr/bin"))
    capsule.begin(m.Spec(argv=(b"env", b"-0"), env=env, workspace=os.fsencode(tmp_path)))
    assert capsule.finish().output() == b"A=1=2\0B=\0PATH=/usr/bin\0"


def test_arguments_arrive_byte_for_byte_and_cwd_is_honoured(start: Start, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    argv = (b"sh", b"-c", b'pwd; printf "%s|" "$@"', b"sh", b"", b"a b", b"\xff\n", b"$(id)")
    capsule = start(tmp_path)
    capsule.begin(m.Spec(argv=argv, workspace=os.fsencode(tmp_path), cwd=b"sub"))
    assert capsule.finish().output() == bytes(tmp_path) + b"/sub\n|a b|\xff\n|$(id)|"


@pytest.mark.parametrize(
    ("argv", "status", "error"),
    [
        ((b"no-such-program",), 127, "No such file"),
        ((b"/etc/passwd",), 126, "Permission denied"),
        ((b"/",), 126, "Permission denied"),
        ((b"",), 127, "No such file"),
    ],
)
def test_a_program_that_cannot_run_ends_as_in_a_shell(
    start_shipped: Start, tmp_path: Path, argv: tuple[bytes, ...], status: int, error: str
) -> None:
    capsule = start_shipped(tmp_path)
    capsule.begin(m.Spec(argv=argv, workspace=os.fsencode(tmp_path)))
    exited = capsule.finish().one(m.Exited)
    assert (exited.status, exited.why) == (status, m.Why.OWN)
    assert error in exited.error


def test_a_missing_working_directory_is_told(start_shipped: Start, tmp_path: Path) -> None:
    capsule = start_shipped(tmp_path)
    capsule.begin(capsules.shell("true", tmp_path, cwd=b"/nowhere"))
    exited = capsule.finish().one(m.Exited)
    assert exited.status == 126
    assert "working directory" in exited.error


def test_a_signal_is_told_as_a_signal(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    capsule.begin(capsules.shell("kill -SEGV $$", tmp_path))
    exited = capsule.finish().one(m.Exited)
    assert (exited.status, exited.signal, exited.why) == (None, signal.SIGSEGV, m.Why.OWN)


def test_stdin_streams_through_with_room_and_end(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    capsule.begin(capsules.shell("sleep 0.05; sha256sum; echo done", tmp_path, stdin=m.Stdin.STREAM))
    left = 3_000_000
    while left:
        while not capsule.talk.input_room:
            capsule.hear(lambda message: isinstance(message, m.Taken))
        piece = min(left, capsule.talk.input_room)
        capsule.say(m.Input(b"z" * piece))
        left -= piece
    capsule.say(m.Input(b""))
    digest = hashlib.sha256(b"z" * 3_000_000).hexdigest().encode()
    assert capsule.finish().output() == digest + b"  -\ndone\n"


def test_stdin_that_nobody_reads_does_not_stop_the_rest(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    capsule.begin(capsules.shell("exec sleep 100", tmp_path, stdin=m.Stdin.STREAM))
    capsule.say(m.Input(bytes(m.INPUT_WINDOW)), m.Stop())
    assert capsule.finish().one(m.Exited).signal == signal.SIGTERM


def test_stdin_is_empty_unless_asked_for(start_shipped: Start, tmp_path: Path) -> None:
    capsule = start_shipped(tmp_path)
    capsule.begin(capsules.shell("cat; echo end", tmp_path))
    assert capsule.finish().output() == b"end\n"


def test_a_signal_reaches_the_task(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    capsule.begin(capsules.shell("trap 'echo got; exit 7' USR1; echo up; while :; do sleep 0.01; done", tmp_path))
    capsule.hear(lambda message: isinstance(message, m.Output))
    capsule.say(m.Signal(signal.SIGUSR1))
    heard = capsule.finish()
    assert heard.output() == b"up\ngot\n"
    assert heard.one(m.Exited).status == 7


@pytest.mark.parametrize("ignore", [False, True])
def test_the_time_limit_ends_a_task_also_one_that_ignores_term(start: Start, tmp_path: Path, ignore: bool) -> None:
    capsule = start(tmp_path)
    limits = m.Limits(timeout_ms=200, grace_ms=200)
    trap = "trap '' TERM; " if ignore else ""
    capsule.begin(capsules.shell(trap + "while :; do sleep 0.02; done", tmp_path, limits=limits))
    exited = capsule.finish(seconds=2.4).one(m.Exited)
    assert exited.why is m.Why.TIMEOUT
    assert exited.signal == (signal.SIGKILL if ignore else signal.SIGTERM)
    assert exited.wall_us >= 200_000


def test_a_task_that_cleans_up_on_stop_keeps_its_status(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    script = "trap 'echo saved > results/state; exit 5' TERM; echo up; while :; do sleep 0.01; done"
    capsule.begin(capsules.shell(script, tmp_path))
    capsule.hear(lambda message: isinstance(message, m.Output))
    capsule.say(m.Stop())
    heard = capsule.finish()
    exited = heard.one(m.Exited)
    assert (exited.status, exited.why) == (5, m.Why.STOP)
    assert heard.results == {b"state": b"saved\n"}


def test_a_stop_right_behind_the_start_is_not_lost(start: Start, tmp_path: Path) -> None:
    for _ in range(30):
        capsule = start(tmp_path)
        capsule.hear(lambda message: isinstance(message, m.Ready))
        spec = capsules.shell("exec sleep 100", tmp_path)
        capsule.write(b"".join(capsule.talk.send(message) for message in (spec, m.Start(), m.Stop())))
        assert capsule.finish().one(m.Exited).signal == signal.SIGTERM


def test_a_stop_without_grace_kills_at_once(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    capsule.begin(capsules.shell("trap '' TERM; echo up; while :; do sleep 1; done", tmp_path))
    capsule.hear(lambda message: isinstance(message, m.Output))
    capsule.say(m.Stop(grace_ms=0))
    assert capsule.finish(seconds=3).one(m.Exited).signal == signal.SIGKILL


def test_what_the_task_leaves_behind_is_ended_before_exited(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    script = "for i in 1 2 3; do (setsid sh -c 'echo $$ >> pids; exec sleep 100' &); done; touch pids; "
    script += "while [ $(wc -l < pids) -lt 3 ]; do :; done; echo end"
    capsule.begin(capsules.shell(script, tmp_path))
    heard = capsule.finish()
    exited = heard.one(m.Exited)
    assert exited.status == 0
    assert exited.leftovers == 3
    for pid in (tmp_path / "pids").read_text().split():
        assert not Path("/proc", pid).exists()


def test_resource_limits_hold(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    rlimits = (m.ResourceLimit(resource.RLIMIT_NOFILE, 20, 20), m.ResourceLimit(resource.RLIMIT_CORE, 0, 0))
    capsule.begin(capsules.shell("ulimit -n; ulimit -c", tmp_path, rlimits=rlimits))
    assert capsule.finish().output() == b"20\n0\n"


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (m.Spec(argv=(b"x",), workspace=b"/nowhere"), "cannot open the workspace"),
        (m.Spec(argv=(b"x",), workspace=b"relative"), "not absolute"),
        (m.Spec(argv=(b"x",), expect_uid=12345), "another user"),
    ],
)
def test_a_spec_that_cannot_be_is_told(start: Start, tmp_path: Path, spec: m.Spec, text: str) -> None:
    capsule = start(tmp_path)
    capsule.begin(spec, [m.File(b"a", b"")])
    error = capsule.finish().one(m.Error)
    assert error.code is m.ErrorCode.SPEC
    assert text in error.text


def test_an_input_never_goes_through_a_link_and_never_over_a_file(start: Start, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    workspace = tmp_path / "workspace"
    outside.mkdir()
    workspace.mkdir()
    (workspace / "link").symlink_to(outside)
    (workspace / "dangling").symlink_to(outside / "new")
    (workspace / "there").write_text("old")
    for path in (b"link/x", b"dangling", b"there", b"there/x"):
        capsule = start(workspace)
        capsule.begin(capsules.shell("echo must not run", workspace), [m.File(path, b"evil")])
        heard = capsule.finish()
        assert heard.one(m.Error).code is m.ErrorCode.FILE
        assert heard.output() == b""
    assert list(outside.iterdir()) == []
    assert (workspace / "there").read_text() == "old"


def test_close_while_running_ends_it_all(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    capsule.begin(capsules.shell("echo $$; exec sleep 100", tmp_path))
    said = capsule.hear(lambda message: isinstance(message, m.Output))
    capsule.close()
    assert isinstance(said, m.Output)
    assert not Path("/proc", said.data.decode().strip()).exists()


@pytest.mark.parametrize("policy", m.OnDisconnect)
def test_when_its_stdin_ends_it_stops_or_goes_on_as_told(start: Start, tmp_path: Path, policy: m.OnDisconnect) -> None:
    capsule = start(tmp_path)
    script = "echo up; while [ ! -e go ]; do sleep 0.01; done; echo result > results/r"
    spec = dataclasses.replace(capsules.shell(script, tmp_path), on_disconnect=policy)
    capsule.begin(spec)
    capsule.hear(lambda message: isinstance(message, m.Output))
    assert capsule.process.stdin
    capsule.process.stdin.close()
    if policy is m.OnDisconnect.KEEP:
        (tmp_path / "go").touch()
        capsule.hear(lambda message: isinstance(message, m.Done), acknowledge=False)
        assert capsule.heard.results == {b"r": b"result\n"}
    else:
        exited = capsule.hear(lambda message: isinstance(message, m.Exited), acknowledge=False)
        assert isinstance(exited, m.Exited)
        assert exited.why is m.Why.DISCONNECT
    assert capsule.process.wait(5) == 0


def test_waiting_costs_no_cpu(start_shipped: Start, tmp_path: Path) -> None:
    capsule = start_shipped(tmp_path)
    capsule.hear(lambda message: isinstance(message, m.Ready))

    def switches() -> int:
        text = Path(f"/proc/{capsule.process.pid}/status").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if "ctxt_switches" in line)

    waiting.wait_for(
        lambda: Path(f"/proc/{capsule.process.pid}/stat").read_text().split()[2] == "S", description="it sleeps"
    )
    before = switches()
    with pytest.raises(AssertionError, match="silent"):
        capsule.bytes(seconds=0.3)
    assert switches() == before
    capsule.close()


def test_a_sigterm_from_outside_stops_the_task_in_order(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    capsule.begin(capsules.shell("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done", tmp_path))
    capsule.hear(lambda message: isinstance(message, m.Output))
    capsule.process.send_signal(signal.SIGTERM)
    heard = capsule.finish()
    assert heard.output() == b"up\nbye\n"
    assert (heard.one(m.Exited).status, heard.one(m.Exited).why) == (3, m.Why.STOP)


@pytest.mark.parametrize("end", ["signal", "input"])
def test_an_idle_one_goes_quietly(start: Start, tmp_path: Path, end: str) -> None:
    capsule = start(tmp_path)
    capsule.hear(lambda message: isinstance(message, m.Ready))
    assert capsule.process.stdin
    if end == "signal":
        capsule.process.send_signal(signal.SIGTERM)
    else:
        capsule.process.stdin.close()
    assert capsule.process.wait(5) == 0


def test_running_out_of_descriptors_is_told_and_not_fatal(shipped: Path, tmp_path: Path) -> None:
    # 3 are taken (0, 1, the signal fd; 2 as inherited) and the workspace: the pipes find no more.
    command: list[str | Path] = ["sh", "-c", 'ulimit -n 6; exec "$0"', shipped]
    with capsules.Capsule(command, tmp_path) as capsule:
        capsule.begin(capsules.shell("true", tmp_path))
        error = capsule.finish().one(m.Error)
    assert error.code is m.ErrorCode.INTERNAL
    assert "Too many open files" in error.text or "No file descriptors" in error.text
