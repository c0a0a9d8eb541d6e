"""Each kept input of the fuzzer runs again, and each target finds a fault that is planted for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import fuzz_targets
import pytest

from hivemind_worker.client import landing, task_files
from hivemind_worker.runtime.capsule import frames, payloads
from hivemind_worker.wire import translate
from hivemind_worker.wire.generated import nodepool_pb2 as pb
from hivemind_worker.worker.journal import records

CORPUS = Path(__file__).parent / "corpus"


def inputs(name: str) -> Iterator[tuple[str, bytes]]:
    yield from ((f"seed {number}", seed) for number, seed in enumerate(fuzz_targets.seeds(name)))
    yield from ((str(path), path.read_bytes()) for path in sorted((CORPUS / name).iterdir()))


def breaks(target: Callable[[bytes], None], data: bytes) -> bool:
    try:
        target(data)
    except Exception:  # noqa: BLE001 - whatever the fault leads to
        return True
    return False


@pytest.mark.parametrize("name", list(fuzz_targets.TARGETS))
def test_each_kept_input_holds(name: str) -> None:
    assert list((CORPUS / name).iterdir()), f"no input is kept for {name}: make fuzz"
    for origin, data in inputs(name):
        try:
            fuzz_targets.TARGETS[name](data)
        except BaseException as error:
            error.add_note(f"of the input {origin}")
            raise


def test_the_corpus_is_of_these_targets_alone() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(fuzz_targets.TARGETS)


@pytest.mark.parametrize("name", list(fuzz_targets.TARGETS))
def test_a_planted_fault_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that cannot fail proves nothing: with this fault in the code one of the kept inputs breaks it."""
    _PLANTS[name](monkeypatch)
    assert any(breaks(fuzz_targets.TARGETS[name], data) for _, data in inputs(name))


def _a_reader_that_loses_what_came_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = frames.FrameReader.feed

    def forgetful(reader: frames.FrameReader, data: bytes) -> list[frames.Frame]:
        complete = whole(reader, data)
        reader._buffer.clear()
        return complete

    monkeypatch.setattr(frames.FrameReader, "feed", forgetful)


def _no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hivemind_worker.runtime.capsule.promises._refuse", lambda *_: None)


def _a_decoder_that_raises_what_it_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(kind: int, payload: bytes) -> object:
        return payload[len(payload) + kind]

    monkeypatch.setattr(payloads, "decode", short)


def _links_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing, "place", lambda folder, name: folder / name)


def _no_check_of_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_files, "parse", lambda text, _: [json.loads(text)])


def _any_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_READERS", dict.fromkeys(records._READERS, lambda value: value))


def _a_lost_field(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = dict(translate._READERS)
    del fields["timeout"]
    monkeypatch.setattr(translate, "_READERS", fields)
    monkeypatch.setattr("hivemind_worker.wire.unparsed.cost", lambda *_: 1 // 0)


def _a_status_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate, "outcome_to_message", lambda _: pb.TaskResult())


_PLANTS = {
    "capsule_frames": _a_reader_that_loses_what_came_in_parts,
    "capsule_conversation": _no_bound,
    "capsule_payloads": _a_decoder_that_raises_what_it_may_not,
    "result_tree": _links_are_followed,
    "task_file": _no_check_of_objects,
    "journal": _any_type,
    "wire_task": _a_lost_field,
    "wire_result": _a_status_that_is_lost,
}
