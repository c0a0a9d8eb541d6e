"""Each defence with its promise, and what in a probe's report speaks against it. Pure.

A check yields faults; what a whole report does not tell is one: silence proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from hivemind_worker.runtime.capsule import defence_spec, probe_report

_INITIAL: Final = {"cgroup": 4026531835, "pid": 4026531836, "user": 4026531837, "uts": 4026531838, "ipc": 4026531839}
"""Inodes of a machine's own namespaces (`include/linux/proc_ns.h`)."""

_DEVICES: Final = frozenset({"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"})
_PSEUDO: Final = frozenset({"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs"})
_REACHES: Final = frozenset(
    {
        *("memory", "variables", "files", "ptrace", "prlimit", "ioprio", "affinity", "priority", "user-priority"),
        *("parameters", "attributes", "scheduler"),
    }
)
"""By what the first process could be reached."""

_VARIABLES: Final = frozenset({"PATH", "HOME"})
_STREAMS: Final = frozenset({"0", "1", "2"})
_MIN_OOM_SCORE: Final = 500


def _user(report: probe_report.Report, _: defence_spec.DefenceSpec) -> Iterator[str]:
    for name in ("Uid", "Gid"):
        ids = report.status("self").get(name, ())
        if not ids or "0" in ids:
            yield f"{name} {' '.join(ids) or 'unknown'}"
    if "0" in report.status("self").get("Groups", ()):
        yield "it is in group 0"


def _sets(*names: str) -> Callable[[probe_report.Report, defence_spec.DefenceSpec], Iterator[str]]:
    def check(report: probe_report.Report, _: defence_spec.DefenceSpec) -> Iterator[str]:
        for name in names:
            value = report.status("self").get(name, ("unknown",))
            if set("".join(value)) != {"0"}:
                yield f"{name} {' '.join(value)}"

    return check


def _no_new_privileges(report: probe_report.Report, _: defence_spec.DefenceSpec) -> Iterator[str]:
    if report.status("self").get("NoNewPrivs") != ("1",):
        yield "NoNewPrivs is not set"


def _calls(report: probe_report.Report, spec: defence_spec.DefenceSpec) -> Iterator[str]:
    rows = {name: numbers[0] for name, numbers in report.numbers("call").items() if name not in spec.allowed_calls}
    rows |= {f"socket family {name}": numbers[0] for name, numbers in report.numbers("family").items()}
    reached = [name for name, number in rows.items() if not probe_report.is_refused(number)]
    if reached:
        yield f"reached the kernel: {', '.join(reached)}"
    if not rows:
        yield "no call was tried"


def _root(report: probe_report.Report, _: defence_spec.DefenceSpec) -> Iterator[str]:
    root = next((line.split() for line in report.lines("write") if line.startswith(" ")), [])
    if root != ["30"]:  # EROFS: whoever may write there, nobody can
        yield "the root can be written" if root == ["0"] else f"a write to the root ended with error {''.join(root)}"


def _writes(report: probe_report.Report, _: defence_spec.DefenceSpec) -> Iterator[str]:
    rows = report.numbers("write")
    yield from (f"{path} can be written" for path, numbers in rows.items() if path and numbers == (0,))
    if not rows:
        yield "nothing was tried"


def _masks(report: probe_report.Report, _: defence_spec.DefenceSpec) -> Iterator[str]:
    mounts = {mount.point: mount for mount in report.mounts()}
    for path in ("/proc/sys", "/sys"):
        if path not in mounts or not mounts[path].read_only:
            yield f"{path} is not read-only"
    if not mounts.keys() & {"/proc/keys", "/proc/kcore", "/proc/timer_list", "/sys/firmware"}:
        yield "nothing of /proc and /sys is hidden"


def _network(report: probe_report.Report, _: defence_spec.DefenceSpec) -> Iterator[str]:
    rows = [line.partition(":")[0].strip() for line in report.lines("interface") if ":" in line]
    others = [name for name in rows if name != "lo"]
    if others:
        yield f"interfaces {', '.join(others)}"
    if len(report.lines("route")) > 1:
        yield "there are routes"
    reached = [name for name, numbers in report.numbers("network").items() if numbers == (0,)]
    if reached:
        yield f"there is a way to {', '.join(reached)}"
    if not report.numbers("network"):
        yield "nothing was tried"


def _mounts(report: probe_report.Report, spec: defence_spec.DefenceSpec) -> Iterator[str]:
    mounts = report.mounts()
    for mount in mounts:
        if problem := _mount(mount, spec):
            yield f"{mount.point} ({mount.type} {mount.source}) {problem}"
    missing = spec.memory_folders.keys() - {mount.point for mount in mounts}
    if missing:
        yield f"not mounted: {', '.join(sorted(missing))}"


def _mount(mount: probe_report.Mount, spec: defence_spec.DefenceSpec) -> str:
    beneath = any(mount.point == folder or mount.point.startswith(f"{folder}/") for folder in spec.folders)
    if mount.point in spec.memory_folders:
        wanted = {"nosuid", "nodev"}
        if mount.type != "tmpfs":
            return "is not in memory"
        return "" if wanted <= mount.options else f"lacks {', '.join(sorted(wanted - mount.options))}"
    if mount.point == "/":  # another check tries whether it can be written
        return ""
    if mount.point in spec.files or beneath:
        return "" if mount.read_only else "can be written"
    pseudo = mount.type in _PSEUDO
    if mount.point in spec.mounts and pseudo:
        return ""
    kernel = mount.point.startswith(("/proc/", "/sys/", "/dev/")) and pseudo
    return "" if kernel else "must not be there"


def _memory_folders(report: probe_report.Report, spec: defence_spec.DefenceSpec) -> Iterator[str]:
    bytes_, files = report.numbers("fill"), report.numbers("inodes")
    for path, cap in spec.memory_folders.items():
        written, error = bytes_.get(path, (0, 0))[:2]
        if not error:
            yield f"{path} took {written} bytes, of {cap.max_bytes} promised" if written else f"{path} was not tried"
        made, error = files.get(path, (0, 0))[:2]
        if cap.max_files and not error:
            yield f"{path} took {made} files, of {cap.max_files} promised" if made else f"{path}: files were not tried"


def _namespaces(report: probe_report.Report, spec: defence_spec.DefenceSpec) -> Iterator[str]:
    rows = {name: numbers[0] for name, numbers in report.numbers("namespace").items()}
    for name in sorted(spec.fresh_namespaces):
        inode = rows.get(name)
        if inode is None:
            yield f"{name} unknown"
        elif inode in {_INITIAL.get(name), spec.own_namespaces.get(name)}:
            yield f"{name} is the machine's own"
    if report.lines("host") != (spec.host_name,):
        yield f"the host name is {' '.join(report.lines('host')) or 'unknown'}"


def _processes(report: probe_report.Report, _: defence_spec.DefenceSpec) -> Iterator[str]:
    own = report.values("own")
    rows = {line.partition(" ")[0]: line for line in report.lines("process")}
    if own is None or not rows:
        yield "processes are unknown"
        return
    others = [line for pid, line in rows.items() if pid not in {"1", str(own[0])}]
    if others:
        yield f"{len(others)} other processes, such as {others[0]}"
    if rows.get("1", "").split()[2:] != ["hivemind-init"]:
        yield f"the first process is {rows.get('1', 'not to be seen')}"


def _first_process(report: probe_report.Report, spec: defence_spec.DefenceSpec) -> Iterator[str]:
    rows = {name: numbers[0] for name, numbers in report.numbers("first").items()}
    if "name" in rows or not rows:
        yield "it is none of ours"
        return
    reached = sorted(name for name in _REACHES if not rows.get(name, 0))
    if reached:
        yield f"within reach: {', '.join(reached)}"
    uids = [report.status(process).get("Uid", ("unknown",))[0] for process in ("self", "first")]
    if spec.first_apart and (uids[0] == uids[1] or "unknown" in uids):
        yield f"it runs as uid {uids[1]}, as the task does"


def _devices(report: probe_report.Report, _: defence_spec.DefenceSpec) -> Iterator[str]:
    others = [line for line in report.lines("device") if line.partition(" ")[0] not in _DEVICES or " b " in line]
    if others:
        yield f"devices {', '.join(others[:5])}"


def _open_files(report: probe_report.Report, _: defence_spec.DefenceSpec) -> Iterator[str]:
    others = [line for line in report.lines("file") if line.partition(" ")[0] not in _STREAMS]
    if others or not report.lines("file"):
        yield f"open: {', '.join(others[:5]) or 'unknown'}"


def _variables(report: probe_report.Report, _: defence_spec.DefenceSpec) -> Iterator[str]:
    others = sorted(set(report.lines("variable")) - _VARIABLES)
    if others:
        yield f"variables {', '.join(others[:5])}"


def _host_paths(report: probe_report.Report, spec: defence_spec.DefenceSpec) -> Iterator[str]:
    rows = {line.partition(" ")[2]: line.partition(" ")[0] for line in report.lines("path")}
    seen = [path for path in spec.absent if rows.get(path, "0") == "0"]
    if seen:
        yield f"to be seen: {', '.join(seen)}"


def _memory(report: probe_report.Report, spec: defence_spec.DefenceSpec) -> Iterator[str]:
    touched, signal, error = (*(report.values("memory") or ()), 0, 0, 0)[:3]
    if not touched:
        yield "it was not tried"
    elif touched > spec.limits.memory_bytes or not (signal or error):
        yield f"{touched} bytes were taken, of {spec.limits.memory_bytes} promised"


def _pids(report: probe_report.Report, spec: defence_spec.DefenceSpec) -> Iterator[str]:
    made, error = (*(report.values("forks") or ()), 0, 0)[:2]
    if not made or not error or made > spec.limits.pids:
        yield f"{made} processes were made, of {spec.limits.pids} promised" if made else "it was not tried"


def _file_limits(report: probe_report.Report, spec: defence_spec.DefenceSpec) -> Iterator[str]:
    rows = report.numbers("limit")
    opened, error = (*(report.values("opened") or ()), 0, 0)[:2]
    if not error or opened > spec.open_files:
        yield f"{opened} files were opened, of {spec.open_files} promised"
    if rows.get("core") != (0, 0):
        yield "core files can be written"
    if rows.get("fsize", (-1, -1))[1] != spec.file_bytes:
        yield f"files may have {rows.get('fsize', (-1, -1))[1]} bytes, of {spec.file_bytes} promised"


def _oom(report: probe_report.Report, spec: defence_spec.DefenceSpec) -> Iterator[str]:
    first, own = report.values("oom-first"), report.values("oom-self")
    if first is None or first[0] < spec.oom_score:
        yield f"the first process has score {first[0] if first else 'unknown'}"
    if own is None or own[0] < _MIN_OOM_SCORE:
        yield f"the task has score {own[0] if own else 'unknown'}"


def _label(report: probe_report.Report, _: defence_spec.DefenceSpec) -> Iterator[str]:
    label = " ".join(report.lines("label"))
    if not label or label.startswith("unconfined"):
        yield f"it runs as {label or 'nothing'}"


_Check = Callable[[probe_report.Report, defence_spec.DefenceSpec], Iterator[str]]

CHECKS: Final[Mapping[str, tuple[str, _Check]]] = {
    "user": ("not root", _user),
    "capabilities": ("no capabilities", _sets("CapInh", "CapPrm", "CapEff", "CapAmb")),
    "bounding_set": ("no capabilities to be had", _sets("CapBnd")),
    "no_new_privileges": ("no new privileges", _no_new_privileges),
    "system_calls": ("system calls filtered", _calls),
    "root": ("read-only root", _root),
    "kernel_settings": ("nothing of the kernel can be written", _writes),
    "masks": ("kernel settings hidden or read-only", _masks),
    "network": ("no network", _network),
    "mounts": ("no mounts of the host", _mounts),
    "memory_folders": ("folders in memory capped", _memory_folders),
    "namespaces": ("its own namespaces", _namespaces),
    "processes": ("no processes of others", _processes),
    "first_process": ("first process out of reach", _first_process),
    "devices": ("no devices of the host", _devices),
    "open_files": ("no open files of the worker", _open_files),
    "variables": ("no variables of the worker", _variables),
    "host_paths": ("no paths of the host", _host_paths),
    "memory": ("memory limit", _memory),
    "processes_limit": ("process limit", _pids),
    "file_limits": ("limits of files", _file_limits),
    "oom_score": ("ended before others when memory runs out", _oom),
    "label": ("mandatory access control", _label),
}
"""Each defence: its id, its promise in words, and what speaks against it."""
