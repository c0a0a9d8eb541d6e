"""What the demo needs of this machine: something that fences tasks, an image, packages, a pool and a worker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine_api
import system_packages
import test_images

HIVEMIND = Path(sys.executable).parent / "hivemind"
IMAGE = "python:3.11-slim"
HOME_MADE = "hivemind-demo/python:1"
PULL_SECONDS = 180
READY_SECONDS = 30
INDEX = "https://pypi.org/simple/"
INDEX_SECONDS = 15
TRY_SECONDS = 180
OFF = {"false", "0", "no", "off", "n", "f"}


def fence() -> tuple[str | None, str | None]:
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


def no_packages(folder: Path, isolation: str, image: str | None, requirements: list[str]) -> str:
    """Why tasks cannot have packages here; empty where they can. Asks the index, then has one small task try."""
    index = os.environ.get("PIP_INDEX_URL", "").strip() or INDEX
    try:
        context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or None)
        # The page of one small package: the index's own is a list of all there are.
        page = urllib.request.Request(f"{index.rstrip('/')}/tabulate/", method="HEAD")  # noqa: S310 - PIP_INDEX_URL: its owner set it
        with urllib.request.urlopen(page, timeout=INDEX_SECONDS, context=context):  # noqa: S310 - the same address
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
            [HIVEMIND, "run", *flags, script], env=environment(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=TRY_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"a task could not be given packages within {TRY_SECONDS} s"
    said = tried.stderr.strip().splitlines() or [""]
    return "" if tried.returncode == 0 else f"a task could not be given packages: {said[-1][:400]}"


def environment() -> dict[str, str]:
    """Ours without this machine's own settings: they must not turn the demo into something else."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HIVEMIND_")}


def _place(url: str) -> str:
    """An address without the password that may be in it."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _wheels() -> list[str]:
    """Wheels that lie on this machine, as pip is told of them: of some frameworks the build without CUDA."""
    folder = os.environ.get("PIP_FIND_LINKS", "").strip()
    return [f"--package-wheels={folder}"] if folder and Path(folder).is_dir() else []


@contextlib.contextmanager
def up(folder: Path, isolation: str, image: str | None) -> Iterator[str]:
    """Pool and worker in one, as `hivemind up` starts them; the pool's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        pool = f"127.0.0.1:{free.getsockname()[1]}"
    flags = [f"--listen={pool}", f"--isolation={isolation}", f"--state-dir={folder / 'state'}"]
    flags += [f"--log-dir={folder / 'log'}", "--max-concurrent-tasks=2", "--node-id=demo", *_wheels()]
    flags += [f"--default-image={image}"] if image else []
    # Somebody watches: whatever else the machine does, and however full it is, go on.
    flags += ["--overload-cpu-percent=100", "--overload-memory-percent=100", "--unhealthy-disk-percent=100"]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [HIVEMIND, "up", *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
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
            if hivemind(pool, "nodes"):
                return
        time.sleep(0.2)
    log = (folder / "up.log").read_text(encoding="utf-8", errors="replace")
    sys.exit(f"`hivemind up` did not get ready:\n{log[-3000:]}")


def hivemind(pool: str, *arguments: str) -> list[dict[str, Any]]:
    """What a verb of the installed command says, as the objects of its --json lines."""
    command: list[str | Path] = [HIVEMIND, *arguments, "--node-pool", pool, "--json"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout
    return [json.loads(line) for line in said.splitlines() if line.strip()]
