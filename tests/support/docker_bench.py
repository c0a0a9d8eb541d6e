"""Section 5 of the CIS Docker Benchmark (container runtime), as far as it is about a container: over `inspect`. Pure.

Numbers as in version 1.6. Left out: 5.6 (sshd), 5.24 (exec), 5.27 to 5.30, which are about what is run, or by whom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

SENSITIVE = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr", "/var/run/docker.sock", "/run/docker.sock")
PRIVILEGED_PORT = 1024


def findings(inspected: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the benchmark finds fault with."""
    host, config = inspected["HostConfig"], inspected["Config"]
    mounts = inspected.get("Mounts") or ()
    options = host.get("SecurityOpt") or ()
    ports = [port for bound in (host.get("PortBindings") or {}).values() for port in bound or ()]
    usual = {"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
             "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}  # fmt: skip
    checks: Mapping[str, Callable[[], bool]] = {
        "5.1 swarm mode": lambda: not config["Labels"].get("com.docker.swarm.service.id"),
        "5.2 AppArmor": lambda: "apparmor=unconfined" not in options,
        "5.3 SELinux": lambda: not any(option.startswith("label=disable") for option in options),
        "5.4 capabilities": lambda: host.get("CapDrop") == ["ALL"] and {*(host.get("CapAdd") or ())} <= usual,
        "5.5 privileged": lambda: host.get("Privileged") is False,
        "5.6 sensitive folders": lambda: not [m for m in mounts if m["Type"] == "bind" or m["Source"] in SENSITIVE],
        "5.8 privileged ports": lambda: not [p for p in ports if int(p["HostPort"] or 0) < PRIVILEGED_PORT],
        "5.9 ports that are needed": lambda: not ports and not host.get("PublishAllPorts"),
        "5.10 the host's network": lambda: host.get("NetworkMode") != "host",
        "5.11 memory": lambda: host.get("Memory", 0) > 0 and host.get("MemorySwap") == host["Memory"],
        "5.12 processors": lambda: host.get("CpuQuota", 0) > 0 or host.get("CpuShares", 0) > 0,
        "5.13 read-only root": lambda: host.get("ReadonlyRootfs") is True,
        "5.14 addresses of ports": lambda: not [p for p in ports if p["HostIp"] in ("", "0.0.0.0", "::")],
        "5.15 restarts": lambda: host["RestartPolicy"]["Name"] in ("no", "on-failure"),
        "5.16 processes of the host": lambda: host.get("PidMode") != "host",
        "5.17 IPC of the host": lambda: host.get("IpcMode") in ("private", "none"),
        "5.18 devices": lambda: not host.get("Devices"),
        "5.19 ulimits": lambda: {"nofile", "core"} <= {limit["Name"] for limit in host.get("Ulimits") or ()},
        "5.20 mounts that are shared": lambda: not [m for m in mounts if "shared" in (m.get("Propagation") or "")],
        "5.21 host name of the host": lambda: host.get("UTSMode") != "host",
        "5.22 seccomp": lambda: any(o.startswith("seccomp=") and o != "seccomp=unconfined" for o in options),
        "5.25 control group": lambda: not host.get("CgroupParent"),
        "5.26 new privileges": lambda: any(option.startswith("no-new-privileges") for option in options),
        "5.29 processes": lambda: 0 < (host.get("PidsLimit") or 0) <= 4096,
        "5.31 user namespace of the host": lambda: host.get("UsernsMode") != "host",
        "5.32 the engine's socket": lambda: not [m for m in mounts if str(m["Source"]).endswith("docker.sock")],
    }
    return tuple(_failed(checks))


def _failed(checks: Mapping[str, Callable[[], bool]]) -> Iterator[str]:
    yield from (name for name, holds in checks.items() if not holds())
