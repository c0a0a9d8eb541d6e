"""The delivery model as a machine: weighted rules over any pool; each step is checked, and at the end all must end."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import ClassVar

import model_answers
import model_calls as calls
import model_moves
import model_peers as peers
from hypothesis import stateful
from hypothesis import strategies as st
from hypothesis.strategies._internal import featureflags
from model_calls import Call, Done, Key, NodeCall
from model_ledger import Broken, Ledger, demand
from model_tally import Tally

MAX_TASKS = 14
"""Tasks of one example: enough for three shapes and all states, few enough to read them all after each step."""
ROUNDS = 4
"""After silence one sound node takes all in one poll, and completes all: what is left after four rounds hangs."""
LOOK_LEASES = 0.45
"""A pool that has not looked for half a lease calls that an absence of its own."""

choice = st.sampled_from


class Delivery(stateful.RuleBasedStateMachine):
    """A pool, its nodes and submitters. A subclass names the backend and its tally."""

    make_backend: ClassVar[Callable[[], calls.Backend]]
    tally: ClassVar[Tally]
    idles_first: ClassVar[bool] = True
    """Whether the first example does nothing: see `model_runs.run`."""

    def __init__(self) -> None:
        super().__init__()
        # Hypothesis switches rules off for a whole example, most of them in half of all examples. These rules are
        # weighted: with all of them on twice as many examples reach a second attempt.
        self._rules_strategy.enabled_rules_strategy = st.just(featureflags.FeatureFlags())
        self.backend = type(self).make_backend()
        self.ledger = Ledger(self.backend.lease, self.backend.asks_incumbent)
        self.peers = peers.fleet()
        self.bag: list[NodeCall] = []
        self.backups: list[tuple[object, object, calls.View]] = []
        self.seen = self.backend.view()
        self.ledger.epoch = self.seen.epoch
        self.log: list[str] = []
        self.number = 0
        self.idles = type(self).idles_first
        type(self).idles_first = False
        if not self.idles:
            self.tally.begin()

    def teardown(self) -> None:
        try:
            if not self.idles and sys.exc_info()[0] is None:
                self.all_must_end()
                self.tally.end()
        finally:
            self.backend.close()

    # -- one step ------------------------------------------------------------------------------------------------------

    def step(self, *made: Call, statement: int | None = None, hears: bool = True) -> list[Done]:
        """Make these calls at once (``statement``: with a crash in between), check what came of it, let peers hear."""
        if self.idles:
            return []
        for call in made:
            if isinstance(call, calls.Report) and call.status:
                self.ledger.sent[call.body] = call
        before = self.seen
        make, crash_in = self.backend.make, self.backend.crash_in
        answers = make(*made) if statement is None else crash_in(*made, statement=statement)
        done = [Done(call, answer) for call, answer in zip(made, answers, strict=True)]
        crash = "" if statement is None else f" CRASH at {statement}"
        self.log.append(f"{self.ledger.now:.1f}{crash} {calls.brief(done)}")
        self.look(before, done)
        if statement is not None:
            self.ledger.opened()
            self.tally.count("crashes", any(one.answer.lost for one in done))
        for one in done:
            peer = self.peers.get(getattr(one.call, "node", ""))
            if peer is not None and hears and not isinstance(one.call, calls.Drain):
                peer.hear(one)
        return done

    def look(self, before: calls.View, done: Sequence[Done]) -> None:
        """Read everything, and check it against what was there and what was done."""
        if self.idles:
            return
        self.seen = self.backend.view()
        try:
            model_moves.check(self.ledger, before, done, self.seen)
            model_answers.check(self.ledger, before, done, self.seen)
            self.ledger.note(done, before, self.seen)
        except Broken as broken:
            raise Broken(f"{broken}\n  after: " + "\n  ".join(self.log[-60:])) from None
        self.tally.note(done, before, self.seen)

    def wait(self, leases: float) -> None:
        """Let time go by; where the pool looks at its leases by itself, in steps that it does not call an absence."""
        while self.backend.looks_itself and leases > 0:
            self.jump(min(leases, LOOK_LEASES))
            self.step(calls.Expire())
            leases -= LOOK_LEASES
        if leases > 0:
            self.jump(leases)

    def jump(self, leases: float) -> None:
        self.backend.wait(leases * self.backend.lease)
        self.ledger.now += leases * self.backend.lease
        self.log.append(f"{self.ledger.now:.1f} time")

    # -- drawing -------------------------------------------------------------------------------------------------------

    def a_peer(self, data: st.DataObject) -> peers.Peer:
        return self.peers[data.draw(choice(sorted(self.peers)), label="node")]

    def present(self) -> list[peers.Peer]:
        return [peer for _, peer in sorted(self.peers.items()) if not peer.away]

    def everything(self) -> list[Key]:
        return list(self.ledger.owner)

    def a_spec(self, data: st.DataObject) -> calls.Spec:
        self.number += 1
        needs = data.draw(choice(peers.NEEDS), label="needs")
        zone = data.draw(choice(("", "", "", "a")), label="zone")
        attempts = data.draw(choice((3, 2, 1, 2)), label="max_attempts")
        name = f"t{self.number:02}"
        priority = data.draw(st.integers(0, 2))
        # Numbers begin anew with a wiped store, and an older backup may have another task of that id.
        digest = f"digest {self.number} {needs.cpu_cores} {zone} {priority} {attempts}"
        return calls.Spec(name, digest, needs, zone, priority, attempts)

    def a_call(self, data: st.DataObject) -> NodeCall:
        """Something that a node sends now; it may lie."""
        present = self.present()
        busy = [peer for peer in present if peer.runs]
        if data.draw(st.booleans(), label="report") and busy:
            peer = data.draw(choice(busy), label="node")
            key = data.draw(choice(list(peer.runs)), label="attempt")
            if data.draw(st.booleans(), label="start"):
                return peer.start(key)
            return peer.end(key, *data.draw(choice(peers.OUTCOMES), label="outcome"))
        if not present or data.draw(st.integers(0, 5), label="register") == 0:
            return self.a_peer(data).register()
        peer = data.draw(choice(present), label="node")
        if data.draw(st.booleans(), label="poll"):
            return peer.poll(self.ledger.specs, data.draw(st.integers(1, 3), label="tasks"))
        if data.draw(st.integers(0, 3), label="lies") == 0:
            return peer.beat(peers.lies(data, peer.listed, self.everything()))
        return peer.beat()

    # -- rules: see model_rules ----------------------------------------------------------------------------------------

    def restore(self, backup: tuple[object, object, calls.View] | None) -> None:
        """Put a backup back; before it the view is the backup's."""
        if self.idles:
            return
        self.backend.restore(backup[0] if backup else None)
        self.ledger.restore(backup[1] if backup else None)
        self.ledger.opened()
        before = dataclasses.replace(backup[2], nodes={}) if backup else calls.View()
        self.log.append(f"{self.ledger.now:.1f} {'RESTORED' if backup else 'WIPED'}")
        old = self.ledger.epoch
        self.look(before, [Done(calls.Restore(empty=backup is None), calls.Answer())])
        demand(self.seen.epoch != old, f"a restore renews the epoch: {old}")
        self.ledger.restored(self.seen)

    def all_must_end(self) -> None:
        """Silence, then one sound node: every task comes to an end within a few rounds."""
        if self.idles:
            return
        for _ in range(3):
            self.wait(0.45)
            self.step(calls.Expire())
        self.jump(calls.MAX_REST_SECONDS / self.backend.lease)
        self.step(calls.BeginAnew() if self.backend.looks_itself else calls.Expire())
        sound = self.peers.setdefault("sound", peers.Peer("sound", peers.HUGE, zone="a"))
        sound.new_process(journal=False, cloned=False)
        self.step(sound.register())
        if self.ledger.sessions["sound"].draining is not False:
            self.step(calls.Drain("sound", draining=False))
        for _ in range(ROUNDS):
            if all(task.ended for task in self.seen.tasks.values()):
                break
            self.step(sound.poll(self.ledger.specs, 64))
            starts = [sound.start(key) for key in list(sound.runs)]
            if starts:
                self.step(*starts)
                self.step(*(sound.end(key, "completed", "") for key in list(sound.runs)))
            self.step(sound.beat())
        hangs = [task for task in self.seen.tasks.values() if not task.ended]
        try:
            demand(not hangs, f"never came to an end, although a sound node asks for work: {hangs}")
        except Broken as broken:
            raise Broken(f"{broken}\n  after: " + "\n  ".join(self.log[-60:])) from None
        del self.peers["sound"]
