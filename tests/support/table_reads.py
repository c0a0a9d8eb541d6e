"""Tables read by the programs' own reader, many in one process: what each comes to, or why it is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hivemind_worker.kinds import program_files

_PROGRAMS = Path(program_files.__file__).parent / "programs"

_READER = """
import json, os, shutil, sys
from pathlib import Path
import given, table_reading
folder = Path.cwd()
for number, (name, options) in enumerate(json.loads(Path("order.json").read_text())):
    os.chdir(folder / str(number))
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
            "files": table.files,
            "rejected": table.rejected,
        }
    except given.Refusal as refusal:
        result = {"refused": str(refusal)}
    Path("result.json").write_text(json.dumps(result), encoding="utf-8")
    shutil.rmtree("scratch")
"""


@dataclass(frozen=True, slots=True)
class Read:
    """A table as it was read; ``refused`` is empty, or the reason, and then there is nothing else."""

    refused: str
    names: list[str]
    types: list[str]
    rows: list[list[Any]]
    notes: str
    files: list[dict[str, Any]]
    rejected: int


def read(folder: Path, tables: Sequence[tuple[str, bytes, Mapping[str, object]]], seconds: int = 300) -> list[Read]:
    """Read each table, a file's name, its content and options, in one process that works in the new ``folder``."""
    for number, (name, content, _) in enumerate(tables):
        path = folder / str(number) / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    folder.mkdir(exist_ok=True)
    (folder / "order.json").write_text(json.dumps([(name, options) for name, _, options in tables]), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-c", _READER],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_PROGRAMS), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    assert ended.returncode == 0, ended.stderr
    return [_result(folder / str(number) / "result.json") for number in range(len(tables))]


def _result(path: Path) -> Read:
    result = json.loads(path.read_text(encoding="utf-8"))
    if reason := result.get("refused"):
        return Read(reason, [], [], [], "", [], 0)
    names, types = ([column[at] for column in result["columns"]] for at in (0, 1))
    notes = "\n".join(result["assumptions"])
    return Read("", names, types, result["rows"], notes, result["files"], result["rejected"]["rows"])
