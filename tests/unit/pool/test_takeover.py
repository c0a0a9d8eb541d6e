"""The decision about a process that registers under an id which has a session."""

import itertools

from hivemind_worker.pool.store import takeover

Decision = takeover.Decision


def _incumbent(**said: object) -> takeover.Incumbent:
    values = {"session_id": "s", "boot_id": "old", "state_lock_id": "lock", "leased": True, "offline": False, **said}
    return takeover.Incumbent(**values)  # type: ignore[arg-type]


def test_each_case() -> None:
    assert takeover.decide(None, "new", "lock") is Decision.TAKE_OVER
    assert takeover.decide(_incumbent(), "old", "") is Decision.SAME_PROCESS
    assert takeover.decide(_incumbent(), "new", "lock") is Decision.TAKE_OVER
    assert takeover.decide(_incumbent(), "new", "copied") is Decision.CHALLENGE
    assert takeover.decide(_incumbent(), "new", "") is Decision.CHALLENGE
    assert takeover.decide(_incumbent(), "", "") is Decision.CHALLENGE
    assert takeover.decide(_incumbent(state_lock_id=""), "new", "") is Decision.CHALLENGE
    assert takeover.decide(_incumbent(leased=False), "new", "") is Decision.TAKE_OVER
    assert takeover.decide(_incumbent(offline=True), "new", "") is Decision.TAKE_OVER
    assert takeover.decide(_incumbent(), "new", "", "s") is Decision.TAKE_OVER
    assert takeover.decide(_incumbent(), "new", "", "another") is Decision.CHALLENGE
    assert takeover.decide(_incumbent(boot_id=""), "", "") is Decision.TAKE_OVER


def test_a_living_session_is_only_ever_taken_over_with_proof() -> None:
    for boot, lock, old_lock, silent in itertools.product(("", "a", "b"), ("", "x", "y"), ("", "x"), ("", "s", "t")):
        decided = takeover.decide(_incumbent(state_lock_id=old_lock), boot, lock, silent)
        if decided is Decision.TAKE_OVER:
            assert silent == "s" or (lock == old_lock and lock), (boot, lock, old_lock, silent)


def test_a_clash_is_with_whoever_has_not_locked_the_incumbents_folder() -> None:
    assert takeover.is_clash(_incumbent(), "copied")
    assert not takeover.is_clash(_incumbent(), "lock")
    assert not takeover.is_clash(_incumbent(), "of this boot", ("of another", "lock"))
    assert takeover.is_clash(_incumbent(), "of this boot", ("another's",))
    assert takeover.is_clash(_incumbent(), "")
    assert not takeover.is_clash(_incumbent(state_lock_id=""), "lock")
    assert takeover.is_clash(_incumbent(offline=True), "copied")  # what it said it would leave is no crash either
    assert not takeover.is_clash(_incumbent(leased=False), "copied")
    assert not takeover.is_clash(None, "lock")
