/* As whom this program runs and what it may do: settled by its arguments before the first byte is read.
 *
 * hivemind-init [--tmpfs PLACE OPTIONS]... [--owner PLACE] [--filter FILE] [--users OWN TASK]
 *
 * With --users it runs under another user than its task, so that no call of the task that names a process reaches it. All it
 * keeps is what that takes: to signal the task (CAP_KILL, in effect) and to start it under its own user (in reserve, for the
 * child alone). Its work on files it does with the task's rights: fsuid and fsgid are the task's, and no right of root's over
 * files is left. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BIT(capability) (1ull << (capability))
#define RESERVE (BIT(CAP_KILL) | BIT(CAP_SETUID) | BIT(CAP_SETGID))
enum { MAX_FILTER = 4096 /* instructions, as the kernel has it */ };

static bool separate;
static uid_t task_user;

static bool set_rights(uint64_t effective, uint64_t permitted) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)effective, (uint32_t)permitted, 0},
        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), 0},
    };
    return !syscall(SYS_capset, &header, data);
}

/* No program that is ever started in here can have a right, whatever its file says. */
static void empty_bounding_set(void) {
    for (unsigned long number = 0; !prctl(PR_CAPBSET_DROP, number, 0, 0, 0); number++) continue;
    if (errno != EINVAL) panic("cannot empty the bounding set of capabilities"); /* EINVAL: there are no more */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

static void become(uid_t own) {
    int parent_death = 0; /* what ends us with the process that made the sandbox; another user makes the kernel forget it */
    prctl(PR_GET_PDEATHSIG, &parent_death, 0, 0, 0);
    prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
    if (syscall(SYS_setgroups, 0, NULL) || syscall(SYS_setresgid, own, own, own) || syscall(SYS_setresuid, own, own, own))
        panic("cannot become the user of its own");
    if (!set_rights(RESERVE, RESERVE)) panic("has not the capabilities that it needs");
    setfsgid(task_user);
    setfsuid(task_user);
    if ((uid_t)setfsuid((uid_t)-1) != task_user || (gid_t)setfsgid((gid_t)-1) != task_user) {
        /* gVisor has no users for files alone. The effective ones serve as well: signals and tracing ask for the real and
         * the saved one, and the filter refuses what asks for the effective one (scheduling). */
        if (syscall(SYS_setresgid, -1, task_user, -1) || syscall(SYS_setresuid, -1, task_user, -1))
            panic("cannot work on files as the task");
    }
    if (!set_rights(BIT(CAP_KILL), RESERVE)) panic("cannot give up capabilities");
    prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
    if (prctl(PR_SET_PDEATHSIG, parent_death, 0, 0, 0)) panic("cannot end with its parent");
}

/* The workspace comes from the engine as root's. It is new and empty, and nothing of the task has run. */
static void give_to_task(const char *place) {
    int fd = open(place, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat folder, root;
    if (fd < 0 || fstat(fd, &folder) || stat("/", &root) || folder.st_dev == root.st_dev)
        panic("the workspace is not mounted");
    if (folder.st_uid != task_user && fchownat(fd, "", task_user, task_user, AT_EMPTY_PATH))
        panic("cannot give the workspace to the task");
    close(fd);
}

static void mount_memory(const char *place, const char *options) {
    static bool own_mounts;
    if (!own_mounts && unshare(CLONE_NEWNS)) panic("cannot have mounts of its own");
    own_mounts = true;
    if (mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, options)) panic("cannot mount a memory file system");
}

static void load_filter(const char *file) {
    static struct sock_filter steps[MAX_FILTER];
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, steps, sizeof steps);
    if (size <= 0 || size % (ssize_t)sizeof *steps) panic("cannot read the filter of system calls");
    close(fd);
    struct sock_fprog program = {(unsigned short)((size_t)size / sizeof *steps), steps};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0)) panic("cannot set the filter of system calls");
}

static uid_t user(const char *text) {
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    if (!*text || *end || number > 0x7FFFFFFF) panic("a user that is no number");
    return (uid_t)number;
}

bool rights_settle(int argc, char **argv) {
    const char *owner = NULL, *filter = NULL;
    uid_t own = 0;
    int at = 1;
    for (; at < argc; at++) {
        int left = argc - at - 1;
        if (!strcmp(argv[at], "--tmpfs") && left >= 2) {
            mount_memory(argv[at + 1], argv[at + 2]);
            at += 2;
        } else if (!strcmp(argv[at], "--owner") && left >= 1) {
            owner = argv[++at];
        } else if (!strcmp(argv[at], "--filter") && left >= 1) {
            filter = argv[++at];
        } else if (!strcmp(argv[at], "--users") && left >= 2) {
            separate = true;
            own = user(argv[++at]);
            task_user = user(argv[++at]);
            if (own == task_user) panic("its user is to be another than the task's");
        } else {
            return false;
        }
    }
    if (argc > 1) {
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (owner && separate) give_to_task(owner);
        empty_bounding_set();
        if (separate) become(own);
        else if (!set_rights(0, 0)) panic("cannot give up capabilities");
        if (filter) load_filter(filter);
    }
    return true;
}

bool rights_give_up(void) {
    if (!separate) return true;
    return set_rights(RESERVE, RESERVE) && !syscall(SYS_setresgid, task_user, task_user, task_user) &&
           !syscall(SYS_setresuid, task_user, task_user, task_user) && set_rights(0, 0);
}
