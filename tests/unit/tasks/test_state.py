"""Every state times every move; every phase times every phase."""

import itertools

import pytest

from hivemind_worker import errors
from hivemind_worker.tasks import state

# Written out by hand, independently of the table's form: (from, move) → to.
EXPECTED = {
    "queued": {"assign": "assigned", "cancel": "cancelled"},
    "assigned": {
        "start": "running",
        "complete": "completed",
        "fail": "failed",
        "cancel": "cancelled",
        "requeue": "queued",
    },
    "running": {"complete": "completed", "fail": "failed", "cancel": "cancelled", "requeue": "queued"},
    "completed": {},
    "failed": {},
    "cancelled": {},
}


@pytest.mark.parametrize(("origin", "move"), list(itertools.product(state.TaskState, state.Move)))
def test_every_state_times_every_move(origin: state.TaskState, move: state.Move) -> None:
    target = EXPECTED[origin.value].get(move.value)
    if target is None:
        with pytest.raises(errors.ImpossibleMove, match=f"{origin}.*{move}.*so far: once upon a time"):
            state.after(origin, move, "once upon a time")
    else:
        assert state.after(origin, move) == target


def test_nothing_leaves_an_ended_state() -> None:
    assert {origin for origin, _ in state.TASK_MOVES}.isdisjoint(state.ENDED)
    assert set(state.TASK_MOVES.values()) | {state.TaskState.QUEUED} == set(state.TaskState)


@pytest.mark.parametrize(("origin", "target"), list(itertools.product(state.Phase, state.Phase)))
def test_phases_go_forward_only(origin: state.Phase, target: state.Phase) -> None:
    story = state.AttemptStory(100.0, phase=origin)
    order = list(state.Phase)
    allowed = order.index(target) == order.index(origin) + 1 or (
        target is state.Phase.REPORTING and order.index(origin) < order.index(state.Phase.REPORTING)
    )
    if allowed:
        story.enter(target, 101.5)
        assert story.phase is target
    else:
        with pytest.raises(errors.ImpossibleMove, match="so far"):
            story.enter(target, 101.5)


def test_a_story_tells_its_times() -> None:
    story = state.AttemptStory(10.0)
    story.enter(state.Phase.PREPARING, 10.5)
    story.enter(state.Phase.STARTING, 12.0)
    assert story.tell() == "accepted +0.000 → preparing +0.500 → starting +2.000"
    assert story.seconds(13.0) == {"accepted": 0.5, "preparing": 1.5, "starting": 1.0}


def test_no_phase_lasts_less_than_nothing() -> None:
    story = state.AttemptStory(0.0)
    story.enter(state.Phase.PREPARING, 2.0)
    assert min(story.seconds(1.0).values()) == 0.0


def test_diagrams_have_every_arrow() -> None:
    drawn = state.draw_task_moves()
    assert len([line for line in drawn.splitlines() if "-->" in line]) == len(state.TASK_MOVES) + 1 + len(state.ENDED)
    assert "running --> completed: complete" in drawn
    assert "collecting --> reporting" in state.draw_phases()
