"""Write the pages of docs/ that the code itself knows best: every file, setting, metric, event, table of states.

Usage: python scripts/draw_docs.py   (a test compares what it would write with what is there)
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import draw_estimators
import draw_events
import draw_faults

from hivemind_worker.runtime import deadlines, evidence
from hivemind_worker.runtime.capsule import table
from hivemind_worker.settings import paths, reference
from hivemind_worker.tasks import state
from hivemind_worker.telemetry import metrics

DOCS = Path(__file__).resolve().parent.parent / "docs"
PACKAGE = DOCS.parent / "src" / "hivemind_worker"
WRITTEN_BY = "<!-- written by scripts/draw_docs.py from {source}: change it there -->"


def main() -> int:
    """Write the pages."""
    for name, draw in PAGES.items():
        (DOCS / name).write_text(draw(), encoding="utf-8")
    return 0


# As in ARCHITECTURE.md, from the top down; a test there proves that no package is missing.
LAYERS = (
    ("Command", ("", "cli")),
    ("Composition", ("wiring",)),
    ("HTTP", ("web",)),
    ("Client, pool, worker", ("client", "pool", "worker")),
    ("Execution", ("runtime",)),
    ("Files", ("artifacts",)),
    ("Protocol", ("wire",)),
    ("Tasks", ("tasks",)),
    ("Tools", ("settings", "telemetry", "concurrency")),
    ("File system", ("filesystem",)),
)


def files_page() -> str:
    """Every file of the package with its caption, layer by layer."""
    parts = [
        "# Files",
        WRITTEN_BY.format(source="the first line of each file"),
        "Layer by layer, as in [the architecture](../ARCHITECTURE.md): a package imports from the layers below it.",
    ]
    for layer, packages in LAYERS:
        parts.append(f"## {layer}")
        parts += [_package(package) for package in packages]
    return "\n\n".join(parts) + "\n"


def _package(package: str) -> str:
    folder = PACKAGE / package
    found = folder.glob("*.py") if package in {"", "wire"} else folder.rglob("*.py")
    rows = [
        f"- `{path.relative_to(PACKAGE)}` · {_caption(path)}"
        for path in sorted(found)
        if path != folder / "__init__.py"
    ]
    rows += [f"- `{path.relative_to(PACKAGE)}` · what both ends say" for path in sorted(folder.glob("*.proto"))]
    pages = (path for kind in ("html", "css", "js", "svg") for path in sorted(folder.rglob(f"*.{kind}")) if package)
    rows += [f"- `{path.relative_to(PACKAGE)}` · {_first_comment(path)}" for path in pages]
    title = f"### {package}/\n{_caption(folder / '__init__.py')}\n\n" if package else ""
    return title + "\n".join(rows)


def _caption(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].replace("\n", " ")


def _first_comment(path: Path) -> str:
    return path.read_text(encoding="utf-8").splitlines()[0].strip("<!->{#}/* ").strip()


def settings_page() -> str:
    """Every setting: its help, flag, environment names, place in the file and default."""
    order = (
        "A flag wins over the environment, that over the file (`hivemind.toml` in `/etc/hivemind` or in the user's\n"
        "configuration folder), that over the default. An empty value counts as unset. `hivemind config show` tells\n"
        "the values in force and where each is from. Folders below are root's; anyone else's in their XDG folders.\n\n"
        "A worker and a pool read the file anew at SIGHUP (`systemctl reload hivemind-worker`). What is marked\n"
        "*at once* they take over while tasks run; the rest stays as it was, and their log says that it needs a new\n"
        "start. A file with a mistake in it changes nothing, and the log says where it is."
    )
    parts = ["# Settings", WRITTEN_BY.format(source="src/hivemind_worker/settings/schema.py"), order]
    for group, model in reference.groups().items():
        parts.append(f"## {group}\n{(model.__doc__ or '').strip()}")
        parts += [_setting(row) for row in reference.settings() if row.group == group]
    return "\n\n".join(parts) + "\n"


def _setting(row: reference.Setting) -> str:
    names = ", ".join(f"`{variable}`" for variable in row.variables)
    choices = f" ({', '.join(row.choices)})" if row.choices else ""
    # Longest first: a user's log folder lies within the state folder.
    default = row.default.replace(str(paths.log_dir()), "/var/log/hivemind").replace(
        str(paths.state_dir()), "/var/lib/hivemind"
    )
    taken = "; *at once*" if row.live else ""
    return (
        f"### {row.key}\n{row.help}\n\n"
        f"- flag `{row.flag}` · environment {names} · file `{row.place}`\n"
        f"- {row.kind.value}{choices}; default {f'`{default}`' if default else 'unset'}{taken}"
    )


def metrics_page() -> str:
    """Every metric: its kind, its labels and what it counts."""
    about = (
        "What a worker and a pool answer at `/metrics`, in Prometheus' text format. Base units: seconds, bytes,\n"
        "ratios of 1. No label holds the id of a task."
    )
    parts = ["# Metrics", WRITTEN_BY.format(source="src/hivemind_worker/telemetry/metrics.py"), about]
    for title, listed in (("A worker's", metrics.WORKER), ("A pool's", metrics.POOL)):
        rows = [f"| `{each.name}` | {each.kind.name.lower()} | {_labels(each)} | {each.help} |" for each in listed]
        parts.append("\n".join([f"## {title}", "| metric | kind | labels | |", "| --- | --- | --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def _labels(metric: metrics.Metric) -> str:
    return ", ".join(f"`{label}`" for label in metric.labels)


def states_page() -> str:
    """The three tables of moves, as pictures."""
    drawn = [
        ("A task, as the pool sees it", "src/hivemind_worker/tasks/state.py", state.draw_task_moves()),
        ("An attempt, on its node", "src/hivemind_worker/tasks/state.py", state.draw_phases()),
        ("The conversation with a capsule", "src/hivemind_worker/runtime/capsule/table.py", table.mermaid()),
    ]
    parts = [
        "# States",
        "Nothing moves but along these lines; anything else is an error that tells the whole story so far.",
    ]
    for title, source, picture in drawn:
        parts.append(f"## {title}\n{WRITTEN_BY.format(source=source)}\n```mermaid\n{picture.strip()}\n```")
    written = WRITTEN_BY.format(source="src/hivemind_worker/runtime/deadlines.py")
    rows = [f"| {state.value} | {row.text} | {_renewal(row)} |" for state, row in deadlines.TABLE.items()]
    heading = "## How long the worker waits for a capsule\n"
    parts.append("\n".join([f"{heading}{written}", "| state | deadline | |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def _renewal(row: deadlines.Row) -> str:
    if row.shortens:
        return "never later than the deadline before"
    return "renewed by progress" if row.renewed else "renewed by nothing"


PROMISED = """What is promised: every accepted task ends in exactly one accepted result, whatever is killed, cut off
or full meanwhile, and nothing is left behind. Pictures show what the pool and its workers say to one another; a cross
ends an answer that is lost. `make chaos` does all of this at once, at random, and checks the promise."""


def faults_page() -> str:
    """What happens when something fails: each picture drawn from a run, each table from the code's own."""
    parts = [
        "# Faults",
        WRITTEN_BY.format(source="scripts/draw_faults.py, which plays each of them on the real store"),
        PROMISED,
    ]
    for title, (text, picture) in draw_faults.sequences().items():
        parts.append(f"## {title}\n{text}\n\n```mermaid\n{picture}\n```")
    parts.append("## Whose fault it was\n" + "\n".join(draw_faults.blame()))
    parts.append(
        "A node that is sick, by its own check or because unrelated tasks fail on it, is given nothing for\n"
        f"{draw_faults.rests()} after the first, second, third and each further incident in a row\n"
        "([why](why/sick-nodes.md))."
    )
    parts.append("## What a worker does when the pool refuses\n" + "\n".join(draw_faults.courses()))
    return "\n\n".join(parts) + "\n"


CHECKED = """A capsule's first process is our own program, in the hands of a task that may mean harm. No reason that it
gives is believed without the worker's or the kernel's own word ([why](why/evidence.md))."""


def evidence_page() -> str:
    """What is checked of a capsule's word."""
    rows = [f"| `{reason}` | {row.evidence} | {row.otherwise} |" for reason, row in evidence.EVIDENCE.items()]
    checks = [f"| {message} | {check} |" for message, check in evidence.MESSAGES.items()]
    parts = [
        "# Evidence",
        WRITTEN_BY.format(source="src/hivemind_worker/runtime/evidence.py"),
        CHECKED,
        "\n".join(["## Reasons", "| reason | evidence | without it |", "| --- | --- | --- |", *rows]),
        "\n".join(["## Messages", "| message | what is checked |", "| --- | --- |", *checks]),
    ]
    return "\n\n".join(parts) + "\n"


def events_page() -> str:
    """Every event, read from the calls that log them."""
    return draw_events.page(WRITTEN_BY.format(source="the calls that log them"))


def estimators_page() -> str:
    """Every estimator that an ml task may name."""
    return draw_estimators.page(WRITTEN_BY.format(source="src/hivemind_worker/tasks/estimators.py"))


PAGES: Mapping[str, Callable[[], str]] = {
    "files.md": files_page,
    "settings.md": settings_page,
    "states.md": states_page,
    "events.md": events_page,
    "evidence.md": evidence_page,
    "metrics.md": metrics_page,
    "estimators.md": estimators_page,
    "faults.md": faults_page,
}
"""File name in docs/ → what draws it."""


if __name__ == "__main__":
    sys.exit(main())
