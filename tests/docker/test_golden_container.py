"""What the engine really made of the golden container, read back from the engine."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import attempts
import docker_bench
import pytest
import waiting

from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import hardening
from hivemind_worker.tasks import outcome

pytestmark = pytest.mark.docker
MIB = 1024 * 1024


async def _inspected(url: str, bench: attempts.Bench, **more: object) -> dict[str, Any]:
    watcher, stop = attempts.Watcher(), stopping.Stop()
    running = asyncio.create_task(bench.shell("echo up; sleep 100", watcher=watcher, stop=stop, **more))
    engine = engines.Engine(url)
    await engine.connect()
    try:
        await waiting.wait_until(lambda: b"up" in watcher.text(), description="the task is up")
        label = f"{hardening.ROLE_LABEL}=capsule"
        node = bench.executor._around.node_id  # type: ignore[attr-defined]
        found = [c for c in await engine.containers(label) if c["Labels"][hardening.NODE_LABEL] == node]
        assert len(found) == 1
        return dict(await engine.inspect(found[0]["Id"]))
    finally:
        await engine.close()
        stop.request(stopping.StopLevel.KILL, "seen enough")
        await running


async def test_the_engine_made_what_the_golden_spec_says(docker_url: str, python_image: str, tmp_path: Path) -> None:
    async with attempts.docker_bench(docker_url, python_image, tmp_path) as bench:
        found = await _inspected(docker_url, bench)
    host, config = found["HostConfig"], found["Config"]

    assert config["User"] == "0:0", "hivemind-init gives it up: see test_users"
    assert config["Entrypoint"] == ["/.hivemind/hivemind-init"]
    assert config["Cmd"] == ["--owner", "/workspace", "--users", "60600", "60601"]
    assert config["Healthcheck"] == {"Test": ["NONE"]}
    assert (config["OpenStdin"], config["StdinOnce"], config["Tty"]) == (True, False, False)
    assert {name.removeprefix("io.hivemind.") for name in config["Labels"] if name.startswith("io.hivemind.")} == {
        "node-id",
        "task-id",
        "attempt",
        "boot-id",
        "capsule-version",
        "role",
    }
    assert "task-" not in found["Name"]
    assert host["CapDrop"] == ["ALL"]
    assert {right.removeprefix("CAP_") for right in host["CapAdd"]} == {"CHOWN", "KILL", "SETGID", "SETPCAP", "SETUID"}
    assert host["Privileged"] is False
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert any(option.startswith("seccomp={") for option in host["SecurityOpt"])
    assert host["ReadonlyRootfs"] is True
    assert host["NetworkMode"] == "none"
    assert (host["IpcMode"], host["PidMode"], host["UTSMode"]) == ("private", "", "")
    assert host["Memory"] == host["MemorySwap"] == 256 * MIB
    assert (host["CpuPeriod"], host["CpuQuota"]) == (100_000, 200_000)
    assert host["PidsLimit"] == 64
    assert host["OomScoreAdj"] >= 500
    assert {limit["Name"]: limit["Hard"] for limit in host["Ulimits"]} == {
        "nofile": 1024,
        "core": 0,
        "fsize": 129 * MIB,
    }
    assert host["LogConfig"]["Type"] == "none"
    assert host["RestartPolicy"]["Name"] == "no"
    assert not host["Binds"]
    assert not host["Devices"]
    assert host["Init"] is False
    assert set(host["Tmpfs"]) == {"/tmp", "/run", "/dev/shm", "/workspace"}
    assert all("size=" in options and "nr_inodes=" in options for options in host["Tmpfs"].values())
    mounts = {mount["Destination"]: mount for mount in found["Mounts"] if mount["Type"] != "tmpfs"}
    assert set(mounts) == {"/.hivemind"}
    assert mounts["/.hivemind"]["RW"] is False
    assert mounts["/.hivemind"]["Type"] == "volume"
    assert "hunter2" not in json.dumps(found)
    assert docker_bench.findings(found) == ()
    unsafe = {**host, "Privileged": True, "UTSMode": "host", "PidsLimit": None}
    assert [each.split()[0] for each in docker_bench.findings({**found, "HostConfig": unsafe})] == [
        "5.5",
        "5.21",
        "5.29",
    ]


async def test_a_large_workspace_is_a_volume_of_ours_and_nothing_of_the_host(
    docker_url: str, python_image: str, tmp_path: Path
) -> None:
    async with attempts.docker_bench(docker_url, python_image, tmp_path) as bench:
        found = await _inspected(docker_url, bench, limits={"disk_bytes": 1024 * MIB})
    mounts = {mount["Destination"]: mount for mount in found["Mounts"] if mount["Type"] != "tmpfs"}
    assert set(mounts) == {"/.hivemind", "/workspace"}
    assert all(mount["Type"] == "volume" for mount in mounts.values())
    assert mounts["/workspace"]["Name"].startswith("hivemind-workspace-")
    assert docker_bench.findings(found) == ()


async def test_volumes_that_an_image_declares_are_not_made_on_the_hosts_disk(
    docker_url: str, busybox_image: str, tmp_path: Path
) -> None:
    engine = engines.Engine(docker_url)
    await engine.connect()
    image = "hivemind-test/volumes:1"
    try:
        base = await engine.create("hivemind-test-volumes", {"Image": busybox_image, "Cmd": ["true"]})
        query = {"container": base, "repo": "hivemind-test/volumes", "tag": "1"}
        body = {"Image": busybox_image, "Volumes": {"/data": {}}, "User": "root", "Entrypoint": ["/no/such"]}
        await engine._json("commit", "commit", "POST", params=query, body=body)
        await engine.remove(base)
        async with attempts.docker_bench(docker_url, image, tmp_path) as bench:
            found = await _inspected(docker_url, bench)
            ended = await bench.shell("id -u; echo x > /data/x && cat /data/x")
    finally:
        await engine._json("remove the image", f"images/{image}", "DELETE", params={"force": "1"})
        await engine.close()
    assert {mount["Destination"] for mount in found["Mounts"] if mount["Type"] != "tmpfs"} == {"/.hivemind"}
    assert ended.logs.text.endswith(b"\nx\n")


async def test_nothing_that_an_images_author_configured_is_a_difference(
    docker_url: str, busybox_image: str, tmp_path: Path
) -> None:
    engine = engines.Engine(docker_url)
    await engine.connect()
    repository, name = "hivemind-test/configured", f"hivemind-test-{uuid.uuid4().hex[:12]}"
    second = 1_000_000_000
    body = {
        "Image": busybox_image,
        "Hostname": "evil",
        "Domainname": "example.org",
        "User": "nobody:nogroup",
        "AttachStdin": True,
        "Tty": True,
        "OpenStdin": True,
        "StdinOnce": True,
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Env": ["A=1", "PATH=/nowhere", "HIVEMIND_ATTEMPT=9", "LD_PRELOAD=/x"],
        "Cmd": ["x"],
        "Entrypoint": ["/no/such"],
        "Healthcheck": {
            "Test": ["CMD", "x"],
            "Interval": second,
            "Timeout": second,
            "StartPeriod": second,
            "Retries": 9,
        },
        "ArgsEscaped": True,
        "Volumes": {"/data": {}, "/tmp": {}, "/workspace": {}, "/run/x": {}},
        "WorkingDir": "/x/y",
        "NetworkDisabled": True,
        "MacAddress": "02:42:ac:11:00:02",
        "OnBuild": ["RUN false"],
        "Labels": {hardening.NODE_LABEL: "other", f"{hardening.LABEL}.role": "inspector"},
        "StopSignal": "SIGCONT",
        "StopTimeout": 600,
        "Shell": ["/bin/false"],
    }
    try:
        base = await engine.create(name, {"Image": busybox_image, "Cmd": ["true"]})
        query = {"container": base, "repo": repository, "tag": "1"}
        await engine._json("commit", "commit", "POST", params=query, body=body)
        await engine.remove(base)
        async with attempts.docker_bench(docker_url, f"{repository}:1", tmp_path) as bench:
            ended = await bench.shell("echo ran")
    finally:
        await engine._json("remove the image", f"images/{repository}:1", "DELETE", params={"force": "1"})
        await engine.close()
    assert (ended.status, ended.logs.text) == (outcome.Status.COMPLETED, b"ran\n"), ended.error
