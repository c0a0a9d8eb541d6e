"""Tables read by the programs' own reader, many in one process: what each comes to, or why it is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hivemind_worker.tasks.kinds import program_files

_PROGRAMS = Path(program_files.__file__).parent / "programs"

_READER = """
import json, os, sys
from pathlib import Path
import given, table_reading
for line in sys.stdin:
    folder, name, options = json.loads(line)
    os.chdir(folder)
    Path("task.json").write_text("{}")
    scratch = Path("scratch")
    scratch.mkdir()
    try:
        with table_reading.connect(scratch) as connection:
            table = table_reading.read(connection, [name], options, scratch, Path("data.parquet"))
            names = ", ".join('"%s"' % column.name.replace('"', '""') for column in table.columns)
            rows = connection.execute(f"SELECT {names} FROM read_parquet('data.parquet')").fetchall()
        result = {
            "rows": [[v if isinstance(v, (str, int, float, type(None))) else str(v) for v in row] for row in rows],
            "columns": [[column.name, column.type] for column in table.columns],
            "assumptions": table.assumptions(),
            "rejected": table.rejected["rows"],
        }
    except given.Refusal as refusal:
        result = {"refused": str(refusal)}
    Path("result.json").write_text(json.dumps(result), encoding="utf-8")
    print(flush=True)
"""


@dataclass(frozen=True, slots=True)
class Read:
    """A table as it was read; ``refused`` is empty, or the reason, and then there is nothing else."""

    refused: str
    names: list[str]
    types: list[str]
    rows: list[list[Any]]
    notes: str
    rejected: int


class Reader:
    """A process that reads one table after the other in folders below ``folder``; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _READER],
            env={**os.environ, "PYTHONPATH": str(_PROGRAMS), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def read(self, name: str, content: bytes, options: Mapping[str, object]) -> Read:
        """Read a file of that name."""
        self._count += 1
        folder = self._folder / str(self._count)
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(content)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(folder), name, options]) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline(), self._process.communicate()[1]
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        shutil.rmtree(folder)
        if reason := result.get("refused"):
            return Read(reason, [], [], [], "", 0)
        names, types = ([column[at] for column in result["columns"]] for at in (0, 1))
        return Read("", names, types, result["rows"], "\n".join(result["assumptions"]), result["rejected"])


def read(folder: Path, tables: Sequence[tuple[str, bytes, Mapping[str, object]]]) -> list[Read]:
    """Read each table, a file's name, its content and options, in one process that works in ``folder``."""
    with Reader(folder) as reader:
        return [reader.read(name, content, options) for name, content, options in tables]
