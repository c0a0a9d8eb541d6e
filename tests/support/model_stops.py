"""The delivery model's rules for orderly stops of nodes and pools, for ends that come late, and for rests."""

from __future__ import annotations

import dataclasses
import math

import model_calls as calls
import model_machine
import model_peers as peers
from hypothesis import stateful
from hypothesis import strategies as st
from model_calls import Done

choice = st.sampled_from
rule, precondition = stateful.rule, stateful.precondition

BEAT_LEASES = 0.9
"""Between two heartbeats that just keep a lease."""


class Stops(model_machine.Delivery):
    """Nodes and pools that stop in order; nodes that fail, rest, and ask again."""

    @precondition(lambda self: bool(self.present()))
    @rule(data=st.data(), lies=choice((False, False, True)), late=st.booleans())
    def go_offline(self, data: st.DataObject, lies: bool, late: bool) -> None:
        """A node stops in order. It lists what is left in its outbox; the answer to its last poll may be lost."""
        peer = data.draw(choice(self.present()), label="node")
        if peer.legacy:
            return
        if data.draw(st.booleans(), label="an answer is lost"):
            self.step(peer.poll(self.ledger.specs, 2), hears=False)
        beat = peer.beat(peers.lies(data, peer.listed, self.everything()) if lies else None)
        beat = dataclasses.replace(beat, offline=True)
        statement = data.draw(st.integers(0, 12), label="statement") if self.backend.can_crash else 12
        self.step(beat, statement=statement if statement < 12 and late else None)
        self.tally.count("stops in order")
        if late:
            self.bag += [beat, peer.poll(self.ledger.specs)]
        peer.new_process(journal=True, cloned=False)
        peer.away = True

    @rule()
    def restart(self) -> None:
        self.backend.reopen()
        self.log.append(f"{self.ledger.now:.1f} RESTARTED")
        self.look(self.seen, [Done(calls.Reopen(), calls.Answer())])
        self.ledger.opened(in_order=True)

    @precondition(lambda self: bool(self.present()))
    @rule(data=st.data(), other_end=st.integers(0, 3), together=st.booleans())
    def stop_is_reported_late(self, data: st.DataObject, other_end: int, together: bool) -> None:
        """A node stops in order, and can say so only when its lease was lost and others were given what it had.

        ``together``: the pool is stopped in order as well.
        """
        peer = data.draw(choice(self.present()), label="node")
        outcome = "failed", "node_shutdown"
        if other_end == 3:
            outcome = data.draw(choice(peers.OUTCOMES), label="outcome")
        if not peer.runs:
            self.step(peer.poll(self.ledger.specs, 3))
        others = [one for one in self.present() if one is not peer]
        if together:
            self.restart()
        for leases in (0.45, 0.45, 0.25):
            self.wait(leases)
            for other in others:
                self.step(other.beat())
            self.step(calls.Expire())
        for other in others:
            self.step(other.poll(self.ledger.specs, 3))
        for key in list(peer.runs):
            if key in peer.runs:  # a node of four calls names the task alone: one end is that of all its attempts
                self.tally.count("late stops", outcome[1] == "node_shutdown")
                self.step(peer.end(key, *outcome))

    # Over the wire nobody is told how long a rest is.
    @precondition(lambda self: not self.backend.looks_itself and bool(self.present()))
    @rule(data=st.data())
    def outlast_a_rest(self, data: st.DataObject) -> None:
        """A node fails by its own fault, stays connected for as long as it may rest, and asks again."""
        peer = data.draw(choice(self.present()), label="node")
        if not peer.runs:
            self.step(peer.poll(self.ledger.specs, 1))
        for key in list(peer.runs)[:1]:
            self.step(peer.end(key, "failed", "engine_lost"))
        for _ in range(math.ceil(calls.MAX_REST_SECONDS / (BEAT_LEASES * self.backend.lease)) + 1):
            self.wait(BEAT_LEASES)
            self.step(peer.beat())
        self.tally.count("rests outlasted")
        self.step(peer.poll(self.ledger.specs, 1))
