"""The store's file: nothing acknowledged is lost by kill -9, no two pools on one file, no file that is not ours."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hivemind_worker import errors, units
from hivemind_worker.pool.matching import assignment
from hivemind_worker.pool.store import database, expiry, records, schema, sqlite, task_queue
from hivemind_worker.tasks import outcome, resources

SHAPE = assignment.Shape("command", resources.Resources(1, units.GIB, units.GIB))
ROOM = resources.Resources(10_000, 2**50, 2**50)

WRITING_CHILD = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from hivemind_worker.pool.matching import assignment
    from hivemind_worker.pool.store import records, sqlite
    from hivemind_worker.tasks import outcome, resources

    SHAPE = assignment.Shape("command", resources.Resources(1, 1, 1))
    ROOM = resources.Resources(10_000, 2**50, 2**50)

    async def one(kept, session, number):
        (task_id,) = await kept.submit([records.NewTask(f"t{number}", b"body", "", SHAPE)])
        print("submitted", task_id, flush=True)
        (given,) = await kept.hand_out([records.Poll("n", session, ROOM, most=4, look=False)])
        for handed in given.tasks:
            print("given", handed.task_id, flush=True)
            report = records.Report(handed.task_id, "n", session, handed.attempt, outcome.Status.COMPLETED,
                                    body=handed.task_id.encode())
            await kept.report(report)
            print("ended", handed.task_id, flush=True)

    async def main():
        kept = sqlite.SqliteStore(Path(sys.argv[1]))
        await kept.open()
        session = (await kept.register(records.NewNode("n", ROOM, "boot"), [])).session_id
        number = 0
        while True:
            await asyncio.gather(*(one(kept, session, number + more) for more in range(8)))
            number += 8

    asyncio.run(main())
    """
)


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "pool.sqlite"
    command = [sys.executable, "-c", WRITING_CHILD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:  # noqa: ASYNC220  (nothing else runs here)
        assert child.stdout
        said: list[str] = []
        while sum(line.startswith("ended") for line in said) < 100:
            line = child.stdout.readline()
            assert line, "the child ended by itself"
            said.append(line)
        child.send_signal(signal.SIGKILL)
        said += child.stdout.readlines()
    told: dict[str, set[str]] = {"submitted": set(), "given": set(), "ended": set()}
    for line in said:
        if line.endswith("\n"):
            what, task_id = line.split()
            told[what].add(task_id)
    kept = sqlite.SqliteStore(path)
    await kept.open()
    found = {task.id: task for task in await kept.tasks(sorted(told["submitted"]))}
    assert all(found[task_id].attempt == 1 for task_id in told["given"])
    assert all(found[task_id].result == task_id.encode() for task_id in told["ended"])
    with sqlite3.connect(path) as sql:
        assert sql.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    sql.close()
    await kept.close()


async def test_two_pools_on_one_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pool.sqlite"
    first, second = sqlite.SqliteStore(path), sqlite.SqliteStore(path)
    await first.open()
    with pytest.raises(errors.StateInUse, match="another pool"):
        await second.open()
    await first.close()
    await second.open()
    await second.close()


async def test_a_newer_versions_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "pool.sqlite"
    kept = sqlite.SqliteStore(path)
    await kept.open()
    await kept.close()
    with sqlite3.connect(path) as sql:
        sql.execute("INSERT INTO migrations VALUES (999, 'from the future', 0)")
    sql.close()
    with pytest.raises(errors.BadSettings, match=r"newer version.*999"):
        await kept.open()


async def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "their.sqlite"
    with sqlite3.connect(path) as sql:
        sql.execute("CREATE TABLE theirs (x)")
    sql.close()
    with pytest.raises(errors.BadSettings, match="another program"):
        await sqlite.SqliteStore(path).open()
    with sqlite3.connect(path) as sql:
        assert sql.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    sql.close()


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
async def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pool.sqlite"
    path.write_bytes(content)
    with pytest.raises(errors.BadSettings, match=r"pool\.sqlite"):
        await sqlite.SqliteStore(path).open()


def test_network_file_systems_are_known_by_the_nearest_mount(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "30 21 0:40 / /mnt/far\\040away rw shared:2 - nfs4 server:/export rw\n"
        "31 30 0:41 / /mnt/far\\040away/near rw - tmpfs tmpfs rw\n"
    )
    assert database.file_system(Path("/mnt/other"), table) == "ext4"
    assert database.file_system(Path("/mnt/far away/deep/er"), table) == "nfs4"
    assert database.file_system(Path("/mnt/far away/near/x"), table) == "tmpfs"
    assert database.file_system(Path("/"), tmp_path / "nothing") == ""


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_NETWORK", frozenset({database.file_system(tmp_path)}))
    with pytest.raises(errors.BadSettings, match="network file system"):
        database.prepare(tmp_path / "pool.sqlite")


async def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    kept = sqlite.SqliteStore(tmp_path / "pool.sqlite")
    await kept.open()
    await kept.submit([records.NewTask("before", b"", "", SHAPE)])
    await _limit_pages(kept, 60)
    with pytest.raises(errors.Unavailable, match="full"):
        await kept.submit([records.NewTask("large", bytes(2**20), "", SHAPE)])
    await _limit_pages(kept, 2**30)
    await kept.submit([records.NewTask("after", bytes(2**20), "", SHAPE)])
    assert [task.id for task in await kept.find(records.Filter())] == ["after", "before"]
    await kept.close()


async def _limit_pages(kept: sqlite.SqliteStore, pages: int) -> None:
    await kept._write.do(lambda on: on.sql.execute(f"PRAGMA max_page_count = {pages}").fetchall())


def test_handing_out_walks_over_no_table(tmp_path: Path) -> None:
    sql = database.writing(tmp_path / "pool.sqlite")
    schema.migrate(sql, 0.0)
    for question, given in (
        (task_queue.QUEUED_SHAPES, ()),
        (task_queue.HEADS, (1,)),
        (task_queue.HEAD, (1,)),
        ("SELECT node_id FROM nodes WHERE alive = 1 AND lease_until < 5", ()),
        (expiry.HELD_BY_THE_DEAD, ()),
        (expiry.OVERDUE, (5,)),
        (expiry.LONG_LOST, (5, 5, 1)),
        ("SELECT state, count(*) FROM tasks GROUP BY state", ()),
    ):
        steps = [row["detail"] for row in sql.execute(f"EXPLAIN QUERY PLAN {question}", given)]
        assert not any("TEMP B-TREE" in step for step in steps), steps
        tables = [step for step in steps if "tasks" in step or "nodes" in step]
        assert all("INDEX" in step or "PRIMARY KEY" in step for step in tables), steps
    sql.close()


async def _steps(kept: sqlite.SqliteStore, session: str, count: int) -> int:
    """Do so many claims and ends, in batches of eight as of eight waiting workers; return the steps that they took.

    Steps of SQLite's machine, each hundredth of which is counted, and shapes that were looked at: no machine is slow.
    """
    counted = itertools.count()
    await kept._write.do(lambda on: on.sql.set_progress_handler(lambda: next(counted) and None, 100))
    examined = await kept._write.do(lambda on: on.queue.index.examined)
    for _ in range(count // 8):
        (given,) = await kept.hand_out([records.Poll("n", session, ROOM, most=8, look=False)])
        assert len(given.tasks) == 8
        ends = [
            records.Report(each.task_id, "n", session, each.attempt, outcome.Status.COMPLETED) for each in given.tasks
        ]
        await asyncio.gather(*map(kept.report, ends))
    await kept._write.do(lambda on: on.sql.set_progress_handler(None, 0))
    examined = await kept._write.do(lambda on: on.queue.index.examined) - examined
    return next(counted) * 100 + examined


async def _filled(path: Path, queued: int, unmatched: int) -> tuple[sqlite.SqliteStore, str]:
    kept = sqlite.SqliteStore(path)
    await kept.open()
    nobodys = assignment.Shape("command", resources.Resources(), (("nobody", "has this"),))
    for start in range(0, unmatched, 5_000):
        await kept.submit([records.NewTask(f"u{start + n}", b"", "", nobodys, "", 9) for n in range(5_000)])
    for start in range(0, queued, 1_000):
        await kept.submit([records.NewTask(f"t{start + n}", b"", "", SHAPE) for n in range(1_000)])
    return kept, (await kept.register(records.NewNode("n", ROOM, "boot"), [])).session_id


@pytest.mark.long
async def test_a_long_queue_is_as_fast_as_a_short_one(tmp_path: Path) -> None:
    sizes = {"short": (1_000, 0), "long": (100_000, 0), "behind": (1_000, 50_000)}
    stores = {name: await _filled(tmp_path / f"{name}.sqlite", *size) for name, size in sizes.items()}
    steps = {name: await _steps(*where, 960) for name, where in stores.items()}
    for kept, _ in stores.values():
        await kept.close()
    assert 0 < steps["long"] <= 1.1 * steps["short"], steps
    assert 0 < steps["behind"] <= 1.1 * steps["short"], steps
