"""A port before the real engine that takes defences off each container it is told to make, and may hide that it did."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import engine_proxy

from hivemind_worker.concurrency import stopping

Body = dict[str, Any]
Strip = Callable[[Body, Body], None]
"""Changes the body of a container and, within it, its HostConfig."""


def _set(**values: Any) -> Strip:
    return lambda _, host: host.update(values)


def _options(kind: str, *more: str) -> Strip:
    def strip(_: Body, host: Body) -> None:
        host["SecurityOpt"] = [each for each in host["SecurityOpt"] if not each.startswith(kind)] + list(more)

    return strip


def _user(body: Body, _: Body) -> None:
    body["Cmd"] = []  # hivemind-init stays root, and so does its task


def _shm(_: Body, host: Body) -> None:
    host["Tmpfs"].pop("/dev/shm")


def _uts(body: Body, host: Body) -> None:
    body.pop("Hostname", None)
    host["UTSMode"] = "host"


def _uncapped(_: Body, host: Body) -> None:
    host["Tmpfs"] = {path: _without(options, "size", "nr_inodes") for path, options in host["Tmpfs"].items()}


def _few_flags(_: Body, host: Body) -> None:
    flags = ("nosuid", "nodev")
    host["Tmpfs"] = {path: f"{_without(options, *flags)},suid,dev" for path, options in host["Tmpfs"].items()}


def _without(options: str, *names: str) -> str:
    return ",".join(option for option in options.split(",") if option.partition("=")[0] not in names)


def _bound(_: Body, host: Body) -> None:
    host["Tmpfs"].pop("/workspace", None)
    host["Mounts"].append({"Type": "volume", "Target": "/workspace"})  # on the host's disk


def _variables(body: Body, _: Body) -> None:
    body["Env"] = ["LD_PRELOAD=/x.so"]


STRIPS: Mapping[str, Strip] = {
    "seccomp": _options("seccomp", "seccomp=unconfined"),
    "seccomp_default": _options("seccomp"),
    "capabilities": _set(CapDrop=[]),
    "all_capabilities": _set(CapDrop=[], CapAdd=["ALL"]),
    "no_new_privileges": _options("no-new-privileges"),
    "apparmor": lambda _, host: host["SecurityOpt"].append("apparmor=unconfined"),
    "root": _set(ReadonlyRootfs=False),
    "host_mounted": _set(Binds=["/:/host"]),
    "workspace_bound": _bound,
    "engine_socket": _set(Binds=["/var/run/docker.sock:/var/run/docker.sock"]),
    "pid": _set(PidMode="host"),
    "network": _set(NetworkMode="host"),
    "bridge": _set(NetworkMode="bridge"),
    "ipc": _set(IpcMode="host"),
    "uts": _uts,
    "cgroup_namespace": _set(CgroupnsMode="host"),
    "pids": _set(PidsLimit=0),
    "memory": _set(Memory=0, MemorySwap=0),
    "swap": _set(MemorySwap=-1),
    "processor": _set(CpuQuota=0, CpuPeriod=0),
    "ulimits": _set(Ulimits=[]),
    "memory_folders": _uncapped,
    "folder_flags": _few_flags,
    "shm": _shm,
    "user": _user,
    "privileged": _set(Privileged=True),
    "devices": _set(Devices=[{"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/kmsg", "CgroupPermissions": "rwm"}]),
    "masks": _set(MaskedPaths=[], ReadonlyPaths=[]),
    "oom_score": _set(OomScoreAdj=0),
    "log": _set(LogConfig={"Type": "json-file", "Config": {}}),
    "restart": _set(RestartPolicy={"Name": "always", "MaximumRetryCount": 0}),
    "runtime": _set(Runtime="io.containerd.runc.v2"),
    "environment": _variables,
}
"""One defence each, or one way to take it off."""

ALL = (
    *("seccomp", "capabilities", "no_new_privileges", "root", "host_mounted", "pid", "network", "ipc", "uts", "pids"),
    *("memory", "processor", "ulimits", "memory_folders", "shm", "user", "masks", "oom_score", "log"),
)
"""What can be taken off at once; with every capability this engine starts no root."""


@dataclasses.dataclass
class Stripping:
    """What the proxy takes off (names of `STRIPS`), whether it then says that it did not, and how often it did."""

    strips: tuple[str, ...] = ()
    forged: bool = False
    done: int = 0
    asked: Body = dataclasses.field(default_factory=dict)

    def changed(self, body: bytes) -> bytes:
        """The body of a container as the engine is told it."""
        asked = json.loads(body)
        if (asked.get("Labels") or {}).get("io.hivemind.role") != "capsule":
            return body
        self.asked, self.done = asked, self.done + 1
        made = json.loads(body)
        for name in self.strips:
            STRIPS[name](made, made["HostConfig"])
        return json.dumps(made).encode()

    def told(self, answer: bytes) -> bytes:
        """What `inspect` says, golden where it is forged."""
        seen = json.loads(answer)
        if not self.forged or not self.asked or (seen.get("Config") or {}).get("Labels", {}) != self.asked["Labels"]:
            return answer
        host = {key: seen["HostConfig"].get(key) for key in ("Runtime", "ConsoleSize")} | self.asked["HostConfig"]
        host |= {"MaskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"], "Runtime": "runc"}
        host["ReadonlyPaths"] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        config = {key: value for key, value in self.asked.items() if key != "HostConfig"}
        places = {mount["Target"] for mount in self.asked["HostConfig"]["Mounts"]}
        mounts = [mount for mount in seen["Mounts"] if mount["Destination"] in places]
        networks: Body = {"Networks": {"none": {}}}
        seen["Args"] = self.asked["Cmd"]
        return json.dumps(
            {**seen, "HostConfig": host, "Config": config, "Mounts": mounts, "NetworkSettings": networks}
        ).encode()


async def _requests(
    stripping: Stripping,
    path: str,
    client: asyncio.StreamReader,
    answer: asyncio.StreamWriter,
    engine: asyncio.StreamWriter,
) -> None:
    while data := await client.read(65536):
        line = data.partition(b"\r\n")[0]
        if line.startswith(b"POST ") and b"/containers/create" in line:
            head, _, body = (await engine_proxy._whole(data, client)).partition(b"\r\n\r\n")
            body = stripping.changed(body)
            kept = [each for each in head.split(b"\r\n") if not each.lower().startswith(b"content-length:")]
            data = b"\r\n".join([*kept, b"Content-Length: %d" % len(body), b"", body])
        elif line.startswith(b"GET ") and b"/containers/" in line and line.split()[1].endswith(b"/json"):
            status, body = await _ask(path, data)
            body = stripping.told(body) if status == b"200" else body
            head = b"HTTP/1.1 %s Told\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            answer.write(head % (status, len(body)) + body)
            continue
        engine.write(data)
        await engine.drain()


async def _ask(path: str, request: bytes) -> tuple[bytes, bytes]:
    """Ask the engine on a line of its own, as HTTP/1.0 does: the answer is all that comes."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        line, _, rest = request.partition(b"\r\n")
        writer.write(line.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\nConnection: close\r\n" + rest)
        await writer.drain()
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        assert b"chunked" not in head.lower(), "an answer in pieces to HTTP/1.0"
        return head.split()[1], body
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def before(docker_url: str, stripping: Stripping) -> AsyncIterator[str]:
    """Open the port; its address as in DOCKER_HOST."""
    path = docker_url.removeprefix("unix://")
    serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def answers(engine: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        while data := await engine.read(65536):
            answer.write(data)
            await answer.drain()

    async def serve(client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        serving[me] = answer
        from_engine, engine = await asyncio.open_unix_connection(path)
        ways = [
            asyncio.create_task(_requests(stripping, path, client, answer, engine), name="proxy requests"),
            asyncio.create_task(answers(from_engine, answer), name="proxy answers"),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await stopping.settle(*ways)
            for way in ways:
                with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                    way.result()
            answer.transport.abort()
            engine.transport.abort()
            serving.pop(me)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"tcp://{host}:{port}"
    finally:
        server.close()
        for answer in tuple(serving.values()):
            answer.transport.abort()
        if serving:
            await asyncio.wait(set(serving))
        await server.wait_closed()
