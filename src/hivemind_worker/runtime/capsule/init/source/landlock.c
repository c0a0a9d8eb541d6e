/* The task writes nothing in /proc (its score for the OOM killer, another process's memory) and signals nobody outside of itself.
 * By Landlock, where the kernel has it: a second fence for the task alone; files' own permissions hold as well. */
#include "init.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* linux/landlock.h, which the compiler's headers may be too old for. */
enum { CREATE_RULESET = 444, ADD_RULE = 445, RESTRICT_SELF = 446 }; /* the same on all machines */
enum { ASK_VERSION = 1, PATH_BENEATH = 1 };
#define WRITE_FILE (1ull << 1)
#define REFER (1ull << 13)        /* links and renames between folders; refused unless allowed */
#define SCOPE_SIGNAL (1ull << 1)
enum { WITH_REFER = 2, WITH_NETWORK = 4, WITH_SCOPES = 6 }; /* versions of the interface */

struct ruleset {
    uint64_t files, network, scopes;
};
struct path_beneath {
    uint64_t allowed;
    int32_t folder;
} __attribute__((packed));

static void allow_all_but_proc(int rules, DIR *root) {
    for (struct dirent *entry; (entry = readdir(root));) {
        const char *name = entry->d_name;
        if (!strcmp(name, "proc") || !strcmp(name, ".") || !strcmp(name, "..")) continue;
        struct path_beneath rule = {WRITE_FILE | REFER, openat(dirfd(root), name, O_PATH | O_NOFOLLOW | O_CLOEXEC)};
        struct stat found;
        if (rule.folder < 0) continue;
        if (!fstat(rule.folder, &found) && S_ISDIR(found.st_mode)) syscall(ADD_RULE, rules, PATH_BENEATH, &rule, 0);
        close(rule.folder);
    }
}

/* In the child, before exec; cannot be taken off again, and is inherited. */
void confine(void) {
    long version = syscall(CREATE_RULESET, NULL, 0, ASK_VERSION);
    if (version < WITH_REFER) return; /* before it no link or rename between two folders would be allowed */
    struct ruleset ruleset = {WRITE_FILE | REFER, 0, version >= WITH_SCOPES ? SCOPE_SIGNAL : 0};
    size_t size = version >= WITH_SCOPES ? 24 : version >= WITH_NETWORK ? 16 : 8;
    DIR *root = opendir("/");
    int rules = root ? (int)syscall(CREATE_RULESET, &ruleset, size, 0) : -1;
    if (rules >= 0) {
        allow_all_but_proc(rules, root);
        syscall(RESTRICT_SELF, rules, 0);
        close(rules);
    }
    if (root) closedir(root);
}
