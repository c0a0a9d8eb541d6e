"""A task with egress reaches what the owner listed, and by no means anything else: host, LAN, metadata, pool, names."""

from __future__ import annotations

import ipaddress
import json
import socket
from pathlib import Path

import attempts
import egress_world
import psutil
import pytest

from hivemind_worker.tasks import outcome, plan

PROBES = r"""
import json, os, re, socket, sys, urllib.error, urllib.request
good, service, pool, own = json.loads(sys.argv[1])
found = {}

def direct(host, port, kind=socket.SOCK_STREAM):
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=kind)[0]
        with socket.socket(family, kind) as probe:
            probe.settimeout(3)
            probe.connect(address)
            if kind == socket.SOCK_DGRAM:
                probe.send(bytes.fromhex("00010100000100000000000003777777076578616d706c6503636f6d0000010001"))
                probe.recv(100)
        return "REACHED"
    except OSError as error:
        return type(error).__name__

def ask(text, *headers):
    with socket.create_connection(("127.0.0.1", 3128), 10) as proxy:
        head = "\r\n".join((text + " HTTP/1.1", *(headers or ("Host: x",)))) + "\r\n\r\n"
        proxy.sendall(head.encode())
        return re.match(r"HTTP/1.1 (\d+)|", proxy.recv(500).decode("latin-1"))[1] or "closed"

def fetch(url):
    try:
        return urllib.request.urlopen(url, timeout=10).read().decode()
    except urllib.error.HTTPError as error:
        return str(error.code)

for host in ("127.0.0.1", "169.254.169.254", "1.1.1.1", "2606:4700:4700::1111", "::1", "10.0.0.1", "172.17.0.1", *own):
    for port in (80, service, pool, 53):
        found[f"direct {host} {port}"] = direct(host, port)
for host in ("1.1.1.1", "8.8.8.8", "169.254.169.254", *own):
    found[f"dns {host}"] = direct(host, 53, socket.SOCK_DGRAM)
found["resolver"] = direct("pypi.org", 443)

loopback = "127.0.0.1 localhost LOCALHOST. within.example 2130706433 0x7f000001 0x7f.1 127.1 0177.0.0.1 127.0.0.2 0"
loopback += " 0.0.0.0 [::1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [64:ff9b::127.0.0.1] [2002:7f00:1::]"
loopback += " [::1%lo] user@127.0.0.1 good.example@127.0.0.1 127.0.0.1%00.good.example good.example%00@127.0.0.1 "
loopback += " ".join(
    f"[{address}]" if ":" in address else address for address in own)
for host in loopback.split():
    for port in (service, pool):
        found[f"connect {host} {port}"] = ask(f"CONNECT {host}:{port}")
        found[f"get {host} {port}"] = ask(f"GET http://{host}:{port}/")
within = "169.254.169.254 [fe80::1] [fd00:ec2::254] 10.0.0.1 192.168.0.1 172.17.0.1 100.100.100.200 224.0.0.1"
for host in within.split():
    found[f"connect {host}"] = ask(f"CONNECT {host}:80")
    found[f"get {host}"] = ask(f"GET http://{host}/latest/meta-data/")
for text in ("CONNECT 1.1.1.1:53", "CONNECT good.example:22", f"CONNECT evil.example:{good}", f"GET /",
             f"GET //127.0.0.1:{service}/",
             f"GET http://good.example:{good}@127.0.0.1:{service}/",
             f"GET http://127.0.0.1:{service}#@good.example:{good}/",
             f"GET http://127.0.0.1:{service}\\@good.example:{good}/", f"GET https://127.0.0.1:{service}/",
             f"CONNECT http://127.0.0.1:{service}", f"CONNECT 127.0.0.1:{service}:{good}", f"OPTIONS *", "PRI *"):
    found[text] = ask(text, f"Host: good.example:{good}")
found["two hosts"] = ask(f"GET http://127.0.0.1:{service}/", f"Host: good.example:{good}", f"Host: 127.0.0.1:{service}")
found["redirect"] = fetch(f"http://good.example:{good}/redirect")
refused = dict(found)
found = {}

found["get"] = fetch(f"http://good.example:{good}/").lstrip("x")
found["connect"] = ask(f"CONNECT good.example:{good}")
found["connect by address"] = ask(f"CONNECT 127.0.0.1:{good}")
found["other host header"] = ask(f"GET http://good.example:{good}/", f"Host: 127.0.0.1:{service}")
found["rebinding"] = [ask(f"CONNECT rebinding.example:{good}") for _ in range(4)]
with socket.create_connection(("127.0.0.1", 3128)) as proxy:
    proxy.sendall(f"CONNECT good.example:{good} HTTP/1.0\r\n\r\nafter".encode())
    back, more = b"", b"x"
    while more and b"after" not in back:
        more = proxy.recv(100)
        back += more
    found["tunnel"] = back.partition(b"\r\n\r\n")[2].decode()
print(json.dumps({"refused": refused, "reached": found}))
"""


def own_addresses() -> list[str]:
    families = (socket.AF_INET, socket.AF_INET6)
    rows = [row.address for rows in psutil.net_if_addrs().values() for row in rows if row.family in families]
    return [text for text in rows if "%" not in text and not ipaddress.ip_address(text).is_loopback]


async def probed(bench: attempts.Bench, world: egress_world.World) -> None:
    arguments = json.dumps([world.port, world.service_port, world.pool_port, own_addresses()])
    watcher = attempts.Watcher()
    files = (plan.InputFile("probe.py", content=PROBES.encode()),)
    ended = await bench.run(
        ["python3", "probe.py", arguments], network=plan.Network.EGRESS, watcher=watcher, files=files
    )
    assert ended.status is outcome.Status.COMPLETED, (ended.error, ended.logs.text[-2000:])
    result = json.loads(ended.logs.text)
    through = {name: how for name, how in result["refused"].items() if how in {"REACHED", "200", "302"}}
    assert not through
    assert len(result["refused"]) > 100
    assert world.intruders == []
    reached = result["reached"]
    assert f"host: {egress_world.GOOD}:{world.port}" in reached["get"].lower()
    assert (reached["connect"], reached["connect by address"], reached["tunnel"]) == ("200", "200", "after")
    assert reached["other host header"] == "200"
    assert sorted(set(reached["rebinding"])) == ["200", "502"], "what was checked is what was connected to"
    used = ended.usage
    assert used.network_received_bytes is not None
    assert used.network_received_bytes > len(egress_world.BIG)
    assert used.network_sent_bytes
    assert used.network_refused
    assert used.network_refused > 50
    refusals = [note for note in watcher.notes if note.startswith("egress refused")]
    assert 0 < len(refusals) <= 20


@pytest.mark.sandbox
async def test_g7_a_sandbox_with_egress_reaches_what_is_listed_alone(tmp_path: Path) -> None:
    async with egress_world.world() as world, attempts.process_bench(tmp_path, way=world.gateway()) as bench:
        await probed(bench, world)
        without = await bench.python("import os; print([name for name in os.environ if 'proxy' in name.lower()])")
        assert without.logs.text == b"[]\n"


@pytest.mark.docker
async def test_g7_a_container_with_egress_reaches_what_is_listed_alone(
    docker_url: str, python_image: str, tmp_path: Path
) -> None:
    async with (
        egress_world.world() as world,
        attempts.docker_bench(docker_url, python_image, tmp_path, way=world.gateway()) as bench,
    ):
        await probed(bench, world)
