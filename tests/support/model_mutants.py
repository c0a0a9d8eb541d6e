"""Planted faults: each breaks one promise of the store in one place, and the delivery model must find it."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from typing import Any

import model_calls as calls
from model_calls import Answer, Call
from model_peers import HUGE
from model_store import Mortal, StoreBackend

from hivemind_worker.pool.store import database, history_mark, writing

_ENDED = "state IN ('completed', 'failed', 'cancelled')"


class Mutant(StoreBackend):
    """A store with a fault. A subclass spoils a call, or what is in the database after it."""

    def before(self, call: Call) -> Call:
        """Return the call that reaches the store."""
        return call

    def after(self, call: Call, answer: Answer) -> Answer:  # noqa: ARG002  (for those who override it)
        """Return the answer that is given. May change the database."""
        return answer

    def make(self, *made: Call) -> list[Answer]:
        answers = super().make(*(self.before(call) for call in made))
        return [self.after(call, answer) for call, answer in zip(made, answers, strict=True)]

    def sql(self, text: str, *values: Any) -> list[Any]:
        """Run one statement behind the store's back."""

        def work(tx: writing.Transaction) -> list[Any]:
            return [tuple(row) for row in tx.sql.execute(text, values).fetchall()]

        return self._run(self.store._write.do(work))


class DeadStart(Mutant):
    """Row 1 of the issue: a late START gives the task back to a node that stays not alive."""

    def make(self, *made: Call) -> list[Answer]:
        lost = {name for (name,) in self.sql("SELECT node_id FROM nodes WHERE NOT alive")}
        answers = super().make(*made)
        for call in made:
            if isinstance(call, calls.Report) and not call.status and call.node in lost:
                self.sql("UPDATE nodes SET alive = 0 WHERE node_id = ?", call.node)
        return answers


class TwoEnds(Mutant):
    """A second end of an ended task becomes its result."""

    def after(self, call: Call, answer: Answer) -> Answer:
        if isinstance(call, calls.Report) and call.status and answer.verdict == "duplicate":
            self.sql(
                "UPDATE reports SET body = ? WHERE number = (SELECT number FROM tasks WHERE id = ? AND attempt = ?) "
                "AND attempt = ?",
                call.body.encode(),
                call.key.task,
                call.key.attempt,
                call.key.attempt,
            )
        return answer


class ForgottenCancel(Mutant):
    """A task whose lease is lost goes on although it was cancelled."""

    def after(self, call: Call, answer: Answer) -> Answer:
        if isinstance(call, calls.Expire):
            self.sql(
                "UPDATE tasks SET state = 'queued', ended_at = 0, reason = '' "
                "WHERE state = 'cancelled' AND result = 0 AND attempt > 0 AND attempt < max_attempts"
            )
        return answer


class ForgottenKey(Mutant):
    """Idempotency keys are ignored."""

    def before(self, call: Call) -> Call:
        return dataclasses.replace(call, request_key="") if isinstance(call, calls.Submit) else call


class WideFence(Mutant):
    """The fence is one too wide: a report of the attempt before the newest counts as one of the newest."""

    def before(self, call: Call) -> Call:
        if not isinstance(call, calls.Report) or not call.status:
            return call
        newest = self.sql(
            "SELECT attempt, tasks.node_id, session_id FROM tasks JOIN nodes USING (node_id) "
            f"WHERE id = ? AND NOT {_ENDED}",
            call.key.task,
        )
        if not newest or newest[0][0] != call.key.attempt + 1:
            return call
        attempt, node, session = newest[0]
        self.sql(
            "UPDATE attempts SET run_id = '' WHERE attempt = ? AND number = (SELECT number FROM tasks WHERE id = ?)",
            attempt,
            call.key.task,
        )
        return dataclasses.replace(call, key=dataclasses.replace(call.key, attempt=attempt), node=node, session=session)


class CountedDisruption(Mutant):
    """A disruption uses up an attempt."""

    def after(self, call: Call, answer: Answer) -> Answer:
        if isinstance(call, calls.Report):
            self.sql("UPDATE tasks SET disruptions = 0")
        return answer


class _Autocommit(Mortal):
    """Each statement is a transaction of its own."""

    def execute(self, sql: str, *values: Any) -> Any:
        if sql.split(maxsplit=1)[0] in {"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"}:
            self._count()
            return self._connection.execute("SELECT 1")
        return super().execute(sql, *values)


class NoTransactions(Mutant):
    """What was done before a crash or a refusal stays, in part."""

    def wrap(self, connection: database.Connection) -> Mortal:
        return _Autocommit(connection, self._fall_silent)


class LostRequeue(Mutant):
    """A crash undoes that a task was queued again: it stays with a node that is lost."""

    def crash_in(self, *made: Call, statement: int) -> list[Answer]:
        answers = super().crash_in(*made, statement=statement)
        self.sql("UPDATE tasks SET state = 'running' WHERE state = 'queued' AND attempt > 0")
        return answers


class NoExpiry(Mutant):
    """Nobody looks for lost leases."""

    def before(self, call: Call) -> Call:
        return calls.Cancel(()) if isinstance(call, calls.Expire) else call


class ShortLease(Mutant):
    """Leases run out after two thirds of their time."""

    def before(self, call: Call) -> Call:
        if isinstance(call, calls.Expire):
            self.sql("UPDATE nodes SET lease_until = lease_until - ? / 3.0 WHERE alive", self.lease)
        return call


class GivenTwice(Mutant):
    """An attempt that a node has is given to the next that asks as well."""

    last: tuple[str, calls.Assigned] | None = None

    def after(self, call: Call, answer: Answer) -> Answer:
        if not isinstance(call, calls.Poll) or not answer.fine:
            return answer
        before, self.last = self.last, None
        if answer.assigned:
            self.last = call.node, answer.assigned[0]
        if before and before[0] != call.node and not answer.assigned:
            return dataclasses.replace(answer, assigned=(before[1],))
        return answer


class NoDrops(Mutant):
    """Nodes are not told what they must stop."""

    def after(self, call: Call, answer: Answer) -> Answer:
        return dataclasses.replace(answer, drop=()) if isinstance(call, calls.Beat) else answer


class AnySession(Mutant):
    """A session that was replaced is as good as the one in force."""

    def before(self, call: Call) -> Call:
        if not isinstance(call, calls.Beat | calls.Poll | calls.Report) or not call.session:
            return call
        current = self.sql("SELECT session_id FROM nodes WHERE node_id = ?", call.node)
        return dataclasses.replace(call, session=current[0][0]) if current else call


class NoCounting(Mutant):
    """What a node holds already is not counted."""

    def before(self, call: Call) -> Call:
        if isinstance(call, calls.Poll) and call.free is None and call.session:
            return dataclasses.replace(call, free=HUGE)
        return call


class OneMoreAttempt(Mutant):
    """max_attempts is off by one."""

    def after(self, call: Call, answer: Answer) -> Answer:
        if isinstance(call, calls.Report | calls.Expire):
            self.sql(
                "UPDATE tasks SET state = 'queued', ended_at = 0, reason = '', result = 0 "
                "WHERE state = 'failed' AND reason IN ('engine_lost', 'worker_crash') AND attempt = max_attempts"
            )
        return answer


class OldEpoch(Mutant):
    """A store that was wiped has the epoch of the one before."""

    def restore(self, backup: object | None) -> None:
        epoch = self._epoch()
        super().restore(backup)
        if backup is None:
            self._run(self.store.close())
            with contextlib.closing(sqlite3.connect(self._path)) as sql, sql:
                sql.execute("UPDATE epochs SET epoch = ?", (epoch,))
            history_mark.path_of(self._path).unlink()  # by which it would be taken for one that was put back
            self.store = self._open()


class AnyRun(Mutant):
    """Which run an attempt is bound to is forgotten."""

    def before(self, call: Call) -> Call:
        self.sql("UPDATE attempts SET run_id = ''")
        return call


class NoPriority(Mutant):
    """Priorities are ignored."""

    def after(self, call: Call, answer: Answer) -> Answer:
        if isinstance(call, calls.Submit):
            self.sql("UPDATE tasks SET priority = 0")
        return answer


class DrainedGets(Mutant):
    """A drained node is given tasks."""

    def make(self, *made: Call) -> list[Answer]:
        drained = self.sql("SELECT node_id FROM nodes WHERE draining")
        polls = any(isinstance(call, calls.Poll) for call in made)
        if polls:
            self.sql("UPDATE nodes SET draining = 0")
        answers = super().make(*made)
        for (name,) in drained if polls else ():
            self.sql("UPDATE nodes SET draining = 1 WHERE node_id = ?", name)
        return answers


class LongRest(Mutant):
    """A node that failed once rests for an hour."""

    def after(self, call: Call, answer: Answer) -> Answer:
        if isinstance(call, calls.Report) and answer.verdict == "accepted":
            self.sql("UPDATE nodes SET rest_until = rest_until + 3600 WHERE rest_until > 0 AND node_id = ?", call.node)
        return answer


class StartedAgain(Mutant):
    """A START is accepted, and forgotten: its node is given the same attempt again."""

    def after(self, call: Call, answer: Answer) -> Answer:
        if isinstance(call, calls.Beat) and answer.fine:
            self.sql("UPDATE tasks SET state = 'assigned' WHERE state = 'running'")
        return answer


class LazyStop(Mutant):
    """A node's last word is taken for any other heartbeat."""

    def before(self, call: Call) -> Call:
        return dataclasses.replace(call, offline=False) if isinstance(call, calls.Beat) else call


class LateStopCosts(Mutant):
    """What a lost lease used up stays used up, though its node says that it was stopped in order."""

    def before(self, call: Call) -> Call:
        self.sql("UPDATE attempts SET lease_lost = 0")
        return call


class StopCosts(Mutant):
    """What is lost because the pool and its node were stopped together uses up an attempt."""

    def before(self, call: Call) -> Call:
        self.sql("UPDATE nodes SET unheard = 0")
        return call


QUICK: tuple[type[Mutant], ...] = (DeadStart,)
ALL: tuple[type[Mutant], ...] = (
    *QUICK,
    TwoEnds,
    ForgottenCancel,
    ForgottenKey,
    WideFence,
    CountedDisruption,
    NoTransactions,
    LostRequeue,
    NoExpiry,
    ShortLease,
    GivenTwice,
    NoDrops,
    AnySession,
    NoCounting,
    OneMoreAttempt,
    OldEpoch,
    AnyRun,
    NoPriority,
    DrainedGets,
    LongRest,
    StartedAgain,
    LazyStop,
    LateStopCosts,
    StopCosts,
)
