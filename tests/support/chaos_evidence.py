"""What a chaos run leaves, read as a history: the pool's store, its files, the processes seen, what is still there."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import chaos_plan
import client_history
import engine_api
import history

from hivemind_worker.pool.store import shapes as shape_texts
from hivemind_worker.wire import calls

LOOK_SECONDS = 0.25


def tasks(store: Path) -> tuple[history.Task, ...]:
    """Return every task of a pool's store with its story and its reports. The pool may be running."""
    with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as sql:
        sql.row_factory = sqlite3.Row
        sql.execute("BEGIN")
        shapes = {row["number"]: shape_texts.shape_from(row["wants"]) for row in sql.execute("SELECT * FROM shapes")}
        found = []
        for row in sql.execute("SELECT * FROM tasks ORDER BY number").fetchall():
            number = (row["number"],)
            events = sql.execute(
                "SELECT at, event, attempt, node_id, details FROM events WHERE number = ? ORDER BY version", number
            )
            reports = sql.execute(
                "SELECT attempt, verdict, node_id, body FROM reports WHERE number = ? ORDER BY attempt", number
            )
            found.append(
                history.Task(
                    row["id"], row["state"], row["attempt"], row["max_attempts"], row["result"], row["reason"],
                    tuple(history.Event(*event) for event in events),
                    tuple(_report(report) for report in reports),
                    shapes[row["shape"]].needs, row["disruptions"],
                )
            )  # fmt: skip
        return tuple(found)


def _report(row: sqlite3.Row) -> history.Report:
    said = calls.pb.TaskResult.FromString(row["body"])
    return history.Report(
        row["attempt"],
        row["verdict"],
        row["node_id"],
        said.status,
        said.reason,
        said.exit_code if said.has_exit_code else None,
        {file.name: file.sha256 for file in said.files},
        said.stdout_bytes,
        said.logs,
        truncated=bool(said.flags),
    )


def stored(folder: Path) -> frozenset[str]:
    """Return the sums of all whole artifacts in a folder, computed anew: one that is not what its name says is none."""
    return frozenset(
        path.name for path in folder.glob("objects/??/*") if hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    )


class Watch:
    """Looks at the processes of this machine, again and again, for those of tasks. A thread of its own."""

    def __init__(self, workers: Mapping[str, int], engine: str) -> None:
        self.workers = dict(workers)
        """Each node's process; the test keeps it up to date."""
        self.sightings: list[history.Sighting] = []
        self.blind = ""
        """Why it sees no more, where that is so: what it has not seen proves nothing then."""
        self._engine = engine
        self._nodes: dict[str, str] = {}
        self._capsules: dict[str, str] = {}
        """By nonce: the process that an execution began as."""
        self._executions: dict[str, client_history.Execution] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch of processes")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ended.wait(LOOK_SECONDS):
                self.sightings += self.look()
        except Exception as error:
            self.blind = repr(error)
            raise

    def executions(self) -> list[client_history.Execution]:
        """What really ran, each from when to when it was seen."""
        return list(self._executions.values())

    def look(self) -> list[history.Sighting]:
        """Return what runs now."""
        at = time.time()
        found = []
        marked = {pid: (label, nonce) for pid, label, nonce in _marked()}
        for pid, (label, nonce) in marked.items():
            with contextlib.suppress(OSError):
                # A process's number is used again; its start time makes it one of its own.
                stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
                if int(stat[1]) in marked:
                    continue  # the shell's child, on its way to becoming another program
                started = stat[19]
                # A shell's child whose shell was killed bears its words, and lives for a moment: the same execution.
                own = f"process {pid} of {started}"
                capsule = self._capsules.setdefault(nonce, own) if nonce else own
                if not self._nodes.get(capsule):
                    self._nodes[capsule] = self._node_of(pid)
                found.append(history.Sighting(at, label, capsule, self._nodes[capsule]))
                if nonce:
                    now, node = time.monotonic(), self._nodes[capsule]
                    first = self._executions[capsule].first if capsule in self._executions else now
                    self._executions[capsule] = client_history.Execution(label, nonce, capsule, node, first, now)
        return found

    def _node_of(self, pid: int) -> str:
        by_pid = {number: name for name, number in self.workers.items() if number}
        container = re.search(r"[0-9a-f]{64}", Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii"))
        if container is not None and self._engine:
            with contextlib.suppress(OSError, http.client.HTTPException, engine_api.EngineRefusedError):
                labels = engine_api.get(self._engine, f"/containers/{container[0]}/json")["Config"]["Labels"]
                return str(labels["io.hivemind.node-id"])
            return ""
        while pid > 1:
            if pid in by_pid:
                return by_pid[pid]
            pid = int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[1])
        return ""


def _marked() -> Iterator[tuple[int, str, str]]:
    """Yield each process of a task, with its submission's label and its nonce: empty where it has none yet."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = Path(entry.path, "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
                if len(words) == _WORDS and words[0].endswith("sh") and words[3].startswith(chaos_plan.MARK):
                    nonce = words[4] if len(words[4]) == chaos_plan.NONCE_BYTES else ""
                    yield int(entry.name), words[3].removeprefix(chaos_plan.MARK), nonce


_WORDS = 5
"""sh, -c, program, label; then the task's script while there is no nonce, and the nonce once there is one."""


def left(nodes: Mapping[str, Path], temporary: Mapping[str, Path], engine: str, seed: int) -> tuple[str, ...]:
    """Name what should not be there any more: processes of tasks, containers, volumes, workspaces, undelivered files.

    ``nodes`` maps each node's name to its state folder, ``temporary`` to its folder for workspaces.
    """
    found = [f"process {pid} of {label}" for pid, label, _ in _marked() if label.startswith(f"chaos-{seed}-")]
    for name, folder in nodes.items():
        found += [f"{name}: {path.relative_to(folder)}" for path in folder.glob("work/objects/??/*")]
        found += [f"{name}: {path.relative_to(folder)}" for path in folder.glob("work/staging/*")]
        found += [f"{name}: workspace {path.name}" for path in temporary[name].iterdir()]
        if engine:
            try:
                found += _left_in_engine(engine, name)
            except (OSError, http.client.HTTPException, engine_api.EngineRefusedError) as error:
                found.append(f"{name}: what the engine has of it, as that does not answer: {error!r}")
    return tuple(found)


def _left_in_engine(engine: str, name: str) -> list[str]:
    label = json.dumps({"label": [f"io.hivemind.node-id={name}"]})
    containers = engine_api.get(engine, "/containers/json", all="1", filters=label)
    volumes = engine_api.get(engine, "/volumes", filters=label)["Volumes"] or []
    return [
        *(f"{name}: container {item['Id'][:12]} ({item['State']})" for item in containers),
        *(f"{name}: volume {item['Name']}" for item in volumes),
    ]


def events(logs: Mapping[str, Path]) -> Iterator[tuple[str, str, Mapping[str, object]]]:
    """Yield what workers and pool logged, as who, event, details. A line that a kill cut in two is passed over."""
    for name, path in logs.items():
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                yield name, str(said["event_type"]), said.get("details") or {}
