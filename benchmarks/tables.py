"""Tables analysed: our program beside plain polars and duckdb, and pandas where a table is wide; time and memory.

Usage: python benchmarks/tables.py [--megabytes N] [--columns N] [--memory 512m]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hivemind_worker.tasks import kinds, plan, resources, spec
from hivemind_worker.tasks.kinds import kind

NODE = kind.NodeLimits("none", 3600, 3, plan.Caps(0, 0, 0, 0, 0, 0.0), resources.Resources(2.0, 2**36, 2**36, 0))

DESCRIBE = """
import sys, polars as pl
print(pl.read_csv(sys.argv[1]).describe())
"""

PANDAS = """
import sys, pandas as pd
table = pd.read_csv(sys.argv[1])
print(table.describe(include="all"), table.nunique())
"""

POLARS = """
import sys, polars as pl
table = pl.read_csv(sys.argv[1])
amount = pl.col("amount")
print(table.describe(), table.group_by("shop").agg(pl.len(), mean=amount.mean(), total=amount.sum()))
print(table.select(pl.corr("amount", "items")), [table[name].n_unique() for name in table.columns])
"""

DUCKDB = """
import sys, duckdb
duckdb.execute("CREATE VIEW data AS SELECT * FROM read_csv(?)".replace("?", repr(sys.argv[1])))
print(duckdb.sql("SUMMARIZE data").fetchall())
print(duckdb.sql("SELECT shop, count(*), avg(amount), sum(amount) FROM data GROUP BY 1").fetchall())
print(duckdb.sql("SELECT corr(amount, items) FROM data").fetchall())
"""


@dataclasses.dataclass(frozen=True)
class Ran:
    """Seconds on the clock and of CPU, and the most memory, of one program."""

    wall: float
    cpu: float
    megabytes: float


def main() -> int:
    """Print both tables. The ratio is ours to the peer's, so that 1.3 means that we take a third more."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--megabytes", type=int, default=300)
    asked.add_argument("--columns", type=int, default=3000)
    asked.add_argument("--memory", default="512m")
    given = asked.parse_args()
    peers = {
        "polars: describe": DESCRIBE,
        "polars: describe, group_by, corr, n_unique": POLARS,
        "duckdb: SUMMARIZE, GROUP BY, corr": DUCKDB,
    }
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        table = Path(folder) / "sales.csv"
        megabytes = written(table, given.megabytes)
        print(f"a table of {megabytes:.0f} MB, {os.cpu_count()} cores")
        compare(Path(folder) / "tall", table, given.memory, ["shop"], peers)
        table = Path(folder) / "wide.csv"
        written_wide(table, given.columns)
        print(f"a table of {given.columns:,} columns and 20 rows")
        compare(Path(folder) / "wide", table, "1g", [], {"pandas: describe, nunique": PANDAS})
    return 0


def compare(folder: Path, table: Path, memory: str, group_by: list[str], peers: dict[str, str]) -> None:
    """Run our program and the peers on the table, each on its own, and print what they took."""
    folder.mkdir()
    own = run(laid_out(folder / "workspace", table, memory, group_by), folder / "workspace")
    ran = {f"csv_analysis, {memory}": own}
    ran |= {name: run([sys.executable, "-c", program, str(table)], folder) for name, program in peers.items()}
    print(f"{'':<46}{'s':>8}{'CPU s':>8}{'MB of memory':>14}{'s ratio':>9}{'CPU ratio':>11}")
    for name, one in ran.items():
        print(
            f"{name:<46}{one.wall:>8.1f}{one.cpu:>8.1f}{one.megabytes:>14.0f}"
            f"{own.wall / one.wall:>9.2f}{own.cpu / one.cpu:>11.2f}"
        )


def written_wide(path: Path, columns: int) -> None:
    """Write a table of so many columns of numbers and 20 rows."""
    drawn = random.Random(1)
    rows = [",".join(f"{drawn.gauss(0, 1):.4f}" for _ in range(columns)) for _ in range(20)]
    path.write_text("\n".join([",".join(f"v{at}" for at in range(columns)), *rows, ""]), encoding="utf-8")


def written(path: Path, megabytes: int) -> float:
    """Write a table of about that size; returns its size in MB."""
    drawn = random.Random(1)
    rows = [
        f"2026-{at % 12 + 1:02}-{at % 28 + 1:02},{drawn.choice(('Taipei', 'Tainan', 'Hualien'))},"
        f"{drawn.lognormvariate(3, 1):.2f},{drawn.randrange(1, 40)},{drawn.choice(('yes', 'no'))},order {at:07}\n"
        for at in range(100_000)
    ]
    block = "".join(rows)
    with path.open("w", encoding="utf-8") as file:
        file.write("day,shop,amount,items,paid,reference\n")
        for _ in range(max(1, megabytes * 1_000_000 // len(block))):
            file.write(block)
    return path.stat().st_size / 1e6


def laid_out(folder: Path, table: Path, memory: str, group_by: list[str]) -> list[str]:
    """Lay out the workspace of our task, unfenced: what is measured is the program. Returns its command."""
    task = spec.parse(
        {
            "processing_type": "csv_analysis",
            "input_data": "sales.csv",
            "input_files": {"sales.csv": ""},
            **({"group_by": group_by} if group_by else {}),
            "memory_limit": memory,
            "cpu_quota": 200_000,
            "disk_limit": "64g",
        }
    )
    made = kind.make_plan(kinds.of(task), task, "bench", 1, NODE)
    for file in made.files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content or b"")
    (folder / "sales.csv").unlink()
    (folder / "sales.csv").symlink_to(table)
    return [sys.executable, *made.argv[1:]]


def run(command: list[str], folder: Path) -> Ran:
    """Run one program to its end; raises CalledProcessError where it fails."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command[:3])
    results = folder / "results" / "summary.json"
    if results.exists():
        assert json.loads(results.read_text(encoding="utf-8"))["rows"] > 0
    return Ran(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)


if __name__ == "__main__":
    sys.exit(main())
