from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import capsules
import pytest
import waiting

from hivemind_worker.runtime.capsule import conversation, frames
from hivemind_worker.runtime.capsule import messages as m

Start = Callable[..., capsules.Capsule]
FLAT = 10 << 20  # bytes the program may take beside its configured tail
COUNT = 'import sys; sys.stdout.write("".join(f"{n:07d}\\n" for n in range(int(sys.argv[1]))))'


def peak(capsule: capsules.Capsule) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{capsule.process.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def counting(workspace: Path, lines: int, limits: m.Limits) -> m.Spec:
    argv = (b"python3", b"-c", COUNT.encode(), str(lines).encode())
    return m.Spec(argv=argv, env=capsules.ENVIRONMENT, workspace=bytes(workspace), limits=limits)


def test_the_output_of_a_task_of_a_millisecond_is_complete_100_times_of_100(start: Start, tmp_path: Path) -> None:
    for n in range(100):
        capsule = start(tmp_path)
        text = f"{n} to out "
        capsule.begin(m.Spec(argv=(b"echo", text.encode()), env=capsules.ENVIRONMENT, workspace=bytes(tmp_path)))
        heard = capsule.finish()
        assert heard.output() == text.encode() + b"\n"
        assert heard.one(m.Exited).out_total == len(text) + 1


def test_both_streams_keep_their_order(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    script = "i=0; while [ $i -lt 3000 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done"
    capsule.begin(capsules.shell(script, tmp_path))
    heard = capsule.finish()
    assert heard.output() == b"".join(b"o%d\n" % i for i in range(3000))
    assert heard.output(m.Stream.ERR) == b"".join(b"e%d\n" % i for i in range(3000))


@pytest.mark.parametrize(("head", "tail"), [(1000, 500), (0, 500), (1000, 0), (0, 0), (64_000, 70_000), (100_000, 3)])
def test_head_and_tail_are_kept_and_the_gap_is_counted(start: Start, tmp_path: Path, head: int, tail: int) -> None:
    whole = b"".join(b"%07d\n" % n for n in range(100_000))
    capsule = start(tmp_path)
    capsule.begin(counting(tmp_path, 100_000, m.Limits(output_head=head, output_tail=tail)))
    heard = capsule.finish()
    assert heard.output() == whole[:head] + (whole[-tail:] if tail else b"")
    exited = heard.one(m.Exited)
    assert (exited.out_total, exited.out_dropped) == (len(whole), len(whole) - head - tail)
    if tail:
        assert (
            sum(len(piece.data) for piece in heard.outputs[m.Stream.OUT] if piece.offset >= len(whole) - tail) == tail
        )


def test_output_within_the_caps_is_complete(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    capsule.begin(counting(tmp_path, 100_000, m.Limits(output_head=500_000, output_tail=400_000)))
    heard = capsule.finish()
    assert heard.output() == b"".join(b"%07d\n" % n for n in range(100_000))
    assert heard.one(m.Exited).out_dropped == 0


@pytest.mark.parametrize("megabytes", [300, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
def test_a_flood_of_output_leaves_memory_flat(start_shipped: Start, tmp_path: Path, megabytes: int) -> None:
    capsule = start_shipped(tmp_path)
    capsule.begin(capsules.shell(f"head -c {megabytes}000000 /dev/zero; echo end", tmp_path))
    capsule.hear(lambda message: isinstance(message, m.Done), seconds=500)
    assert peak(capsule) < FLAT
    capsule.close()
    exited = capsule.heard.one(m.Exited)
    assert exited.out_total == megabytes * 1_000_000 + 4
    limits = m.Limits()
    assert exited.out_dropped == exited.out_total - limits.output_head - limits.output_tail
    assert capsule.heard.output().endswith(b"\0end\n")


def test_a_worker_that_never_acknowledges_does_not_stop_the_task(start: Start, tmp_path: Path) -> None:
    # The window is far smaller than the head: what finds no room goes to the ring, whose end comes out.
    capsule = start(tmp_path)
    capsule.begin(counting(tmp_path, 200_000, m.Limits(output_head=1 << 20, output_tail=1000, window=100_000)))
    exited = capsule.hear(lambda message: isinstance(message, m.Exited), acknowledge=False)
    assert isinstance(exited, m.Exited)
    assert exited.status == 0
    whole = b"".join(b"%07d\n" % n for n in range(200_000))
    kept = capsule.heard.output()
    assert whole.startswith(kept[:-1000])
    assert kept[-1000:] == whole[-1000:]
    assert exited.out_dropped == len(whole) - len(kept)
    capsule.finish()


def test_a_worker_that_does_not_even_read_does_not_stop_the_task(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    script = "head -c 20000000 /dev/zero; : > ended"
    capsule.begin(capsules.shell(script, tmp_path, limits=m.Limits(output_head=8 << 20)))
    waiting.wait_for((tmp_path / "ended").exists, description="the task ended while nobody listened")
    exited = capsule.finish().one(m.Exited)
    assert (exited.status, exited.out_total) == (0, 20_000_000)
    assert len(capsule.heard.output()) == 20_000_000 - exited.out_dropped


def test_results_wait_for_acknowledgements(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    limits = m.Limits(window=1 << 20)
    capsule.begin(capsules.shell("head -c 5000000 /dev/zero > results/big", tmp_path, limits=limits))
    capsule.hear(lambda message: isinstance(message, m.ResultData), acknowledge=False)
    while not capsule.silent():
        capsule.talk.receive(capsule.bytes())
    assert capsule.talk.phase.value == "receiving"
    acknowledgement = capsule.talk.acknowledgement(force=True)
    assert acknowledgement
    capsule.write(acknowledgement)
    capsule.hear(lambda message: isinstance(message, m.Done))


def resumed(capsule: capsules.Capsule, heard: int, turn: int, spec: m.Spec) -> conversation.Conversation:
    """As a new worker process would: a new Conversation from what is known to be safe."""
    talk = conversation.Conversation(spec=spec, after=heard)
    capsule.write(talk.resume(bytes([turn]) * 16, spec.resume_key))
    return talk


@pytest.mark.parametrize("step", [1, 7, 33, 1000, 40_000])
def test_cut_anywhere_and_resumed_all_arrives_exactly_once(start: Start, tmp_path: Path, step: int) -> None:
    """After each `step` bytes the stream is cut in the middle of whatever comes; the same process goes on."""
    capsule = start(tmp_path)
    script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done; "
    script += "head -c 100000 /dev/zero > results/z; echo x > results/y"
    spec = capsules.shell(script, tmp_path, resume_key=b"secret")
    capsule.begin(spec)
    turn = 0
    while capsule.talk.phase.value != "done":
        data = capsule.bytes()
        if turn < 40:
            turn += 1
            for message in capsule.talk.receive(data[:step]):
                capsule.heard.add(message)
            capsule.write(capsule.talk.resume(bytes([turn]) * 16, b"secret"))
            data = data[step:]  # garbage from here on, up to the answer
        for message in capsule.talk.receive(data):
            capsule.heard.add(message)
        if turn >= 40 and (acknowledgement := capsule.talk.acknowledgement()):
            capsule.write(acknowledgement)
    assert turn >= 3
    assert capsule.heard.output() == b"".join(b"line %d\n" % i for i in range(300))
    assert capsule.heard.results == {b"y": b"x\n", b"z": bytes(100_000)}
    capsule.close()


def test_another_process_takes_over_from_the_beginning_and_hears_it_all(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    spec = capsules.shell("echo hello; echo there > results/r", tmp_path)
    capsule.begin(spec)
    capsule.hear(lambda message: isinstance(message, m.Done), acknowledge=False)
    capsule.talk = resumed(capsule, 0, 1, spec)
    capsule.heard = capsules.Heard()
    heard = capsule.finish()
    assert heard.output() == b"hello\n"
    assert heard.results == {b"r": b"there\n"}
    assert heard.one(m.Ready).state is m.State.DONE


def test_a_resume_is_found_behind_a_frame_that_was_never_finished(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    spec = capsules.shell("cat > /dev/null; echo end", tmp_path, stdin=m.Stdin.STREAM, resume_key=b"k" * 64)
    capsule.begin(spec)
    for turn, cut in enumerate((1, 3, 15, 19, 21, 5000), start=1):
        # Within it, a RESUME as an input could carry it: without the key it is only bytes.
        fake = frames.encode(8, 1, bytes(8) + b"n" * 16)
        capsule.write(frames.encode(4, 1 + turn, fake + bytes(10_000))[:cut])
        capsule.write(capsule.talk.resume(bytes([turn]) * 16, b"k" * 64))
        ready = capsule.hear(lambda message: isinstance(message, m.Ready))
        assert isinstance(ready, m.Ready)
        assert ready.state is m.State.RUNNING
    capsule.say(m.Input(b""))
    assert capsule.finish().output() == b"end\n"


def test_a_wrong_key_resumes_nothing(start: Start, tmp_path: Path) -> None:
    capsule = start(tmp_path)
    capsule.begin(capsules.shell("exec sleep 100", tmp_path, resume_key=b"right"))
    capsule.write(capsule.talk.resume(b"n" * 16, b"wrong"))
    while not capsule.silent():
        assert capsule.talk.receive(capsule.bytes()) == []
    capsule.write(capsule.talk.resume(b"m" * 16, b"right"))
    capsule.hear(lambda message: isinstance(message, m.Ready))
    capsule.close()
