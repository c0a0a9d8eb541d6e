"""What fences a task: what a probe is told to try, and from what it saw to whether each defence holds. Pure.

The probe (`capsule/init/probe`) runs as a task; `promised.py` of `containers` and of `sandbox` says what is promised.
"""

from __future__ import annotations

from typing import Final

from hivemind_worker.runtime.capsule import defence_checks, defence_spec, probe_report
from hivemind_worker.tasks import spec

PROBE: Final = "hivemind-probe"
SPIN_MILLISECONDS: Final = 150
SPINNERS: Final = 2

NETWORKS: Final = ("1.1.1.1", "169.254.169.254", "172.17.0.1", "10.0.0.1", "192.168.0.1", "2001:4860:4860::8888")
"""Outside, the clouds' metadata, an engine's usual bridge, networks of a house or company, and outside by IPv6."""


def arguments(promises: defence_spec.DefenceSpec) -> tuple[str, ...]:
    """What the probe is told to try, in this order."""
    fills = (f"fill={path}:{cap.max_bytes}:{cap.max_files}" for path, cap in promises.memory_folders.items())
    return (
        "facts",
        "calls",
        "writes",
        *(f"network={address}" for address in NETWORKS),
        *(f"path={path}" for path in promises.absent),
        *fills,
        f"files={promises.open_files}",
        f"forks={promises.limits.pids}",
        f"memory={promises.limits.memory_bytes}",
        f"processor={SPIN_MILLISECONDS}:{SPINNERS}",
        "first",
    )


def judge(
    text: str, promises: defence_spec.DefenceSpec, throttled_seconds: float | None = None
) -> tuple[defence_spec.Verdict, ...]:
    """Say of each defence whether it holds. ``throttled_seconds``: what the kernel counted of waiting for quota.

    What a whole report does not tell is not in force: silence proves nothing.
    """
    report = probe_report.Report(text)
    fix = "do not run the tasks of others here before this is understood"
    verdicts = []
    for name, (promise, check) in defence_checks.CHECKS.items():
        faults = tuple(check(report, promises)) if name in _promised(promises) else None
        if faults is not None:
            state = defence_spec.State.BROKEN if faults else defence_spec.State.HOLDS
            verdicts.append(defence_spec.Verdict(name, promise, state, "; ".join(faults)[:600], fix if faults else ""))
    if "cpu" in promises.enforced:
        verdicts.append(_processor(report, promises, throttled_seconds))
    return tuple(verdicts)


def _promised(promises: defence_spec.DefenceSpec) -> frozenset[str]:
    optional = {
        "memory": "memory" in promises.enforced,
        "processes_limit": "pids" in promises.enforced,
        "masks": promises.masks,
        "oom_score": bool(promises.oom_score),
        "label": promises.label,
    }
    return frozenset(name for name in defence_checks.CHECKS if optional.get(name, True))


def _processor(
    report: probe_report.Report, promises: defence_spec.DefenceSpec, throttled: float | None
) -> defence_spec.Verdict:
    """A busy machine keeps a task from processors as a quota does: only what the kernel counted tells the two apart."""
    holds, broken = defence_spec.State.HOLDS, defence_spec.State.BROKEN

    def verdict(state: defence_spec.State, evidence: str = "", fix: str = "") -> defence_spec.Verdict:
        return defence_spec.Verdict("processor", "processor quota", state, evidence, fix)

    values = report.values("processor")
    if values is None or len(values) < 3:
        return verdict(broken, "it was not tried", "look at the log of the worker")
    used, took, _ = values
    granted = took * promises.limits.cpu_quota / spec.CPU_PERIOD
    quotas = {line.split()[0] for line in report.lines("quota") if line.split()}
    fix = "see why the engine or the kernel does not keep it"
    if used > 1.6 * granted + spec.CPU_PERIOD / 2:  # a period may begin just before and another just after
        used_ms, took_ms, granted_ms = (round(each / 1000) for each in (used, took, granted))
        return verdict(broken, f"{used_ms} ms of processor time in {took_ms} ms, of {granted_ms} promised", fix)
    if quotas and str(promises.limits.cpu_quota) not in quotas:
        return verdict(broken, f"the kernel's quota is {', '.join(sorted(quotas))}", fix)
    if throttled or quotas or (throttled is None and used > granted / 2):
        return verdict(holds)
    return verdict(defence_spec.State.UNTRIED, "the machine is too busy to tell", "try again when it is less busy")


IDS: Final = (*defence_checks.CHECKS, "processor", "spec", "run")
"""All ids; `spec`: the engine made what it was told to make; `run`: the probe ran at all."""
