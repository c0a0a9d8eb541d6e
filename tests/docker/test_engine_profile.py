"""Our table of system calls beside the default profile that the engine's makers maintain, both tried call by call.

The engine's profile changes with its version: what differs may be less than what is named here, never more.
"""

from __future__ import annotations

import asyncio
import errno
import json
import platform
from collections.abc import Mapping
from typing import Any

import aiodocker
import pytest

from hivemind_worker.runtime.capsule import system_calls

pytestmark = pytest.mark.docker

EACH_CALL = r"""
import ctypes, json, os, signal
libc = ctypes.CDLL(None, use_errno=True)
ended = {}
for number in range(LAST + 1):
    child = os.fork()
    if not child:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        ctypes.set_errno(0)
        libc.syscall(number, *[ctypes.c_long(-1)] * 6)
        os._exit(min(ctypes.get_errno(), 254))
    ended[number] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(ended))
"""

WE_REFUSE: Mapping[int, str] = {
    41: "socket: of families that no task needs",
    53: "socketpair: as socket",
    141: "setpriority: of another process",
    142: "sched_setparam: of another process",
    144: "sched_setscheduler: of another process",
    154: "modify_ldt: 16-bit segments, for programs of another age",
    159: "adjtimex: reads the host's clock discipline",
    203: "sched_setaffinity: of another process",
    214: "epoll_ctl_old: never built",
    215: "epoll_wait_old: never built",
    216: "remap_file_pages: replaced by mmap",
    251: "ioprio_set: of another process",
    301: "fanotify_mark: of no use without fanotify_init",
    302: "prlimit64: of another process",
    303: "name_to_handle_at: file handles lead past mounts",
    305: "clock_adjtime: as adjtimex",
    310: "process_vm_readv: another process's memory",
    311: "process_vm_writev: another process's memory",
    314: "sched_setattr: of another process",
    425: "io_uring_setup: what a ring does no filter sees",
    426: "io_uring_enter: as io_uring_setup",
    427: "io_uring_register: as io_uring_setup",
    448: "process_mrelease: another process's memory",
    457: "statmount: tells of mounts",
    458: "listmount: tells of mounts",
    459: "lsm_get_self_attr: tells of the host's security modules",
    460: "lsm_set_self_attr: as lsm_get_self_attr",
    461: "lsm_list_modules: as lsm_get_self_attr",
}
"""x86-64 numbers of what the engine's profile lets through and ours does not."""

WE_ALLOW: Mapping[int, str] = {
    135: "personality: -1 asks which it is; the kernel reads 32 bits of it, the engine compares 64",
    329: "pkey_mprotect: a program's own memory",
    330: "pkey_alloc: as pkey_mprotect",
    331: "pkey_free: as pkey_mprotect",
    436: "close_range: newer than some engines",
    441: "epoll_pwait2: newer than some engines",
    447: "memfd_secret: a program's own memory",
    449: "futex_waitv: newer than some engines",
    451: "cachestat: of a program's own files",
    452: "fchmodat2: newer than some engines",
    453: "map_shadow_stack: a program's own memory",
    454: "futex_wake: newer than some engines",
    455: "futex_wait: newer than some engines",
    456: "futex_requeue: newer than some engines",
    462: "mseal: a program's own memory",
}
"""x86-64 numbers of what ours lets through and the profile of some maintained engine does not."""

REFUSED = (errno.EPERM, errno.ENOSYS)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="THE NUMBERS ARE THOSE OF x86-64: tested there")
async def test_each_difference_from_the_engines_own_profile_is_meant(docker_url: str, python_image: str) -> None:
    profile = json.dumps(system_calls.engine_profile("x86_64"))
    async with aiodocker.Docker(url=docker_url) as engine:
        tried = [
            _tried(engine, python_image, option) for option in ([], ["seccomp=unconfined"], [f"seccomp={profile}"])
        ]
        theirs, bare, ours = await asyncio.gather(*tried)

    def refuses(filtered: Mapping[int, int], number: int) -> bool:
        return filtered[number] in REFUSED and filtered[number] != bare[number]

    we_refuse = {number for number in bare if refuses(ours, number) and not refuses(theirs, number)}
    we_allow = {number for number in bare if refuses(theirs, number) and not refuses(ours, number)}
    assert we_refuse <= WE_REFUSE.keys()
    assert we_allow <= WE_ALLOW.keys()
    assert {425, 41} <= we_refuse | {number for number in bare if refuses(theirs, number)}, "the probe sees no filter"


async def _tried(engine: aiodocker.Docker, image: str, options: list[str]) -> dict[int, int]:
    """Each call with nonsense for arguments, in a process of its own: the error that ended it, by its number."""
    script = EACH_CALL.replace("LAST", str(system_calls.NEWEST))
    host = {"NetworkMode": "none", "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges:true", *options]}
    config: dict[str, Any] = {
        "Image": image,
        "Cmd": ["python3", "-c", script],
        "User": "65534:65534",
        "HostConfig": host,
    }
    container = await engine.containers.create(config)
    try:
        await container.start()
        await container.wait(timeout=60)
        text = "".join(await container.log(stdout=True))
        return {int(number): code for number, code in json.loads(text).items()}
    finally:
        await container.delete(force=True)
