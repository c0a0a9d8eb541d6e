"""A request that is alone in its transaction: it takes few steps, and when it fails nothing of it is left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import store_parts

from hivemind_worker import errors
from hivemind_worker.pool.store import records, sqlite, submissions, writing
from hivemind_worker.tasks import state

MAX_STATEMENTS = 26
"""Of submitting one task that a waiting poll is given: each may wait for the interpreter, and the submitter for all."""


@pytest_asyncio.fixture
async def kept(tmp_path: Path) -> AsyncIterator[sqlite.SqliteStore]:
    opened = sqlite.SqliteStore(tmp_path / "pool.sqlite")
    await opened.open()
    yield opened
    await opened.close()


async def _waiting(kept: sqlite.SqliteStore) -> tuple[str, list[records.Given]]:
    """A node whose poll waits in the store; its session, and the answers that its polls get."""
    answers: list[records.Given] = []
    kept.answer(lambda _, given: answers.append(given))
    session = await store_parts.session(kept)
    poll = records.Poll("n", session, store_parts.ROOM, most=1, stays=True)
    assert await kept.hand_out([poll]) == [records.Given()]
    return session, answers


async def test_a_lonely_request_is_its_own_savepoint(kept: sqlite.SqliteStore) -> None:
    session, answers = await _waiting(kept)
    statements: list[str] = []
    await kept._write.do(lambda on: on.sql.set_trace_callback(statements.append))
    await kept.submit([store_parts.task("t")], "key", "digest")
    submitted = statements[1:]  # the first ends the transaction before
    del statements[:]
    ((handed,),) = [given.tasks for given in answers]
    await kept.report(store_parts.ended(handed, "n", session))
    await kept._write.do(lambda on: on.sql.set_trace_callback(None))
    assert len(submitted) <= MAX_STATEMENTS
    assert sum(each.startswith("SAVEPOINT") for each in submitted) == 1  # of what is done for the poll
    assert sum(each == "COMMIT" for each in submitted) == 1
    assert not [each for each in statements if each.startswith("SAVEPOINT")]
    assert (await store_parts.one(kept, "t")).state is state.TaskState.COMPLETED


async def test_a_lonely_request_that_fails_leaves_nothing_behind(kept: sqlite.SqliteStore) -> None:
    session, answers = await _waiting(kept)
    heard: list[records.Change] = []
    kept.listen(heard.extend)

    def fail(on: writing.Transaction) -> None:
        submissions.keep(on, store_parts.task("never"))
        raise errors.Conflict("after it was written")

    with pytest.raises(errors.Conflict):
        await kept._write.do(fail)
    with pytest.raises(errors.NoSuchTask):
        await kept.tasks(["never"])
    assert (heard, answers) == ([], [])
    await kept.submit([store_parts.task("t")])
    ((handed,),) = [given.tasks for given in answers]
    assert (handed.task_id, handed.attempt) == ("t", 1)
    assert (await kept.report(store_parts.ended(handed, "n", session))).verdict is records.Verdict.ACCEPTED
