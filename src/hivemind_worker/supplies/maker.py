"""Makes one environment, inside a throw-away capsule: asked on standard input, answers on standard output, JSON lines.

Run by the capsule's own python3 (3.8 or newer) with nothing but the standard library; never imported by the worker.
First line in: what is asked. Lines out: ``python``, what runs here; ``pins``, the exact versions; then it waits for a
line, since such an environment may be there already. After it: ``done``, or ``failed`` with the resolver's own words.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import queue
import re
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import Any

WATCH_SECONDS = 1.0
WORDS = 4000  # of the resolver's, kept for an error: its explanations are at the end

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
VERSION = re.compile(
    r"(?:\d+!)?\d+(?:\.\d+)*(?:(?:a|b|rc)\d+)?(?:\.post\d+)?(?:\.dev\d+)?(?:\+[a-z0-9]+(?:\.[a-z0-9]+)*)?"
)
ANSWERS: queue.SimpleQueue[str] = queue.SimpleQueue()
RUNNING: set[subprocess.Popen[str]] = set()
GROWN: list[int] = []


class Failed(Exception):
    """It cannot be made; says why."""


class TooLarge(Exception):
    """It grew beyond what it may have; says how far, in bytes."""


def main() -> int:
    """Make it. The exit code is 0 when that was done or not wanted."""
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_listen, daemon=True).start()
    scratch = Path(asked["folder"]) / "scratch"
    made: int | None = None
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        made = _make(asked, scratch)
    except TooLarge as large:
        _say(large=large.args[0])
        return 1
    except Failed as failed:
        _say(failed=str(failed))
        return 1
    except OSError as error:
        _say(failed=f"cannot write: {error}")
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if made is not None:
        _say(done=made)  # the last word: whoever hears it may end us
    return 0


def _listen() -> None:
    """Hear what the worker says. When it is gone nobody wants what is made here: end, and uv with us."""
    for line in sys.stdin:
        ANSWERS.put(line.strip())
    for each in tuple(RUNNING):
        each.kill()
    os._exit(3)


def _watch(folder: str, cache: str, most: int) -> None:
    """End uv when it writes more than the environment may have, or fetches more than that for it."""
    kept = _bytes(cache) if cache else 0
    while not GROWN:
        time.sleep(WATCH_SECONDS)
        fetched = (_bytes(cache) if cache else 0) - kept
        grown = max(fetched, _bytes(folder + "/environment") + _bytes(folder + "/scratch"))
        if grown > most:
            GROWN.append(grown)
            for each in tuple(RUNNING):
                each.kill()


def _make(asked: dict[str, Any], scratch: Path) -> int | None:
    """Make it; its size in bytes, None where it was not wanted any more."""
    _say(python=_python())
    most = asked["limit_bytes"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    threading.Thread(target=_watch, args=(asked["folder"], asked["cache"], most), daemon=True).start()
    variables = _variables(asked, scratch)
    wanted, pins = scratch / "requirements.in", scratch / "requirements.txt"
    wanted.write_text("".join(line + "\n" for line in asked["requirements"]))
    there = _there(asked)
    # What the image has already is preferred, so that it need not be brought a second time.
    pins.write_text("".join("{}=={}\n".format(*each) for each in sorted(there.items())))
    only = [] if asked["source_builds"] else ["--only-binary", ":all:"]
    here = ["--python", sys.executable]
    _uv(asked, variables, "pip", "compile", *here, "--no-header", "--no-annotate", "--quiet", *only,
        "--output-file", str(pins), str(wanted))  # fmt: skip
    found = [line.strip() for line in pins.read_text().splitlines() if line.strip()]
    _say(pins=found)
    if ANSWERS.get() != "go":
        return None
    pins.write_text("".join(line + "\n" for line in found if not _satisfied(line, there)))
    target = str(Path(asked["folder"]) / "environment")
    shown = ["--system-site-packages"] if asked["inherit"] else []
    _uv(asked, variables, "venv", *here, "--quiet", "--allow-existing", "--no-project", *shown, target)
    if pins.read_text():
        _uv(
            asked, variables, "pip", "install", "--python", target + "/bin/python3", "--no-deps", *only, "-r", str(pins)
        )
        _compile(target)
    return _bytes(target)


def _compile(target: str) -> None:
    """Compile now: in a capsule nothing can be kept, so each task would compile all anew.

    By the capsule's own Python, never by the environment's: that one would run what packages have put into .pth files,
    and here is a network.
    """
    words = [sys.executable, "-I", "-m", "compileall", "-q", "-j", "0", target + "/lib"]
    running = subprocess.Popen(
        words, cwd=target, env={"PATH": os.defpath, "LANG": "C.UTF-8"}, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    RUNNING.add(running)
    running.wait()  # what does not compile, such as a test for another Python, says so when it is imported
    RUNNING.discard(running)


def _uv(asked: dict[str, Any], variables: dict[str, str], *words: str) -> str:
    """Run uv, hand on what it says as it says it. Raises Failed with its last words."""
    try:
        running = subprocess.Popen(
            [asked["uv"], *words], env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, universal_newlines=True, errors="replace",
        )  # fmt: skip
    except OSError as error:
        there = Path(asked["uv"]).exists()
        why = "the worker's uv cannot run in this image: it is made for glibc, which Alpine's images lack"
        raise Failed(why if there else f"uv is missing: {error}") from None
    RUNNING.add(running)
    said = ""
    assert running.stdout is not None
    for line in running.stdout:
        said = (said + line)[-WORDS:]
        if line.strip():
            _say(note=line.rstrip())
    ended = running.wait()
    RUNNING.discard(running)
    if GROWN:
        raise TooLarge(GROWN[0])
    if ended == -signal.SIGXFSZ or "File too large" in said:
        raise TooLarge(asked["limit_bytes"])
    if ended != 0:
        raise Failed(said.strip() or f"uv ended with code {ended}")
    return said


def _variables(asked: dict[str, Any], scratch: Path) -> dict[str, str]:
    """All that uv is told by its environment: addresses may hold passwords, which a command line would show."""
    found = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "COLUMNS": "1000",
        "UV_NO_CONFIG": "1",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_LINK_MODE": "copy",
        "UV_CACHE_DIR": asked["cache"] or str(scratch / "cache"),
        "UV_DEFAULT_INDEX": asked["index_url"] or "https://pypi.org/simple",
    }
    if asked["wheels"]:
        found["UV_FIND_LINKS"] = asked["wheels"]
    if asked["proxy"]:
        found.update(dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), asked["proxy"]))
    if asked["certificates"]:
        bundle = scratch / "certificates.pem"
        bundle.write_text(asked["certificates"])
        found["SSL_CERT_FILE"] = str(bundle)
    return found


def _python() -> dict[str, str]:
    return {
        "version": platform.python_version(),
        "abi": str(sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag),
        "platform": "-".join([sysconfig.get_platform(), *platform.libc_ver()]),
    }


def _there(asked: dict[str, Any]) -> dict[str, str]:
    """The packages that the image brings, where tasks see them: name → version; those first found, as imports do."""
    found: dict[str, str] = {}
    for each in importlib.metadata.distributions() if asked["inherit"] else ():
        try:
            name, version = each.metadata["Name"], each.version
        except (TypeError, KeyError, ValueError, OSError):  # half removed, or none at all
            continue
        if name and version and NAME.fullmatch(name) and VERSION.fullmatch(version):
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return found


def _satisfied(pin: str, there: dict[str, str]) -> bool:
    name, sign, version = pin.partition("==")
    return bool(sign) and there.get(re.sub(r"[-_.]+", "-", name.strip()).lower()) == version.strip()


def _bytes(folder: str) -> int:
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(at, name).lstat().st_blocks * 512
            except OSError:  # gone meanwhile
                continue
    return total


def _say(**said: Any) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
