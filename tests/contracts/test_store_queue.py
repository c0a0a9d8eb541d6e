"""Who is given what by a store, against the simple definition over its tables; and how much work a round is."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import assignment_by_definition as definition
import hypothesis
import pytest
import pytest_asyncio
from hypothesis import stateful
from hypothesis import strategies as st

from hivemind_worker import errors, units
from hivemind_worker.pool.matching import assignment
from hivemind_worker.pool.store import database, records, shapes, sqlite, writing
from hivemind_worker.tasks import outcome, resources

T = TypeVar("T")
GIB = units.GIB
LEASE = 10.0
SHAPES = 10_000
EXAMPLES = min(int(os.environ.get("HIVEMIND_TEST_EXAMPLES", "10")), 100)
"""A hundred of them take half a minute."""
LABELS = {"n1": {"zone": "a"}, "n2": {"zone": "b", "fast": "yes"}}
CAPACITY = resources.Resources(4, 8 * GIB, GIB)
NEEDS = [resources.Resources(cpu, memory * GIB) for cpu in (0.5, 1, 3, 5) for memory in (1, 5, 9)]
SELECTORS = [(), (), (("zone", "a"),), (("fast", "yes"), ("zone", "b")), (("zone", "c"),)]
ENDINGS = [
    (outcome.Status.COMPLETED, None),
    (outcome.Status.FAILED, outcome.Reason.ENGINE_LOST),
    (outcome.Status.FAILED, outcome.Reason.NONZERO_EXIT),
]


def worker(name: str, free: resources.Resources, slots: int) -> assignment.Worker:
    site = assignment.Site(name, CAPACITY, LABELS.get(name, {}), frozenset({"command"}))
    return assignment.Worker(site, free, slots)


def queued(sql: database.Connection) -> tuple[dict[int, assignment.Shape], dict[int, list[assignment.Head]]]:
    """Every queued task that the tables have, by shape, in order."""
    rows = sql.execute("SELECT * FROM tasks WHERE state = 'queued' ORDER BY priority DESC, number").fetchall()
    heads: dict[int, list[assignment.Head]] = {}
    for row in rows:
        head = assignment.Head(row["number"], row["priority"], row["image"], row["size"])
        heads.setdefault(row["shape"], []).append(head)
    return shapes.shapes(sql, heads), heads


class QueueMachine(stateful.RuleBasedStateMachine):
    """Submissions, polls, waiting polls, ends, cancellations, losses, undone requests, broken disks, restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.runner = asyncio.Runner()
        # In memory where that can be: what a power cut loses is not this model's matter.
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.count = 0
        self.needs: dict[str, resources.Resources] = {}
        self.held: dict[str, list[records.Handed]] = {name: [] for name in LABELS}
        self.waiting: dict[str, records.Poll] = {}
        self.run(self.open())

    async def open(self) -> None:
        self.kept = sqlite.SqliteStore(Path(self.folder.name) / "pool.sqlite", LEASE, lambda: self.now)
        await self.kept.open()
        self.kept.answer(self.answered)
        self.sessions = {name: await self.register(name) for name in LABELS}

    async def register(self, name: str) -> str:
        held = [records.Ref(handed.task_id, handed.attempt) for handed in self.held[name]]
        node = records.NewNode(name, CAPACITY, "boot", LABELS[name], ("command",))
        return (await self.kept.register(node, held)).session_id

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        # `Runner.run` installs a handler of SIGINT each time, which takes as long as a short call.
        return self.runner.get_loop().run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.kept.close())
        self.runner.close()
        self.folder.cleanup()

    def answered(self, poll: records.Poll, given: records.Given) -> None:
        if self.waiting.get(poll.node_id) is poll:
            del self.waiting[poll.node_id]
        self.held[poll.node_id] += given.tasks

    def free(self, name: str) -> resources.Resources:
        used = [self.needs[handed.task_id] for handed in self.held[name]]
        return CAPACITY - sum(used, resources.Resources())

    @stateful.rule(
        tasks=st.lists(
            st.tuples(st.sampled_from(NEEDS), st.sampled_from(SELECTORS), st.integers(-1, 1)), min_size=1, max_size=6
        ),
        undone=st.booleans(),
    )
    def submit(self, tasks: list[tuple[resources.Resources, tuple[tuple[str, str], ...], int]], undone: bool) -> None:
        new = []
        for needs, selector, priority in tasks:
            self.count += 1
            task_id = f"t{self.count}"
            self.needs[task_id] = needs
            shape = assignment.Shape("command", needs, selector)
            new.append(records.NewTask(task_id, b"body", task_id, shape, "", priority))
        if undone and self.count > len(tasks):
            # The last is a conflict: what was kept of the others before it is undone.
            other = records.NewTask("t1", b"", "another", new[0].shape)
            try:
                self.run(self.kept.submit([*new, other]))
            except errors.Conflict:
                return
            raise AssertionError("a conflict was accepted")
        self.run(self.kept.submit(new))

    @stateful.rule(name=st.sampled_from(sorted(LABELS)), slots=st.integers(1, 4), stays=st.booleans())
    def poll(self, name: str, slots: int, stays: bool) -> None:
        known = frozenset((handed.task_id, handed.attempt) for handed in self.held[name])
        free = self.free(name)
        poll = records.Poll(name, self.sessions[name], free, most=slots, held=known, stays=stays)
        self.waiting.pop(name, None)

        def expected(on: writing.Transaction) -> list[int]:
            pairs = definition.assign([worker(name, free, slots)], *queued(on.sql))
            return [head.number for head, _ in pairs]

        async def both() -> tuple[list[int], list[records.Given], list[int]]:
            numbers = await self.kept._write.do(expected)
            given = await self.kept.hand_out([poll])
            ids = [handed.task_id for handed in given[0].tasks]
            return numbers, given, [task.number for task in await self.kept.tasks(ids)]

        resumable = any(self.run(self.queued_here(name)))
        numbers, (given,), got = self.run(both())
        self.held[name] += given.tasks
        if not given and stays and not given.again_in:
            self.waiting[name] = poll
        # What is to be stopped comes first, alone.
        if not given.again_in and not resumable and not given.cancel:
            assert got == numbers

    async def queued_here(self, name: str) -> list[bool]:
        tasks = await self.kept.tasks([handed.task_id for handed in self.held[name]])
        return [str(task.state) == "queued" for task in tasks]

    @stateful.rule(name=st.sampled_from(sorted(LABELS)), ending=st.sampled_from(ENDINGS), which=st.integers(0, 9))
    def end(self, name: str, ending: tuple[outcome.Status, outcome.Reason | None], which: int) -> None:
        if not self.held[name]:
            return
        handed = self.held[name].pop(which % len(self.held[name]))
        status, reason = ending
        again = reason is outcome.Reason.ENGINE_LOST
        report = records.Report(
            handed.task_id, name, self.sessions[name], handed.attempt, status, str(reason or ""), try_again=again
        )
        self.run(self.kept.report(report))
        self.now += 5.0

    @stateful.rule(which=st.lists(st.integers(1, 60), max_size=4))
    def cancel(self, which: list[int]) -> None:
        ids = [f"t{number}" for number in which]
        present = [task.id for task in self.run(self.kept.find(records.Filter(most=1_000))) if task.id in ids]
        self.run(self.kept.cancel(present))

    @stateful.rule(seconds=st.sampled_from([1.0, LEASE / 2, 2 * LEASE]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.run(self.kept.expire())

    @stateful.rule()
    def the_disk_is_full_at_the_commit(self) -> None:
        async def broken() -> None:
            def work(on: writing.Transaction) -> None:
                for number, urgency in on.queue.index.heads().items():
                    on.undo.append((on.queue.distrust, number))
                    on.queue.left(number, urgency)
                    on.sql.execute("UPDATE tasks SET state = 'cancelled' WHERE number = ?", (urgency[1],))
                raise database.Trouble("database or disk is full")

            try:
                await self.kept._write.do(work)
            except errors.Unavailable:
                return
            raise AssertionError("it was committed")

        self.run(broken())

    @stateful.rule()
    def restart(self) -> None:
        self.run(self.kept.close())
        self.waiting.clear()
        self.run(self.open())

    @stateful.invariant()
    def the_index_says_what_the_tables_say(self) -> None:
        def look(on: writing.Transaction) -> tuple[dict[int, tuple[int, int]], dict[int, tuple[int, int]]]:
            _, heads = queued(on.sql)
            return on.queue.index.heads(), {number: queue[0].urgency for number, queue in heads.items()}

        index, tables = self.run(self.kept._write.do(look))
        assert index == tables

    @stateful.invariant()
    def no_poll_waits_beside_a_task_that_fits_it(self) -> None:
        workers = [worker(name, poll.free or CAPACITY, poll.most) for name, poll in self.waiting.items()]
        found = self.run(self.kept._write.do(lambda on: queued(on.sql)))
        assert definition.assign(workers, *found) == []


TestQueues = QueueMachine.TestCase
TestQueues.settings = hypothesis.settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None)


# ---- how much work it is ----


@pytest_asyncio.fixture
async def kept(tmp_path: Path) -> AsyncIterator[sqlite.SqliteStore]:
    opened = sqlite.SqliteStore(tmp_path / "pool.sqlite")
    await opened.open()
    yield opened
    await opened.close()


async def _steps(kept: sqlite.SqliteStore, work: Coroutine[Any, Any, T]) -> tuple[T, int, int]:
    """What came of it, and how many hundreds of steps SQLite's machine made, and how many nodes of the index it met."""
    steps = [0, 0]

    def step() -> int:
        steps[0] += 1
        return 0

    def begin(on: writing.Transaction) -> None:
        on.sql.set_progress_handler(step, 100)
        steps[1] = on.queue.index.examined

    def end(on: writing.Transaction) -> int:
        on.sql.set_progress_handler(None, 0)
        return on.queue.index.examined - steps[1]

    await kept._write.do(begin)
    found = await work
    return found, steps[0], await kept._write.do(end)


@pytest.mark.long
async def test_a_round_beside_ten_thousand_shapes_costs_what_it_gives(kept: sqlite.SqliteStore) -> None:
    order = list(range(SHAPES))
    random.Random(7).shuffle(order)
    tasks = [
        records.NewTask(
            f"t{number}",
            b"",
            "",
            assignment.Shape("command", resources.Resources(0.001 * number if number % 2 else 100 + number, GIB)),
            "",
            number % 7,
        )
        for number in order
    ]
    for start in range(0, SHAPES, 1_000):
        await kept.submit(tasks[start : start + 1_000])
    session = (await kept.register(records.NewNode("n", CAPACITY, "boot"), [])).session_id
    for count in (1, 8):
        poll = records.Poll("n", session, CAPACITY, most=count, look=False)
        answers, hundreds, examined = await _steps(kept, kept.hand_out([poll]))
        assert [len(given.tasks) for given in answers] == [count]
        assert hundreds < 100 + 20 * count  # 10,000 shapes walked over are 1,000,000 steps
        assert examined < 200 + 100 * count
    nothing = records.Poll("n", session, resources.Resources(0.0, GIB - 1), look=False)
    answers, hundreds, examined = await _steps(kept, kept.hand_out([nothing]))
    assert (answers[0].tasks, examined < 10, hundreds < 20) == ((), True, True)


async def test_a_task_and_the_poll_that_waits_for_it_meet_in_one_commit(kept: sqlite.SqliteStore) -> None:
    session = (await kept.register(records.NewNode("n", CAPACITY, "boot"), [])).session_id
    answers: list[tuple[records.Poll, records.Given]] = []
    kept.answer(lambda poll, given: answers.append((poll, given)))
    poll = records.Poll("n", session, CAPACITY, most=2, stays=True)
    assert await kept.hand_out([poll]) == [records.Given()]
    small = assignment.Shape("command", resources.Resources(1, GIB))
    statements: list[str] = []
    await kept._write.do(lambda on: on.sql.set_trace_callback(statements.append))
    await kept.submit([records.NewTask("large", b"", "", assignment.Shape("command", resources.Resources(99)))])
    assert answers == []
    statements.clear()
    await kept.submit([records.NewTask("a", b"body", "", small), records.NewTask("b", b"", "", small)])
    await kept._write.do(lambda on: on.sql.set_trace_callback(None))
    assert statements.index("COMMIT") > 0
    assert [statement for statement in statements[: statements.index("COMMIT")] if "assign" in statement]
    ((answered, given),) = answers
    assert answered is poll
    assert [(handed.task_id, handed.attempt) for handed in given.tasks] == [("a", 1), ("b", 1)]
    # It waits no more.
    await kept.submit([records.NewTask("c", b"", "", small)])
    assert len(answers) == 1


async def test_a_waiting_poll_whose_node_has_changed_is_given_nothing_and_looked_at_again(
    kept: sqlite.SqliteStore,
) -> None:
    node = records.NewNode("n", CAPACITY, "boot")
    session = (await kept.register(node, [])).session_id
    answers: list[records.Given] = []
    kept.answer(lambda _poll, given: answers.append(given))
    small = assignment.Shape("command", resources.Resources(1, GIB))
    changes: list[Callable[[], Coroutine[Any, Any, object]]] = [
        lambda: kept.drain("n", draining=True),
        lambda: kept.register(records.NewNode("n", CAPACITY, "boot", {"zone": "a"}), []),
    ]
    for number, change in enumerate(changes):
        await kept.hand_out([records.Poll("n", session, CAPACITY, stays=True)])
        await change()
        await kept.submit([records.NewTask(f"t{number}", b"", "", small)])
        assert [given.outdated for given in answers] == [True]
        await kept.drain("n", draining=False)
        answers.clear()
        (given,) = await kept.hand_out([records.Poll("n", session, CAPACITY, stays=True)])
        (handed,) = given.tasks
        await kept.report(records.Report(handed.task_id, "n", session, 1, outcome.Status.COMPLETED))


async def test_a_withdrawn_poll_is_given_nothing(kept: sqlite.SqliteStore) -> None:
    session = (await kept.register(records.NewNode("n", CAPACITY, "boot"), [])).session_id
    poll = records.Poll("n", session, CAPACITY, stays=True)
    await kept.hand_out([poll])
    kept.withdraw(poll)
    await kept.submit([records.NewTask("t", b"", "", assignment.Shape("command", resources.Resources(1)))])
    (task,) = await kept.tasks(["t"])
    assert str(task.state) == "queued"


def _every_statement(tx: writing.Transaction, steps: list[int]) -> None:
    def step() -> int:
        steps[0] += 1
        return 0

    tx.sql.set_progress_handler(step, 100)


@pytest.mark.long
@pytest.mark.parametrize("alike", [True, False])
async def test_a_commit_costs_what_it_gives_however_many_polls_wait(kept: sqlite.SqliteStore, alike: bool) -> None:
    sizes = {}
    for waiting in (20, 2_000):
        polls = []
        for number in range(waiting):
            name = f"{waiting} {number}"
            labels = {} if alike else {"host": name}
            session = (await kept.register(records.NewNode(name, CAPACITY, "boot", labels), [])).session_id
            free = CAPACITY if alike else resources.Resources(1 + number / waiting, GIB * (1 + number % 7))
            polls.append(records.Poll(name, session, free, stays=True))
        assert await kept.hand_out(polls) == [records.Given()] * waiting
        steps = [0]
        rooms = kept._waiting.rooms
        await kept._write.do(lambda tx, steps=steps: _every_statement(tx, steps))  # type: ignore[misc]
        before = rooms.examined
        answers: list[records.Given] = []
        kept.answer(lambda _, given, answers=answers: answers.append(given))  # type: ignore[misc]
        small = assignment.Shape("command", resources.Resources(1, GIB))
        one = assignment.Shape("command", resources.Resources(1, GIB), (("host", f"{waiting} 3"),))
        too_large = assignment.Shape("command", resources.Resources(10_000, GIB))
        for number, shape in enumerate((small, small, small if alike else one, too_large)):
            await kept.submit([records.NewTask(f"{waiting} t{number}", b"", "", shape)])
        await kept._write.do(lambda tx: tx.sql.set_progress_handler(None, 0))
        assert sum(len(given.tasks) for given in answers) == 3
        sizes[waiting] = (rooms.examined - before, steps[0])
        for poll in polls:
            kept.withdraw(poll)
        kept._answered.clear()
    assert sizes[2_000][0] < 400, sizes  # a look at each would be 8,000
    assert sizes[2_000][1] < sizes[20][1] + 50, sizes
