"""Pages of the docs as a reader follows them: blocks of commands, what is shown of them, and a reader's shell."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import installed
import waiting

ROOT = Path(__file__).resolve().parents[2]
VENV = Path(sys.executable).parent.parent
READY_SECONDS = 30
_FENCED = re.compile(r"^```(sh(?: [a-z]+)?|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"^=== block \d+, after \d+ s ===\n", re.MULTILINE)
_ANYTHING = "…"


@dataclass(frozen=True)
class Block:
    """Commands to be copied; ``kind`` is the word after `sh`, as `background`; ``shown`` what the page shows."""

    text: str
    kind: str = ""
    shown: str = ""

    @property
    def lines(self) -> list[str]:
        return self.text.strip().splitlines()


def blocks(page: str) -> list[Block]:
    """The blocks of commands of a page, a path from the root, in their order."""
    found: list[Block] = []
    for info, text in _FENCED.findall((ROOT / page).read_text(encoding="utf-8")):
        if info == "text":
            last = found.pop()
            assert not last.shown, f"{page}: two blocks of output for {last.text}"
            found.append(Block(last.text, last.kind, text))
        else:
            found.append(Block(text, info.partition(" ")[2]))
    return found


def script(wanted: list[Block]) -> str:
    """One script that runs these blocks, and tells in its output where each begins, and when."""
    parts = [f'echo "=== block {at}, after $SECONDS s ==="\n{block.text}' for at, block in enumerate(wanted)]
    return "exec 2>&1\n" + "".join(parts)


def said_by(output: str) -> list[str]:
    """What each block of :func:`script` said."""
    return _MARK.split(output)[1:]


def unseen(shown: str, said: str) -> str:
    """The first line that a page shows and that was not said; empty where all is as the page says.

    `…` within a line stands for anything, alone on a line for any number of lines, and space for any width of it.
    """
    pattern = ""
    seen = "".join(f"{' '.join(line.split())}\n" for line in said.strip().splitlines())
    for line in shown.strip().splitlines():
        if line.strip() == _ANYTHING:
            pattern += r"(?:.*\n)*?"
            continue
        words = " ".join(line.split())
        pattern += ".*".join(re.escape(part.strip()) for part in words.split(_ANYTHING)) + r"\n"
        if not re.match(pattern, seen):
            return line
    return "" if re.fullmatch(pattern, seen) else f"the end of {seen[-300:]!r}"


def reader(home: Path, **settings: str) -> dict[str, str]:
    """The environment of somebody with a home of their own, an untouched machine, and a port that nobody else uses."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HIVEMIND_")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        pool = f"127.0.0.1:{free.getsockname()[1]}"
    return {
        **kept,
        "PATH": f"{VENV / 'bin'}{os.pathsep}{kept['PATH']}",
        "HOME": str(home),
        "HIVEMIND_STATE_DIR": str(home / "state"),
        "HIVEMIND_LOG_DIR": str(home / "log"),
        "HIVEMIND_POOL_LISTEN": pool,
        "HIVEMIND_NODE_POOL_ADDRESS": pool,
        **installed.WHATEVER,
        "TERM": "dumb",
        **settings,
    }


def checkout(folder: Path) -> Path:
    """What the commands refer to, in a folder that may be written to."""
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / ".venv").symlink_to(VENV)
    return folder


@contextlib.contextmanager
def in_background(block: Block, environment: Mapping[str, str], folder: Path) -> Iterator[None]:
    """What a page has its reader start in another terminal: until the end of the block, from when it has a node."""
    *before, last = block.lines
    log = Path(environment["HOME"]) / "background.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["bash", "-ec", "\n".join([*before, f"exec {last}"])],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip

    def ready() -> bool:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        seen = subprocess.run(
            ["hivemind", "nodes", "-q"], cwd=folder, env=environment, capture_output=True, check=False, timeout=60
        )
        return seen.returncode == 0 and bool(seen.stdout.strip())

    try:
        waiting.wait_for(ready, description=f"`{last}` has a node", seconds=READY_SECONDS)
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0, log.read_text(encoding="utf-8")[-3000:]
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
