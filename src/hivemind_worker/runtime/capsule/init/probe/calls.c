/* System calls that the filter is to refuse, writes, and calls on the first process. Arguments are such that no call does anything
 * even where all are allowed: invalid pointers and descriptors, no object of anybody named. */
#include "probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct call {
    const char *name;
    long number;
};
#define CALL(name) {#name, SYS_##name}

static const struct call calls[] = {
    CALL(add_key), CALL(adjtimex), CALL(bpf), CALL(chroot), CALL(clock_settime), CALL(delete_module), CALL(fanotify_init),
    CALL(finit_module), CALL(fsconfig), CALL(fsmount), CALL(fsopen), CALL(fspick), CALL(get_mempolicy), CALL(init_module),
    CALL(io_uring_enter), CALL(io_uring_register), CALL(io_uring_setup), CALL(kcmp), CALL(kexec_load), CALL(keyctl),
    CALL(mbind), CALL(migrate_pages), CALL(mount), CALL(mount_setattr), CALL(move_mount), CALL(move_pages),
    CALL(name_to_handle_at), CALL(open_by_handle_at), CALL(open_tree), CALL(perf_event_open), CALL(pidfd_getfd),
    CALL(pivot_root), CALL(process_madvise), CALL(process_vm_readv), CALL(process_vm_writev), CALL(quotactl),
    CALL(request_key), CALL(set_mempolicy), CALL(setdomainname), CALL(sethostname), CALL(setns), CALL(settimeofday),
    CALL(swapoff), CALL(swapon), CALL(syslog), CALL(umount2), CALL(unshare), CALL(userfaultfd),
#if defined(__x86_64__)
    CALL(ioperm), CALL(iopl), CALL(kexec_file_load),
#endif
};

static int refusal(void *number) {
    return syscall(*(const long *)number, -1L, -1L, -1L, -1L, -1L, -1L) < 0 ? errno & 0xff : 0;
}

/* A new user namespace is where most ways out of a container begin; its process ends at once. */
static int new_namespace(void *flags) {
    long made = syscall(SYS_clone, *(const long *)flags | SIGCHLD, 0L, 0L, 0L, 0L);
    if (!made) _exit(0);
    return made < 0 ? errno & 0xff : 0;
}

#if defined(__x86_64__)
/* getpid as 32-bit programs call it: their numbers are not those of the table. A signal is a refusal, too. */
static int of_32_bit(void *unused) {
    (void)unused;
    long result = 20;
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
    return result < 0 ? (int)-result & 0xff : 0;
}
#endif

void try_calls(void) {
    static const int families[] = {AF_PACKET, 21 /* RDS */, 29 /* CAN */, 30 /* TIPC */, 31 /* BLUETOOTH */, 38 /* ALG */, 40 /* VSOCK */,
                                   44 /* XDP */};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        long number = calls[i].number;
        say("call %s %d", calls[i].name, in_child(refusal, &number));
    }
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        int made = socket(families[i], families[i] == 38 ? SOCK_SEQPACKET : SOCK_RAW, 0);
        int error = made < 0 ? errno : 0;
        if (made >= 0) close(made);
        made = error == EPERM ? -1 : socket(families[i], SOCK_STREAM, 0);
        if (made >= 0) {
            error = 0;
            close(made);
        }
        say("family %d %d", families[i], error);
    }
    static const int kinds[] = {4 /* SOCK_DIAG */, 6 /* XFRM */, 9 /* AUDIT */, 12 /* NETFILTER */, 15 /* UEVENT */, 16 /* GENERIC */};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int made = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, kinds[i]);
        say("family netlink-%d %d", kinds[i], made < 0 ? errno : 0);
        if (made >= 0) close(made);
    }
    long user = CLONE_NEWUSER, network = CLONE_NEWNET;
    say("call clone-user-namespace %d", in_child(new_namespace, &user));
    say("call clone-network-namespace %d", in_child(new_namespace, &network));
#if defined(__x86_64__)
    say("call 32-bit-getpid %d", in_child(of_32_bit, NULL));
#endif
}

/* A folder in a file system that can only be read says so (EROFS) before it says who may write (EACCES). */
static void try_folder(const char *path) {
    char made[256];
    snprintf(made, sizeof made, "%s/hivemind-probe", path);
    int error = mkdir(made, 0700) ? errno : 0;
    if (!error) rmdir(made);
    if (error != ENOENT) say("write %s %d", path, error);
}

static void try_file(const char *path) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int error = fd < 0 ? errno : 0;
    if (fd >= 0) close(fd);
    if (error != ENOENT) say("write %s %d", path, error);
}

void try_writes(void) {
    static const char *const folders[] = {"", "/etc", "/usr", "/dev", "/sys", "/.hivemind", "/sys/fs/cgroup"};
    static const char *const files[] = {
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper", "/sys/power/state", "/.hivemind/hivemind-init",
        "/etc/passwd", "/etc/hosts", "/etc/resolv.conf", "/proc/kcore", "/dev/mem", "/dev/kmsg"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) try_folder(folders[i]);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) try_file(files[i]);
}

static void try_open(const char *name, const char *path, int flags) {
    int fd = open(path, flags | O_CLOEXEC);
    char byte;
    int error = fd < 0 ? errno : 0;
    if (fd >= 0 && !(flags & O_DIRECTORY) && read(fd, &byte, 1) < 0) error = errno;
    if (fd >= 0) close(fd);
    say("first %s %d", name, error);
}

/* Where PID namespaces are shared the first process is the machine's own: that must be left alone. */
static int is_ours(void) {
    char name[32] = "";
    int fd = open("/proc/1/comm", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, name, sizeof name - 1);
    if (fd >= 0) close(fd);
    return length > 0 && !strcmp(name, "hivemind-init\n");
}

/* Last of all: where one of these is allowed the first process may be slower afterwards. */
void try_first_process(void) {
    if (!is_ours()) {
        say("first name 0");
        return;
    }
    struct sched_param none = {0};
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    struct rlimit limit = {1u << 30, 1u << 30};
    struct {
        uint32_t size, policy;
        uint64_t rest[5];
    } idle = {48, SCHED_IDLE, {0}};
    try_open("memory", "/proc/1/mem", O_RDONLY);
    try_open("variables", "/proc/1/environ", O_RDONLY);
    try_open("files", "/proc/1/fd", O_RDONLY | O_DIRECTORY);
    say("first ptrace %d", ptrace(PTRACE_SEIZE, 1, NULL, NULL) < 0 ? errno : 0);
    say("first prlimit %d", syscall(SYS_prlimit64, 1L, (long)RLIMIT_AS, &limit, NULL) < 0 ? errno : 0);
    say("first ioprio %d", syscall(SYS_ioprio_set, 1L, 1L, (3L << 13)) < 0 ? errno : 0);
    say("first affinity %d", syscall(SYS_sched_setaffinity, 1L, sizeof one, &one) < 0 ? errno : 0);
    say("first priority %d", syscall(SYS_setpriority, (long)PRIO_PROCESS, 1L, 19L) < 0 ? errno : 0);
    say("first user-priority %d", syscall(SYS_setpriority, (long)PRIO_USER, 0L, 19L) < 0 ? errno : 0);
    say("first parameters %d", syscall(SYS_sched_setparam, 1L, &none) < 0 ? errno : 0);
    say("first attributes %d", syscall(SYS_sched_setattr, 1L, &idle, 0L) < 0 ? errno : 0);
    say("first scheduler %d", syscall(SYS_sched_setscheduler, 1L, (long)SCHED_IDLE, &none) < 0 ? errno : 0);
}

void try_network(const char *address) {
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(9)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(9)};
    int is_v6 = strchr(address, ':') != NULL;
    if (inet_pton(is_v6 ? AF_INET6 : AF_INET, address, is_v6 ? (void *)&v6.sin6_addr : (void *)&v4.sin_addr) != 1) {
        say("unknown network=%s", address);
        return;
    }
    int fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int error = fd < 0 ? errno : 0;
    if (fd >= 0) {
        const struct sockaddr *to = is_v6 ? (const struct sockaddr *)&v6 : (const struct sockaddr *)&v4;
        if (connect(fd, to, is_v6 ? sizeof v6 : sizeof v4)) error = errno;
        close(fd);
    }
    say("network %s %d", address, error);
}
