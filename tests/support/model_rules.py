"""The rules of the delivery model, and how often each is taken."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import model_calls as calls
import model_machine
import model_peers as peers
import model_stops
from hypothesis import stateful
from hypothesis import strategies as st
from model_calls import Key

choice = st.sampled_from
rule, precondition = stateful.rule, stateful.precondition

WEIGHTS = {
    "beat": 2,
    "poll": 3,
    "polls_at_once": 2,
    "start": 2,
    "finish": 5,
    "work": 6,
    "send_later": 2,
    "deliver_late": 3,
    "crash": 5,
    "lose_leases": 4,
    "come_back": 8,
    "long_silence": 2,
    "report_again": 3,
    "look_for_lost_leases": 2,
    "register": 2,
    "back_up": 3,
    "submit_ids_again": 3,
    "put_back": 2,
    "stop_is_reported_late": 2,
}
"""Each other rule is taken once for each 1 here."""


class Rules(model_stops.Stops):
    """What can happen."""

    @stateful.initialize(data=st.data(), tasks=st.integers(3, 8))
    def begin(self, data: st.DataObject, tasks: int) -> None:
        self.step(calls.Submit(tuple(self.a_spec(data) for _ in range(tasks)), "first key"))
        for name in sorted(data.draw(st.sets(choice(sorted(self.peers)), min_size=2), label="nodes")):
            self.step(self.peers[name].register())

    # -- submitters ----------------------------------------------------------------------------------------------------

    @rule(data=st.data(), count=st.integers(1, 3))
    def submit(self, data: st.DataObject, count: int) -> None:
        if len(self.seen.tasks) < model_machine.MAX_TASKS:
            specs = tuple(self.a_spec(data) for _ in range(count))
            key = f"key {self.number}" if data.draw(st.booleans(), label="with a key") else ""
            if key and data.draw(st.booleans(), label="without ids"):
                specs = tuple(dataclasses.replace(spec, id="") for spec in specs)
            self.step(calls.Submit(specs, key))

    @rule(data=st.data())
    def submit_ids_again(self, data: st.DataObject) -> None:
        """The same tasks again; or another task under an id that is in use; or another list under a key."""
        known = sorted(task.id for task in self.seen.tasks.values() if task.id.startswith("t"))
        if not known:
            return
        spec = self.ledger.specs[data.draw(choice(known), label="id")]
        how = data.draw(choice(("same", "other digest", "key", "other under key", "with a new one")), label="how")
        keyed = {key: call for key, (call, _) in self.ledger.requests.items() if isinstance(call, calls.Submit)}
        if how == "other digest":
            spec = dataclasses.replace(spec, digest=f"{spec.digest} other")
        if how in {"key", "other under key"} and keyed:
            key = data.draw(choice(sorted(keyed)), label="key")
            self.tally.count("keys again")
            self.step(keyed[key] if how == "key" else calls.Submit((spec,), key))
        elif how == "with a new one" and len(self.seen.tasks) < model_machine.MAX_TASKS:
            other = dataclasses.replace(spec, digest=f"{spec.digest} other")
            self.step(calls.Submit((self.a_spec(data), other)))
        else:
            self.step(calls.Submit((spec,)))
        self.tally.count("ids again")

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        known = sorted(self.seen.tasks)
        if known and len(known) < model_machine.MAX_TASKS:
            task_id = data.draw(choice(known), label="id")
            earlier = sorted(key for key, (call, _) in self.ledger.requests.items() if isinstance(call, calls.Retry))
            self.number += 1
            key = data.draw(choice(("", f"retry {self.number}", *earlier)), label="key")
            self.step(calls.Retry((task_id,), key))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        open_tasks = sorted(task.id for task in self.seen.tasks.values() if not task.ended)
        ids = data.draw(
            st.lists(choice(open_tasks or sorted(self.seen.tasks) or ["nobody"]), min_size=1, max_size=2, unique=True),
            label="ids",
        )
        if data.draw(st.integers(0, 9), label="and nobody") == 0:
            ids = [*ids, "nobody"]
        self.step(calls.Cancel(tuple(dict.fromkeys(ids))))

    @rule(data=st.data(), draining=st.booleans())
    def drain(self, data: st.DataObject, draining: bool) -> None:
        self.step(calls.Drain(self.a_peer(data).name, draining))

    # -- nodes ---------------------------------------------------------------------------------------------------------

    @rule(data=st.data(), how=choice(("same", "absent", "process", "lost journal", "smaller")))
    def register(self, data: st.DataObject, how: str) -> None:
        """The same process again; one that was away; a new process with its journal, or without; another size."""
        peer = self.a_peer(data)
        if how == "absent":
            away = [one for _, one in sorted(self.peers.items()) if one.away]
            peer = data.draw(choice(away), label="away") if away else peer
        if how in {"process", "lost journal", "absent"}:
            peer.new_process(journal=how != "lost journal", cloned=False)
        if how == "smaller":
            peer.new_process(journal=True, cloned=False)
            peer.capacity = data.draw(choice((peers.SMALL, peers.MEDIUM, peers.LARGE)), label="capacity")
        listed = None
        if data.draw(st.integers(0, 4), label="lies") == 0:
            listed = peers.lies(data, peer.listed, self.everything())
            self.tally.count("lies")
        self.step(peer.register(listed))

    @precondition(lambda self: bool(self.present()))
    @rule(data=st.data())
    def copy_folder(self, data: st.DataObject) -> None:
        """Another process on a copy of the state folder: where it is refused it exits, and the first goes on."""
        peer = data.draw(choice(self.present()), label="node")
        before = copy.deepcopy(peer)
        peer.new_process(journal=True, cloned=not peer.legacy)
        self.tally.count("copied folders")
        if any(one.answer.refusal for one in self.step(peer.register())):
            self.tally.count("copied folders refused")
            self.peers[peer.name] = before

    @rule(data=st.data(), lies=st.booleans())
    def beat(self, data: st.DataObject, lies: bool) -> None:
        peer = self.a_peer(data)
        self.tally.count("lies", lies)
        self.step(peer.beat(peers.lies(data, peer.listed, self.everything()) if lies else None))

    @rule()
    def everybody_beats(self) -> None:
        for peer in self.present():
            self.step(peer.beat())

    @rule(data=st.data(), max_tasks=st.integers(1, 3), hears=choice((True, True, True, False)))
    def poll(self, data: st.DataObject, max_tasks: int, hears: bool) -> None:
        peer = self.a_peer(data)
        paused = data.draw(st.integers(0, 9), label="paused") == 0
        self.tally.count("answers lost", not hears)
        self.step(peer.poll(self.ledger.specs, max_tasks, paused=paused), hears=hears)

    @precondition(lambda self: len(self.present()) > 1)
    @rule(data=st.data(), max_tasks=st.integers(1, 3))
    def polls_at_once(self, data: st.DataObject, max_tasks: int) -> None:
        order = data.draw(st.permutations(self.present()), label="order")
        self.step(*(peer.poll(self.ledger.specs, max_tasks) for peer in order))

    @precondition(lambda self: any(peer.runs for peer in self.peers.values()))
    @rule(data=st.data(), hears=choice((True, True, True, False)))
    def start(self, data: st.DataObject, hears: bool) -> None:
        busy = [peer for _, peer in sorted(self.peers.items()) if peer.runs]
        peer = data.draw(choice(busy), label="node")
        self.step(peer.start(data.draw(choice(list(peer.runs)), label="attempt")), hears=hears)

    @precondition(lambda self: any(peer.runs for peer in self.peers.values()))
    @rule(data=st.data(), outcome=choice(peers.OUTCOMES), hears=choice((True, True, False)))
    def finish(self, data: st.DataObject, outcome: tuple[str, str], hears: bool) -> None:
        busy = [peer for _, peer in sorted(self.peers.items()) if peer.runs]
        peer = data.draw(choice(busy), label="node")
        report = peer.end(data.draw(choice(list(peer.runs)), label="attempt"), *outcome)
        self.step(report, hears=hears)
        if not hears:
            self.bag.append(report)

    @precondition(lambda self: bool(self.present()))
    @rule(data=st.data(), outcomes=st.lists(choice(peers.OUTCOMES), min_size=1, max_size=3))
    def work(self, data: st.DataObject, outcomes: list[tuple[str, str]]) -> None:
        """One node asks, starts all that it is given, and ends as many as there are outcomes."""
        peer = data.draw(choice(self.present()), label="node")
        self.step(peer.poll(self.ledger.specs, 3))
        for key in list(peer.runs):
            self.step(peer.start(key))
        for key, outcome in zip(list(peer.runs), outcomes, strict=False):
            if key in peer.runs:
                self.step(peer.end(key, *outcome))

    @precondition(lambda self: bool(self.given_up()))
    @rule(
        data=st.data(),
        how=choice(("start", "end", "start", "beat", "register", "poll")),
        outcome=choice(peers.OUTCOMES),
    )
    def come_back(self, data: st.DataObject, how: str, outcome: tuple[str, str]) -> None:
        """A node that was silent for too long speaks again, of an attempt that nobody else was given meanwhile."""
        peer, key = data.draw(choice(self.given_up()), label="attempt")
        made: dict[str, Callable[[], calls.NodeCall]] = {
            "start": lambda: peer.start(key),
            "end": lambda: peer.end(key, *outcome),
            "beat": peer.beat,
            "register": peer.register,
            "poll": lambda: peer.poll(self.ledger.specs),
        }
        self.tally.count("nodes that come back")
        self.step(made[how]())

    def given_up(self) -> list[tuple[peers.Peer, Key]]:
        """Attempts that a node has, and that the pool has queued again."""
        return [
            (peer, key)
            for peer in self.present()
            for key in peer.runs
            if key.epoch == self.ledger.epoch and (task := self.seen.tasks.get(key.task)) is not None
            if (task.state, task.attempt) == ("queued", key.attempt)
        ]

    @precondition(lambda self: bool(self.ledger.sent))
    @rule(data=st.data(), other=st.integers(0, 3))
    def report_again(self, data: st.DataObject, other: int) -> None:
        """An end that was sent before comes again; seldom another one of the same run, or of another."""
        report = data.draw(choice(list(self.ledger.sent.values())), label="report")
        self.number += 1
        if other == 0:
            report = dataclasses.replace(report, status="completed", reason="", body=f"another end {self.number}")
        if other == 1 and report.run:
            # Two processes that both believe they have the attempt: one run alone counts.
            report = dataclasses.replace(report, run=f"{self.number:031x}e", body=f"{report.body} in another run")
        self.tally.count("ends sent again")
        self.step(report, hears=False)

    @precondition(lambda self: bool(self.ledger.owner))
    @rule(data=st.data(), outcome=choice((*peers.OUTCOMES, ("", ""))))
    def forge(self, data: st.DataObject, outcome: tuple[str, str]) -> None:
        """A report of an attempt that this node was not given, or never was, or with a second end, or no session."""
        peer = self.a_peer(data)
        key = data.draw(choice(self.everything()), label="attempt")
        key = Key(key.epoch, key.task, max(key.attempt + data.draw(choice((0, 1, -1)), label="off by"), 1))
        self.number += 1
        body = f"forged {self.number}" if outcome[0] else ""
        session = data.draw(choice((peer.session, peer.session, "", "none")), label="session")
        self.tally.count("lies")
        self.step(calls.Report(peer.name, session, key, f"{self.number:031x}f", *outcome, body), hears=False)

    # -- the network ---------------------------------------------------------------------------------------------------

    @rule(data=st.data(), count=st.integers(1, 3))
    def send_later(self, data: st.DataObject, count: int) -> None:
        self.bag += [self.a_call(data) for _ in range(count)]

    @precondition(lambda self: bool(self.bag))
    @rule(data=st.data(), stays=st.booleans(), hears=st.booleans())
    def deliver_late(self, data: st.DataObject, stays: bool, hears: bool) -> None:
        """Any of what is under way, in any order; a copy may come again."""
        place = data.draw(st.integers(0, len(self.bag) - 1), label="which")
        call = self.bag[place] if stays else self.bag.pop(place)
        self.tally.count("delivered late")
        self.tally.count("delivered, to come again", stays)
        self.step(call, hears=hears)

    @rule(data=st.data(), count=st.integers(2, 4))
    def at_once(self, data: st.DataObject, count: int) -> None:
        made = [self.a_call(data) for _ in range(count)]
        if data.draw(st.booleans(), label="and a late one") and self.bag:
            made.append(data.draw(choice(self.bag), label="late"))
        # A report without its attempt's number means the newest at that moment, which nobody knows here.
        made = [call for call in made if not (isinstance(call, calls.Report) and not call.key.attempt)]
        # One poll of a node at a time waits at the pool: the older would be answered with nothing.
        polls = [call.node for call in made if isinstance(call, calls.Poll)]
        if len(set(polls)) == len(polls):
            self.tally.count("calls at once", len(made))
            self.step(*made)

    # -- the pool, time ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.backend.can_crash)
    @rule(data=st.data(), statement=st.integers(0, 25), what=choice(("node", "node", "node", "expire", "submitter")))
    def crash(self, data: st.DataObject, statement: int, what: str) -> None:
        """The pool dies between two statements of a transaction, or right after it."""
        call: calls.Call = calls.Expire()
        if what == "expire":
            self.wait(data.draw(choice((0.3, 1.1)), label="leases"))
        elif what == "node":
            call = self.a_call(data)
        elif data.draw(st.booleans(), label="cancel") and self.seen.tasks:
            call = calls.Cancel((data.draw(choice(sorted(self.seen.tasks)), label="id"),))
        elif len(self.seen.tasks) < model_machine.MAX_TASKS:
            call = calls.Submit((self.a_spec(data), self.a_spec(data)), f"key {self.number}")
        self.step(call, statement=statement)

    @rule(seconds=choice((3600.0, -3600.0, -172_800.0, 172_800.0)), restarts=st.booleans())
    def set_clock(self, seconds: float, restarts: bool) -> None:
        """The wall clock jumps, with or without a restart at that moment."""
        self.backend.set_clock(seconds)
        self.log.append(f"{self.ledger.now:.1f} CLOCK set by {seconds}")
        self.tally.count("clock jumps")
        if restarts:
            self.restart()

    @precondition(lambda self: not self.backend.looks_itself)
    @rule(often=st.integers(0, 3))
    def days_pass(self, often: int) -> None:
        """Seldom: nobody calls for long enough to be forgotten."""
        if often == 3:
            self.step(calls.Expire())
            for _ in range(2):
                self.jump((calls.FORGET_SECONDS + 60) / self.backend.lease)
                self.step(calls.Expire())

    @rule(leases=choice((0.15, 0.3, 0.45)))
    def time_goes_by(self, leases: float) -> None:
        self.wait(leases)

    @rule()
    def look_for_lost_leases(self) -> None:
        self.step(calls.Expire())

    @rule(data=st.data())
    def lose_leases(self, data: st.DataObject) -> None:
        """Some nodes fall silent for longer than a lease; the others beat."""
        present = self.present()
        silent = data.draw(st.sets(choice(sorted(self.peers)), min_size=1), label="silent")
        for leases in (0.45, 0.45, 0.25):
            self.wait(leases)
            for peer in present:
                if peer.name not in silent:
                    self.step(peer.beat())
            self.step(calls.Expire())

    @rule(leases=choice((1.5, 10.0)))
    def long_silence(self, leases: float) -> None:
        self.jump(leases)
        self.step(calls.BeginAnew() if self.backend.looks_itself else calls.Expire())

    @rule()
    def pool_was_away(self) -> None:
        self.jump(2.0)
        self.step(calls.BeginAnew())

    # -- backups -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.backend.can_restore and len(self.backups) < 2)
    @rule()
    def back_up(self) -> None:
        self.backups.append((self.backend.save(), self.ledger.save(), self.seen))

    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        """A backup is restored, or the store is wiped; ids are then used again, and old nodes come back."""
        wiped = data.draw(st.integers(0, 3), label="wiped") == 3
        if not wiped and not self.backups:
            self.back_up()
            return
        self.restore(None if wiped else data.draw(choice(self.backups), label="backup"))
        self.tally.count("restores of a backup", not wiped)
        if wiped:
            self.number = 0

    @rule(often=st.integers(0, 5))
    def settle(self, often: int) -> None:
        """Seldom, in the middle: all must end."""
        if often == 3:
            self.all_must_end()
            self.tally.count("settled in the middle")


for _name, _weight in WEIGHTS.items():
    for _number in range(1, _weight):
        setattr(Rules, f"{_name}_{_number}", getattr(Rules, _name))
