"""Every record survives its line; anything else is damage, whatever its bytes."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.journal import records

ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
numbers = st.integers(1, 1000)
RECORDS = st.one_of(
    st.builds(records.Accepted, ids, numbers, st.binary(max_size=100)),
    st.builds(records.Placed, ids, numbers, st.dictionaries(ids, ids, max_size=3)),
    st.builds(records.Ended, ids, numbers, st.binary(max_size=100)),
    st.builds(records.Closed, ids, numbers, ids),
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


@given(st.lists(RECORDS, max_size=40))
def test_the_fewest_records_say_the_same(story: list[records.Record]) -> None:
    one = records.Holdings()
    for record in story:
        one.take(record)
    other = records.Holdings()
    for record in one.records():
        other.take(record)
    assert other.attempts == one.attempts
    closed = {(record.task_id, record.attempt) for record in story[-1:] if isinstance(record, records.Closed)}
    assert not closed & one.attempts.keys()
