"""A pool, a worker and real tasks on this machine, with a live table: what `make demo` shows.

Usage: python scripts/demo.py [--without-packages]   (in .venv)

Exits 0 only if every task ended as expected. Tasks that need packages are left out, and that is said, where none can be
had. Results stay where the last line says.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine_api
import system_packages
import test_images
from rich.console import Console
from rich.live import Live
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
HIVEMIND = Path(sys.executable).parent / "hivemind"
IMAGE = "python:3.11-slim"
HOME_MADE = "hivemind-demo/python:1"
PULL_SECONDS = 180
READY_SECONDS = 30
WIDTH = 120
ALL_SECONDS = 900  # the slowest machine we tried needed 40, and 150 more the first time, for the packages
INDEX = "https://pypi.org/simple/"
INDEX_SECONDS = 15
TRY_SECONDS = 180
PACKAGED = {"requirements", "processing_type", "model_type"}  # fields of tasks that need packages from the index
OFF = {"false", "0", "no", "off", "n", "f"}
ENDED = {"completed", "failed", "cancelled"}
# How each example is to end: the two that fail do so on purpose.
EXPECTED = {"fails": ("failed", "nonzero_exit"), "too-long": ("failed", "timeout")}
WELL = ("completed", "")


def main() -> int:
    """0 when every task ended as expected."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)  # a log file has no width of its own
    isolation, image = _isolation()
    if isolation is None:
        return 69
    files = sorted((ROOT / "examples").glob("*.json"))
    examples = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    packaged = {name for name, task in examples.items() if PACKAGED & task.keys()}
    folder = Path(tempfile.mkdtemp(prefix="hivemind-demo-"))
    why = _no_packages(folder, isolation, image, examples["fridays"]["requirements"])
    left_out = packaged if why else set()
    if why:
        print(f"!! {why}", flush=True)
        print(f"!! so these tasks, which need packages, are left out: {', '.join(sorted(left_out))}", flush=True)
    with _up(folder, isolation) as pool:
        names = _submit(folder, pool, image, {name: examples[name] for name in examples if name not in left_out})
        tasks = _follow(console, names, pool)
        for task in tasks.values():
            if task.get("results"):
                _hivemind(pool, "results", task["id"], "-o", str(folder / "results" / names[task["id"]]))
    wrong = [names[id_] for id_ in names if not _as_expected(names[id_], tasks.get(id_))]
    fences = sorted({str(task["isolation"]) for task in tasks.values() if task.get("isolation")})
    console.print(f"Isolation in force: {', '.join(fences) or 'none was needed'}. Results: {folder / 'results'}")
    if wrong:
        console.print(f"[red]Not as expected: {', '.join(wrong)}[/]. The log of pool and worker: {folder / 'up.log'}")
        return 1
    console.print(f"[green]All {len(names)} tasks ended as expected[/] (two of them are meant to fail).")
    if left_out:
        console.print(f"[yellow]Left out, for want of packages: {', '.join(sorted(left_out))}[/]")
    return 0


def _no_packages(folder: Path, isolation: str, image: str | None, requirements: list[str]) -> str:
    """Why tasks cannot have packages here; empty where they can. Asks the index, then has one small task try."""
    if "--without-packages" in sys.argv[1:]:
        return "no packages, as asked"
    index = os.environ.get("PIP_INDEX_URL", "").strip() or INDEX
    try:
        context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or None)
        # The page of one small package: the index's own is a list of all there are.
        page = urllib.request.Request(f"{index.rstrip('/')}/tabulate/", method="HEAD")  # noqa: S310 - the owner's own
        with urllib.request.urlopen(page, timeout=INDEX_SECONDS, context=context):  # noqa: S310 - as above
            pass
    except urllib.error.HTTPError:
        pass  # it answers; what it makes of the packages is for the task to tell
    except (OSError, ValueError) as error:
        return f"the package index {_place(index)} cannot be reached from here ({error})"
    print("== trying whether a task can have packages", flush=True)
    script = folder / "try.py"
    script.write_text("import tabulate\n", encoding="utf-8")
    flags = [f"--isolation={isolation}", *(["--image", image] if image else [])]
    flags += [word for requirement in requirements for word in ("-r", requirement)]
    try:
        tried = subprocess.run(
            [HIVEMIND, "run", *flags, script], env=_environment(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=TRY_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"a task could not be given packages within {TRY_SECONDS} s"
    said = tried.stderr.strip().splitlines() or [""]
    return "" if tried.returncode == 0 else f"a task could not be given packages: {said[-1][:400]}"


def _environment() -> dict[str, str]:
    """Ours without this machine's own settings: they must not turn the demo into something else."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HIVEMIND_")}


def _place(url: str) -> str:
    """An address without the password that may be in it."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _isolation() -> tuple[str | None, str | None]:
    """What will fence the tasks, and the image they run in; says what is missing where nothing can."""
    engine = engine_api.address()
    if _said("DOCKER_ENABLED", "HIVEMIND_DOCKER_ENABLED").lower() in OFF:
        print("== DOCKER_ENABLED is off: the tasks run in the sandbox (bubblewrap)", flush=True)
    elif engine_api.answers(engine):
        print(f"== a Docker engine answers at {engine}: the tasks run in containers", flush=True)
        image = _image(engine)
        if image is not None:
            return "docker", image
        print("!! no image with Python can be had: the tasks run in the sandbox instead", flush=True)
    else:
        print("== no Docker engine answers: the tasks run in the sandbox (bubblewrap)", flush=True)
    if system_packages.install({"bwrap": "bubblewrap"}, "running tasks without Docker"):
        print("!! no task can be run here: a task never runs unfenced. Install Docker, or bubblewrap.", flush=True)
        return None, None
    probe = subprocess.run(
        ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"], capture_output=True, text=True, check=False
    )
    if probe.returncode != 0:
        print(f"!! this kernel does not let bubblewrap fence ({probe.stderr.strip()}). Install Docker.", flush=True)
        return None, None
    return "sandbox", None


def _said(*names: str) -> str:
    """The first of these variables that says something."""
    return next((os.environ[name].strip() for name in names if os.environ.get(name, "").strip()), "")


def _image(engine: str) -> str | None:
    for name in (IMAGE, HOME_MADE):
        if engine_api.has_image(engine, name):
            print(f"== image: {name}, which is here", flush=True)
            return name
    print(f"== fetching {IMAGE}", flush=True)
    try:
        engine_api.pull_image(engine, IMAGE, PULL_SECONDS)
    except (engine_api.EngineRefusedError, OSError) as error:
        print(f"== {IMAGE} cannot be fetched ({str(error)[:120]}): making an image here instead", flush=True)
        return HOME_MADE if test_images.python(engine, HOME_MADE) else None
    return IMAGE


@contextlib.contextmanager
def _up(folder: Path, isolation: str) -> Iterator[str]:
    """Pool and worker in one, as `hivemind up` starts them; the pool's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        pool = f"127.0.0.1:{free.getsockname()[1]}"
    flags = [f"--listen={pool}", f"--isolation={isolation}", f"--state-dir={folder / 'state'}"]
    flags += [f"--log-dir={folder / 'log'}", "--max-concurrent-tasks=2", "--node-id=demo"]
    # Somebody watches: whatever else the machine does, and however full it is, go on.
    flags += ["--overload-cpu-percent=100", "--overload-memory-percent=100", "--unhealthy-disk-percent=100"]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [HIVEMIND, "up", *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment()
        )
    try:
        _wait_for_node(process, pool, folder)
        yield pool
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_node(process: subprocess.Popen[bytes], pool: str, folder: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(subprocess.CalledProcessError):
            if _hivemind(pool, "nodes"):
                return
        time.sleep(0.2)
    log = (folder / "up.log").read_text(encoding="utf-8", errors="replace")
    sys.exit(f"`hivemind up` did not get ready:\n{log[-3000:]}")


def _submit(folder: Path, pool: str, image: str | None, examples: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Hand in the examples; id → name."""
    (folder / "tasks").mkdir()
    files = []
    for name, example in examples.items():
        inputs = example.get("input_files", {})
        task = {**example, "input_files": {path: _input(content) for path, content in inputs.items()}}
        if image is not None:
            task["docker_image"] = image
        files.append(folder / "tasks" / f"{name}.json")
        files[-1].write_text(json.dumps(task), encoding="utf-8")
    submitted = _hivemind(pool, "submit", *map(str, files))
    return {task["id"]: file.stem for task, file in zip(submitted, files, strict=True)}


def _input(content: Any) -> Any:
    """An input that lies beside the example, told by its whole path: the task file moves."""
    return (
        {"file": str(ROOT / "examples" / content["file"])}
        if isinstance(content, dict) and "file" in content
        else content
    )


def _follow(console: Console, names: dict[str, str], pool: str) -> dict[str, dict[str, Any]]:
    """Show the tasks until all have ended; id → task."""
    deadline = time.monotonic() + ALL_SECONDS
    tasks: dict[str, dict[str, Any]] = {}
    shown: set[tuple[str, str]] = set()
    with Live(console=console, refresh_per_second=8, transient=False) if console.is_terminal else _quiet() as live:
        while time.monotonic() < deadline:
            tasks = {task["id"]: task for task in _hivemind(pool, "tasks") if task["id"] in names}
            done = len(tasks) == len(names) and all(task["status"] in ENDED for task in tasks.values())
            if done:
                # The list is short on details; each task's own view has usage and results.
                tasks = {task["id"]: task for task in _hivemind(pool, "status", *names)}
            if live is not None:
                live.update(_table(names, tasks))
            else:
                _lines(names, tasks, shown)
            if done:
                break
            time.sleep(0.2)
    if not console.is_terminal:
        console.print(_table(names, tasks))
    return tasks


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    yield None


def _lines(names: dict[str, str], tasks: dict[str, dict[str, Any]], shown: set[tuple[str, str]]) -> None:
    """One line for each change: what a log file can show."""
    for id_, task in tasks.items():
        if (id_, task["status"]) not in shown:
            shown.add((id_, task["status"]))
            print(f"{names[id_]}: {task['status']} {task.get('reason') or ''}".rstrip(), flush=True)


def _table(names: dict[str, str], tasks: dict[str, dict[str, Any]]) -> Table:
    table = Table("task", "type", "status", "reason", "isolation", "seconds", "results", "as expected")
    for id_, name in names.items():
        task = tasks.get(id_, {})
        ended = task.get("status") in ENDED
        wall = (task.get("usage") or {}).get("wall_seconds")
        table.add_row(
            name,
            str(task.get("type") or ""),
            str(task.get("status") or "submitted"),
            str(task.get("reason") or ""),
            str(task.get("isolation") or ""),
            f"{wall:.2f}" if wall is not None and ended else "",
            ", ".join(result["name"] for result in task.get("results") or []),
            ("[green]yes" if _as_expected(name, task) else "[red]NO") if ended else "",
        )
    return table


def _as_expected(name: str, task: dict[str, Any] | None) -> bool:
    if task is None:
        return False
    return (task.get("status"), task.get("reason") or "") == EXPECTED.get(name, WELL) and bool(task.get("isolation"))


def _hivemind(pool: str, *arguments: str) -> list[dict[str, Any]]:
    """What a verb of the installed command says, as the objects of its --json lines."""
    command: list[str | Path] = [HIVEMIND, *arguments, "--node-pool", pool, "--json"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout
    return [json.loads(line) for line in said.splitlines() if line.strip()]


if __name__ == "__main__":
    sys.exit(main())
