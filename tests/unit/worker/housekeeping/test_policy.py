"""What may go and what never does: the policy held against its promises, for any things, disks, terms and times."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.worker.housekeeping import policy

NOW = 1_800_000_000.0
DISKS = ("/", "/data")

things = st.lists(
    st.builds(
        policy.Thing,
        kind=st.sampled_from(policy.Kind),
        name=st.uuids().map(str),
        size_bytes=st.integers(0, 400),
        last_used=st.floats(NOW - 30 * policy.DAY, NOW + policy.DAY),
        disk=st.sampled_from((*DISKS, "", "/elsewhere")),
        held=st.sampled_from(("", "", "pinned", "in use")),
        abandoned=st.sampled_from(("", "", "", "its worker has died")),
    ),
    max_size=40,
)


def _disks(used: Sequence[int]) -> dict[str, policy.Disk]:
    return {name: policy.Disk(name, each, 1000 - each) for name, each in zip(DISKS, used, strict=True)}


disks = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).map(_disks)
terms = st.builds(policy.Terms, st.floats(1, 100), st.sampled_from((0.0, 0.5, 7.0)))


def after(decisions: Sequence[policy.Decision], disks: Mapping[str, policy.Disk]) -> dict[str, policy.Disk]:
    """The disks as they are once all that goes has gone."""
    left = dict(disks)
    for each in decisions:
        if each.goes and each.thing.disk in left:
            left[each.thing.disk] = left[each.thing.disk].less(each.thing.size_bytes)
    return left


@given(things, disks, terms)
def test_each_thing_is_decided_once_with_a_reason(
    found: list[policy.Thing], full: dict[str, policy.Disk], terms: policy.Terms
) -> None:
    decided = policy.decide(found, full, terms, NOW)
    assert sorted(each.thing.name for each in decided) == sorted(thing.name for thing in found)
    assert all(each.why for each in decided)


@given(things, disks, terms)
def test_what_is_held_never_goes(found: list[policy.Thing], full: dict[str, policy.Disk], terms: policy.Terms) -> None:
    assert not [each for each in policy.decide(found, full, terms, NOW) if each.goes and each.thing.held]


@given(things, disks, terms)
def test_nothing_goes_without_one_of_three_causes(
    found: list[policy.Thing], full: dict[str, policy.Disk], terms: policy.Terms
) -> None:
    for each in policy.decide(found, full, terms, NOW):
        thing = each.thing
        old = thing.kind in policy.HAVE_AN_AGE and terms.days and NOW - thing.last_used > terms.days * policy.DAY
        if each.goes and not each.for_room:
            assert thing.abandoned or old
        elif each.goes:
            assert thing.kind in policy.GIVE_ROOM
            assert thing.disk in full
            assert full[thing.disk].percent > terms.disk_percent
            assert NOW - thing.last_used >= policy.RECENT_SECONDS
        elif not thing.held:
            assert not thing.abandoned
            assert not old


@given(things, disks, terms)
def test_disks_end_below_the_mark_or_with_nothing_left_to_give(
    found: list[policy.Thing], full: dict[str, policy.Disk], terms: policy.Terms
) -> None:
    decided = policy.decide(found, full, terms, NOW)
    for disk in policy.too_full(after(decided, full), terms):
        for each in decided:
            thing = each.thing
            if thing.disk == disk.name and not each.goes and thing.kind in policy.GIVE_ROOM and thing.size_bytes:
                assert thing.held or NOW - thing.last_used < policy.RECENT_SECONDS


@given(things, disks, terms)
def test_for_room_the_longest_unused_goes_and_never_one_too_many(
    found: list[policy.Thing], full: dict[str, policy.Disk], terms: policy.Terms
) -> None:
    decided = policy.decide(found, full, terms, NOW)
    for name in DISKS:
        went = [each for each in decided if each.for_room and each.thing.disk == name]
        could = [
            each.thing.last_used
            for each in decided
            if not each.goes and not each.thing.held and each.thing.disk == name
            and each.thing.kind in policy.GIVE_ROOM and each.thing.size_bytes
        ]  # fmt: skip
        assert all(each.thing.last_used <= used for each in went for used in could)
        if went:
            without_the_last = [each for each in decided if each is not went[-1]]
            assert after(without_the_last, full)[name].percent > terms.disk_percent


@given(things, disks, terms, st.randoms(use_true_random=False))
def test_the_order_of_listing_does_not_matter(
    found: list[policy.Thing], full: dict[str, policy.Disk], terms: policy.Terms, rng: object
) -> None:
    shuffled = list(found)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert policy.decide(shuffled, full, terms, NOW) == policy.decide(found, full, terms, NOW)


IMAGE = policy.Thing(kind=policy.Kind.IMAGE, name="a:1", size_bytes=100, last_used=NOW - 3 * policy.DAY, disk="/")
ROOMY, FULL = {"/": policy.Disk("/", 400, 600)}, {"/": policy.Disk("/", 900, 100)}


@pytest.mark.parametrize(
    ("changed", "disks", "goes", "says"),
    [
        ({}, ROOMY, False, "there is room: / is 40.0 % full, and 85 % are allowed"),
        ({}, FULL, True, "/ is 90.0 % full, above 85 % (cleanup_disk_percent), and of what may go"),
        ({"held": "pinned"}, FULL, False, "pinned"),
        ({"last_used": NOW - 60}, FULL, False, "used a moment ago"),
        ({"size_bytes": 0}, FULL, False, "its removal would free nothing"),
        ({"disk": ""}, FULL, False, "how full its disk is cannot be seen from here"),
        ({"kind": policy.Kind.LOG}, FULL, False, "unused for 3.0 days, and kept for 7.0 days"),
        ({"kind": policy.Kind.LOG, "last_used": NOW - 8 * policy.DAY}, ROOMY, True, "unused for 8.0 days"),
        ({"kind": policy.Kind.ENVIRONMENT, "last_used": NOW - 8 * policy.DAY}, ROOMY, True, "(cleanup_days)"),
        ({"kind": policy.Kind.WORKSPACE}, FULL, False, "somebody may need it"),
        ({"kind": policy.Kind.WORKSPACE, "abandoned": "its worker has died"}, ROOMY, True, "its worker has died"),
    ],
)
def test_the_reason_is_told(changed: dict[str, object], disks: dict[str, policy.Disk], goes: bool, says: str) -> None:
    (decided,) = policy.decide([dataclasses.replace(IMAGE, **changed)], disks, policy.Terms(), NOW)  # type: ignore[arg-type]
    assert decided.goes is goes
    assert says in decided.why
