"""Which system calls a task may make, in a container and in a sandbox alike: the one table, and two renderings of it.

Everything that is not in the table is refused with EPERM; calls newer than the table with ENOSYS, so that C libraries
fall back to older ones. Left out on purpose: io_uring, bpf, perf, userfaultfd, keyrings, modules, mounts, namespaces,
clocks, other processes' memory, NUMA placement, file handles, 32-bit and x32 programs. Calls that would reach another
process's scheduling, limits or priority may name the caller only (`CONDITIONAL`). Names and numbers are the kernel's
own (`asm/unistd.h` of Linux 6.1, and what was added up to 6.10), as name:x86-64:arm64.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

NEWEST: Final = 462
"""The highest number the table knows; the same on both machines since 424."""

_TABLE: Final = """
    accept:43:202 accept4:288:242 access:21:- alarm:37:- arch_prctl:158:- bind:49:200 brk:12:214 cachestat:451:451
    capget:125:90 capset:126:91 chdir:80:49 chmod:90:- chown:92:- clock_getres:229:114 clock_gettime:228:113
    clock_nanosleep:230:115 close:3:57 close_range:436:436 connect:42:203 copy_file_range:326:285 creat:85:- dup:32:23
    dup2:33:- dup3:292:24 epoll_create:213:- epoll_create1:291:20 epoll_ctl:233:21 epoll_pwait:281:22
    epoll_pwait2:441:441 epoll_wait:232:- eventfd:284:- eventfd2:290:19 execve:59:221 execveat:322:281 exit:60:93
    exit_group:231:94 faccessat:269:48 faccessat2:439:439 fadvise64:221:223 fallocate:285:47 fchdir:81:50 fchmod:91:52
    fchmodat:268:53 fchmodat2:452:452 fchown:93:55 fchownat:260:54 fcntl:72:25 fdatasync:75:83 fgetxattr:193:10
    flistxattr:196:13 flock:73:32 fork:57:- fremovexattr:199:16 fsetxattr:190:7 fstat:5:80 fstatfs:138:44 fsync:74:82
    ftruncate:77:46 futex:202:98 futex_requeue:456:456 futex_wait:455:455 futex_waitv:449:449 futex_wake:454:454
    futimesat:261:- get_robust_list:274:100 get_thread_area:211:- getcpu:309:168 getcwd:79:17 getdents:78:-
    getdents64:217:61 getegid:108:177 geteuid:107:175 getgid:104:176 getgroups:115:158 getitimer:36:102
    getpeername:52:205 getpgid:121:155 getpgrp:111:- getpid:39:172 getppid:110:173 getpriority:140:141
    getrandom:318:278 getresgid:120:150 getresuid:118:148 getrlimit:97:163 getrusage:98:165 getsid:124:156
    getsockname:51:204 getsockopt:55:209 gettid:186:178 gettimeofday:96:169 getuid:102:174 getxattr:191:8
    inotify_add_watch:254:27 inotify_init:253:- inotify_init1:294:26 inotify_rm_watch:255:28 io_cancel:210:3
    io_destroy:207:1 io_getevents:208:4 io_pgetevents:333:292 io_setup:206:0 io_submit:209:2 ioctl:16:29
    ioprio_get:252:31 kill:62:129 landlock_add_rule:445:445 landlock_create_ruleset:444:444
    landlock_restrict_self:446:446 lchown:94:- lgetxattr:192:9 link:86:- linkat:265:37 listen:50:201 listxattr:194:11
    llistxattr:195:12 lremovexattr:198:15 lseek:8:62 lsetxattr:189:6 lstat:6:- madvise:28:233 map_shadow_stack:453:453
    membarrier:324:283 memfd_create:319:279 memfd_secret:447:447 mincore:27:232 mkdir:83:- mkdirat:258:34 mknod:133:-
    mknodat:259:33 mlock:149:228 mlock2:325:284 mlockall:151:230 mmap:9:222 mprotect:10:226 mq_getsetattr:245:185
    mq_notify:244:184 mq_open:240:180 mq_timedreceive:243:183 mq_timedsend:242:182 mq_unlink:241:181 mremap:25:216
    mseal:462:462 msgctl:71:187 msgget:68:186 msgrcv:70:188 msgsnd:69:189 msync:26:227 munlock:150:229
    munlockall:152:231 munmap:11:215 nanosleep:35:101 newfstatat:262:79 open:2:- openat:257:56 openat2:437:437
    pause:34:- pidfd_open:434:434 pidfd_send_signal:424:424 pipe:22:- pipe2:293:59 pkey_alloc:330:289
    pkey_free:331:290 pkey_mprotect:329:288 poll:7:- ppoll:271:73 prctl:157:167 pread64:17:67 preadv:295:69
    preadv2:327:286 pselect6:270:72 ptrace:101:117 pwrite64:18:68 pwritev:296:70 pwritev2:328:287
    read:0:63 readahead:187:213 readlink:89:- readlinkat:267:78 readv:19:65 recvfrom:45:207 recvmmsg:299:243
    recvmsg:47:212 removexattr:197:14 rename:82:- renameat:264:38 renameat2:316:276 restart_syscall:219:128 rmdir:84:-
    rseq:334:293 rt_sigaction:13:134 rt_sigpending:127:136 rt_sigprocmask:14:135 rt_sigqueueinfo:129:138
    rt_sigreturn:15:139 rt_sigsuspend:130:133 rt_sigtimedwait:128:137 rt_tgsigqueueinfo:297:240
    sched_get_priority_max:146:125 sched_get_priority_min:147:126 sched_getaffinity:204:123 sched_getattr:315:275
    sched_getparam:143:121 sched_getscheduler:145:120 sched_rr_get_interval:148:127
    sched_yield:24:124 seccomp:317:277
    select:23:- semctl:66:191 semget:64:190 semop:65:193 semtimedop:220:192 sendfile:40:71 sendmmsg:307:269
    sendmsg:46:211 sendto:44:206 set_robust_list:273:99 set_thread_area:205:- set_tid_address:218:96 setfsgid:123:152
    setfsuid:122:151 setgid:106:144 setgroups:116:159 setitimer:38:103 setpgid:109:154
    setregid:114:143 setresgid:119:149 setresuid:117:147 setreuid:113:145 setrlimit:160:164 setsid:112:157
    setsockopt:54:208 setuid:105:146 setxattr:188:5 shmat:30:196 shmctl:31:195 shmdt:67:197 shmget:29:194
    shutdown:48:210 sigaltstack:131:132 signalfd:282:- signalfd4:289:74 splice:275:76 stat:4:- statfs:137:43
    statx:332:291 symlink:88:- symlinkat:266:36 sync:162:81 sync_file_range:277:84 syncfs:306:267 sysinfo:99:179
    tee:276:77 tgkill:234:131 time:201:- timer_create:222:107 timer_delete:226:111 timer_getoverrun:225:109
    timer_gettime:224:108 timer_settime:223:110 timerfd_create:283:85 timerfd_gettime:287:87 timerfd_settime:286:86
    times:100:153 tkill:200:130 truncate:76:45 umask:95:166 uname:63:160 unlink:87:- unlinkat:263:35 utime:132:-
    utimensat:280:88 utimes:235:- vfork:58:- vmsplice:278:75 wait4:61:260 waitid:247:95 write:1:64 writev:20:66
"""

CLONE_NAMESPACES: Final = 0x7E020000
"""CLONE_NEW{CGROUP,UTS,IPC,USER,PID,NET} and CLONE_NEWNS."""

FAMILIES: Final = (1, 2, 10)
"""Socket families: UNIX, IPv4, IPv6. No vsock, no AF_ALG; of netlink (16) only ROUTE, see `CONDITIONAL`."""

PERSONALITIES: Final = (0, 0x0040000, 0xFFFFFFFF)
"""Default, without address randomization (debuggers), and the question which it is."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One condition: the bits of ``mask`` in argument ``index`` have this value.

    The kernel reads 32 bits of most arguments, so those are compared; ``wide``: all 64, for a pointer.
    """

    index: int
    value: int
    mask: int = 0xFFFFFFFF
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Conditional:
    """A call that is allowed where every condition of one of its ``choices`` holds."""

    name: str
    numbers: tuple[int, int]
    choices: tuple[tuple[Argument, ...], ...]


def _any_of(values: Sequence[int]) -> tuple[tuple[Argument, ...], ...]:
    return tuple((Argument(0, value),) for value in values)


_MYSELF: Final = ((Argument(0, 0),),)
"""The first argument is a process: 0 is the caller. A task that names its own number gets EPERM too."""

CONDITIONAL: Final = (
    Conditional("clone", (56, 220), ((Argument(0, 0, CLONE_NAMESPACES),),)),
    # AF_NETLINK with NETLINK_ROUTE, by which C libraries look at addresses.
    Conditional("socket", (41, 198), (*_any_of(FAMILIES), (Argument(0, 16), Argument(2, 0)))),
    Conditional("socketpair", (53, 199), _any_of(FAMILIES)),
    Conditional("personality", (135, 92), _any_of(PERSONALITIES)),
    Conditional("sched_setaffinity", (203, 122), _MYSELF),
    Conditional("sched_setattr", (314, 274), _MYSELF),
    Conditional("sched_setparam", (142, 118), _MYSELF),
    Conditional("sched_setscheduler", (144, 119), _MYSELF),
    # PRIO_PROCESS or PRIO_PGRP of the caller; by user (PRIO_USER) it would reach hivemind-init where that is the same.
    Conditional("setpriority", (141, 140), tuple((Argument(0, kind), Argument(1, 0)) for kind in (0, 1))),
    # IOPRIO_WHO_PROCESS or IOPRIO_WHO_PGRP of the caller.
    Conditional("ioprio_set", (251, 30), tuple((Argument(0, kind), Argument(1, 0)) for kind in (1, 2))),
    # Limits of others may be read: the new ones are NULL then.
    Conditional("prlimit64", (302, 261), (*_MYSELF, (Argument(2, 0, 0xFFFFFFFFFFFFFFFF, wide=True),))),
)

_CLONE3: Final = 435  # on both machines

_MACHINES: Final = {"x86_64": (0, 0xC000003E, "SCMP_ARCH_X86_64"), "aarch64": (1, 0xC00000B7, "SCMP_ARCH_AARCH64")}
_ALIASES: Final = {"amd64": "x86_64", "arm64": "aarch64"}


def allowed(machine: str) -> Mapping[str, int]:
    """Names and numbers of the calls that are allowed whatever their arguments. Raises LookupError."""
    column = _machine(machine)[0]
    rows = (row.split(":") for row in _TABLE.split())
    return {row[0]: int(row[1 + column]) for row in rows if row[1 + column] != "-"}


def engine_profile(machine: str) -> dict[str, object]:
    """The table as a container engine's seccomp profile, for `uname -m` or Docker's name of a machine."""

    def allow(names: Sequence[str], choice: Sequence[Argument] = ()) -> dict[str, object]:
        args = [
            {"index": one.index, "value": one.mask, "valueTwo": one.value, "op": "SCMP_CMP_MASKED_EQ"} for one in choice
        ]
        return {"names": list(names), "action": "SCMP_ACT_ALLOW", "args": args}

    rules: list[dict[str, object]] = [
        allow(sorted(allowed(machine))),
        *(allow([call.name], choice) for call in CONDITIONAL for choice in call.choices),
        # Its flags lie in memory where no filter can look: C libraries then use clone.
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS, "args": []},
    ]
    return {"defaultAction": "SCMP_ACT_ERRNO", "architectures": [_machine(machine)[2]], "syscalls": rules}


def filter_program(machine: str) -> bytes:
    """The table as a classic BPF program (`struct sock_filter[]`), for the machine named. Raises LookupError."""
    column, architecture, _ = _machine(machine)
    lines = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, architecture), _KILL]
    lines += [(_LOAD, 0, 0, _NUMBER), (_ABOVE, 0, 1, NEWEST), _refused(errno.ENOSYS)]
    lines += [(_EQUAL, 0, 1, _CLONE3), _refused(errno.ENOSYS)]
    for call in CONDITIONAL:
        tests = [line for choice in call.choices for line in _choice(choice)]
        lines += [(_EQUAL, 0, len(tests) + 1, call.numbers[column]), *tests, _refused(errno.EPERM)]
    for first, last in _ranges(sorted(allowed(machine).values())):
        lines += [(_AT_LEAST, 0, 2, first), (_ABOVE, 1, 0, last), _ALLOWED]
    lines += [_refused(errno.EPERM)]
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


def _choice(choice: Sequence[Argument]) -> list[tuple[int, int, int, int]]:
    """Allowed where all conditions hold; else what follows is next."""
    words = []  # (offset, mask, value) of 32 bits each; both machines are little-endian
    for one in choice:
        for half in range(1 + one.wide):
            low = 32 * half
            words.append(
                (_ARGUMENTS + 8 * one.index + 4 * half, one.mask >> low & 0xFFFFFFFF, one.value >> low & 0xFFFFFFFF)
            )
    lines = [_ALLOWED]
    for offset, mask, value in reversed(words):
        lines = [(_LOAD, 0, 0, offset), (_AND, 0, 0, mask), (_EQUAL, 0, len(lines), value), *lines]
    return lines


# struct seccomp_data: where its words lie (both machines are little-endian).
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
# Classic BPF: load a word; keep some of its bits; jump when equal, greater, greater or equal; return.
_LOAD, _AND, _EQUAL, _ABOVE, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x25, 0x35, 0x06
_KILL: Final = (_RETURN, 0, 0, 0x80000000)
_ALLOWED: Final = (_RETURN, 0, 0, 0x7FFF0000)


def _refused(number: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, 0x00050000 | number)


def _ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as runs without gaps: (first, last)."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _machine(machine: str) -> tuple[int, int, str]:
    name = machine.lower()
    try:
        return _MACHINES[_ALIASES.get(name, name)]
    except KeyError:
        raise LookupError(f"no table of system calls for '{machine}'; there are {', '.join(_MACHINES)}") from None
