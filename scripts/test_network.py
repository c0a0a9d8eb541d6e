"""The network of a private Docker engine: a namespace of its own, joined to this machine by one line, with a way out.

A second engine in this machine's own network takes `docker0` from the first, whatever bridge it is told to use. In a
namespace it has a `docker0` of its own, and a firewall of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import engine_api
import system_packages

ENGINES = 16  # private engines at once
NAME = "hmtest{}"  # of namespace, line and rules; an interface's name has at most 15 bytes
HOST, INSIDE = "10.213.{}.1", "10.213.{}.2"  # the two ends of the line: private, and off the beaten 172.17.0.0/16
LINE = "10.213.{}.0/30"
BRIDGE = "10.213.64.1/24"  # the engine's docker0; seen in its namespace only, so all may have the same
POOL = "base=10.213.128.0/20,size=26"  # 64 networks of 64 addresses that its users may make
CLAIMS = Path("/run/hivemind-test")  # one file a number, locked by whoever uses the number
GROUPS = Path("/sys/fs/cgroup")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
SWITCHED = CLAIMS / "ip_forward"  # here while forwarding is on because one of us switched it on
# A short path, since a socket's name has at most 107 bytes; mkdtemp makes ours in it, and ours alone.
TEMPORARY = Path("/tmp")  # noqa: S108  (mkdtemp makes ours in it)
PROGRAMS = {"dockerd", "containerd", "containerd-shim-runc-v2"}  # of an engine; all else there is their child
SECONDS_TO_DIE = 10  # after SIGKILL a process is gone at once, unless the disk holds it


class NoNetworkError(Exception):
    """A namespace cannot be made here; says why."""


@dataclass(frozen=True)
class Place:
    """A private engine's: the folder, and the number of the network."""

    home: Path
    number: int

    @property
    def name(self) -> str:
        """Of the namespace, of the line's end at this machine, and of what the engine calls its own elsewhere."""
        return NAME.format(self.number)

    @property
    def url(self) -> str:
        """The engine's address."""
        return f"unix://{self.home}/docker.sock"

    def inside(self) -> list[str]:
        """The words that start a program in the namespace; mounts stay this machine's, as control groups need."""
        return [system_packages.program("nsenter") or "nsenter", f"--net=/run/netns/{self.name}"]


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """A folder and a network for one engine; in the end nothing of either is left. Sweeps what killed runs left.

    Raises:
        NoNetworkError: none can be made here.
    """
    CLAIMS.mkdir(exist_ok=True)
    sweep()
    for number in range(ENGINES):
        with _claimed(number) as claim:
            if claim is None:
                continue
            home = Path(tempfile.mkdtemp(prefix="hmtest-", dir=TEMPORARY))
            os.write(claim, str(home).encode())  # before anything is made that only this tells
            made = Place(home, number)
            try:
                _join(made)
                yield made
            finally:
                remove(made)
                os.ftruncate(claim, 0)
            return
    raise NoNetworkError(f"all {ENGINES} networks of private engines are in use: see {CLAIMS}")


def sweep() -> None:
    """Remove what killed runs left: processes, mounts, folders, namespaces, rules."""
    for number in range(ENGINES):
        with _claimed(number) as claim:
            left = os.read(claim, 4096).decode() if claim is not None else ""
            if claim is not None and left:
                remove(Place(Path(left), number))
                os.ftruncate(claim, 0)


def host_of(engine: str) -> str:
    """This machine's address for an engine itself: loopback, or for a private one its end of the line."""
    known = engine_api.get(engine, "/info")["RegistryConfig"]["InsecureRegistryCIDRs"] or []
    ours = (HOST.format(number) for number in range(ENGINES))
    return next((address for address in ours if f"{address}/32" in known), "127.0.0.1")


@contextlib.contextmanager
def _claimed(number: int) -> Iterator[int | None]:
    """Hold a number's file, open and locked; None where another process does. The kernel lets go of a dead one's."""
    path = CLAIMS / str(number)
    claim = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        if not path.exists() or path.stat().st_ino != os.fstat(claim).st_ino:
            yield None  # whoever had it has just removed it
            return
        try:
            yield claim
        finally:
            if os.fstat(claim).st_size == 0:
                path.unlink()
    finally:
        os.close(claim)


def _join(made: Place) -> None:
    name, host, inside = made.name, HOST.format(made.number), INSIDE.format(made.number)
    _ip("netns", "add", name)
    _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("addr", "add", f"{host}/30", "dev", name)
    _ip("link", "set", name, "up")
    _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", name, "addr", "add", f"{inside}/30", "dev", "eth0")
    _ip("-n", name, "link", "set", "eth0", "up")
    _ip("-n", name, "route", "add", "default", "via", host)
    if FORWARDING.read_text(encoding="ascii").strip() == "0":
        SWITCHED.touch()
        FORWARDING.write_text("1", encoding="ascii")
    # Where the firewall cannot be written, whoever needs a package index says that it is away.
    named = ["-m", "comment", "--comment", name]
    line = LINE.format(made.number)
    _iptables("-t", "nat", "-A", "POSTROUTING", "-s", line, "!", "-o", name, *named, "-j", "MASQUERADE")
    _iptables("-t", "filter", "-I", "FORWARD", "-i", name, *named, "-j", "ACCEPT")
    _iptables("-t", "filter", "-I", "FORWARD", "-o", name, *named, "-j", "ACCEPT")


def remove(made: Place) -> None:
    """End what runs there, and remove all that is there; for an engine that has ended, or whose run was killed."""
    groups = _groups_of(made)
    _bury(made)
    _remove_groups(groups)
    _unmount_below(made.home)
    shutil.rmtree(made.home, ignore_errors=True)
    for table, chain in (("nat", "POSTROUTING"), ("filter", "FORWARD")):
        for rule in _iptables("-t", table, "-S", chain).splitlines():
            words = rule.replace('"', "").split()
            if words[0] == "-A" and made.name in words:
                _iptables("-t", table, "-D", *words[1:])
    for kind in ("link", "netns"):
        with contextlib.suppress(NoNetworkError):
            _ip(kind, "delete", made.name)
    others = [path for path in CLAIMS.glob("[0-9]*") if path.name != str(made.number) and path.stat().st_size]
    if SWITCHED.exists() and not others:
        FORWARDING.write_text("0", encoding="ascii")
        SWITCHED.unlink()


def _bury(made: Place) -> None:
    """Kill the engine's processes, its shims and all that hangs on them: no engine knows these any more."""
    deadline = time.monotonic() + SECONDS_TO_DIE
    while (left := _processes_of(made)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _processes_of(made: Place) -> set[int]:
    parents: dict[int, int] = {}
    engines = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            pid, words = int(entry.name), Path(entry.path, "cmdline").read_bytes()
            stat = Path(entry.path, "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            if stat[0] == "Z":
                continue  # dead already, and its parent's to bury
            parents[pid] = int(stat[1])
            # dockerd, its containerd and their shims bear the folder in their command line; a shim of the system's
            # containerd bears the name.
            program, _, rest = words.partition(b"\0")
            is_engine = Path(os.fsdecode(program)).name in PROGRAMS
            if is_engine and (f"{made.home}/".encode() in rest or made.name.encode() in rest.split(b"\0")):
                engines.add(pid)
    whole = set(engines)
    while grown := {pid for pid, parent in parents.items() if parent in whole} - whole:
        whole |= grown
    return whole - {os.getpid()}


def _groups_of(made: Place) -> list[Path]:
    """The control groups of its containers, in every hierarchy: of those it knows, and of those that run."""
    ids = {path.name for path in made.home.glob("data/containers/*")}
    for pid in _processes_of(made):
        with contextlib.suppress(OSError):
            ids |= set(re.findall(r"[0-9a-f]{64}", Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii")))
    found = (group for place in ("docker", "*/docker") for group in GROUPS.glob(f"{place}/*"))
    return [group for group in found if group.name in ids]


def _remove_groups(groups: list[Path]) -> None:
    """Remove them; the kernel may take a moment to see that their last process is gone."""
    deadline = time.monotonic() + SECONDS_TO_DIE
    while (groups := [group for group in groups if group.is_dir()]) and time.monotonic() < deadline:
        for group in groups:
            for at, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(at)  # noqa: PTH106
        time.sleep(0.02)


def _unmount_below(home: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    for at in sorted((mount for mount in mounts if mount.startswith(f"{home}/")), reverse=True):
        subprocess.run(["umount", "--lazy", at], check=False, capture_output=True)


def _ip(*words: str) -> None:
    command = [system_packages.program("ip") or "ip", *words]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    if ended.returncode:
        raise NoNetworkError(f"ip {' '.join(words)}: {ended.stderr.strip()}")


def _iptables(*words: str) -> str:
    """What it prints; nothing where it is missing or refuses."""
    program = system_packages.program("iptables")
    if program is None:
        return ""
    return subprocess.run([program, "--wait", *words], check=False, capture_output=True, text=True).stdout
