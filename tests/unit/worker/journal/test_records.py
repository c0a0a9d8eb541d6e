"""Every record survives its line; anything else is damage, whatever its bytes."""

from __future__ import annotations

import base64
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.worker.journal import reader, records

ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
epochs = st.sampled_from(["", "a" * 32, "b" * 32])
numbers = st.integers(1, 1000)
RECORDS = st.one_of(
    st.builds(records.Accepted, ids, numbers, st.binary(max_size=100), epochs, epochs),
    st.builds(records.Started, ids, numbers, st.dictionaries(ids, ids, max_size=3), epochs, epochs),
    st.builds(records.Ended, ids, numbers, st.binary(max_size=100), epochs, epochs),
    st.builds(records.Closed, ids, numbers, ids, epochs),
)


@given(RECORDS)
def test_a_record_survives_its_line(record: records.Record) -> None:
    line = records.encode(record)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert records.decode(line[:-1]) == record


@given(RECORDS, st.data())
def test_an_altered_line_is_damage(record: records.Record, data: st.DataObject) -> None:
    line = bytearray(records.encode(record)[:-1])
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] ^= data.draw(st.sampled_from([1, 2, 4, 8, 16, 64, 128]))
    with pytest.raises(records.Damaged):
        records.decode(bytes(line))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_damage(line: bytes) -> None:
    with pytest.raises(records.Damaged):
        records.decode(line)


@pytest.mark.parametrize("body", [b"1", b"null", b"[]", b'"a"', b'{"kind":[]}', b"\xff", b"[" * 100_000])
def test_with_a_right_sum_it_is_still_no_record(body: bytes) -> None:
    with pytest.raises(records.Damaged):
        records.decode(b"%08x " % zlib.crc32(body) + body)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempt": "1"},
        {"attempt": True},
        {"attempt": 1.5},
        {"task_id": 7},
        {"task_id": None},
        {"capsule": "c"},
        {"capsule": {"id": 1}},
        {"capsule": ["id"]},
        {"store_epoch": []},
        {"run_id": {}},
        {"doubt": 0},
    ],
    ids=str,
)
def test_a_value_of_a_wrong_type_is_damage(wrong: dict[str, object]) -> None:
    fields = {"kind": "started", "task_id": "t", "attempt": 1, "capsule": {"id": "c"}, "store_epoch": "e", **wrong}
    body = json.dumps(fields).encode()
    with pytest.raises(records.Damaged):
        records.decode(b"%08x %s" % (zlib.crc32(body), body))


@given(st.lists(RECORDS, max_size=40))
def test_the_fewest_records_say_the_same(story: list[records.Record]) -> None:
    one = records.Holdings()
    for record in story:
        one.take(record)
    other = records.Holdings()
    for record in one.records():
        other.take(record)
    assert other.attempts == one.attempts
    closed = {records.key_of(record) for record in story[-1:] if isinstance(record, records.Closed)}
    assert not closed & one.attempts.keys()


def _line(**fields: object) -> bytes:
    text = json.dumps(fields).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def test_a_journal_of_version_1_is_read_and_what_may_have_begun_is_not_taken_as_new() -> None:
    task = base64.b64encode(b"task").decode()
    content = b"hivemind-journal 1\n" + b"".join(
        [
            *(
                _line(kind="accepted", task_id=name, attempt=1, task=task)
                for name in ("new", "placed", "ended", "gone")
            ),
            _line(kind="placed", task_id="placed", attempt=1, capsule={"container": "c"}),
            _line(kind="ended", task_id="ended", attempt=1, result=task),
            _line(kind="closed", task_id="gone", attempt=1, why="accepted"),
        ]
    )
    found = reader.parse(content)
    assert (found.outdated, found.strange, found.damaged) == (True, "", ())
    held = {key.task_id: one for key, one in found.holdings.attempts.items()}
    assert set(held) == {"new", "placed", "ended"}
    assert held["new"].started is not None
    assert (dict(held["new"].started.capsule), held["new"].started.doubt) == ({}, reader.OLDER_VERSION)
    assert held["placed"].started is not None
    assert dict(held["placed"].started.capsule) == {"container": "c"}
    assert held["ended"].ended is not None
    run_ids = {name: one.run_id for name, one in held.items()}
    assert len(set(run_ids.values())) == 3
    again = reader.parse(content).holdings.attempts
    assert {key.task_id: one.run_id for key, one in again.items()} == run_ids
    # Written anew in the version of today it says the same.
    anew = records.header("") + b"".join(map(records.encode, found.holdings.records()))
    assert reader.parse(anew).holdings.attempts == found.holdings.attempts


def test_where_records_are_damaged_no_record_of_a_start_is_no_proof() -> None:
    accepted = records.encode(records.Accepted("t", 1, b"task", "e", "r"))
    started = bytearray(records.encode(records.Started("t", 1, {}, "e", "r")))
    started[12] ^= 1
    whole = reader.parse(records.header("") + accepted)
    spoiled = reader.parse(records.header("") + accepted + bytes(started))
    (one,), (other,) = whole.holdings.attempts.values(), spoiled.holdings.attempts.values()
    assert one.started is None
    assert other.started is not None
    assert (other.started.run_id, other.started.doubt) == ("r", reader.DAMAGED)
