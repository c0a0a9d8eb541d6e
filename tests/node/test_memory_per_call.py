"""Every call of both services, in all the unkind ways there are: one takes 32 MiB, many what their caller may have."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import installed
import memory_attacks
import memory_crowds
import memory_relay
import memory_world
import pytest
import services

from hivemind_worker.wire import calls

pb = calls.pb
MAX_MIB = 32
"""Most that a pool may grow by one call over what it had when it had done some of everything once."""

TIMES = 3
"""The least of so many: what an allocator does once is no call's need."""

MAX_CALLER_MIB, MAX_ALL_MIB = 64 + 64, 256 + 256
"""Of all calls of one caller, and of all callers: requests, and answers that are sent."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, memory_world.World]:
    """The state folder of a pool with much in its store, and what is in it."""
    folder = tmp_path_factory.mktemp("memory")
    with services.Services(installed.Shell(folder)) as started:
        process, address = started.pool()
        return folder, asyncio.run(memory_world.filled(process.pid, address))


async def least_mib(world: memory_world.World, pid: int, address: str, attack: memory_attacks.Attack) -> float:
    """How much a fresh pool grows at an attack."""
    async with grpc.aio.insecure_channel(address, options=calls.CLIENT_OPTIONS) as channel:
        world = dataclasses.replace(world, pid=pid, channel=channel)
        await memory_world.warm_up(world)
        world.before_mib = memory_world.now_mib(pid)
        grown = []
        for _ in range(TIMES):
            memory_world.begin_peak(pid)
            await attack(world)
            grown.append(world.grown_mib())
        assert (await world.nodes.Ping(pb.PingRequest())).version, "the pool still answers"
        return min(grown)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("call", "name"), [(call, name) for call, attacks in memory_attacks.ATTACKS.items() for name in attacks]
)
def test_a_call_takes_no_more_than_32_mib_whatever_is_asked(
    filled: tuple[Path, memory_world.World], call: str, name: str
) -> None:
    folder, world = filled
    with services.Services(installed.Shell(folder)) as started:
        process, address = started.pool()
        grown = asyncio.run(least_mib(world, process.pid, address, memory_attacks.ATTACKS[call][name]))
    assert grown <= MAX_MIB, f"{call}/{name}: {grown:.0f} MiB"


def unread(call: memory_crowds.Call, address: Callable[[], str], *, trickles: bool) -> memory_attacks.Attack:
    """One call whose answer nobody takes, or a byte a second of it, and that is cancelled in the middle."""

    async def attack(world: memory_world.World) -> None:
        async with (
            memory_relay.Relay(address(), "127.0.0.2", trickles=trickles) as relay,
            grpc.aio.insecure_channel(relay.address, options=calls.CLIENT_OPTIONS) as channel,
        ):
            await calls.node_manager(channel).Ping(pb.PingRequest())
            relay.answers.clear()
            mine = dataclasses.replace(world, channel=channel)
            task = asyncio.ensure_future(call(mine, 0))
            await asyncio.wait({task}, timeout=2)
            task.cancel()
            await asyncio.wait({task})

    return attack


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("trickles", [False, True], ids=["never read", "a byte a second"])
@pytest.mark.parametrize("name", memory_crowds.ANSWERS)
def test_a_call_whose_answer_is_not_read_takes_no_more(
    filled: tuple[Path, memory_world.World], name: str, trickles: bool
) -> None:
    folder, world = filled
    with services.Services(installed.Shell(folder)) as started:
        process, address = started.pool()
        attack = unread(memory_crowds.ANSWERS[name], lambda: address, trickles=trickles)
        grown = asyncio.run(least_mib(world, process.pid, address, attack))
    assert grown <= MAX_MIB, f"{name}: {grown:.0f} MiB"


# ---- many at once ----

CROWDS: dict[str, tuple[memory_crowds.Call, dict[str, Any]]] = {
    **{f"{name} of {n}": (call, {"sources": n}) for name, call in memory_crowds.REQUESTS.items() for n in (1, 4)},
    **{f"{name} read": (call, {}) for name, call in memory_crowds.ANSWERS.items()},
    **{
        f"{name} of {n}, unread": (call, {"sources": n, "reads": False})
        for name, call in memory_crowds.ANSWERS.items()
        for n in (1, 4)
    },
    "GetTask, a byte a second": (memory_crowds.ANSWERS["GetTask"], {"reads": False, "trickles": True}),
}


async def crowd_mib(address: str, pid: int, name: str, seconds: float = memory_crowds.SECONDS) -> tuple[float, bool]:
    async with grpc.aio.insecure_channel(address, options=calls.CLIENT_OPTIONS) as channel:
        world = memory_world.World(pid, channel)
        await memory_world.warm_up(world)
        await memory_crowds.fill(world)
        if "ListNodes" in name:  # whoever says why tasks wait goes through them: others would wait for that
            await memory_crowds.fill_nodes(world)
        if "as sent" in name:  # what it leaves free in the pool's heap would hide what other calls take
            await memory_crowds.fill_output(world)
        call, how = CROWDS[name]
        return await memory_crowds.served_mib(world, address, call, seconds=seconds, **how)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CROWDS)
def test_many_calls_at_once_stay_within_what_their_callers_may_have(tmp_path: Path, name: str) -> None:
    with services.Services(installed.Shell(tmp_path)) as started:
        process, address = started.pool()
        grown, others_served = asyncio.run(crowd_mib(address, process.pid, name))
    assert grown <= (MAX_ALL_MIB if CROWDS[name][1].get("sources", 1) > 1 else MAX_CALLER_MIB), f"{name}: {grown:.0f}"
    assert others_served


QUICK_SECONDS = 3.0


@pytest.mark.long
@pytest.mark.timeout(120)
def test_answers_that_one_caller_does_not_read_leave_room_for_others(tmp_path: Path) -> None:
    with services.Services(installed.Shell(tmp_path)) as started:
        process, address = started.pool()
        grown, others_served = asyncio.run(
            crowd_mib(address, process.pid, "GetTask of 1, unread", seconds=QUICK_SECONDS)
        )
    assert grown <= MAX_CALLER_MIB
    assert others_served


QUICK = {
    "ReportTaskResult": ("wide", "skipped"),
    "SubmitTasks": ("args", "fewer args"),
    "RegisterNode": ("long",),
    "UpdateNodeStatus": ("long",),
}
"""Those that took more than 32 MiB before they were mended, and need no full store."""


async def quick_mib(address: str, pid: int) -> dict[str, float]:
    async with grpc.aio.insecure_channel(address, options=calls.CLIENT_OPTIONS) as channel:
        world = memory_world.World(pid, channel)
        await memory_world.warm_up(world)
        grown = {}
        for call, names in QUICK.items():
            for name in names:
                memory_world.begin_peak(pid)
                world.before_mib = memory_world.now_mib(pid)
                await memory_attacks.ATTACKS[call][name](world)
                grown[f"{call}/{name}"] = world.grown_mib()
        return grown


@pytest.mark.timeout(120)
def test_the_largest_requests_take_no_more_than_32_mib(tmp_path: Path) -> None:
    with services.Services(installed.Shell(tmp_path)) as started:
        process, address = started.pool()
        grown = asyncio.run(quick_mib(address, process.pid))
    assert max(grown.values()) <= MAX_MIB, grown
