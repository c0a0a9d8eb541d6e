"""Every event that the product logs, read from the calls that log them: `draw_docs.py` writes the page."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "hivemind_worker"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LEVELS = ("debug", "info", "warning", "error")
CALLS = {"log_task_event": "task", "log_system_event": "system"}
HEAD = """# Events

{written_by}

What happens is logged as events: one JSON object per line in `log_dir`, on standard error as lines for people where
that is a terminal. Each has the reference document's keys: `timestamp` (RFC 3339, UTC), `event_type`, `node_id`,
`details`, and `task_id` if it is about a task; and its `level`. `details.module` tells which file spoke. An error adds
`error` and `trace`. Secrets are taken out of all of it, and each string is cut after 4096 characters.

| event | about | level | details | said by |
| --- | --- | --- | --- | --- |
"""
BY_THE_LOG_ITSELF = """
The log itself adds `library` (what a library has to say, from warning on) and `log_events_lost` (how many events came
faster than they could be written).
"""


@dataclasses.dataclass(frozen=True, order=True)
class Event:
    """One call that logs: what it says, of what, how important, with which details, from which file."""

    name: str
    about: str
    level: str
    details: tuple[str, ...]
    file: str


def page(written_by: str) -> str:
    """The page of all events."""
    rows = [
        f"| `{event.name}` | {event.about} | {event.level} | {_list(event.details)} | `{event.file}` |"
        for event in events()
    ]
    return HEAD.format(written_by=written_by) + "\n".join(rows) + "\n" + BY_THE_LOG_ITSELF


def _list(keys: tuple[str, ...]) -> str:
    return ", ".join(f"`{key}`" for key in keys) or "none"


def events() -> list[Event]:
    """Every event, by name; those said in several places once for each way of saying it."""
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).as_posix() in {"telemetry/logs.py", "telemetry/rationed.py"}:
            continue  # they define the calls
        text = path.read_text(encoding="utf-8")
        if not any(f".{call}(" in text for call in CALLS):
            continue
        tree = ast.parse(text)
        for function in [tree, *(node for node in ast.walk(tree) if isinstance(node, FUNCTIONS))]:
            for call in _calls(function):
                found.add(_event(call, function, path.relative_to(PACKAGE).as_posix()))
    return sorted(found)


def _calls(function: ast.AST) -> list[ast.Call]:
    """The calls that log within a function, but not within one inside it."""
    found, inside = [], list(ast.iter_child_nodes(function))
    while inside:
        node = inside.pop()
        if isinstance(node, FUNCTIONS):
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS:
            found.append(node)
        inside += ast.iter_child_nodes(node)
    return found


def _event(call: ast.Call, function: ast.AST, file: str) -> Event:
    assert isinstance(call.func, ast.Attribute)
    about = CALLS[call.func.attr]
    name = call.args[0]
    if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
        raise TypeError(f"{file}:{call.lineno}: an event's name stands in the call itself, so that it can be listed")
    keywords = {each.arg: each.value for each in call.keywords}
    level = keywords.get("level")
    at = 2 if about == "task" else 1
    said = call.args[at] if len(call.args) > at else keywords.get("details")
    keys = _keys(said, function) if said is not None else set()
    levels = sorted(
        {str(each.value) for each in ast.walk(level) if isinstance(each, ast.Constant) and each.value in LEVELS}
        if level is not None
        else {"info"}
    )
    return Event(name.value, about, " or ".join(levels) or "info", tuple(sorted(keys)), file)


def _keys(said: ast.expr, function: ast.AST) -> set[str]:
    """The keys of the details: of a literal, or of what the function has put into the variable that is named."""
    keys = _literal_keys(said)
    for name in {node.id for node in ast.walk(said) if isinstance(node, ast.Name)}:
        for node in ast.walk(function):
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Name) and target.id == name and isinstance(node.value, ast.Dict):
                        keys |= _literal_keys(node.value)
                    if isinstance(target, ast.Subscript) and _is_key_of(target, name):
                        keys |= {str(target.slice.value)}  # type: ignore[attr-defined]  # looked at in `_is_key_of`
    return keys


def _literal_keys(said: ast.expr) -> set[str]:
    dicts = [node for node in ast.walk(said) if isinstance(node, ast.Dict)]
    return {str(key.value) for each in dicts for key in each.keys if isinstance(key, ast.Constant)}


def _is_key_of(target: ast.Subscript, name: str) -> bool:
    return isinstance(target.value, ast.Name) and target.value.id == name and isinstance(target.slice, ast.Constant)
