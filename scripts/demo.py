"""A pool, a worker and real tasks on this machine, with a live table: what `make demo` shows.

Usage: python scripts/demo.py [--without-packages] [--all]   (in .venv)

Exits 0 only if every task, and every script that hands in tasks from Python, ended as expected. Those that need
packages are left out, and that is said, where none can be had. `--all` adds PyTorch and TensorFlow, which are
gigabytes. Results stay where the last line says.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import demo_machine
from rich.console import Console
from rich.live import Live
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
WIDTH = 120
TYPED_WIDTH = 100
ALL_SECONDS = 900  # the slowest machine we tried needed 40, and 150 more the first time, for the packages
GIGABYTES_SECONDS = 2700
SCRIPT_SECONDS = 300
PACKAGED = {"requirements", "processing_type", "model_type"}  # fields of tasks that need packages from the index
ENDED = {"completed", "failed", "cancelled"}
# How each example is to end: the two that fail do so on purpose.
EXPECTED = {"fails": ("failed", "nonzero_exit"), "too-long": ("failed", "timeout")}
WELL = ("completed", "")
# The scripts that hand in tasks from Python: what each is given, below examples/, and whether its tasks need packages.
SCRIPTS = {
    "run_command.py": (("sh", "-c", "echo so many processors: $(nproc)"), False),
    "run_script.py": ((EXAMPLES / "scripts" / "squares.py", "3", "5", "8"), False),
    "train_model.py": ((EXAMPLES / "machine-learning" / "penguins.csv", "species"), True),
    "analyse_table.py": ((EXAMPLES / "inputs" / "weather.csv",), True),
    "contact_sheet.py": (sorted((EXAMPLES / "inputs" / "pictures").iterdir()), True),
    "keywords.py": (sorted((EXAMPLES / "inputs" / "texts").iterdir()), True),
}


@dataclass(frozen=True)
class Ran:
    """How one of the scripts ended: its exit code, None while it runs, and what it said."""

    code: int | None = None
    seconds: float = 0.0
    said: str = ""
    files: int = 0


def main() -> int:
    """0 when everything ended as expected."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)  # a log file has no width of its own
    isolation, image = demo_machine.fence()
    if isolation is None:
        return 69
    folder = Path(tempfile.mkdtemp(prefix="hivemind-demo-"))
    examples = _examples()
    scripts = list(SCRIPTS)
    left_out: list[str] = []
    if why := _no_packages(folder, isolation, image, examples["fridays"][1]["requirements"]):
        left_out = [name for name, (_, task) in examples.items() if PACKAGED & task.keys()]
        left_out += [name for name in scripts if SCRIPTS[name][1]]
        print(f"!! {why}", flush=True)
        print(f"!! so these, which need packages, are left out: {', '.join(sorted(left_out))}", flush=True)
    with demo_machine.up(folder, isolation, image) as pool:
        names = _submit(folder, pool, {name: examples[name] for name in examples if name not in left_out})
        ran = {name: Ran() for name in scripts if name not in left_out}
        tasks = _follow(console, names, pool, ran, folder)
        for task in tasks.values():
            if task.get("results"):
                demo_machine.hivemind(pool, "results", task["id"], "-o", str(folder / "results" / names[task["id"]]))
    wrong = [names[id_] for id_ in names if not _as_expected(names[id_], tasks.get(id_))]
    wrong += [name for name, how in ran.items() if how.code != 0]
    for name in (name for name, how in ran.items() if how.code not in (0, None)):
        console.print(f"{name} said:\n{ran[name].said}", markup=False)
    fences = sorted({str(task["isolation"]) for task in tasks.values() if task.get("isolation")})
    console.print(f"Isolation in force: {', '.join(fences) or 'none was needed'}. Results: {folder / 'results'}")
    if wrong:
        console.print(f"[red]Not as expected: {', '.join(wrong)}[/]. The log of pool and worker: {folder / 'up.log'}")
        return 1
    console.print(
        f"[green]All {len(names)} tasks ended as expected[/] (two of them are meant to fail), and {len(ran)} scripts."
    )
    if left_out:
        console.print(f"[yellow]Left out, for want of packages: {', '.join(sorted(left_out))}[/]")
    return 0


def _examples() -> dict[str, tuple[Path, dict[str, Any]]]:
    """Name → the folder that its files are named from, and the task; with `--all` those of gigabytes too."""
    files = sorted(EXAMPLES.glob("*.json"))
    if "--all" in sys.argv[1:]:
        files += sorted((EXAMPLES / "machine-learning").glob("*.json"))
    return {file.stem: (file.parent, json.loads(file.read_text(encoding="utf-8"))) for file in files}


def _no_packages(folder: Path, isolation: str, image: str | None, requirements: list[str]) -> str:
    """Why tasks cannot have packages here; empty where they can."""
    if "--without-packages" in sys.argv[1:]:
        return "no packages, as asked"
    return demo_machine.no_packages(folder, isolation, image, requirements)


def _submit(folder: Path, pool: str, examples: dict[str, tuple[Path, dict[str, Any]]]) -> dict[str, str]:
    """Hand in the examples, as they are; id → name."""
    files = [str(beside / f"{name}.json") for name, (beside, _) in examples.items()]
    (folder / "results").mkdir()
    submitted = demo_machine.hivemind(pool, "submit", *files)
    return {task["id"]: name for task, name in zip(submitted, examples, strict=True)}


def _follow(
    console: Console, names: dict[str, str], pool: str, ran: dict[str, Ran], folder: Path
) -> dict[str, dict[str, Any]]:
    """Show the tasks until all have ended, id → task; then run the scripts, one after the other."""
    deadline = time.monotonic() + (GIGABYTES_SECONDS if "--all" in sys.argv[1:] else ALL_SECONDS)
    tasks: dict[str, dict[str, Any]] = {}
    shown: set[tuple[str, str]] = set()
    with Live(console=console, refresh_per_second=8, transient=False) if console.is_terminal else _quiet() as live:

        def show() -> None:
            if live is not None:
                live.update(_table(names, tasks, ran, console.width))
            else:
                _lines(names, tasks, ran, shown)

        while time.monotonic() < deadline:
            tasks = {task["id"]: task for task in demo_machine.hivemind(pool, "tasks") if task["id"] in names}
            if len(tasks) == len(names) and all(task["status"] in ENDED for task in tasks.values()):
                break
            show()
            time.sleep(0.2)
        # The list is short on details; each task's own view has usage and results.
        tasks = {task["id"]: task for task in demo_machine.hivemind(pool, "status", *names)}
        for name in ran:
            show()
            ran[name] = _run(name, pool, folder / "results" / name.removesuffix(".py"))
        show()
    if not console.is_terminal:
        console.print(_table(names, tasks, ran, console.width))
    return tasks


def _run(name: str, pool: str, folder: Path) -> Ran:
    """Run one of the scripts as its reader would, told the pool by the environment; its results are in the folder."""
    folder.mkdir()
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, EXAMPLES / "scripts" / name, *SCRIPTS[name][0]], cwd=folder, check=False, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SCRIPT_SECONDS,
            env={**demo_machine.environment(), "HIVEMIND_NODE_POOL_ADDRESS": pool},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Ran(124, SCRIPT_SECONDS, f"nothing within {SCRIPT_SECONDS} s")
    made = sum(path.is_file() for path in folder.rglob("*"))
    (folder / "said.txt").write_text(done.stdout, encoding="utf-8")
    return Ran(done.returncode, time.monotonic() - began, done.stdout, made)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    yield None


def _lines(
    names: dict[str, str], tasks: dict[str, dict[str, Any]], ran: dict[str, Ran], shown: set[tuple[str, str]]
) -> None:
    """One line for each change: what a log file can show."""
    said = [
        (id_, task["status"], f"{names[id_]}: {task['status']} {task.get('reason') or ''}")
        for id_, task in tasks.items()
    ]
    said += [(name, "ended", f"{name}: exit code {how.code}") for name, how in ran.items() if how.code is not None]
    for who, what, line in said:
        if (who, what) not in shown:
            shown.add((who, what))
            print(line.rstrip(), flush=True)


def _table(names: dict[str, str], tasks: dict[str, dict[str, Any]], ran: dict[str, Ran], room: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    # A narrow terminal has no room for the type, which most names tell.
    narrow = room < TYPED_WIDTH
    for head in ("task", "status", "isolation", "seconds", "files", "expected", *(() if narrow else ("type",))):
        table.add_column(head, no_wrap=True, justify="right" if head in {"seconds", "files"} else "left")
    for id_, name in names.items():
        task = tasks.get(id_, {})
        ended = task.get("status") in ENDED
        wall = (task.get("usage") or {}).get("wall_seconds")
        reason = f" ({task['reason']})" if task.get("reason") else ""
        table.add_row(
            name,
            f"{task.get('status') or 'submitted'}{reason}",
            str(task.get("isolation") or ""),
            f"{wall:.2f}" if wall is not None and ended else "",
            str(len(task.get("results") or ()) or ""),
            _verdict(as_expected=_as_expected(name, task)) if ended else "",
            *(() if narrow else (str(task.get("type") or ""),)),
        )
    table.add_row()
    for name, how in ran.items():
        ended = how.code is not None
        table.add_row(
            name,
            f"exit code {how.code}" if ended else "to come",
            "",
            f"{how.seconds:.2f}" if ended else "",
            str(how.files or ""),
            _verdict(as_expected=how.code == 0) if ended else "",
            *(() if narrow else ("from Python",)),
        )
    return table


def _verdict(*, as_expected: bool) -> str:
    return "[green]yes" if as_expected else "[red]NO"


def _as_expected(name: str, task: dict[str, Any] | None) -> bool:
    if task is None:
        return False
    return (task.get("status"), task.get("reason") or "") == EXPECTED.get(name, WELL) and bool(task.get("isolation"))


if __name__ == "__main__":
    sys.exit(main())
