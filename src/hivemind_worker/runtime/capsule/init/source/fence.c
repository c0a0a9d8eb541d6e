/* What the task may not do to this program, though both may be the same user: no call that names its pid succeeds. Without this
 * fence a task can stop the clock, the memory or the priority of the program that ends it and reports on it. */
#include "init.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define NATIVE 0xC000003Eu
#elif defined(__aarch64__)
#define NATIVE 0xC00000B7u
#else
#error "unknown architecture"
#endif

/* Every call that takes a process by number and does something to it, and the argument that the number is. */
static const struct {
    uint32_t number, argument;
} calls[] = {
    {SYS_kill, 0},
    {SYS_tkill, 0},
    {SYS_tgkill, 0},
    {SYS_rt_sigqueueinfo, 0},
    {SYS_rt_tgsigqueueinfo, 0},
    {SYS_pidfd_open, 0},
    {SYS_ptrace, 1},
    {SYS_process_vm_readv, 0},
    {SYS_process_vm_writev, 0},
    {SYS_kcmp, 0},
    {SYS_kcmp, 1},
    {SYS_prlimit64, 0},
    {SYS_sched_setaffinity, 0},
    {SYS_sched_setattr, 0},
    {SYS_sched_setparam, 0},
    {SYS_sched_setscheduler, 0},
    {SYS_setpriority, 1},
    {SYS_ioprio_set, 1},
    {SYS_migrate_pages, 0},
    {SYS_move_pages, 0},
};
enum { CALLS = sizeof calls / sizeof *calls, EACH = 5, BEFORE = 5 };

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IF_EQUAL(value, then, otherwise) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, then, otherwise)
#define X32 0x40000000u /* the bit that the x32 calling convention adds to a number */
#define REFUSE BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/* In the child, before exec; cannot be taken off again, and is inherited. Where the kernel has no seccomp it is left out. */
void fence(pid_t init) {
    struct sock_filter steps[BEFORE + EACH * CALLS + 1] = {
        LOAD(arch),
        IF_EQUAL(NATIVE, 0, 2), /* programs for another machine have other numbers: else 4 */
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32, 0, 1),
        REFUSE,
    };
    size_t at = BEFORE;
    for (size_t i = 0; i < CALLS; i++) {
        const struct sock_filter refusal[EACH] = {
            IF_EQUAL(calls[i].number, 0, EACH - 1),
            LOAD(args[calls[i].argument]), /* the low half, which is a pid's; both machines are little endian */
            IF_EQUAL((uint32_t)init, 0, 1),
            REFUSE,
            LOAD(nr),
        };
        for (size_t j = 0; j < EACH; j++) steps[at++] = refusal[j];
    }
    steps[at++] = (struct sock_filter)ALLOW;
    struct sock_fprog program = {(unsigned short)at, steps};
    /* SPEC_ALLOW: the filter hides nothing that speculation could leak, so it need not make the task slower. */
    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program);
}
