"""Resolves, fetches and unpacks packages: the worker's own program, in its own process. Runs nothing of theirs.

Started by `workshop` with a Python of this machine (3.9 or newer), standard library only; never imported by the worker.
Lines of JSON: first the order with its secrets on standard input, then one request a line; one answer each on standard
output, and notes between. When the worker is gone it ends, and uv with it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import http.client
import importlib.util
import json
import os
import queue
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent))  # beside this file, where python3 -I does not look
import sdists
import unpacking
import web

WATCH_SECONDS = 1.0
AT_ONCE = 4
MAX_FILES = 300_000
NOTES = 20
PART = ".part-"
PART_SECONDS = 86_400.0
WORDS = 4000  # of the resolver's, kept for an error: its explanations are at the end

_PIECE = 1024 * 1024
NO_WHEEL = re.compile(r"Wheels are required for `([^`]{1,100})` because building from source is disabled")
REQUESTS: queue.SimpleQueue[str] = queue.SimpleQueue()
RUNNING: set[subprocess.Popen[str]] = set()
GROWN: list[int] = []
SPEAKING = threading.Lock()


class NoWheel(Exception):
    """It cannot be resolved: some projects have no wheel; the resolver's words, and the projects."""


def main() -> int:
    """Answer requests until there are no more."""
    os.umask(0o022)  # what is unpacked is read by other users: those of tasks
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_listen, daemon=True).start()
    fetcher = Fetcher(order)
    threading.Thread(target=_watch, args=(fetcher,), daemon=True).start()
    while True:
        request = json.loads(REQUESTS.get())
        try:
            answer = getattr(fetcher, "do_" + request.pop("do"))(**request)
        except unpacking.TooLarge as large:
            answer = {"large": large.args[0]}
        except NoWheel as failed:
            answer = {"failed": failed.args[0], "sources": failed.args[1]}
        except web.Failed as failed:
            answer = {"failed": str(failed)}
        except OSError as error:
            answer = {"failed": f"cannot write: {error.strerror or error}"}
        _say(answer)


def _listen() -> None:
    """Hear what the worker says. When it is gone nobody wants what is made here: end, and uv with us."""
    for line in sys.stdin:
        REQUESTS.put(line)
    for process in tuple(RUNNING):
        process.kill()
    os._exit(0)


def _watch(fetcher: Fetcher) -> None:
    """End uv when it fetches more than an environment may have."""
    before = _bytes(fetcher.uv_cache)
    while not GROWN:
        time.sleep(WATCH_SECONDS)
        grown = max(_bytes(fetcher.scratch), _bytes(fetcher.uv_cache) - before)
        if grown > fetcher.limit:
            GROWN.append(grown)
            for process in tuple(RUNNING):
                process.kill()


class Fetcher:
    """One order. Each `do_…` is a request, and returns its answer."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.folder = Path(order["folder"])
        self.scratch = self.folder / "scratch"
        self.limit = int(order["limit_bytes"])
        self.cache = Path(order["cache"] or self.scratch / "cache")
        self.uv_cache = self.cache / "uv"
        self.wheels = self.cache / "wheels"
        self.order = order
        for folder in (self.scratch, self.uv_cache, self.wheels):
            folder.mkdir(parents=True, exist_ok=True)
        for part in self.wheels.glob(f"{PART}*"):  # of a fetcher that was killed
            with contextlib.suppress(OSError):
                if time.time() - part.stat().st_mtime > PART_SECONDS:
                    part.unlink()
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limit))
        self.web = web.Web(order, self.scratch)
        self.local = self.scratch / "local"
        self.sdists: dict[str, dict[str, tuple[str, str]]] = {}

    def do_resolve(self, requirements: list[str], flags: list[str], preferences: str) -> dict[str, Any]:
        """Exact versions of all that is needed, as a lock. Wheels only: nothing of a package runs."""
        lock = self.scratch / "pylock.toml"
        lock.write_text(preferences, encoding="utf-8")
        wanted = self.scratch / "requirements.in"
        wanted.write_text("".join(line + "\n" for line in requirements), encoding="utf-8")
        self._uv(
            "pip", "compile", "--python", sys.executable, *flags, "--format", "pylock.toml", "--generate-hashes",
            "--no-header", "--quiet", "--only-binary", ":all:", "--output-file", str(lock), str(wanted),
            *(("--find-links", str(self.local)) if self.sdists else ()),
        )  # fmt: skip
        return {"lock": lock.read_text(encoding="utf-8")}

    def do_stand_in(self, projects: list[str]) -> dict[str, Any]:
        """Write stand-ins for the source distributions of these projects."""
        self.local.mkdir(exist_ok=True)
        for project in projects:
            page = self.order["index_url"].rstrip("/") + f"/{project}/"
            try:
                with self.web.open(page) as answer:
                    self.sdists[project] = sdists.offered(answer, page, project)
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                raise web.Failed(f"{web.shown(page)} cannot be fetched: {getattr(error, 'reason', error)}") from None
            for version in self.sdists[project]:
                sdists.stand_in(self.local, project, version)
        return {"stood_in": True}

    def do_source(self, project: str, version: str) -> dict[str, Any]:
        """Fetch one source distribution, checked against the index's sum; its pyproject.toml."""
        offered = self.sdists.get(project, {})
        if version not in offered:
            raise web.Failed(f"there is no source of {project} {version}")
        url, sha256 = offered[version]
        place = self.scratch / "source.tar.gz"
        digest = self.web.fetch(url, place, self.limit)
        if sha256 and digest != sha256:
            raise web.Failed(f"the source of {project} {version} is not what the index says: its sha256 is {digest}")
        try:
            return {"project": sdists.project(place)}
        except ValueError as error:
            raise web.Failed(f"the source of {project} {version} cannot be read: {error}") from None

    def do_take(self, project: str, version: str, standing: str, file: str) -> dict[str, Any]:
        """Let a wheel that was built stand where its stand-in did, if it is one of that project and version."""
        trial = self.scratch / "trial"
        try:
            with (self.scratch / "built.whl").open("rb") as wheel:
                tree = unpacking.Tree(trial, "python3", unpacking.Budget(self.limit, MAX_FILES))
                self._unpack(wheel, {"name": project, "version": version, "file": file}, tree)
        finally:
            shutil.rmtree(trial, ignore_errors=True)
        (self.local / standing).unlink()
        (self.scratch / "built.whl").replace(self.local / file)
        return {"taken": True}

    def do_install(
        self, *, wheels: list[dict[str, str]], target: dict[str, str], inherit: bool, compiled: str
    ) -> dict[str, Any]:
        """Fetch wheels, check their sums, unpack them in their order; the size of the environment in bytes."""
        tree = unpacking.Tree(self.folder / "environment", target["folder"], unpacking.Budget(self.limit, MAX_FILES))
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            fetched = [pool.submit(self._wheel, wheel) for wheel in wheels]
            try:
                for wheel, future in zip(wheels, fetched, strict=False):
                    with future.result() as file:
                        self._unpack(file, wheel, tree)
            finally:
                for future in fetched:
                    future.cancel()
        for clash in tree.clashes[:20]:
            _say({"note": clash})
        tree.finish(target["executable"], target["version"], inherit=inherit)
        if target["magic"] == importlib.util.MAGIC_NUMBER.hex():
            self._compile(tree.root, compiled)
        return {"done": _bytes(tree.root)}

    def _unpack(self, file: IO[bytes], wheel: dict[str, str], tree: unpacking.Tree) -> None:
        try:
            unpacking.unpack(file, wheel["name"], wheel["version"], tree)
        except unpacking.BadWheel as bad:
            raise web.Failed(f"{wheel['file']} is not installed: {bad}") from None

    def _wheel(self, wheel: dict[str, str]) -> IO[bytes]:
        """The wheel, open, its content checked just now; from what was fetched before where that is still the same."""
        if wheel["url"].startswith("file:"):  # the owner's, or built for this environment alone: in no cache
            return self._local_wheel(wheel)
        stored = self.wheels / wheel["sha256"]
        if wheel["sha256"]:
            try:
                file = stored.open("rb")
            except OSError:
                pass
            else:
                if _sum(file) == wheel["sha256"]:
                    os.utime(stored)
                    return file
                file.close()
        # What the index gives no sum of is fetched for this environment, and stays in its folder.
        part = (self.wheels if wheel["sha256"] else self.scratch) / f"{PART}{uuid.uuid4().hex}"
        try:
            digest = self.web.fetch(wheel["url"], part, self.limit)
            self._check(wheel, digest)
            file = part.open("rb")
            if wheel["sha256"]:
                part.replace(stored)
        finally:
            part.unlink(missing_ok=True)
        return file

    def _check(self, wheel: dict[str, str], digest: str) -> None:
        if wheel["sha256"] and digest != wheel["sha256"]:
            raise web.Failed(
                f"{wheel['file']} is not what the index says: its sha256 is {digest}, and {wheel['sha256']} is expected"
            )

    def _local_wheel(self, wheel: dict[str, str]) -> IO[bytes]:
        path = Path(unquote(urlsplit(wheel["url"]).path))
        folders = [Path(folder) for folder in (self.order["wheels"], str(self.local)) if folder]
        if path.parent not in folders or not path.is_file():
            raise web.Failed(f"{wheel['file']} is not among the wheels of this machine")
        file = path.open("rb")
        if wheel["sha256"] and _sum(file) != wheel["sha256"]:
            file.close()
            raise web.Failed(f"{wheel['file']} has changed since it was chosen")
        return file

    def _compile(self, root: Path, shown: str) -> None:
        """Compile now: in a capsule nothing can be kept, so each task would compile again. It runs nothing."""
        words = [sys.executable, "-I", "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash",
                 "-s", str(root), "-p", shown, str(root / "lib")]  # fmt: skip
        quiet = subprocess.DEVNULL
        running = subprocess.Popen(
            words,
            cwd=root,
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            text=True,
        )
        RUNNING.add(running)
        running.wait()  # what does not compile, such as a test for another Python, says so when it is imported
        RUNNING.discard(running)

    def _uv(self, *words: str) -> None:
        """Run uv, hand on its warnings. Raises web.Failed with its last words."""
        try:
            running = subprocess.Popen(
                [self.order["uv"], *words], env=self._variables(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors="replace", cwd=self.scratch,
            )  # fmt: skip
        except OSError as error:
            raise web.Failed(f"the worker's uv cannot run: {error.strerror}") from None
        RUNNING.add(running)
        text = ""
        assert running.stdout is not None
        for line in running.stdout:
            text = (text + line)[-WORDS:]
        code = running.wait()
        RUNNING.discard(running)
        if GROWN:
            raise unpacking.TooLarge(GROWN[0])
        if code == -signal.SIGXFSZ or "File too large" in text:
            raise unpacking.TooLarge(self.limit)
        if code != 0 and (projects := NO_WHEEL.findall(text)):
            raise NoWheel(text.strip(), projects)
        if code != 0:
            raise web.Failed(text.strip() or f"uv ended with code {code}")
        for line in text.splitlines()[-NOTES:]:  # warnings, such as of an extra that a package does not have
            if line.strip():
                _say({"note": line.strip()})

    def _variables(self) -> dict[str, str]:
        """All that uv is told by its environment: addresses may hold passwords, which a command line would show."""
        order = self.order
        variables = {
            "PATH": os.defpath,
            "HOME": str(self.scratch),
            "TMPDIR": str(self.scratch),
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "COLUMNS": "1000",
            "UV_NO_CONFIG": "1",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_KEYRING_PROVIDER": "disabled",
            # What is said of wheels that are built here is not for the next environment.
            "UV_CACHE_DIR": str(self.scratch / "uv" if self.sdists else self.uv_cache),
            "UV_DEFAULT_INDEX": order["index_url"],
        }
        if order["wheels"]:
            variables["UV_FIND_LINKS"] = order["wheels"]
        if order["proxy"]:
            variables.update(dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), order["proxy"]))
        if order["certificates"]:
            variables["SSL_CERT_FILE"] = str(self.web.bundle)
        return variables


def _sum(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


def _bytes(folder: Path) -> int:
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(at, name).lstat().st_blocks * 512
            except OSError:  # gone meanwhile
                continue
    return total


def _say(answer: dict[str, Any]) -> None:
    with SPEAKING:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
