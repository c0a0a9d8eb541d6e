/* What the task may not do to this program, though both are the same user: prlimit(2) on it. Without this fence a task can take
 * all descriptors or memory from the program that reports on it, and the node would be blamed for what looks like a crash. */
#include "init.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Architecture as the kernel's audit names it and number of prlimit64 there: this one, and the 32-bit one it also runs. */
#if defined(__x86_64__)
enum { NATIVE_NUMBER = 302, OTHER_NUMBER = 340 };
#define NATIVE 0xC000003Eu
#define OTHER 0x40000003u
#elif defined(__aarch64__)
enum { NATIVE_NUMBER = 261, OTHER_NUMBER = 369 };
#define NATIVE 0xC00000B7u
#define OTHER 0x40000028u
#else
#error "unknown architecture"
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IF_EQUAL(value, then, otherwise) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, then, otherwise)
#define X32 0x40000000u /* the bit that the x32 calling convention adds to a number */

/* In the child, before exec; cannot be taken off again, and is inherited. Where the kernel has no seccomp it is left out. */
void fence(pid_t init) {
    struct sock_filter steps[] = {
        LOAD(arch),                                           /* 0 */
        IF_EQUAL(NATIVE, 0, 3),                               /* 1: else 5 */
        LOAD(nr),                                             /* 2 */
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, ~X32),            /* 3 */
        IF_EQUAL(NATIVE_NUMBER, 3, 5),                        /* 4: 8, else 10 */
        IF_EQUAL(OTHER, 0, 4),                                /* 5: else 10 */
        LOAD(nr),                                             /* 6 */
        IF_EQUAL(OTHER_NUMBER, 0, 2),                         /* 7: else 10 */
        LOAD(args[0]),                                        /* 8: the low half, both machines are little endian */
        IF_EQUAL((uint32_t)init, 1, 0),                       /* 9: 11, else 10 */
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),         /* 10 */
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM), /* 11 */
    };
    struct sock_fprog program = {sizeof steps / sizeof *steps, steps};
    /* SPEC_ALLOW: the filter hides nothing that speculation could leak, so it need not make the task slower. */
    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program);
}
